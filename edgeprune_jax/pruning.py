"""Edge Pruning: gates descended and multipliers ascended together, batches in, log-alphas out.

One step draws masks, runs the masked model on a batch, and moves the gates against the
Lagrangian of `objectives` and the multipliers along it, in one optax transformation (paper
section 3; constants of the reference in `settings.PAPER`). Gradients are those of `estimators`.
Randomness is folded from the seed and the step, so a resumed run needs no saved key.
"""

import dataclasses
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax.sharding import Mesh
from jaxtyping import Array, Float, PyTree

from edgeprune_jax import gates, hard_examples, hosts, objectives, replicas, sharding
from edgeprune_jax.engine import masked_forward
from edgeprune_jax.estimators import ESTIMATORS
from edgeprune_jax.graph import Edges, Graph, scale_writers
from edgeprune_jax.objectives import DIVERGENCES, Multipliers, constraint, no_multipliers
from edgeprune_jax.settings import PruneConfig
from edgeprune_jax.stream import Model, Writes, plain_forward
from edgeprune_jax.tasks.batch import Batch
from edgeprune_jax.tasks.buckets import bucket, bucketed_rows, fit
from edgeprune_jax.trainable import Trainable, bounded, folded, log_alphas, optimiser


@struct.dataclass
class PruneState:
    """A run between two steps; with the config and the data it determines the rest."""

    step: Any  # an int32 scalar; jax rebuilds trees with shapes and labels in place of arrays
    trainable: Any  # Trainable
    optimiser: Any  # optax.OptState
    average: Any  # E float32, weighted mean of the log-alphas; None but with control 'price'
    failures: Any  # N float32, of every example (`hard_examples`); None where nothing asks


def init(
    graph: Graph, config: PruneConfig, *, examples: int = 0, first: Edges | None = None
) -> PruneState:
    """The state before the first step. `examples` counts those to prune on, for `hard_share`.

    `first` holds the log-alphas to start from (`warm_start`), instead of `gate_init` around. With
    replicas all of the trainable and of the optimiser has a leading axis S.
    """
    if config.hard_share and not examples:
        raise ValueError("hard_share needs the number of examples: got 0")
    if config.replicas > 1:
        alone = dataclasses.replace(config, replicas=1, bootstrap=False)
        each = [
            init(graph, dataclasses.replace(alone, seed=config.seed + number), first=first)
            for number in range(config.replicas)
        ]
        together = replicas.stack(each)
        return PruneState(
            each[0].step, together.trainable, together.optimiser, together.average, None
        )
    edge_key, node_key = jax.random.split(jax.random.key(config.seed))

    def start(key, size):
        noise = jax.random.normal(key, (size,), jnp.float32)
        return config.gate_init + config.gate_init_std * noise

    trainable: Any = Trainable(
        Edges(start(edge_key, graph.n_edges), graph) if first is None else first,
        start(node_key, graph.n_writers) if config.node_gates else None,
        Multipliers(jnp.float32(-config.price * graph.n_edges), jnp.zeros(())),
        no_multipliers() if config.node_target is not None else None,
    )
    return PruneState(
        jnp.zeros((), jnp.int32), trainable, optimiser(config).init(trainable),
        jnp.zeros(graph.n_edges) if config.control == "price" else None,
        hard_examples.no_failures(examples) if config.hard_share else None,
    )  # fmt: skip


def make_step(model: Model, config: PruneConfig, *, segment: int | None = None) -> Callable:
    """The training step: (state, params, batch, teacher, means, rows, weights) -> (state, metrics).

    `teacher` holds the full model's logits, B A V; `means` the settled writes of mean ablation,
    None for the others; `rows` the batch's examples among all, where the state remembers them;
    `weights` those of the batch's examples for each replica, S B.
    The state is donated. Metrics are scalars on the device, of replicas their means. Seeds share
    one compiled step. `segment` is that of `masked_forward`.
    """
    keys = [jax.random.key(config.seed + number + 1) for number in range(config.replicas)]
    key = keys[0] if config.replicas == 1 else replicas.stack(keys)
    return partial(_compiled_step(model, dataclasses.replace(config, seed=0), segment), key)


@lru_cache(maxsize=8)
def _compiled_step(model: Model, config: PruneConfig, segment: int | None) -> Callable:
    divergence = DIVERGENCES[config.divergence]
    estimate = ESTIMATORS[config.estimator]
    move = optimiser(config)

    def opened(batch: Batch, trainable: Trainable) -> tuple[Array, Array | None]:
        if not config.own_masks:
            return log_alphas(trainable)
        return jax.tree.map(
            lambda one: jnp.broadcast_to(one, (len(batch.tokens), one.size)), log_alphas(trainable)
        )

    def penalty(step, target, trainable: Trainable, masks):
        edges, nodes = masks
        sparsity = gates.sparsity(edges)
        asked = {"target": target}
        if config.control == "price":
            price = objectives.ramp(
                step, start=config.price, end=config.last_price, steps=config.warmup
            )
            asked = {"price": price}
            cost = price * trainable.edges.graph.n_edges * (1 - sparsity)
        else:
            cost = constraint(trainable.edge_multipliers, sparsity, target)
        if trainable.node_multipliers is not None and config.node_target is not None:
            node_target = objectives.target_sparsity(
                step, start=0.0, end=config.node_target, warmup=config.warmup
            )
            cost += constraint(trainable.node_multipliers, gates.sparsity(nodes), node_target)
        return cost, {"penalty": cost, "sparsity": sparsity} | asked

    def loss(graph, params, batch, teacher, means, weights, masks):
        distances = partial(measure, graph, params, means)
        if config.own_masks:
            alone = partial(jax.tree.map, lambda leaf: leaf[:, None])
            each = jax.vmap(distances, spmd_axis_name=sharding.RULES["B"])
            found = each(alone(batch), alone(teacher), masks)[:, 0]
        else:
            found = distances(batch, teacher, masks)
        value = found.mean() if weights is None else (weights * found).mean()
        if config.floor:
            value = objectives.on_log_scale(value, config.floor)
        return value, found

    def measure(graph, params, means, batch, teacher, masks):
        values, nodes = masks
        mask = Edges(values, graph)
        logits = masked_forward(
            model, params, batch.tokens, mask if nodes is None else scale_writers(mask, nodes),
            corrupted_tokens=batch.corrupted,
            ablation=config.ablation if means is None else means, valid=batch.valid,
            positions=batch.positions, outbox_dtype=config.outbox_dtype, segment=segment,
        )  # fmt: skip
        return divergence(teacher, logits, batch.scored)

    def step(key, state: PruneState, params, batch, teacher, means, rows=None, weights=None):
        trainable = state.trainable
        keys = jax.random.split(jax.random.fold_in(key, state.step), config.samples)
        target = objectives.target_sparsity(
            state.step, start=config.start, end=config.target, warmup=config.warmup,
            kind=config.schedule,
        )  # fmt: skip
        gradient, (distances, metrics) = estimate(
            partial(loss, trainable.edges.graph, params, batch, teacher, means, weights),
            partial(penalty, state.step, target), trainable, partial(opened, batch),
            keys=keys,
        )  # fmt: skip
        updates, moved = move.update(gradient, state.optimiser, trainable)
        metrics |= {"divergence": distances.mean(), "gradient_norm": optax.tree.norm(gradient)}
        trainable = bounded(jax.tree.map(jnp.add, trainable, updates), config.gate_max)
        failures = state.failures
        if failures is not None and rows is not None:
            failures = hard_examples.remember(failures, rows, distances)
        average = state.average
        if average is not None:
            share = 1 - jnp.sqrt(state.step / (state.step + 1))
            average += (folded(trainable).values - average) * share
        return PruneState(state.step + 1, trainable, moved, average, failures), metrics

    axes = PruneState(None, 0, 0, 0, None)

    def side_by_side(keys, state, params, batch, teacher, means, rows=None, weights=None):
        state, metrics = jax.vmap(
            step, in_axes=(0, axes, *[None] * 5, 0), out_axes=(axes, 0)
        )(keys, state, params, batch, teacher, means, rows, weights)  # fmt: skip
        return state, jax.tree.map(jnp.mean, metrics)

    return jax.jit(step if config.replicas == 1 else side_by_side, donate_argnums=1)


def final_gates(state: PruneState) -> Edges:
    """What a run says of the edges: those to keep have the largest numbers.

    They are its last log-alphas (`folded`). A growing price has taken the circuit through all
    sizes, and the last log-alphas know best of the last; an edge's mean log-alpha over the run is
    larger the longer it was open. There it is the mean of the two, in which the last count half as
    much, for they say little of edges long closed. In the mean over the run step t, from 1, weighs
    sqrt(t) - sqrt(t - 1): most edges close early. Replicas have a leading axis S.
    """
    last = folded(state.trainable)
    if state.average is None:
        return last
    return Edges((2 * state.average + last.values) / 3, last.graph)


def prune(
    model: Model,
    params: PyTree,
    data: Batch,
    teacher: Float[np.ndarray, "N A V"] | Float[Array, "N A V"] | None,
    config: PruneConfig,
    state: PruneState,
    *,
    means: str | Writes | None = None,
    mesh: Mesh | None = None,
) -> Iterator[tuple[PruneState, dict]]:
    """Runs from `state` to the last step, yielding each step's state and metrics.

    A yielded state is donated to the next step: save it before asking for more. `teacher` holds
    the full model's logits for all N examples of `data`; without it each step computes its own.
    With a `mesh`, the batches are placed and the steps split as `sharding` says; `params` are where
    the caller put them. Of several processes each gives the same arguments, and reads its own rows
    of `data` and `teacher`. Raises `ValueError` for a batch that the mesh cannot split.
    """
    step = make_step(model, config)
    full = jax.jit(partial(plain_forward, model))
    buckets, drawn = bucket(data), None
    if config.bootstrap:
        drawn = replicas.resampled(len(data), config.replicas, seed=config.seed)
    for number in range(int(state.step), config.steps):
        chosen = bucketed_rows(buckets, config.batch_size, seed=config.seed, step=number)
        if config.hard_share:
            chosen = hard_examples.choose(
                chosen, hosts.fetch(state.failures), config.hard_share, seed=config.seed,
                step=number,
            )  # fmt: skip
        narrow = fit(data, chosen, buckets)
        batch = sharding.place_rows(narrow, chosen, sharding.batch_shardings, mesh)
        with sharding.using(mesh):
            if teacher is None:
                expected = full(params, batch.tokens, valid=batch.valid, positions=batch.positions)
            else:
                expected = sharding.place_rows(teacher, chosen, sharding.by_example, mesh)
            weights = None if drawn is None else drawn[:, chosen]
            state, metrics = step(state, params, batch, expected, means, chosen, weights)
        yield state, metrics
