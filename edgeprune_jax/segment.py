"""One segment of layers of the masked stream, and its derivative written by hand.

Reader r of the segment sees x_r = s_r + sum_w m_rw d_w (see `engine`). Forward, the sums over
the writers of *earlier* segments are one matrix product for all readers, and only the sums over
the segment's own writers go layer by layer. Backward, the outbox `d` is nearly all that was kept:

* every reader's input is recomputed from it, in one product; of a layer's insides only the
  results of its matrix products are kept (queries, keys, values, hidden units: they are narrow);
* layers are walked from the last, *gathering*: the cotangent of a writer is a product of the
  mask with the cotangents of the readers after it;
* the mask's gradient and the earlier writers' cotangents are one product each, at the end.

What a caller does not differentiate (the weights, as a rule) XLA removes as dead code.

Axes: R readers of the segment, W writers up to its end, S writers of the segment, H query heads,
      G key/value heads, B batch, T tokens, D residual width.
"""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from edgeprune_jax.graph import Graph
from edgeprune_jax.sharding import constrain
from edgeprune_jax.stream import LayerWrites, Model, add

STREAMS = "- B - D"  # how the outbox, readers' inputs and cotangents are split (`sharding`)


class Streams(NamedTuple):
    """What a layer's readers see when every one of their edges is cut."""

    attention: Array  # B T D, or what broadcasts to it
    mlp: Array


def default_segment(layers: int) -> int:
    """Layers in a segment, a third of them: few large products, and little held for one segment."""
    return math.ceil(layers / 3)


def mix(
    m: Float[Array, "R W"], d: Float[Array, "W B T D"], dtype: DTypeLike
) -> Float[Array, "R B T D"]:
    """Masked sums over writers, as one product, accumulated in float32, cast to `dtype`."""
    return constrain(_product(m.astype(d.dtype), d, 1).astype(dtype), STREAMS)


def correlate(gx: Float[Array, "R B T D"], d: Float[Array, "W B T D"]) -> Float[Array, "R W"]:
    """The mask's gradient: each reader's cotangent against each writer, in float32."""
    gx = gx.astype(d.dtype)
    if jax.sharding.get_abstract_mesh().empty:
        # XLA for CPUs holds less for one flat product; flattened, a split width would be gathered.
        gx, d = (x.reshape(x.shape[0], math.prod(x.shape[1:])) for x in (gx, d))
    axes = tuple(range(1, d.ndim))
    return _product(gx, d, (axes, axes))


def _product(a: Array, b: Array, axes: Any) -> Array:
    """A product of full precision: accelerators would round float32 operands to bfloat16."""
    wide = jnp.promote_types(a.dtype, jnp.float32)
    return jnp.tensordot(a, b, axes, precision="highest", preferred_element_type=wide)


def call(function, *inputs):
    """The result, and nothing kept."""
    return function(*inputs), None


def call_keeping(function, *inputs):
    """The result, and a function (inputs, cotangent) -> cotangents that keeps only products.

    The inputs are not kept: they are many times larger than the products, and are given again.
    """
    policy = jax.checkpoint_policies.dots_saveable
    out, pull = jax.vjp(jax.checkpoint(function, policy=policy, prevent_cse=False), *inputs)
    leaves, tree = jax.tree.flatten(pull)
    place = {id(leaf): index for index, leaf in enumerate(jax.tree.leaves(inputs))}
    given = [place.get(id(leaf)) for leaf in leaves]
    kept = [leaf for leaf, index in zip(leaves, given, strict=True) if index is None]
    return out, Partial(partial(_pull, tree, given), kept)


def _pull(tree, given, kept, inputs, g):
    again, kept = jax.tree.leaves(inputs), iter(kept)
    leaves = [next(kept) if index is None else again[index] for index in given]
    return jax.tree.unflatten(tree, leaves)(g)


def make_segment(model: Model, graph: Graph):
    """The masked forward pass of consecutive layers, a function with a custom derivative.

    It maps (m "R W", the outbox of earlier writers as a tuple of "_ B T D", the layers' blocks,
    their `Streams`, their ablated `LayerWrites`, valid "B T") to the differences "S B T D" that
    the segment's writers add to the outbox. Rows and columns of `m` are in graph order; entries
    of edges that do not exist are never read.
    """
    heads, groups = graph.heads, graph.kv_heads
    n_rows, n_columns = graph.readers_per_layer, heads + 1
    attention_rows = n_rows - 1

    def attend(valid, block, q, k, v, stream, ablated):
        written = model.attend(block, q + stream, k + stream, v + stream, valid)
        if written.shape[0] != heads:  # a single head would broadcast, and be wrong in silence
            raise ValueError(f"the mask's graph has {heads} heads, the model {written.shape[0]}")
        return written - ablated

    def qkv(x):
        return x[:heads], x[heads : heads + groups], x[heads + groups : attention_rows]

    def mlp(block, x, stream, ablated):
        return model.mlp(block, x + stream) - ablated

    def forward(m, earlier, blocks, streams, ablated, valid, call):
        before = sum(part.shape[0] for part in earlier)
        outbox_dtype, dtype = earlier[0].dtype, streams[0].mlp.dtype
        sums = mix(m[:, :before], jnp.concatenate(earlier), dtype)
        own, kept = [], []
        for layer, block in enumerate(blocks):
            row, column = layer * n_rows, before + layer * n_columns
            x, mlp_row = sums[row : row + n_rows], row + attention_rows
            if own:
                x = x + mix(m[row : row + n_rows, before:column], jnp.concatenate(own), dtype)
            inputs = (block, *qkv(x), streams[layer].attention, ablated[layer].heads)
            heads_wrote, kept_attention = call(partial(attend, valid), *inputs)
            own.append(constrain(heads_wrote.astype(outbox_dtype), STREAMS))
            reads = m[mlp_row, None, column : column + heads]
            x_mlp = x[attention_rows] + mix(reads, own[-1], dtype)[0]
            mlp_wrote, kept_mlp = call(mlp, block, x_mlp, streams[layer].mlp, ablated[layer].mlp)
            own.append(constrain(mlp_wrote.astype(outbox_dtype)[None], STREAMS))
            kept.append((kept_attention, kept_mlp))
        return jnp.concatenate(own), kept

    def backward(saved, g_own):
        m, earlier, own, blocks, streams, ablated, kept = saved
        before = sum(part.shape[0] for part in earlier)
        dtype = streams[0].mlp.dtype
        outbox = jnp.concatenate((*earlier, own))
        x = mix(_after(g_own, _causal(m, before)), outbox, dtype)
        g_readers, g_blocks, g_streams, g_ablated = [], [], [], []
        for layer in reversed(range(len(blocks))):
            row, column = layer * n_rows, before + layer * n_columns
            g = constrain(g_own[layer * n_columns : (layer + 1) * n_columns].astype(dtype), STREAMS)
            later = m[row + n_rows :, column : column + n_columns].T
            g = add(g, *(
                mix(later[:, at * n_rows : (at + 1) * n_rows], gx, dtype)
                for at, gx in enumerate(g_readers)
            ))
            mlp_row = row + attention_rows
            inputs = (blocks[layer], x[mlp_row], streams[layer].mlp, ablated[layer].mlp)
            pull_attention, pull_mlp = kept[layer]
            g_block_mlp, gx_mlp, g_stream_mlp, g_ablated_mlp = pull_mlp(inputs, g[heads])
            reads = m[mlp_row, column : column + heads, None, None, None].astype(dtype)
            attention = (streams[layer].attention, ablated[layer].heads)
            inputs = (blocks[layer], *qkv(x[row:mlp_row]), *attention)
            g_heads_wrote = g[:heads] + reads * gx_mlp
            g_block, *gx, g_stream, g_heads = pull_attention(inputs, g_heads_wrote)
            gx = constrain(jnp.concatenate((*gx, gx_mlp[None])), STREAMS)
            g_readers = [gx, *g_readers]
            g_blocks.append(jax.tree.map(_sum, g_block, g_block_mlp))
            g_streams.append(Streams(g_stream, g_stream_mlp))
            g_ablated.append(LayerWrites(g_heads, g_ablated_mlp))
        gx = jnp.concatenate(g_readers)
        g_earlier = mix(m[:, :before].T, gx, outbox.dtype)
        cuts = [sum(part.shape[0] for part in earlier[: i + 1]) for i in range(len(earlier) - 1)]
        return (
            correlate(gx, outbox).astype(m.dtype),
            tuple(jnp.split(g_earlier, cuts)),
            tuple(g_blocks[::-1]),
            tuple(g_streams[::-1]),
            tuple(g_ablated[::-1]),
            None,
        )

    def _after(g, m):
        """`m`, but not before `g` is known.

        Else XLA may recompute the inputs of all segments before it needs the first, and hold
        them. It heeds a dependence; its own barriers are gone when it orders a CPU's program.
        """
        return m + 0 * g[(0,) * g.ndim].astype(m.dtype)

    def _causal(m, before):
        """Zeroes what lies in the segment's own block but is no edge."""
        rows = jnp.arange(m.shape[0])[:, None]
        columns = jnp.arange(m.shape[1])[None]
        limit = before + (rows // n_rows) * n_columns + heads * (rows % n_rows == attention_rows)
        return jnp.where(columns < limit, m, 0)

    def _sum(a, b):
        return a if a.dtype == jax.dtypes.float0 else a + b

    @jax.custom_vjp
    def segment(m, earlier, blocks, streams, ablated, valid):
        return forward(m, earlier, blocks, streams, ablated, valid, call)[0]

    def keep(m, earlier, blocks, streams, ablated, valid):
        own, kept = forward(m, earlier, blocks, streams, ablated, valid, call_keeping)
        return own, (m, earlier, own, blocks, streams, ablated, kept)

    segment.defvjp(keep, backward)
    return segment
