"""Measures of ordered choices, by hand and by scipy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from edgeprune_jax.baselines.metrics import answer_score
from edgeprune_jax.evaluation import measures, summarise
from edgeprune_jax.measures.ordered import kendall_tau, probability_difference
from edgeprune_jax.tasks.batch import Batch


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


def log_softmax(x):
    return x - x.max() - np.log(np.exp(x - x.max()).sum())


@pytest.mark.parametrize("choices", [10, 100])
def test_measures_of_years_by_hand(choices):
    """Two positions, of which one is scored; a vocabulary of more than the choices."""
    rng, n = np.random.default_rng(choices), 6
    teacher = rng.normal(size=(n, 2, 120)).astype(np.float32) * 2
    logits = teacher + rng.normal(size=teacher.shape).astype(np.float32)
    tokens = np.stack([rng.permutation(120)[:choices] for _ in range(n)]).astype(np.int32)
    pivots = rng.integers(1, choices - 1, n).astype(np.int32)
    scored = np.eye(2, dtype=np.float32)[[0, 1] * 3]
    targets = np.repeat(tokens[np.arange(n), pivots + 1][:, None], 2, axis=1)
    for row in range(0, n, 2):  # a right answer wins, in half of the rows
        logits[row, scored[row].argmax(), tokens[row, -1]] = 20
    none = np.full((n, 2), -1, np.int32)
    batch = Batch(
        tokens[:, :3], tokens[:, :3], np.ones((n, 3), bool), np.zeros((n, 2), np.int32), scored,
        targets, none, tokens, pivots,
    )  # fmt: skip
    batch = jax.tree.map(jnp.asarray, batch)
    found = measures(jnp.asarray(teacher), jnp.asarray(logits), batch)
    within = 10 if choices == 100 else 1
    for row in range(n):
        at = scored[row].argmax()
        t, c = teacher[row, at, tokens[row]], logits[row, at, tokens[row]]
        p, q = log_softmax(t), log_softmax(c)
        year = np.arange(choices) - pivots[row]
        near = abs(year) <= within
        chance = np.exp(q)
        expected = {
            "choice_kl": (np.exp(p) * (p - q)).sum(),
            "probability_difference": chance[year > 0].sum() - chance[year < 0].sum(),
            "within_10_years": chance[near & (year > 0)].sum() - chance[near & (year < 0)].sum(),
            "kendall_tau": scipy.stats.kendalltau(t, c).statistic,
            "accuracy": float(logits[row, at].argmax() in tokens[row, pivots[row] + 1 :]),
        }
        for name, value in expected.items():
            assert found[name][row] == pytest.approx(value, rel=1e-6, abs=2e-6), name
    assert 0.5 <= found["accuracy"].mean() < 1
    np.testing.assert_allclose(
        answer_score(jnp.asarray(logits), batch), found["probability_difference"], atol=1e-6
    )
    assert "logit_difference" not in summarise({k: np.asarray(v) for k, v in found.items()})
