"""Scores that know nothing of the answer: what any attribution has to beat."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from edgeprune_jax.baselines.eap import weighted
from edgeprune_jax.graph import Edges, Graph
from edgeprune_jax.stream import Model, Writes, add, plain_run
from edgeprune_jax.tasks.batch import Batch


def random_scores(graph: Graph, *, key: Key[Array, ""]) -> Edges:
    """Uniform numbers: circuits of the highest are random circuits, one inside the other."""
    return Edges(jax.random.uniform(key, (graph.n_edges,)), graph)


def magnitude(
    model: Model,
    params: PyTree,
    graph: Graph,
    data: Batch,
    *,
    ablation: str = "interchange",
    batch_size: int = 8,
) -> Edges:
    """How much of a reader's input cutting the edge replaces: |y_w - c_w| / |x_r|.

    The mean over tokens, then over examples. Readers divide by the size of their input, their norm
    does, so that the same change counts less in a larger stream.
    """
    scores = jnp.zeros(graph.n_edges)
    for batch, cut, weight in weighted(model, params, data, ablation, batch_size):
        scores = scores + _magnitudes(model, graph, params, batch, cut, weight)
    return Edges(scores / len(data), graph)


@partial(jax.jit, static_argnames=("model", "graph"))
def _magnitudes(
    model: Model,
    graph: Graph,
    params: PyTree,
    batch: Batch,
    cut: Writes,
    weight: Float[Array, " B"],
) -> Float[Array, " E"]:
    _, written = plain_run(model, params, batch.tokens, valid=batch.valid)

    def size(x):
        return jnp.linalg.norm(x.astype(jnp.float32), axis=-1)

    change = jax.tree.map(lambda y, c: size(y - c), written, cut)
    stream, streams = add(*written.embeds), []
    for layer in written.layers:
        middle = add(stream, *layer.heads)
        streams += [stream, middle]
        stream = middle + layer.mlp
    columns = [change.embeds] if graph.embeddings else []
    for layer in change.layers:
        columns += [layer.heads, layer.mlp[None]]
    changes, sizes = jnp.concatenate(columns), size(jnp.stack([*streams, stream]))
    token_weight = batch.valid / batch.valid.sum(axis=1, keepdims=True) * weight[:, None]
    inverse = token_weight / jnp.where(batch.valid, sizes, 1)  # 2L+1 B T
    table = jnp.einsum("wbt,rbt->rw", changes, inverse)
    per_layer = graph.readers_per_layer
    rows = [table[-1] if row == graph.n_readers - 1 else
            table[2 * (row // per_layer) + (row % per_layer == per_layer - 1)]
            for row in range(graph.n_readers)]  # fmt: skip
    lengths = graph.row_lengths
    return jnp.concatenate([row[:n] for row, n in zip(rows, lengths, strict=True)])
