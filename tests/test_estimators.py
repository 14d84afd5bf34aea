"""Both estimators have the gradient of what they estimate as their mean."""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edgeprune_jax import estimators, gates

LOG_ALPHA = np.array([-1.2, 0.3, 2.0, -0.4], np.float32)
MASKS = np.array(list(product([0, 1], repeat=4)), np.float32)
TABLE = np.random.default_rng(0).normal(size=16).astype(np.float32) + 5  # any loss whatsoever


def look_up(masks):
    """A loss that is defined on binary masks alone."""
    mask = jnp.concatenate(masks)
    value = jnp.asarray(TABLE)[(mask @ jnp.array([8.0, 4.0, 2.0, 1.0])).astype(int)]
    return value, value


def smooth(masks):
    value = jnp.sum(jnp.concatenate(masks) * jnp.array([1.0, -2.0, 0.5, 3.0]))
    return value, value


def no_penalty(trainable, masks):
    return jnp.zeros(()), {}


def quadratic(trainable, masks):
    """With a multiplier of its own, as the Lagrangian has."""
    cost = trainable["multiplier"] * jnp.mean(jnp.concatenate(masks)) ** 2
    return cost, {"cost": cost}


def split(trainable):
    return trainable["edges"], trainable["nodes"]


TRAINABLE = {
    "edges": jnp.asarray(LOG_ALPHA[:3]), "nodes": jnp.asarray(LOG_ALPHA[3:]),
    "multiplier": jnp.float32(2.0),
}  # fmt: skip


def estimate(name, loss, penalty, *, samples, repeats, seed=0):
    """Gradients of the gates, one row each repetition, with those of the multiplier last."""
    keys = jax.random.split(jax.random.key(seed), (repeats, samples))
    one = estimators.ESTIMATORS[name]
    found, report = jax.jit(jax.vmap(lambda keys: one(loss, penalty, TRAINABLE, split, keys=keys)))(
        keys
    )
    columns = [found["edges"], found["nodes"], found["multiplier"][:, None]]
    return np.asarray(jnp.concatenate(columns, axis=1), np.float64), report


def exact(log_alpha):
    """The expected loss and its gradient, from all 16 masks."""
    p = 1 / (1 + np.exp(-log_alpha.astype(np.float64)))
    weight = np.prod(np.where(MASKS == 1, p, 1 - p), axis=1)
    return weight @ TABLE, ((MASKS - p) * (weight * TABLE)[:, None]).sum(0)


@pytest.mark.parametrize("samples", [2, 5])
def test_the_score_estimate_is_unbiased_for_a_loss_without_a_gradient(samples):
    found, (value, _) = estimate("score", look_up, no_penalty, samples=samples, repeats=40_000)
    mean, gradient = exact(LOG_ALPHA)
    error = found.std(0)[:4] / len(found) ** 0.5
    assert (error < 0.01).all()
    assert (np.abs(found.mean(0)[:4] - gradient) < 4.5 * error).all()
    assert np.mean(value) == pytest.approx(mean, abs=0.02)


def test_a_constant_does_not_disturb_the_score_estimate():
    few = {"samples": 4, "repeats": 500}
    plain, _ = estimate("score", look_up, no_penalty, **few)
    shifted, _ = estimate(
        "score", lambda masks: (look_up(masks)[0] + 1000, jnp.zeros(())), no_penalty, **few
    )
    np.testing.assert_allclose(shifted, plain, atol=1e-3)
    assert plain.std(0)[:4].min() > 0.05


def test_the_score_estimate_of_the_penalty_has_no_noise():
    found, (_, report) = estimate(
        "score", lambda masks: (jnp.zeros(()), jnp.zeros(())), quadratic, samples=3, repeats=10
    )
    p = 1 / (1 + np.exp(-LOG_ALPHA))
    expected = [*(2 * 2 * p.mean() / 4 * p * (1 - p)), p.mean() ** 2]
    np.testing.assert_allclose(found, np.tile(expected, (10, 1)), rtol=1e-5)
    np.testing.assert_allclose(report["cost"], 2 * p.mean() ** 2, rtol=1e-5)


def test_the_pathwise_estimate_is_unbiased_for_hard_concrete_masks():
    found, _ = estimate("pathwise", smooth, quadratic, samples=2, repeats=20_000)
    grid = jnp.asarray((np.arange(200_000) + 0.5) / 200_000, jnp.float32)  # of the noise

    def means(log_alpha):
        s = jax.nn.sigmoid((jnp.log(grid) - jnp.log1p(-grid) + log_alpha) / gates.TEMPERATURE)
        z = jnp.clip(s * (gates.UPPER - gates.LOWER) + gates.LOWER, 0, 1)
        return z.mean(), (z**2).mean()

    def expected(log_alpha):
        first, second = jax.vmap(means)(log_alpha)
        linear = jnp.sum(first * jnp.array([1.0, -2.0, 0.5, 3.0]))
        return linear + 2 * (jnp.sum(first) ** 2 + jnp.sum(second - first**2)) / 16

    gradient = np.asarray(jax.grad(expected)(jnp.asarray(LOG_ALPHA)))
    error = found.std(0)[:4] / len(found) ** 0.5
    assert (np.abs(found.mean(0)[:4] - gradient) < 4.5 * error + 1e-4).all()
    assert (error < 0.02).all()


def test_masks_are_evaluated_in_the_same_way_however_many_there_are():
    """More masks than are evaluated side by side, and no multiple of them."""
    samples = 2 * estimators.AT_ONCE + 3
    found, (value, _) = estimate("score", look_up, no_penalty, samples=samples, repeats=3)
    keys = jax.random.split(jax.random.key(0), (3, samples))
    for row, some, mean in zip(found, keys, value, strict=True):
        masks, losses = [], []
        for key in some:
            edges, nodes = jax.random.split(key)
            draw = [
                gates.sample_binary(TRAINABLE["edges"], key=edges),
                gates.sample_binary(TRAINABLE["nodes"], key=nodes),
            ]
            masks.append(np.concatenate(draw))
            losses.append(float(look_up(draw)[0]))
        advantage = (np.array(losses) - np.mean(losses)) / (samples - 1)
        p = 1 / (1 + np.exp(-LOG_ALPHA))
        np.testing.assert_allclose(row[:4], advantage @ (np.array(masks) - p), atol=1e-4)
        assert float(mean) == pytest.approx(np.mean(losses), rel=1e-5)
