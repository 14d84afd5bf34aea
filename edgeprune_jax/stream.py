"""The residual stream of a transformer, and what a family of models has to provide.

Axes: E embedding writers, H query heads, G key/value heads, B batch, T tokens, A scored
      positions, D residual width, V vocabulary.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree


class Model(NamedTuple):
    """The four pure functions in which one family of transformers differs from another.

    `params` is any pytree with a field `blocks`, a tuple of one pytree per layer. Norms belong
    to the function that reads. The reader axis of an input (H or G) may have length 1: then
    all readers share that input, as they do in an ordinary forward pass; `einsum` broadcasts
    it. `valid` marks the tokens that are not padding; a causal model, padded on the right, may
    ignore it. A bias of the output projection belongs to the heads, an equal part to each.
    """

    embed: Callable  # params, tokens "B T" -> "E B T D", one per embedding writer
    attend: Callable  # block, x_q "H B T D", x_k "G B T D", x_v "G B T D", valid -> "H B T D"
    mlp: Callable  # block, x "B T D" -> "B T D"
    unembed: Callable  # params, x "B A D" -> "B A V"


class LayerWrites(NamedTuple):
    """What one layer writes."""

    heads: Array  # H B T D
    mlp: Array  # B T D


class Writes(NamedTuple):
    """What every writer of a model writes."""

    embeds: Array  # E B T D
    layers: tuple[LayerWrites, ...]


def add(first: Array, *rest: Array) -> Array:
    """The sum of arrays, as a chain that XLA fuses into one pass (a reduction it does not)."""
    for term in rest:
        first = first + term
    return first


def all_valid(tokens: Int[Array, "B T"], valid: Bool[Array, "B T"] | None) -> Bool[Array, "B T"]:
    """`valid`, or nothing but valid tokens where it is not given."""
    return jnp.ones(tokens.shape, bool) if valid is None else valid


def pick(
    x: Float[Array, "N B T D"], positions: Int[Array, "B A"] | None
) -> Float[Array, "N B A D"]:
    """The entries at `positions` of each example; everything where there are none."""
    if positions is None:
        return x
    return jnp.take_along_axis(x, positions[None, :, :, None], axis=2)


def plain_run(
    model: Model,
    params: PyTree,
    tokens: Int[Array, "B T"],
    *,
    valid: Bool[Array, "B T"] | None = None,
) -> tuple[Float[Array, "B T D"], Writes]:
    """Runs the ordinary model: the stream before the unembedding, and all that was written."""
    valid = all_valid(tokens, valid)
    embeds = model.embed(params, tokens)
    stream, layers = add(*embeds), []
    for block in params.blocks:
        x = stream[None]
        heads = model.attend(block, x, x, x, valid)
        stream = add(stream, *heads)
        out = model.mlp(block, stream)
        stream = stream + out
        layers.append(LayerWrites(heads, out))
    return stream, Writes(embeds, tuple(layers))


def plain_forward(
    model: Model,
    params: PyTree,
    tokens: Int[Array, "B T"],
    *,
    valid: Bool[Array, "B T"] | None = None,
    positions: Int[Array, "B A"] | None = None,
) -> Float[Array, "B A V"]:
    """Logits of the ordinary model, at `positions` or at every token."""
    stream, _ = plain_run(model, params, tokens, valid=valid)
    return model.unembed(params, pick(stream[None], positions)[0])
