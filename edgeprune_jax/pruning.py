"""Edge Pruning: gates descended and multipliers ascended together, batches in, log-alphas out.

One step draws one mask, runs the masked model on a batch, and moves the gates against the
Lagrangian of `objectives` and the multipliers along it, in one optax transformation (paper
section 3; constants of the reference in `PAPER`). Randomness is folded from the seed and the
step, so a resumed run needs no saved key.
"""

import dataclasses
import math
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Float, PyTree

from edgeprune_jax import gates, objectives
from edgeprune_jax.ablation import ABLATIONS
from edgeprune_jax.engine import masked_forward
from edgeprune_jax.graph import Edges, Graph, scale_writers
from edgeprune_jax.objectives import DIVERGENCES, Multipliers, constraint, no_multipliers
from edgeprune_jax.stream import Model, Writes
from edgeprune_jax.tasks.batch import Batch, rows, take


@dataclass(frozen=True)
class PruneConfig:
    """Settings of one run of Edge Pruning.

    The defaults were measured on SmolLM2-135M (experiments/LOG.md); `PAPER` holds the paper's.
    """

    target: float = 0.97
    """Sparsity of edges to reach, 1 - mean mask. Above 1 it only pushes."""
    steps: int = 300
    """Optimiser steps."""
    batch_size: int = 8
    """Prompt pairs in a step."""
    warmup: int = 150
    """Steps over which the target sparsity grows from `start` to `target`."""
    start: float = 0.8
    """Target sparsity of the first step."""
    schedule: str = "linear"
    """Growth of the target: 'linear', or 'logarithmic' (linear in the log of the density)."""
    gate_init: float = 2.0
    """Mean of the log-alphas at the start."""
    gate_init_std: float = 0.01
    """Standard deviation of the log-alphas at the start."""
    gate_rate: float = 0.3
    """Peak learning rate of the gates of edges and nodes."""
    multiplier_rate: float = 1.0
    """Peak learning rate of the Lagrange multipliers, which ascend."""
    rate_warmup: int = 10
    """Steps of linear growth of the learning rates, which then fall linearly to 0."""
    weight_decay: float = 0.0
    """AdamW's decay of gates and multipliers. The reference has 0.01, torch's default."""
    clip: float = 1.0
    """Largest global norm of a gradient."""
    price: float = 9e-4
    """Cost of an open edge when the run starts: the linear multiplier starts at -price times the
    number of edges. With a multiplier_rate of 0 it stays there, and the sparsity is whatever
    this price buys."""
    samples: int = 1
    """Masks drawn in a step; the loss is their mean."""
    node_gates: bool = False
    """Whether writers have gates of their own, which scale all their edges."""
    node_target: float | None = None
    """Sparsity of nodes to reach; without it node gates are trained by the divergence alone."""
    divergence: str = "kl"
    """Distance from the full model: 'kl' of next-token distributions, or 'squared' error."""
    ablation: str = "interchange"
    """What a cut edge carries: 'interchange', 'mean' or 'zero'."""
    seed: int = 0
    """Seed of gates, masks and the order of the data."""

    def __post_init__(self):
        values = dataclasses.asdict(self)
        for name in ("steps", "batch_size", "samples", "warmup", "rate_warmup", "seed"):
            if not isinstance(values[name], int):
                raise ValueError(f"{name} must be a whole number: got {values[name]!r}")
        for name in ("steps", "batch_size", "samples"):
            if values[name] < 1:
                raise ValueError(f"{name} must be at least 1: got {values[name]}")
        for name, value in values.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{name} must be finite: got {value}")
        for name in (
            "warmup", "rate_warmup", "gate_rate", "multiplier_rate", "weight_decay",
            "gate_init_std",
        ):  # fmt: skip
            if values[name] < 0:
                raise ValueError(f"{name} must be 0 or more: got {values[name]}")
        if self.clip <= 0:
            raise ValueError(f"clip must be above 0: got {self.clip}")
        if self.ablation not in ABLATIONS:
            raise ValueError(
                f"ablation must be one of {', '.join(ABLATIONS)}: got {self.ablation!r}"
            )
        if self.divergence not in DIVERGENCES:
            raise ValueError(
                f"divergence must be one of {', '.join(DIVERGENCES)}: got {self.divergence!r}"
            )
        if self.schedule not in ("linear", "logarithmic"):
            raise ValueError(f"schedule must be linear or logarithmic: got {self.schedule!r}")
        if self.schedule == "logarithmic" and not (self.start < 1 and self.target < 1):
            raise ValueError(f"a logarithmic schedule needs a target below 1: got {self.target}")
        if self.node_target is not None and not self.node_gates:
            raise ValueError("node_target needs node_gates")


PAPER = PruneConfig(
    target=0.98, steps=3000, batch_size=32, warmup=2500, start=0.0, gate_init=10.0, price=0.0,
    gate_rate=0.8, multiplier_rate=0.8, rate_warmup=200, weight_decay=0.01, node_gates=True,
    seed=42,
)  # fmt: skip
"""The shipped settings for GPT-2 (reference facts: IOI, greater-than, gendered pronoun)."""


class Trainable(NamedTuple):
    """Everything that the optimiser moves."""

    edges: Edges  # log-alphas
    nodes: Array | None  # W log-alphas
    edge_multipliers: Multipliers
    node_multipliers: Multipliers | None


@struct.dataclass
class PruneState:
    """A run between two steps; with the config and the data it determines the rest."""

    step: Any  # an int32 scalar; jax rebuilds trees with shapes and labels in place of arrays
    trainable: Any  # Trainable
    optimiser: Any  # optax.OptState


def optimiser(config: PruneConfig) -> optax.GradientTransformation:
    """Gates descend and multipliers ascend, both by AdamW under one clipped gradient."""

    def rate(peak):
        grow = optax.linear_schedule(0.0, peak, config.rate_warmup)
        fall = optax.linear_schedule(peak, 0.0, max(config.steps - config.rate_warmup, 1))
        return optax.join_schedules([grow, fall], [config.rate_warmup])

    def adam(peak):
        return optax.adamw(rate(peak), weight_decay=config.weight_decay)

    moves: dict[Hashable, optax.GradientTransformation] = {
        "descend": adam(config.gate_rate),
        "ascend": optax.chain(optax.scale(-1.0), adam(config.multiplier_rate)),
    }

    def labels(trainable: Trainable) -> Trainable:
        kinds = ("descend", "descend", "ascend", "ascend")
        return Trainable(
            *(
                jax.tree.map(lambda _, kind=kind: kind, part)
                for kind, part in zip(kinds, trainable, strict=True)
            )
        )

    return optax.chain(optax.clip_by_global_norm(config.clip), optax.multi_transform(moves, labels))


def init(graph: Graph, config: PruneConfig) -> PruneState:
    """The state before the first step."""
    edge_key, node_key = jax.random.split(jax.random.key(config.seed))

    def start(key, size):
        noise = jax.random.normal(key, (size,), jnp.float32)
        return config.gate_init + config.gate_init_std * noise

    trainable: Any = Trainable(
        Edges(start(edge_key, graph.n_edges), graph),
        start(node_key, graph.n_writers) if config.node_gates else None,
        Multipliers(jnp.float32(-config.price * graph.n_edges), jnp.zeros(())),
        no_multipliers() if config.node_target is not None else None,
    )
    return PruneState(jnp.zeros((), jnp.int32), trainable, optimiser(config).init(trainable))


def make_step(model: Model, config: PruneConfig) -> Callable:
    """The jitted training step: (state, params, batch, teacher, means) -> (state, metrics).

    `teacher` holds the full model's logits, B A V; `means` the settled writes of mean ablation,
    None for the others. The state is donated. Metrics are scalars on the device.
    """
    divergence = DIVERGENCES[config.divergence]
    move = optimiser(config)

    def loss(trainable: Trainable, key, step, params, batch, teacher, means):
        edge_key, node_key = jax.random.split(key)
        mask = gates.sample_gates(trainable.edges, key=edge_key)
        sparsity = gates.sparsity(mask.values)
        target = objectives.target_sparsity(
            step, start=config.start, end=config.target, warmup=config.warmup,
            kind=config.schedule,
        )  # fmt: skip
        penalty = constraint(trainable.edge_multipliers, sparsity, target)
        if trainable.nodes is not None:
            nodes = gates.sample(trainable.nodes, key=node_key)
            mask = scale_writers(mask, nodes)
            if trainable.node_multipliers is not None and config.node_target is not None:
                node_target = objectives.target_sparsity(
                    step, start=0.0, end=config.node_target, warmup=config.warmup
                )
                penalty += constraint(
                    trainable.node_multipliers, gates.sparsity(nodes), node_target
                )
        logits = masked_forward(
            model, params, batch.tokens, mask, corrupted_tokens=batch.corrupted,
            ablation=config.ablation if means is None else means, valid=batch.valid,
            positions=batch.positions,
        )  # fmt: skip
        distance = divergence(teacher, logits, batch.scored).mean()
        return distance + penalty, {
            "divergence": distance, "penalty": penalty, "sparsity": sparsity, "target": target,
        }  # fmt: skip

    def mean_gradient(trainable: Trainable, step, *data):
        key = jax.random.fold_in(jax.random.key(config.seed + 1), step)
        keys = jax.random.split(key, config.samples)
        # One mask after the other, each with its gradient, so that nothing waits for the others.
        one = jax.grad(loss, has_aux=True)
        drawn = jax.lax.map(lambda key: one(trainable, key, step, *data), keys)
        return jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), drawn)

    def step(state: PruneState, params, batch, teacher, means):
        gradient, metrics = mean_gradient(
            state.trainable, state.step, params, batch, teacher, means
        )
        updates, moved = move.update(gradient, state.optimiser, state.trainable)
        metrics["gradient_norm"] = optax.tree.norm(gradient)
        trainable = jax.tree.map(jnp.add, state.trainable, updates)
        return PruneState(state.step + 1, trainable, moved), metrics

    return jax.jit(step, donate_argnums=0)


def final_gates(trainable: Trainable) -> Edges:
    """Log-alphas of the edges with those of their writers folded in.

    An edge of a gated writer is open where both gates are; the smaller of the two log-alphas
    stands for their product.
    """
    if trainable.nodes is None:
        return trainable.edges
    graph = trainable.edges.graph
    writers = jnp.concatenate([trainable.nodes[:length] for length in graph.row_lengths])
    return Edges(jnp.minimum(trainable.edges.values, writers), graph)


def prune(
    model: Model,
    params: PyTree,
    data: Batch,
    teacher: Float[Array, "N A V"],
    config: PruneConfig,
    state: PruneState,
    *,
    means: str | Writes | None = None,
) -> Iterator[tuple[PruneState, dict]]:
    """Runs from `state` to the last step, yielding each step's state and metrics.

    A yielded state is donated to the next step: save it before asking for more. `teacher` holds
    the full model's logits for all N examples of `data`.
    """
    step = make_step(model, config)
    for number in range(int(state.step), config.steps):
        chosen = rows(len(data), config.batch_size, seed=config.seed, step=number)
        state, metrics = step(state, params, take(data, chosen), teacher[chosen], means)
        yield state, metrics
