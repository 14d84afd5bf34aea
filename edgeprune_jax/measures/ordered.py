"""Measures of an answer among ordered choices, such as the years of greater-than.

The distribution is that over the choices alone, renormalised. The pivot is the choice that the
prompt itself names; all after it are right and all before it wrong.

Axes: B examples, A scored positions, V vocabulary, C choices in their order.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from edgeprune_jax.objectives import kl
from edgeprune_jax.tasks.batch import Batch

YEARS = 100  # that the choices of greater-than span: one by one, or by decades
WITHIN = 10  # of them


def ordered_measures(
    teacher: Float[Array, "B A V"], logits: Float[Array, "B A V"], batch: Batch
) -> dict[str, Float[Array, " B"]]:
    """What is measured of each example at its answer, of data with ordered choices.

    `accuracy`, whether the token with the largest logit of all is a right choice;
    `choice_kl`, KL(teacher || circuit) in nats over the choices (the paper's KL for
    greater-than); `probability_difference`, also `within_10_years` of the pivot, where a choice
    may be a decade; and `kendall_tau` with the teacher.
    """
    best = jnp.argmax(_answer(logits, batch), axis=-1)[:, None]
    right = (batch.choices == best) & (jnp.arange(batch.choices.shape[1]) > batch.pivots[:, None])
    teacher, logits = choice_logits(teacher, batch), choice_logits(logits, batch)
    within = max(WITHIN * logits.shape[1] // YEARS, 1)
    one = jnp.ones((len(logits), 1))
    return {
        "accuracy": right.any(axis=1).astype(jnp.float32),
        "choice_kl": kl(teacher[:, None], logits[:, None], one),
        "probability_difference": probability_difference(logits, batch.pivots),
        "within_10_years": probability_difference(logits, batch.pivots, within=within),
        "kendall_tau": kendall_tau(teacher, logits),
    }


def choice_logits(logits: Float[Array, "B A V"], batch: Batch) -> Float[Array, "B C"]:
    """The logits of the choices at the answer, the first scored position."""
    return jnp.take_along_axis(_answer(logits, batch), batch.choices, axis=1)


def _answer(logits: Float[Array, "B A V"], batch: Batch) -> Float[Array, "B V"]:
    first = jnp.argmax(batch.scored, axis=1)[:, None, None]
    return jnp.take_along_axis(logits, first, axis=1)[:, 0]


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
