"""Edge attribution patching: the gradient of a metric with respect to the mask, at ones.

d metric / d m_wr at m = 1 is, to first order, how much larger the metric is when edge w -> r is
kept than when it is patched (Syed et al. 2023). One masked pass and its gradient score all edges.

Axes: B examples, E edges.
"""

from collections.abc import Iterator
from functools import partial
from typing import SupportsIndex

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from edgeprune_jax.ablation import ablated_writes, settle
from edgeprune_jax.baselines.metrics import FLAT_AT_THE_MODEL, METRICS, check_metric
from edgeprune_jax.circuits import Circuit, from_scores, ranked
from edgeprune_jax.engine import masked_forward
from edgeprune_jax.graph import Edges, Graph, full
from edgeprune_jax.stream import Model, Writes, plain_forward
from edgeprune_jax.tasks.batch import Batch, parts, take

# One compiled function for all calls of a model: making it anew each time would compile anew.
_ablated = jax.jit(ablated_writes, static_argnames=("model", "ablation"))


def eap(
    model: Model,
    params: PyTree,
    graph: Graph,
    data: Batch,
    *,
    metric: str = "answer",
    ablation: str = "interchange",
    batch_size: int = 8,
) -> Edges:
    """Each edge's effect on the metric, with its sign, averaged over the data.

    EAP keeps the largest of either sign: the absolute value comes after the average, as published
    (`ranked`). Examples beyond the last full batch are used too. Raises `ValueError` for a
    metric that the data lack, or that has no gradient at the full model, as KL has none.
    """
    check_metric(metric, data, n_outputs(model, params, data))
    if metric in FLAT_AT_THE_MODEL:
        raise ValueError(f"metric {metric!r} has no gradient at the full model: eap needs another")
    scores = jnp.zeros(graph.n_edges)
    for batch, cut, weight in weighted(model, params, data, ablation, batch_size):
        scores = scores + mask_gradient(model, graph, metric, params, batch, cut, weight)
    return Edges(scores / len(data), graph)


@partial(jax.jit, static_argnames=("model", "graph", "metric"))
def mask_gradient(
    model: Model,
    graph: Graph,
    metric: str,
    params: PyTree,
    batch: Batch,
    cut: Writes,
    weight: Float[Array, " B"],
    teacher: Float[Array, "B A V"] | None = None,
    at: Edges | None = None,
) -> Float[Array, " E"]:
    """The weighted sum over examples of the metric's derivatives, at a mask of ones or another.

    `teacher` holds the full model's logits, for metrics that compare with it.
    """

    def total(mask: Edges) -> Float[Array, ""]:
        return metric_of_mask(model, metric, params, mask, batch, cut, teacher) @ weight

    return jax.grad(total)(full(graph, 1.0) if at is None else at).values


def metric_of_mask(
    model: Model,
    metric: str,
    params: PyTree,
    mask: Edges,
    batch: Batch,
    cut: Writes,
    teacher: Float[Array, "B A V"] | None,
) -> Float[Array, " B"]:
    """The metric of each example when edges are masked; `cut` is what cut edges carry."""
    logits = masked_forward(
        model, params, batch.tokens, mask, ablation=cut, valid=batch.valid,
        positions=batch.positions,
    )  # fmt: skip
    return METRICS[metric](teacher, logits, batch)


def weighted(
    model: Model, params: PyTree, data: Batch, ablation: str, batch_size: int
) -> Iterator[tuple[Batch, Writes, Float[Array, " B"]]]:
    """Batches of one shape, what their cut edges carry, and 1 for each example that counts."""
    settled = settle(model, params, data, ablation)
    size = min(batch_size, len(data))
    for chosen, count in parts(len(data), size):
        batch, cut = take(data, chosen), settled
        if isinstance(cut, str):
            cut = _ablated(model, params, batch.corrupted, cut, valid=batch.valid)
        yield batch, cut, (jnp.arange(size) < count).astype(jnp.float32)


def n_outputs(model: Model, params: PyTree, data: Batch) -> int:
    """The width of the model's output, 1 where it is a number."""
    one = data.tokens[:1]
    return jax.eval_shape(partial(plain_forward, model), params, one).shape[-1]


def eap_circuit(scores: Edges, keep: SupportsIndex) -> Circuit:
    """The circuit of the `keep` largest effects, whatever their signs."""
    return from_scores(ranked(scores, "absolute"), keep)
