"""All layers of the masked stream, and their derivative written by hand.

Reader r sees x_r = s_r + sum_w m_rw d_w (see `engine`). Layers come in segments of a few, as the
blocks of a triangular solve do. Forward, the sums over the writers of *earlier* segments are one
matrix product for all readers of a segment, and only those over its own writers go layer by layer;
what writers add is written into one buffer, the outbox `d`. Backward, the outbox is nearly all that
was kept, and segments are walked from the last, each wholly before the next (barriers see to it,
for what waits holds its inputs):

* the inputs of a segment's readers are computed again from it, in one product; of a layer's insides
  only the results of its matrix products are kept (queries, keys, values, hidden units: narrow);
* within a segment the cotangent of a writer is *gathered*, a product of the mask with the
  cotangents of the readers after it; these take the place of the readers' inputs, layer by layer;
* then come the mask's gradient, one product, and what the segment adds to the cotangents of
  earlier writers, one product for each earlier segment, added in place.

What a caller does not differentiate (the weights, as a rule) XLA removes as dead code.

Axes: R readers of a segment, W writers up to its end, H query heads, G key/value heads, E embedding
      writers, B batch, T tokens, A scored positions, D residual width.
"""

from functools import partial
from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.lax import optimization_barrier as barrier
from jaxtyping import Array, Float

from edgeprune_jax.graph import Edges, Graph
from edgeprune_jax.keeping import call, call_keeping
from edgeprune_jax.masked_sums import STREAMS, correlate, laid_out, mix
from edgeprune_jax.sharding import constrain
from edgeprune_jax.stream import LayerWrites, Model, pick

SEGMENT = 4  # layers: few large products, and little held for one segment


class Streams(NamedTuple):
    """What a layer's readers see when every one of their edges is cut."""

    attention: Array  # B T D, or what broadcasts to it
    mlp: Array


def spans(layers: int, segment: int) -> list[range]:
    """The layers of each segment."""
    return [range(at, min(at + segment, layers)) for at in range(0, layers, segment)]


def segment_masks(mask: Edges, segment: int) -> tuple[Float[Array, "R W"], ...]:
    """The rows of each segment's readers, padded to its writers."""
    rows, _ = mask.rows()
    found = []
    for layers in spans(mask.graph.layers, segment):
        parts = [part for at in layers for part in (rows[at].attention, rows[at].mlp[None])]
        width = mask.graph.sources(layers.stop)
        found.append(
            jnp.concatenate([jnp.pad(p, ((0, 0), (0, width - p.shape[1]))) for p in parts])
        )
    return tuple(found)


def make_layers(model: Model, graph: Graph, segment: int):
    """The masked forward pass of all layers, a function with a custom derivative.

    It maps (`segment_masks`, the final reader's mask "W", the embeddings' differences "E B T D",
    the layers' blocks, their `Streams`, their ablated `LayerWrites`, valid "B T", positions
    "B A" or None) to the masked sum that the final reader sees there, "B A D". Entries of edges
    that do not exist are never read.
    """
    heads, groups = graph.heads, graph.kv_heads
    n_rows = graph.readers_per_layer
    attention_rows = n_rows - 1
    starts = (0, heads, heads + groups, attention_rows)  # of q, k, v and MLP among a layer's rows
    segments = spans(graph.layers, segment)

    def attend(valid, block, q, k, v, stream, ablated):
        written = model.attend(block, q + stream, k + stream, v + stream, valid)
        if written.shape[0] != heads:  # a single head would broadcast, and be wrong in silence
            raise ValueError(f"the mask's graph has {heads} heads, the model {written.shape[0]}")
        return written - ablated

    def qkv(x):
        return x[:heads], x[heads : heads + groups], x[heads + groups : attention_rows]

    def mlp(block, x, stream, ablated):
        return model.mlp(block, x + stream) - ablated

    def forward(ms, final, embeds, blocks, streams, ablated, valid, positions, call):
        dtype = streams[0].mlp.dtype
        outbox = jnp.zeros((graph.n_writers, *embeds.shape[1:]), embeds.dtype)
        outbox, kept = _put(outbox, embeds, 0), []
        for m, layers in zip(ms, segments, strict=True):
            before = graph.sources(layers.start)
            sums = mix(m[:, :before], outbox[:before], dtype)
            for layer in layers:
                row, column = layers.index(layer) * n_rows, graph.sources(layer)
                own = slice(before, column)
                x = mix(m[row : row + n_rows, own], outbox[own], dtype, sums[row : row + n_rows])
                inputs = (blocks[layer], *qkv(x), streams[layer].attention, ablated[layer].heads)
                wrote, kept_attention = call(partial(attend, valid), *inputs)
                wrote = constrain(wrote.astype(outbox.dtype), STREAMS)
                reads = m[row + attention_rows, None, column : column + heads]
                x_mlp = mix(reads, wrote, dtype, x[attention_rows:])[0]
                inputs = (blocks[layer], x_mlp, streams[layer].mlp, ablated[layer].mlp)
                mlp_wrote, kept_mlp = call(mlp, *inputs)
                mlp_wrote = constrain(mlp_wrote.astype(outbox.dtype)[None], STREAMS)
                outbox = _put(_put(outbox, wrote, column), mlp_wrote, column + heads)
                kept.append((kept_attention, kept_mlp))
        return mix(final[None], pick(outbox, positions), dtype)[0], outbox, kept

    def backward(saved, g_read):
        ms, final, outbox, blocks, streams, ablated, positions, kept = saved
        dtype = streams[0].mlp.dtype
        of_blocks, of_streams, of_ablated, of_masks = [], [], [], []
        of_final = correlate(g_read[None], pick(outbox, positions))[0].astype(final.dtype)
        spread = jax.linear_transpose(partial(pick, positions=positions), outbox[:1])
        (g_final,) = spread(g_read[None].astype(outbox.dtype))
        # One part for the embeddings, and one for the writers of each segment.
        parts = list(pairwise([0, *(graph.sources(at.start) for at in segments), len(outbox)]))
        cotangents = [mix(final[slice(*part), None], g_final, outbox.dtype) for part in parts]
        for at, layers in reversed(list(enumerate(segments))):
            before, width = parts[at + 1]
            m, g_own = ms[at], cotangents.pop()
            seen = _first(width, outbox, g_own)
            x = laid_out(mix(_causal(m, before), seen, dtype))
            for layer in reversed(layers):
                row, column = layers.index(layer) * n_rows, graph.sources(layer)
                mlp_row, after = row + attention_rows, row + n_rows
                later = m[after:, column : column + heads + 1]
                g = g_own[column - before : column - before + heads + 1]
                g = mix(later.T, x[after:], dtype, g)
                pull_attention, pull_mlp = kept[layer]
                inputs = (blocks[layer], x[mlp_row], streams[layer].mlp, ablated[layer].mlp)
                g_block_mlp, gx_mlp, g_stream_mlp, g_ablated_mlp = pull_mlp(inputs, g[heads])
                reads = m[mlp_row, column : column + heads, None, None, None].astype(dtype)
                cut = (streams[layer].attention, ablated[layer].heads)
                inputs = (blocks[layer], *qkv(x[row:after]), *cut)
                g_block, *gx, g_stream, g_heads = pull_attention(inputs, g[:heads] + reads * gx_mlp)
                # Every reader's input is read before the first is overwritten, else it is copied.
                x, gx = barrier((x, (*gx, gx_mlp[None])))
                for part, start in zip(gx, starts, strict=True):
                    x = _put(x, part, row + start)
                of_blocks.append(jax.tree.map(_sum, g_block, g_block_mlp))
                of_streams.append(Streams(g_stream, g_stream_mlp))
                of_ablated.append(LayerWrites(g_heads, g_ablated_mlp))
            gx, of_mask = barrier((x, correlate(x, seen).astype(m.dtype)))
            of_masks.append(of_mask)
            cotangents = barrier([
                mix(m[:, start:stop].T, gx, outbox.dtype, onto)
                for (start, stop), onto in zip(parts, cotangents, strict=False)  # of earlier ones
            ])
        given = (tuple(g[::-1]) for g in (of_blocks, of_streams, of_ablated))
        return tuple(of_masks[::-1]), of_final, *cotangents, *given, None, None

    def _causal(m, before):
        """Zeroes what lies in the segment's own block but is no edge."""
        rows = jnp.arange(m.shape[0])[:, None]
        columns = jnp.arange(m.shape[1])[None]
        limit = before + (rows // n_rows) * (heads + 1) + heads * (rows % n_rows == attention_rows)
        return jnp.where(columns < limit, m, 0)

    @jax.custom_vjp
    def layers(ms, final, embeds, blocks, streams, ablated, valid, positions):
        return forward(ms, final, embeds, blocks, streams, ablated, valid, positions, call)[0]

    def keep(ms, final, embeds, blocks, streams, ablated, valid, positions):
        inputs = (ms, final, embeds, blocks, streams, ablated, valid, positions)
        read, outbox, kept = forward(*inputs, call_keeping)
        return read, (ms, final, outbox, blocks, streams, ablated, positions, kept)

    layers.defvjp(keep, backward)
    return layers


def _put(whole: Array, part: Array, at: int) -> Array:
    """`whole` with `part` at its place along the first axis; XLA writes it in place."""
    return laid_out(jax.lax.dynamic_update_slice_in_dim(whole, part, at, 0))


def _first(n: int, outbox: Array, g: Array) -> Array:
    """The first `n` writers of the outbox, but not before `g` is known.

    Else XLA may slice it, and recompute inputs from it, for all segments before it needs the
    first, and hold them. It heeds a dependence; its own barriers are gone when it orders a
    CPU's program.
    """
    zero = (0 * g[(0,) * g.ndim]).astype(int)
    return jax.lax.dynamic_slice_in_dim(outbox, zero, n)


def _sum(a: Array, b: Array) -> Array:
    return a if a.dtype == jax.dtypes.float0 else a + b
