"""The layers that transformers share: norms, rotary embedding, and attention.

Axes: H query heads, G key/value heads (H is a multiple of G), B batch, T query positions,
      S key positions, K head width, D residual width.

Statistics and softmax are computed in float32 at least, whatever the dtype of the weights, and
the result is cast back: a circuit's losses are small differences of logits.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float


def at_least_float32(dtype: DTypeLike) -> np.dtype:
    """Float32 for narrower numbers; float64 stays what it is."""
    return jnp.promote_types(dtype, jnp.float32)


def rms_norm(
    x: Float[Array, "... D"], weight: Float[Array, " D"], *, eps: float
) -> Float[Array, "... D"]:
    """Divides by the root mean square over the last axis."""
    wide = x.astype(at_least_float32(x.dtype))
    scale = jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + eps)
    return (wide * scale).astype(x.dtype) * jnp.broadcast_to(weight, x.shape)


def layer_norm(
    x: Float[Array, "... D"],
    weight: Float[Array, " D"],
    bias: Float[Array, " D"],
    *,
    eps: float,
) -> Float[Array, "... D"]:
    """Subtracts the mean over the last axis and divides by the standard deviation."""
    wide = x.astype(at_least_float32(x.dtype))
    wide = wide - jnp.mean(wide, axis=-1, keepdims=True)
    scale = jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + eps)
    normal = (wide * scale).astype(x.dtype)
    return normal * jnp.broadcast_to(weight, x.shape) + jnp.broadcast_to(bias, x.shape)


def rotary(
    x: Float[Array, "N B T K"], frequencies: Float[np.ndarray, " half"]
) -> Float[Array, "N B T K"]:
    """Rotates pairs of coordinates, `i` and `i + K/2`, by position times frequency."""
    # Numpy: the angles are constants of the trace. Float64 keeps long positions exact.
    angles = np.outer(np.arange(x.shape[2]), frequencies)
    wide = at_least_float32(x.dtype)
    cos = jnp.asarray(np.cos(angles), wide)[None, None]
    sin = jnp.asarray(np.sin(angles), wide)[None, None]
    first, second = jnp.split(x.astype(wide), 2, axis=-1)
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return turned.astype(x.dtype)


def attention(
    q: Float[Array, "H B T K"],
    k: Float[Array, "G B S K"],
    v: Float[Array, "G B S K"],
    *,
    causal: bool,
    valid: Bool[Array, "B S"] | None = None,
) -> Float[Array, "H B T K"]:
    """Scaled dot-product attention; query head h attends to the keys of group h // (H/G).

    `valid` marks the keys that are not padding. Where a query sees no key at all, it
    attends to all of them alike, so that padding never makes a NaN.
    """
    heads, batch, queries, width = q.shape
    groups, _, keys, _ = k.shape
    q = q.reshape(groups, heads // groups, batch, queries, width)
    wide = at_least_float32(q.dtype)
    scores = jnp.einsum("gnbtk,gbsk->gbnts", q, k, preferred_element_type=wide)
    scores = scores / np.sqrt(width)
    hidden = jnp.finfo(jnp.float32).min
    if causal:
        seen = np.tri(queries, keys, dtype=bool)[None, None, None]
        scores = jnp.where(seen, scores, hidden)
    if valid is not None:
        scores = jnp.where(valid[None, :, None, None, :], scores, hidden)
    pattern = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
    return jnp.einsum("gbnts,gbsk->gnbtk", pattern, v).reshape(heads, batch, queries, width)
