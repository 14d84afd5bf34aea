"""EAP with integrated gradients: the gradient is a mean over runs towards the clean one.

    score(w -> r) = (y_w - c_w) . mean over k of d metric / d x_r  in run k of K,

where y_w - c_w is what cutting takes from the clean run, whatever the run of the gradient. On
*inputs* the embeddings of run k are c + (k / K)(y - c), and all that follows follows (Hanna et al.
2024, equation 3, k from 1 to K; their code has 0 to K - 1). On *activations* run k is clean but for
one sublayer, w's own, which writes c + (k / K)(y - c) (Marks et al. 2024; Mueller et al. 2025,
whose code also averages in, for every edge, the runs of all other sublayers).

Axes: B examples, E edges, W writers.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from edgeprune_jax.baselines.eap import mask_gradient, n_outputs, weighted
from edgeprune_jax.baselines.metrics import check_metric
from edgeprune_jax.graph import Edges, Graph, full, scale_writers
from edgeprune_jax.stream import Model, Writes, pick, plain_forward, plain_run
from edgeprune_jax.tasks.batch import Batch

PATHS = ("inputs", "activations")


def eap_ig(
    model: Model,
    params: PyTree,
    graph: Graph,
    data: Batch,
    *,
    kind: str = "inputs",
    steps: int = 5,
    metric: str = "answer",
    ablation: str = "interchange",
    batch_size: int = 8,
    on_run: Callable[[float], None] = lambda share: None,
) -> Edges:
    """Each edge's integrated effect on the metric, with its sign, averaged over the data.

    `kind` is the path, `inputs` or `activations`; one step is `eap`. Takes a masked pass and its
    gradient for each batch and run: `steps` of them on inputs, and on activations 2 layers + 1
    times as many. `on_run` hears the share that is done. Raises `ValueError` for a metric that
    the data lack.
    """
    if kind not in PATHS:
        raise ValueError(f"path must be one of {', '.join(PATHS)}: got {kind!r}")
    if steps < 1:
        raise ValueError(f"steps must be at least 1: got {steps}")
    check_metric(metric, data, n_outputs(model, params, data))
    gradient = _on_inputs if kind == "inputs" else _on_activations
    moved = [np.ones(graph.n_writers, bool)] if kind == "inputs" else sublayers(graph)
    scores, done = jnp.zeros(graph.n_edges), 0
    for batch, cut, weight in weighted(model, params, data, ablation, batch_size):
        for writers in moved:
            for share in np.arange(1, steps + 1, dtype=np.float32) / steps:
                found = gradient(model, graph, metric, params, batch, cut, weight, writers, share)
                scores = scores + found
                done += int(weight.sum())
                on_run(done / (steps * len(moved) * len(data)))
    return Edges(scores / (steps * len(data)), graph)


def sublayers(graph: Graph) -> list[np.ndarray]:
    """The writers that write at once, booleans "W": embeddings, each layer's heads, each MLP."""
    kinds = np.array([name.split(".")[0] if name[0] in "am" else "" for name in graph.writers])
    return [kinds == kind for kind in dict.fromkeys(kinds)]


class Embedded(NamedTuple):
    """Parameters of a model whose embeddings are given."""

    blocks: tuple
    params: Any
    embeds: Array  # E B T D


@cache  # equal models compare equal, so that nothing is compiled anew
def embedded(model: Model) -> Model:
    return Model(
        lambda p, tokens: p.embeds, model.attend, model.mlp,
        lambda p, x: model.unembed(p.params, x),
    )  # fmt: skip


@partial(jax.jit, static_argnames=("model", "graph", "metric"))
def _on_inputs(
    model: Model,
    graph: Graph,
    metric: str,
    params: PyTree,
    batch: Batch,
    cut: Writes,
    weight: Float[Array, " B"],
    writers: Array,
    share: Array,
) -> Float[Array, " E"]:
    stream, clean = plain_run(model, params, batch.tokens, valid=batch.valid)
    teacher = model.unembed(params, pick(stream[None], batch.positions)[0])
    between = embedded(model)
    embeds = cut.embeds + share.astype(stream.dtype) * (clean.embeds - cut.embeds)
    given = Embedded(params.blocks, params, embeds)
    _, written = plain_run(between, given, batch.tokens, valid=batch.valid)
    # A mask of ones takes nothing of what cut edges carry: it only sets the differences.
    carried = jax.tree.map(lambda here, y, c: here - (y - c), written, clean, cut)
    return mask_gradient(between, graph, metric, given, batch, carried, weight, teacher)


@partial(jax.jit, static_argnames=("model", "graph", "metric"))
def _on_activations(
    model: Model,
    graph: Graph,
    metric: str,
    params: PyTree,
    batch: Batch,
    cut: Writes,
    weight: Float[Array, " B"],
    writers: Array,
    share: Array,
) -> Float[Array, " E"]:
    teacher = plain_forward(
        model, params, batch.tokens, valid=batch.valid, positions=batch.positions
    )
    ones = full(graph, 1.0)
    # What comes before the sublayer is clean, so that a mask on all its edges is the path.
    at = scale_writers(ones, jnp.where(writers, share, 1))
    found = mask_gradient(model, graph, metric, params, batch, cut, weight, teacher, at)
    return found * scale_writers(ones, writers.astype(jnp.float32)).values
