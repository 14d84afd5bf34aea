"""Measures of ordered choices, by hand and by scipy."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from edgeprune_jax.measures.ordered import kendall_tau, probability_difference


def test_probability_difference_by_hand():
    """Probabilities 0.1, 0.2, 0.3, 0.4 of four choices, the pivot at each of them."""
    logits = jnp.log(jnp.tile(jnp.array([0.1, 0.2, 0.3, 0.4]), (4, 1))) + 3.0
    found = probability_difference(logits, jnp.arange(4))
    np.testing.assert_allclose(found, [0.9, 0.7 - 0.1, 0.4 - 0.3, -0.6], atol=1e-6)
    near = probability_difference(logits, jnp.arange(4), within=1)
    np.testing.assert_allclose(near, [0.2, 0.3 - 0.1, 0.4 - 0.2, -0.3], atol=1e-6)


def test_within_ten_years_by_brute_force():
    rng = np.random.default_rng(0)
    logits, pivot = rng.normal(size=(6, 100)).astype(np.float32), np.array([0, 3, 10, 55, 93, 99])
    found = probability_difference(jnp.asarray(logits), jnp.asarray(pivot), within=10)
    for row, centre, value in zip(logits, pivot, found, strict=True):
        p = np.exp(row) / np.exp(row).sum()
        after = p[centre + 1 : centre + 11].sum()
        before = p[max(centre - 10, 0) : centre].sum()  # a negative start would wrap around
        assert value == pytest.approx(after - before, abs=1e-6)


def test_kendall_tau_is_scipys_with_and_without_ties():
    rng = np.random.default_rng(1)
    a = rng.normal(size=(12, 30)).astype(np.float32)
    b = (a + rng.normal(size=a.shape) * np.linspace(0, 3, 12)[:, None]).astype(np.float32)
    b[6:] = b[6:].round()
    found = kendall_tau(jnp.asarray(a), jnp.asarray(b))
    expected = [scipy.stats.kendalltau(x, y).statistic for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found[0] == 1 and min(expected) < 0.5


def test_kendall_tau_of_opposite_and_of_equal_ranks():
    a = jnp.arange(5.0)[None]
    assert kendall_tau(a, -a)[0] == -1
    assert np.isnan(kendall_tau(a, jnp.zeros((1, 5)))[0])
