"""Edge attribution patching: the gradient of a metric with respect to the mask, at ones.

d metric / d m_wr at m = 1 is, to first order, how much larger the metric is when edge w -> r is
kept than when it is patched (Syed et al. 2023). One masked pass and its gradient score all edges.
"""

from collections.abc import Callable
from typing import SupportsIndex

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from edgeprune_jax.ablation import settle
from edgeprune_jax.circuits import Circuit, from_scores
from edgeprune_jax.engine import masked_forward
from edgeprune_jax.graph import Edges, Graph, full
from edgeprune_jax.measures.ordered import choice_logits, probability_difference
from edgeprune_jax.objectives import mean_scored
from edgeprune_jax.stream import Model, Writes
from edgeprune_jax.tasks.batch import Batch, parts, take


def answer_score(logits: Float[Array, "B A V"], batch: Batch) -> Float[Array, " B"]:
    """The metric: the target's logit minus the foil's, or its log-probability without a foil.

    With ordered choices it is their probability difference.
    """
    if batch.choices is not None:
        return probability_difference(choice_logits(logits, batch), batch.pivots)

    def of(values, tokens):
        return jnp.take_along_axis(values, jnp.maximum(tokens, 0)[..., None], axis=-1)[..., 0]

    logits = logits.astype(jnp.float32)
    difference = of(logits, batch.targets) - of(logits, batch.foils)
    log_probability = of(jax.nn.log_softmax(logits), batch.targets)
    return mean_scored(jnp.where(batch.foils >= 0, difference, log_probability), batch.scored)


def eap(
    model: Model,
    params: PyTree,
    graph: Graph,
    data: Batch,
    *,
    ablation: str = "interchange",
    batch_size: int = 8,
) -> Edges:
    """Each edge's effect on the answer, with its sign, averaged over the data.

    EAP keeps the largest of either sign: the absolute value comes after the average, as published
    (`eap_circuit`). Examples beyond the last full batch are used too.
    """
    gradient = make_gradient(model, graph, settle(model, params, data, ablation))
    scores = jnp.zeros(graph.n_edges)
    for chosen, count in parts(len(data), batch_size):
        weight = (jnp.arange(batch_size) < count).astype(jnp.float32)
        scores = scores + gradient(params, take(data, chosen), weight)
    return Edges(scores / len(data), graph)


def eap_circuit(scores: Edges, keep: SupportsIndex) -> Circuit:
    """The circuit of the `keep` largest effects, whatever their signs."""
    return from_scores(Edges(jnp.abs(scores.values), scores.graph), keep)


def make_gradient(model: Model, graph: Graph, ablation: str | Writes) -> Callable:
    """A jitted function (params, batch, weight "B") -> "E": the weighted sum of examples' effects.

    `ablation` is settled. An effect keeps its sign.
    """

    def total(mask, params, batch, weight):
        logits = masked_forward(
            model, params, batch.tokens, mask, corrupted_tokens=batch.corrupted,
            ablation=ablation, valid=batch.valid, positions=batch.positions,
        )  # fmt: skip
        return jnp.sum(answer_score(logits, batch) * weight)

    def gradient(params, batch, weight):
        return jax.grad(total)(full(graph, 1.0), params, batch, weight).values

    return jax.jit(gradient)
