"""Measures of an answer among ordered choices, such as the years of greater-than.

The distribution is that over the choices alone, renormalised. The pivot is the choice that the
prompt itself names; all after it are right and all before it wrong.

Axes: B examples, C choices in their order.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

WITHIN = 10


def probability_difference(
    logits: Float[Array, "B C"], pivot: Int[Array, " B"], *, within: int | None = None
) -> Float[Array, " B"]:
    """P(choice > pivot) - P(choice < pivot), of choices at most `within` places off if given.

    Hanna et al. 2023; paper section 4.
    """
    distance = jnp.arange(logits.shape[-1]) - pivot[:, None]
    if within is not None:
        distance = jnp.where(jnp.abs(distance) <= within, distance, 0)
    p = jax.nn.softmax(logits.astype(jnp.float32))
    return jnp.sum(p * jnp.sign(distance), axis=-1)


def kendall_tau(a: Float[Array, "B C"], b: Float[Array, "B C"]) -> Float[Array, " B"]:
    """Kendall's tau-b of two rankings of the choices: 1 for the same order, -1 for the opposite.

    Nan where either ranks all choices alike.
    """

    def order(x):
        return jnp.sign(x[:, :, None] - x[:, None, :])

    first, second = order(a.astype(jnp.float32)), order(b.astype(jnp.float32))

    def total(product):
        return jnp.sum(product, axis=(1, 2))

    return total(first * second) / jnp.sqrt(total(first**2) * total(second**2))
