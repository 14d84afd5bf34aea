"""What is minimised: the divergence from the full model, under a constraint on sparsity.

    L = KL(teacher || circuit) + lambda_1 (s - t) + lambda_2 (s - t)^2,

descended in the gates and ascended in the multipliers (paper section 3, equations 4 to 6). s is
the sparsity of the *sampled* mask, as in the reference's code, and t the target of this step; a
target above 1 cannot be reached, and is a way to keep pushing.

Axes: B batch, A scored positions, V vocabulary.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

TOLERANCE = 0.05  # of a decoded number, as in the paper
MOVED = 0.01  # of any output
SCHEDULES = ("linear", "logarithmic")


class Multipliers(NamedTuple):
    """Lagrange multipliers of one sparsity constraint, both 0 at the start."""

    linear: Float[Array, ""]
    quadratic: Float[Array, ""]


def no_multipliers() -> Multipliers:
    return Multipliers(jnp.zeros(()), jnp.zeros(()))


def kl(
    teacher: Float[Array, "B A V"], logits: Float[Array, "B A V"], scored: Float[Array, "B A"]
) -> Float[Array, " B"]:
    """KL(teacher || circuit) in nats for each example, the mean over its scored positions.

    Raises `ValueError` for outputs of one number, between which it is always 0.
    """
    if teacher.shape[-1] == 1:
        raise ValueError("divergence 'kl' of a model that outputs one number is 0: use 'squared'")
    p = jax.nn.log_softmax(teacher.astype(jnp.float32))
    q = jax.nn.log_softmax(logits.astype(jnp.float32))
    return mean_scored(jnp.sum(jnp.exp(p) * (p - q), axis=-1), scored)


def squared_error(
    teacher: Float[Array, "B A V"], logits: Float[Array, "B A V"], scored: Float[Array, "B A"]
) -> Float[Array, " B"]:
    """Squared distance from the teacher's outputs, for models whose outputs are numbers."""
    difference = teacher.astype(jnp.float32) - logits.astype(jnp.float32)
    return mean_scored(jnp.sum(difference**2, axis=-1), scored)


def mistaken(
    teacher: Float[Array, "B A V"], logits: Float[Array, "B A V"], scored: Float[Array, "B A"]
) -> Float[Array, " B"]:
    """1 for each example decoded to something else than the teacher's answer anywhere, else 0.

    Of outputs that are numbers (V is 1), something more than 0.05 off. It has no gradient.
    """
    if teacher.shape[-1] == 1:
        wrong = jnp.abs(teacher - logits)[..., 0] > TOLERANCE
    else:
        wrong = jnp.argmax(teacher, -1) != jnp.argmax(logits, -1)
    return jnp.any(wrong & (scored > 0), axis=-1).astype(jnp.float32)


def moved(
    teacher: Float[Array, "B A V"], logits: Float[Array, "B A V"], scored: Float[Array, "B A"]
) -> Float[Array, " B"]:
    """1 for each example with an output more than 0.01 off the teacher's anywhere, else 0."""
    wrong = jnp.any(jnp.abs(teacher - logits) > MOVED, axis=-1)
    return jnp.any(wrong & (scored > 0), axis=-1).astype(jnp.float32)


DIVERGENCES = {"kl": kl, "squared": squared_error, "mistaken": mistaken, "moved": moved}
WITHOUT_GRADIENT = ("mistaken", "moved")


def mean_scored(values: Float[Array, "B A"], scored: Float[Array, "B A"]) -> Float[Array, " B"]:
    """The mean over the scored positions of each example."""
    # Selected, not multiplied: what is not scored may be nan.
    total = jnp.sum(jnp.where(scored > 0, values * scored, 0), axis=-1)
    return total / jnp.maximum(jnp.sum(scored, axis=-1), 1)


def on_log_scale(distance: Float[Array, ""], floor: float) -> Float[Array, ""]:
    """log(1 + d / floor): far above the floor, halving counts the same wherever it happens."""
    return jnp.log1p(distance / floor)


def constraint(
    multipliers: Multipliers, sparsity: Float[Array, ""], target: Float[Array, ""]
) -> Float[Array, ""]:
    """The Lagrangian's term for one constraint."""
    gap = sparsity - target
    return multipliers.linear * gap + multipliers.quadratic * gap**2


def ramp(step: Array, *, start: float, end: float, steps: int) -> Float[Array, ""]:
    """From `start` to `end` in equal differences over so many steps, then constant."""
    return start + (end - start) * jnp.clip(step / max(steps, 1), 0.0, 1.0)


def target_sparsity(
    step: Array, *, start: float, end: float, warmup: int, kind: str = "linear"
) -> Float[Array, ""]:
    """The target of a step: from `start` to `end` over `warmup` steps, then constant.

    Linear in the sparsity, or ("logarithmic") in the logarithm of the density 1 - s, which needs
    an end below 1.
    """
    if kind == "linear":
        return ramp(step, start=start, end=end, steps=warmup)
    if kind == "logarithmic":
        return 1 - jnp.exp(ramp(step, start=math.log1p(-start), end=math.log1p(-end), steps=warmup))
    raise ValueError(f"schedule must be one of {', '.join(SCHEDULES)}: got {kind!r}")
