"""Intervals are those of scipy, draw by draw."""

import numpy as np
import pytest
import scipy.stats

from edgeprune_jax.measures import bootstrap
from edgeprune_jax.measures.bootstrap import interval, resampled_means


@pytest.fixture(scope="module")
def columns():
    rng = np.random.default_rng(0)
    return np.stack([rng.exponential(size=60), rng.normal(2, 1, 60)], axis=1)


def scipys(data, statistic, **options):
    found = scipy.stats.bootstrap(
        data, statistic, method="percentile", vectorized=True, n_resamples=500,
        confidence_level=0.9, rng=np.random.default_rng(5), **options,
    )  # fmt: skip
    return tuple(found.confidence_interval)


def test_the_interval_of_a_mean_is_scipys(columns):
    means = resampled_means(columns, seed=5, resamples=500)
    for column, resampled in zip(columns.T, means.T, strict=True):
        expected = scipys((column,), np.mean)
        assert interval(resampled, level=0.9) == pytest.approx(expected, rel=1e-12)


def test_the_interval_of_a_ratio_of_paired_means_is_scipys(columns):
    means = resampled_means(columns, seed=5, resamples=500)

    def ratio(a, b, axis):
        return a.mean(axis) / b.mean(axis)

    expected = scipys(tuple(columns.T), ratio, paired=True)
    assert interval(means[:, 0] / means[:, 1], level=0.9) == pytest.approx(expected, rel=1e-12)


def test_blocks_of_draws_do_not_change_the_draws(columns, monkeypatch):
    whole = resampled_means(columns, seed=1, resamples=70)
    monkeypatch.setattr(bootstrap, "BLOCK", 60 * 9)
    np.testing.assert_allclose(resampled_means(columns, seed=1, resamples=70), whole, rtol=1e-12)


def test_missing_entries_are_left_out(columns):
    holed = columns.copy()
    holed[::3, 1] = np.nan
    draws = np.random.default_rng(2).integers(0, 60, (40, 60))
    expected = np.nanmean(holed[draws], axis=1)
    np.testing.assert_allclose(resampled_means(holed, seed=2, resamples=40), expected, rtol=1e-12)


def test_nine_of_ten_intervals_hold_the_true_mean():
    """400 samples of a known mean: the share is binomial, so 0.9 within 0.06 (four sigma)."""
    rng, held = np.random.default_rng(3), 0
    for seed in range(400):
        sample = rng.normal(1.0, 2.0, (80, 1))
        low, high = interval(resampled_means(sample, seed=seed, resamples=300)[:, 0], level=0.9)
        held += low <= 1.0 <= high
    assert held / 400 == pytest.approx(0.9, abs=0.06)
