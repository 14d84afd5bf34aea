"""The masked forward pass: the one place where an edge is kept or cut.

Reader r sees what it would see with all its edges cut, plus its masked differences,

    x_r = s_r + sum_w  m_rw d_w,        d_w = y_w - c_w,

where y_w is what writer w writes in this run, c_w what a cut edge carries instead, and s_r the
sum of the c_w before r. Under interchange ablation c comes from the corrupted prompt, so that a
mask of ones is the model and a mask of zeros the corrupted run; under mean ablation it is the
writer's mean, under zero ablation nothing.

The pass through the layers and its derivative are in `masked_layers`. For the backward pass are
kept the outbox of differences and the products inside every layer; readers' inputs of a few layers
at a time are computed again (`cost.step_bytes` counts all of it).

Axes: E embedding writers, W writers, H query heads, B batch, T tokens, A scored positions,
      D residual width, V vocabulary.
"""

import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, PyTree

from edgeprune_jax.ablation import ablated_writes
from edgeprune_jax.graph import Edges, Graph
from edgeprune_jax.masked_layers import SEGMENT, Streams, make_layers, segment_masks
from edgeprune_jax.stream import Model, Writes, add, all_valid, pick


def masked_forward(
    model: Model,
    params: PyTree,
    tokens: Int[Array, "B T"],
    mask: Edges,
    *,
    corrupted_tokens: Int[Array, "B T"] | None = None,
    ablation: str | Writes = "interchange",
    valid: Bool[Array, "B T"] | None = None,
    positions: Int[Array, "B A"] | None = None,
    outbox_dtype: DTypeLike | None = None,
    segment: int | None = None,
) -> Float[Array, "B A V"]:
    """Logits of the model with every edge scaled between its own and its ablated value.

    `mask` holds one number per edge: 1 keeps it, 0 cuts it, and it may be differentiated.
    `corrupted_tokens` are the prompts that interchange takes cut edges from (token by token)
    and that mean ablation averages over (by default `tokens` themselves); `ablation` may also
    be `Writes`, computed beforehand by `ablated_writes`. Where the mask's graph has no embedding
    writers, the clean embedding reaches every reader. Logits are at `positions`, or at every
    token. `outbox_dtype` is that of the kept differences and of their products with the mask
    (accumulated in float32): bfloat16 halves the outbox on devices that multiply in bfloat16;
    by default it is the model's own. `segment` is the number of layers in a block, a matter of
    speed and memory alone.

    Raises `ValueError` for shapes that do not fit each other (paper section 3; equation above).
    """
    _check(params, tokens, mask, corrupted_tokens, ablation)
    _check_shapes(tokens, valid, positions, segment)
    if outbox_dtype is not None and not jnp.issubdtype(outbox_dtype, jnp.floating):
        raise ValueError(f"outbox_dtype must be a floating type: got {outbox_dtype}")
    graph = mask.graph
    valid = all_valid(tokens, valid)
    if isinstance(ablation, str):
        reference = tokens if corrupted_tokens is None else corrupted_tokens
        ablation = ablated_writes(model, params, reference, ablation, valid=valid)
    embeds = model.embed(params, tokens)
    _check_embeddings(embeds.shape[0], graph)
    streams, final = _cut_streams(ablation, embeds, graph)
    differences = embeds - ablation.embeds if graph.embeddings else embeds[:0]
    segment = segment or SEGMENT
    layers = make_layers(model, graph, segment)
    read = layers(
        segment_masks(mask, segment), mask.rows()[1],
        differences.astype(outbox_dtype or embeds.dtype), tuple(params.blocks), streams,
        ablation.layers, valid, positions,
    )  # fmt: skip
    final = jnp.broadcast_to(final, embeds.shape[1:])
    return model.unembed(params, pick(final[None], positions)[0] + read)


def _cut_streams(ablated: Writes, embeds: Float[Array, "E B T D"], graph: Graph):
    """The stream at every reader when all edges are cut."""
    stream = add(*(ablated.embeds if graph.embeddings else embeds))
    streams = []
    for layer in ablated.layers:
        middle = add(stream, *layer.heads)
        streams.append(Streams(stream, middle))
        stream = middle + layer.mlp
    return tuple(streams), stream


def _check(params, tokens, mask, corrupted_tokens, ablation):
    graph = mask.graph
    if len(params.blocks) != graph.layers:
        raise ValueError(
            f"the mask's graph has {graph.layers} layers, the model {len(params.blocks)}"
        )
    if mask.values.shape != (graph.n_edges,):
        raise ValueError(
            f"mask values must have shape ({graph.n_edges},), one per edge: got {mask.values.shape}"
        )
    if corrupted_tokens is None and isinstance(ablation, str) and ablation == "interchange":
        raise ValueError("interchange ablation needs corrupted_tokens: got None")
    if corrupted_tokens is not None and corrupted_tokens.shape != tokens.shape:
        raise ValueError(
            "corrupted_tokens must have the shape of tokens, aligned token by token: got "
            f"{corrupted_tokens.shape} and {tokens.shape}"
        )
    if isinstance(ablation, Writes):
        if len(ablation.layers) != graph.layers:
            raise ValueError(
                f"the mask's graph has {graph.layers} layers, the ablation {len(ablation.layers)}"
            )
        shape = ablation.embeds.shape[-3:-1]
        if shape not in ((1, 1), tokens.shape):
            raise ValueError(
                f"the ablation must be of prompts of shape {tokens.shape}, or of means: got {shape}"
            )


def _check_shapes(tokens, valid, positions, segment):
    if segment is not None and segment < 1:
        raise ValueError(f"segment must be at least 1 layer: got {segment}")
    if valid is not None and valid.shape != tokens.shape:
        raise ValueError(f"valid must have the shape of tokens {tokens.shape}: got {valid.shape}")
    if positions is not None and (positions.ndim != 2 or len(positions) != len(tokens)):
        raise ValueError(
            f"positions must have a row for each of {len(tokens)} prompts: got {positions.shape}"
        )


def _check_embeddings(count: int, graph: Graph):
    if graph.embeddings and count != len(graph.embeddings):
        raise ValueError(
            f"the mask's graph has {len(graph.embeddings)} embedding writers "
            f"{graph.embeddings}, the model writes {count}"
        )
