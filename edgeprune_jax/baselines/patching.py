"""Exact patching: what each edge, cut alone, takes from the metric.

Axes: M masks, E edges, B examples.
"""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from edgeprune_jax.baselines.eap import metric_of_mask, n_outputs, weighted
from edgeprune_jax.baselines.metrics import check_metric
from edgeprune_jax.graph import Edges, Graph
from edgeprune_jax.stream import Model, Writes, plain_forward
from edgeprune_jax.tasks.batch import Batch

AT_ONCE = 16  # masks of a call
TOGETHER = 2**25  # numbers in the outboxes of the masks that run side by side


def patch_edges(
    model: Model,
    params: PyTree,
    graph: Graph,
    data: Batch,
    *,
    metric: str = "answer",
    ablation: str = "interchange",
    batch_size: int = 8,
    on_run: Callable[[float], None] = lambda share: None,
) -> Edges:
    """The full model's metric minus that without the edge, averaged over the data.

    Takes a masked pass of all examples for each edge. `on_run` hears the share that is done.
    Raises `ValueError` for a metric that the data lack.
    """
    check_metric(metric, data, n_outputs(model, params, data))
    metric_of = mean_metric(model, params, graph, data, metric, ablation, batch_size)
    (whole,) = metric_of(np.ones((1, graph.n_edges), bool))
    effects = np.zeros(graph.n_edges)
    for first in range(0, graph.n_edges, AT_ONCE):
        edges = np.arange(first, min(first + AT_ONCE, graph.n_edges))
        kept = np.ones((len(edges), graph.n_edges), bool)
        kept[np.arange(len(edges)), edges] = False
        effects[edges] = whole - metric_of(kept)
        on_run((edges[-1] + 1) / graph.n_edges)
    return Edges(jnp.asarray(effects, jnp.float32), graph)


def mean_metric(
    model: Model,
    params: PyTree,
    graph: Graph,
    data: Batch,
    metric: str,
    ablation: str,
    batch_size: int,
) -> Callable[[Bool[np.ndarray, "M E"]], Float[np.ndarray, " M"]]:
    """A function from at most `AT_ONCE` circuits to their metric, averaged over the data.

    What cut edges carry is computed once, and kept.
    """
    batches: Sequence = list(weighted(model, params, data, ablation, batch_size))

    def means(kept: Bool[np.ndarray, "M E"]) -> Float[np.ndarray, " M"]:
        rows = np.minimum(np.arange(AT_ONCE), len(kept) - 1)  # repeats the last: one shape
        masks = jnp.asarray(kept[rows], jnp.float32)
        total = sum(
            _metrics(model, graph, metric, params, masks, *batch, jnp.int32(len(kept)))
            for batch in batches
        )
        return np.asarray(total, float)[: len(kept)] / len(data)

    return means


@partial(jax.jit, static_argnames=("model", "graph", "metric"))
def _metrics(
    model: Model,
    graph: Graph,
    metric: str,
    params: PyTree,
    masks: Float[Array, "M E"],
    batch: Batch,
    cut: Writes,
    weight: Float[Array, " B"],
    limit: Int[Array, ""],
) -> Float[Array, " M"]:
    """The metric of each of the first `limit` masks, summed over the examples that count."""

    teacher = plain_forward(
        model, params, batch.tokens, valid=batch.valid, positions=batch.positions
    )

    def one(mask: Float[Array, " E"]) -> Float[Array, ""]:
        found = metric_of_mask(model, metric, params, Edges(mask, graph), batch, cut, teacher)
        return jnp.where(weight > 0, found, 0) @ weight

    outbox = batch.tokens.size * graph.n_writers * cut.embeds.shape[-1]
    together = max(1, min(AT_ONCE, TOGETHER // outbox))
    if together > 1:
        return jax.lax.map(one, masks, batch_size=together)
    none = jnp.zeros(len(masks))
    return jax.lax.fori_loop(0, limit, lambda i, found: found.at[i].set(one(masks[i])), none)
