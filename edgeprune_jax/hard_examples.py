"""Batches that come back to the examples on which sampled circuits were wrong.

An edge that matters on one prompt in a thousand is missed by nearly every batch, while its price
is paid in every step. So a share of each batch is drawn from a running memory of failures, one
number per example: how wrong recent masks were there.

Axes: N examples, B examples of a batch.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

MEMORY = 0.9  # of the failures: what a visit leaves of the old number


def no_failures(examples: int) -> Float[Array, " N"]:
    return jnp.zeros(examples, jnp.float32)


def choose(
    usual: Int[np.ndarray, " B"],
    failures: Float[np.ndarray, " N"],
    share: float,
    *,
    seed: int,
    step: int,
) -> Int[np.ndarray, " B"]:
    """The usual rows of a batch, the last `share` of them replaced by recent failures.

    An example is drawn as often as its number says, with repetition. Where nothing has failed,
    the rows stay as they are. The result depends on nothing but the arguments.
    """
    hard = round(share * len(usual))
    weight = np.maximum(np.asarray(failures, np.float64), 0)
    if hard == 0 or not weight.sum() > 0:
        return usual
    drawn = np.random.default_rng((seed, step)).choice(
        len(weight), size=hard, p=weight / weight.sum()
    )
    return np.concatenate([usual[: len(usual) - hard], drawn])


def remember(
    failures: Float[Array, " N"], rows: Int[Array, " B"], wrong: Float[Array, " B"]
) -> Float[Array, " N"]:
    """The failures after a step that saw the examples `rows` go wrong to this degree."""
    return failures.at[rows].set(MEMORY * failures[rows] + (1 - MEMORY) * wrong)
