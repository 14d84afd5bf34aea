"""What is trained, log-alphas and multipliers, and the optimiser that moves both."""

from collections.abc import Hashable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from edgeprune_jax.graph import Edges, by_writer
from edgeprune_jax.objectives import Multipliers
from edgeprune_jax.settings import PruneConfig


class Trainable(NamedTuple):
    """Everything that the optimiser moves."""

    edges: Edges  # log-alphas
    nodes: Array | None  # W log-alphas
    edge_multipliers: Multipliers
    node_multipliers: Multipliers | None


def log_alphas(trainable: Trainable) -> tuple[Array, Array | None]:
    """Those of the edges and of the nodes."""
    return trainable.edges.values, trainable.nodes


def bounded(trainable: Trainable, most: float | None) -> Trainable:
    """Log-alphas of `most` where they are larger."""
    if most is None:
        return trainable
    edges, nodes = jax.tree.map(partial(jnp.minimum, most), (trainable.edges, trainable.nodes))
    return trainable._replace(edges=edges, nodes=nodes)


def folded(trainable: Trainable) -> Edges:
    """Log-alphas of the edges, those of their writers folded in.

    An edge of a gated writer is open where both gates are; the smaller of the two log-alphas
    stands for their product.
    """
    edges = trainable.edges
    if trainable.nodes is None:
        return edges
    writers = partial(by_writer, graph=edges.graph)
    if trainable.nodes.ndim > 1:
        writers = jax.vmap(writers)
    return jax.tree.map(jnp.minimum, edges, writers(trainable.nodes))


def optimiser(config: PruneConfig) -> optax.GradientTransformation:
    """Gates descend and multipliers ascend, both by AdamW under one clipped gradient."""

    def rate(peak):
        grow = optax.linear_schedule(0.0, peak, config.rate_warmup)
        after = optax.linear_schedule(peak, 0.0, max(config.steps - config.rate_warmup, 1))
        return optax.join_schedules([grow, after], [config.rate_warmup])

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
