"""One segment of layers of the masked stream, and its derivative written by hand.

Reader r of the segment sees x_r = s_r + sum_w m_rw d_w (see `engine`). Forward, the sums over
the writers of *earlier* segments are one matrix product for all readers, and only the sums over
the segment's own writers go layer by layer. Backward, the outbox `d` is all that was kept:

* every reader's input is recomputed from it, in one product;
* layers are walked from the last, *gathering*: the cotangent of a writer is one product of the
  mask with the cotangents of the readers after it;
* the mask's gradient and the earlier writers' cotangents are one product each, at the end.

What a caller does not differentiate (the weights, as a rule) XLA removes as dead code.

Axes: R readers of the segment, W writers up to its end, S writers of the segment, H query heads,
      G key/value heads, B batch, T tokens, D residual width.
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from edgeprune_jax.graph import Graph
from edgeprune_jax.stream import LayerWrites, Model


class Streams(NamedTuple):
    """What a layer's readers see when every one of their edges is cut."""

    attention: Array  # B T D, or what broadcasts to it
    mlp: Array


def mix(m: Float[Array, "R W"], d: Float[Array, "W B T D"]) -> Float[Array, "R B T D"]:
    """Masked sums over writers, as one flat product, accumulated in float32."""
    x = _matmul(m.astype(d.dtype), _flat(d))
    return x.astype(d.dtype).reshape(m.shape[0], *d.shape[1:])


def correlate(gx: Float[Array, "R B T D"], d: Float[Array, "W B T D"]) -> Float[Array, "R W"]:
    """The mask's gradient: each reader's cotangent against each writer, in float32."""
    return _matmul(_flat(gx), _flat(d).T)


def _matmul(a: Array, b: Array) -> Array:
    """A product of full precision: accelerators would round float32 operands to bfloat16."""
    wide = jnp.promote_types(a.dtype, jnp.float32)
    return jnp.matmul(a, b, precision="highest", preferred_element_type=wide)


def _flat(x: Array) -> Array:
    return x.reshape(x.shape[0], math.prod(x.shape[1:]))


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

    def attend(valid, block, x, stream, ablated):
        x = x + stream
        q, k, v = x[:heads], x[heads : heads + groups], x[heads + groups :]
        written = model.attend(block, q, k, v, valid)
        if written.shape[0] != heads:  # a single head would broadcast, and be wrong in silence
            raise ValueError(f"the mask's graph has {heads} heads, the model {written.shape[0]}")
        return written - ablated

    def mlp(block, x, stream, ablated):
        return model.mlp(block, x + stream) - ablated

    def forward(m, earlier, blocks, streams, ablated, valid):
        before = sum(part.shape[0] for part in earlier)
        sums = mix(m[:, :before], jnp.concatenate(earlier))
        own = []
        for layer, block in enumerate(blocks):
            row, column = layer * n_rows, before + layer * n_columns
            x, x_mlp = sums[row : row + attention_rows], sums[row + attention_rows]
            if own:
                x = x + mix(m[row : row + attention_rows, before:column], jnp.concatenate(own))
            own.append(attend(valid, block, x, streams[layer].attention, ablated[layer].heads))
            reads = m[row + attention_rows, None, before : column + heads]
            x_mlp = x_mlp + mix(reads, jnp.concatenate(own))[0]
            own.append(mlp(block, x_mlp, streams[layer].mlp, ablated[layer].mlp)[None])
        return jnp.concatenate(own)

    def backward(saved, g_own):
        m, earlier, own, blocks, streams, ablated, valid = saved
        before = sum(part.shape[0] for part in earlier)
        outbox = jnp.concatenate((*earlier, own))
        x = mix(_causal(m, before), outbox)
        g_readers, g_blocks, g_streams, g_ablated = [], [], [], []
        for layer in reversed(range(len(blocks))):
            row, column = layer * n_rows, before + layer * n_columns
            g = g_own[layer * n_columns : (layer + 1) * n_columns]
            if g_readers:
                later = m[row + n_rows :, column : column + n_columns]
                g = g + mix(later.T, jnp.concatenate(g_readers))
            mlp_row = row + attention_rows
            inputs = (blocks[layer], x[mlp_row], streams[layer].mlp, ablated[layer].mlp)
            g_block_mlp, gx_mlp, g_stream_mlp, g_ablated_mlp = jax.vjp(mlp, *inputs)[1](g[heads])
            reads = m[mlp_row, column : column + heads, None, None, None].astype(g.dtype)
            inputs = (blocks[layer], x[row:mlp_row], streams[layer].attention, ablated[layer].heads)
            _, pull = jax.vjp(partial(attend, valid), *inputs)
            g_block, gx, g_stream, g_heads = pull(g[:heads] + reads * gx_mlp)
            g_readers = [gx, gx_mlp[None], *g_readers]
            g_blocks.append(jax.tree.map(_sum, g_block, g_block_mlp))
            g_streams.append(Streams(g_stream, g_stream_mlp))
            g_ablated.append(LayerWrites(g_heads, g_ablated_mlp))
        gx = jnp.concatenate(g_readers)
        g_earlier = mix(m[:, :before].T, gx)
        cuts = [sum(part.shape[0] for part in earlier[: i + 1]) for i in range(len(earlier) - 1)]
        return (
            correlate(gx, outbox).astype(m.dtype),
            tuple(jnp.split(g_earlier, cuts)),
            tuple(g_blocks[::-1]),
            tuple(g_streams[::-1]),
            tuple(g_ablated[::-1]),
            None,
        )

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
        return forward(m, earlier, blocks, streams, ablated, valid)

    def keep(m, earlier, blocks, streams, ablated, valid):
        own = forward(m, earlier, blocks, streams, ablated, valid)
        return own, (m, earlier, own, blocks, streams, ablated, valid)

    segment.defvjp(keep, backward)
    return segment
