"""What a training step costs, counted from shapes: floating-point operations and bytes.

The masked sums are counted product by product, as `masked_layers` makes them. What a layer costs is
asked of the model's own functions, so that any family is counted. `experiments/step_cost.md`
compares the counts with the clock and with what XLA allocates.

Axes: R readers, W writers, B batch, T tokens, A scored positions, D residual width.
"""

import math
import os
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import PyTree

from edgeprune_jax.graph import Graph
from edgeprune_jax.keeping import call_keeping
from edgeprune_jax.masked_layers import SEGMENT
from edgeprune_jax.stream import Model, plain_run

COPIES_OF_GATES = 5  # log-alphas, their gradient, two moments, updates
COPIES_OF_LOGITS = 4  # the teacher's, the circuit's, both log-probabilities


class Shapes(NamedTuple):
    """The sizes of a batch."""

    batch: int
    tokens: int
    answers: int  # scored positions of an example


class Flops(NamedTuple):
    """Floating-point operations of one step, by part."""

    corrupted_run: float
    masked_run: float
    masked_sums: float
    unembedding: float
    backward: float  # of the layers and the unembedding, without weights' gradients
    backward_sums: float


class Bytes(NamedTuple):
    """Bytes that one step holds at its peak, in the middle of the backward pass, by kind."""

    weights: int
    gates: int  # with the optimiser's state
    outbox: int  # the differences of all writers, and those before a segment as it reads them
    cotangents: int  # of the same: the sum so far and what a segment adds
    readers: int  # inputs and their cotangents, of one segment
    products: int  # what is kept of every layer's insides
    logits: int

    @property
    def temporary(self) -> int:
        """All but the weights and the gates."""
        return sum(self) - self.weights - self.gates


def plain_flops(model: Model, params: PyTree, shapes: Shapes) -> float:
    """Operations of the layers in one ordinary forward pass, embeddings included."""
    tokens = jax.ShapeDtypeStruct((shapes.batch, shapes.tokens), jnp.int32)

    def run(params, tokens):
        return plain_run(model, params, tokens)[0]

    return _counted(jax.jit(run), _abstract(params), tokens)


def unembedding_flops(model: Model, params: PyTree, shapes: Shapes, *, positions: int) -> float:
    """Operations of the unembedding of `positions` tokens of each example."""
    embeds = _embeds(model, params, shapes)
    x = jax.ShapeDtypeStruct((shapes.batch, positions, embeds.shape[-1]), embeds.dtype)
    return _counted(jax.jit(model.unembed), _abstract(params), x)


def sums(graph: Graph, *, segment: int | None = None) -> tuple[int, int]:
    """Products of one mask entry with one writer's output, forward and backward.

    They are more than the edges, by the blocks' corners that no edge lies in; the backward pass
    has three for each: inputs again, cotangents of writers, gradient of the mask.
    """
    segment = segment or SEGMENT
    rows, columns = graph.readers_per_layer, graph.heads + 1
    before = graph.sources(0)
    forward = backward = 0
    for first in range(0, graph.layers, segment):
        layers = min(segment, graph.layers - first)
        readers, own = layers * rows, layers * columns
        within = sum(
            (rows - 1) * layer * columns + layer * columns + graph.heads for layer in range(layers)
        )
        forward += readers * before + within
        gathered = sum((layers - 1 - layer) * rows * columns for layer in range(layers))
        backward += 2 * readers * (before + own) + readers * before + gathered
        before += own
    return forward + before, backward + 2 * before


def step_flops(
    model: Model,
    params: PyTree,
    graph: Graph,
    shapes: Shapes,
    *,
    ablation: str = "interchange",
    segment: int | None = None,
    masks: int = 1,
    differentiated: bool = True,
) -> Flops:
    """Operations of one training step, the teacher's logits given.

    `masks` is how many it draws, and whether the loss is `differentiated` or only evaluated.
    """
    layers = plain_flops(model, params, shapes)
    width = _embeds(model, params, shapes).shape[-1]
    forward, backward = sums(graph, segment=segment)
    each = 2 * shapes.batch * shapes.tokens * width
    answers = unembedding_flops(model, params, shapes, positions=shapes.answers)
    return Flops(
        corrupted_run=layers if ablation == "interchange" else 0.0,
        masked_run=masks * layers,
        masked_sums=masks * forward * each,
        unembedding=masks * answers,
        backward=masks * (layers + answers) if differentiated else 0.0,
        backward_sums=masks * backward * each if differentiated else 0.0,
    )


def step_bytes(
    model: Model,
    params: PyTree,
    graph: Graph,
    shapes: Shapes,
    *,
    outbox_dtype: DTypeLike | None = None,
    segment: int | None = None,
) -> Bytes:
    """Bytes at the peak of one training step on one device."""
    segment = segment or SEGMENT
    embeds = _embeds(model, params, shapes)
    stream = math.prod(embeds.shape[1:])  # B T D
    size = embeds.dtype.itemsize
    kept = jnp.dtype(outbox_dtype or embeds.dtype).itemsize
    outbox = graph.n_writers * stream * kept
    logits = jax.eval_shape(
        model.unembed, params,
        jax.ShapeDtypeStruct((shapes.batch, shapes.answers, embeds.shape[-1]), embeds.dtype),
    )  # fmt: skip
    readers = min(segment, graph.layers) * graph.readers_per_layer
    return Bytes(
        weights=_bytes(params),
        gates=COPIES_OF_GATES * graph.n_edges * 4,
        outbox=2 * outbox,
        cotangents=2 * outbox,
        readers=2 * readers * stream * size,
        products=sum(_kept_bytes(model, block, graph, embeds) for block in params.blocks),
        logits=COPIES_OF_LOGITS * math.prod(logits.shape) * 4,
    )


def largest_batch(limit: int, fixed: int, temporary: int, batch: int) -> int:
    """How many examples fit into `limit` bytes beside `fixed`, if `batch` need `temporary`."""
    return max(int((limit - fixed) * batch / temporary), 0)


def device_memory() -> int:
    """Bytes that the first device has; of a CPU, what the machine has."""
    stats = jax.local_devices()[0].memory_stats() or {}
    return stats.get("bytes_limit") or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _counted(function: Any, *inputs: Any) -> float:
    """Operations of a jitted function, by XLA's count before it compiles."""
    return float((function.lower(*inputs).cost_analysis() or {})["flops"])


def _kept_bytes(model: Model, block: PyTree, graph: Graph, embeds) -> int:
    """Bytes that the backward pass keeps of a layer's insides."""
    shape, dtype = embeds.shape[1:], embeds.dtype
    valid = jnp.ones(shape[:2], bool)

    def layer(block, q, k, v, x):
        attention = call_keeping(lambda *inputs: model.attend(*inputs, valid), block, q, k, v)[1]
        return attention, call_keeping(model.mlp, block, x)[1]

    heads, groups = (
        jax.ShapeDtypeStruct((n, *shape), dtype) for n in (graph.heads, graph.kv_heads)
    )
    one = jax.ShapeDtypeStruct(shape, dtype)
    return _bytes(jax.eval_shape(layer, _abstract(block), heads, groups, groups, one))


def _embeds(model: Model, params: PyTree, shapes: Shapes):
    tokens = jax.ShapeDtypeStruct((shapes.batch, shapes.tokens), jnp.int32)
    return jax.eval_shape(model.embed, params, tokens)


def _abstract(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)


def _bytes(tree: PyTree) -> int:
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
