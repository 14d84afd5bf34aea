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


def plain_forward(
    model: Model,
    params: PyTree,
    tokens: Int[Array, "B T"],
    *,
    valid: Bool[Array, "B T"] | None = None,
    positions: Int[Array, "B A"] | None = None,
) -> Float[Array, "B A V"]:
    """Logits of the ordinary model, at `positions` or everywhere."""
    if valid is None:
        valid = jnp.ones(tokens.shape, bool)
    stream = model.embed(params, tokens).sum(axis=0)
    for block in params.blocks:
        x = stream[None]
        stream = stream + model.attend(block, x, x, x, valid).sum(axis=0)
        stream = stream + model.mlp(block, stream)
    if positions is not None:
        stream = jnp.take_along_axis(stream, positions[..., None], axis=1)
    return model.unembed(params, stream)
