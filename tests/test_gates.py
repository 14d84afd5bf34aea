"""Gates are hard-concrete, and settle on the mask that their log-alphas say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune_jax import gates
from edgeprune_jax.graph import Edges, Graph

REVERSE = Graph(4, 1, 1, ("tok_embeds", "pos_embeds"))  # 94 edges
KEY = jax.random.key(0)
relaxed = settings(max_examples=50, deadline=None)
log_alphas = st.lists(st.floats(-15, 15, width=32, allow_subnormal=False), min_size=94, max_size=94)


def edges(values):
    return Edges(jnp.asarray(values, jnp.float32), REVERSE)


def logistic(x):
    return 1 / (1 + np.exp(-np.asarray(x, np.float64)))


def test_constants_are_those_of_the_paper():
    assert (gates.LOWER, gates.UPPER, gates.TEMPERATURE) == (-0.1, 1.1, 2 / 3)
    assert gates.EPSILON == 1e-6
    assert gates.SOFT_SLOPE == pytest.approx(1.2)
    assert gates.BISECTION_WIDTH == 1e-5


def test_the_probability_of_zero_is_its_closed_form():
    values = np.linspace(-12, 12, 49)
    expected = logistic(2 / 3 * np.log(1 / 11) - values)
    found = gates.probability_zero(jnp.asarray(values, jnp.float32))
    np.testing.assert_allclose(found, expected, rtol=3e-5)
    assert float(gates.probability_zero(jnp.zeros(()))) == pytest.approx(0.168178, abs=1e-6)


def test_the_probability_of_zero_is_clamped():
    found = gates.probability_zero(jnp.array([-30.0, 30.0]))
    np.testing.assert_allclose(found, [1 - 1e-6, 1e-6], rtol=1e-7)


def test_the_expected_number_of_open_gates_is_summed():
    found = gates.expected_l0(jnp.array([0.0, 0.0, -30.0, 30.0]))
    assert float(found) == pytest.approx(2 * (1 - 0.168178) + 1, abs=1e-5)


@pytest.mark.parametrize("expected", [0.5, 20.0, 93.5])
def test_a_shift_opens_as_many_gates_as_it_is_told(expected):
    values = np.random.default_rng(0).normal(scale=6, size=94).astype(np.float32)
    found = np.asarray(gates.shifted(jnp.asarray(values), 1 - expected / 94))
    assert logistic(found).sum() == pytest.approx(expected, rel=1e-4)
    assert np.ptp(found - values) < 1e-5  # one number for all
    np.testing.assert_allclose(gates.shifted(jnp.zeros(94), 0.5), 0, atol=1e-5)


def test_sparsity_is_one_minus_the_mean():
    assert float(gates.sparsity(jnp.array([1.0, 0.5, 0.0, 0.0]))) == pytest.approx(0.625)


def test_a_draw_is_its_formula():
    values = np.linspace(-5, 5, 94)
    eps = gates.EPSILON
    u = np.asarray(jax.random.uniform(KEY, (94,), minval=eps, maxval=1 - eps), np.float64)
    s = logistic((np.log(u) - np.log(1 - u) + values) * 1.5)
    expected = np.clip(1.2 * s - 0.1, 0, 1)
    mask = gates.sample_gates(edges(values), key=KEY)
    assert mask.graph is REVERSE
    np.testing.assert_allclose(mask.values, expected, atol=1e-5)


@pytest.mark.parametrize("log_alpha", [-2.0, 0.0, 1.5])
def test_exact_zeros_and_ones_are_as_frequent_as_they_should_be(log_alpha):
    n = 100_000
    mask = np.asarray(gates.sample(jnp.full(n, log_alpha), key=KEY))
    assert mask.min() == 0 and mask.max() == 1
    # By symmetry a gate is 1 as often as one of the opposite log-alpha is 0.
    for value, a in ((0, log_alpha), (1, -log_alpha)):
        p = logistic(2 / 3 * np.log(1 / 11) - a)
        assert abs((mask == value).mean() - p) < 4 * np.sqrt(p * (1 - p) / n)


def test_one_key_draws_one_mask():
    values = edges(np.zeros(94))
    first, again = (gates.sample_gates(values, key=KEY).values for _ in range(2))
    np.testing.assert_array_equal(first, again)
    other = gates.sample_gates(values, key=jax.random.key(1)).values
    assert (first != other).mean() > 0.5


def test_the_gradient_of_a_draw_is_that_of_its_formula_and_zero_where_clipped():
    with jax.enable_x64(True):
        values, step = jnp.linspace(-4, 4, 200), 1e-6

        @jax.jit
        def draw(values):
            return gates.sample(values, key=KEY)

        mask = np.asarray(draw(values))
        slope = np.asarray(jax.jit(jax.grad(lambda values: draw(values).sum()))(values))
        difference = (draw(values + step) - draw(values - step)) / (2 * step)
    clipped = (mask == 0) | (mask == 1)
    assert 20 < clipped.sum() < 180
    assert (slope[clipped] == 0).all() and (slope[~clipped] > 0).all()
    np.testing.assert_allclose(slope, difference, atol=1e-8)


def test_the_soft_mask_is_steep_and_keeps_what_is_open():
    soft = gates.soft_mask(jnp.full(4, 0.0))
    assert sorted(np.asarray(soft).tolist()) == [0.0, 0.5, 0.5, 0.5]  # 4 x 0.168 rounds to one
    assert float(gates.soft_mask(jnp.full(1, 10.0))[0]) == pytest.approx(0.999994, abs=1e-6)


@relaxed
@given(log_alphas)
def test_the_soft_mask_has_the_expected_number_of_zeros_and_they_are_the_smallest(values):
    values = np.array(values, np.float32)
    soft = np.asarray(gates.soft_mask(jnp.asarray(values)))
    p = np.clip(logistic(2 / 3 * np.log(1 / 11) - values.astype(np.float64)), 1e-6, 1 - 1e-6)
    if abs(p.sum() % 1 - 0.5) > 1e-3:  # else rounding in float32 may go either way
        assert (soft == 0).sum() == round(p.sum())
    kept = soft > 0
    if kept.any() and not kept.all():
        assert values[kept].min() >= values[~kept].max()
    np.testing.assert_allclose(soft[kept], logistic(1.2 * values[kept]), rtol=1e-5)


@relaxed
@given(log_alphas)
def test_discretising_keeps_the_number_of_edges_nearest_to_the_sum_of_the_soft_mask(values):
    soft = np.asarray(gates.soft_mask(jnp.asarray(values, jnp.float32)), np.float64)
    mask = np.asarray(gates.discretise(edges(values)).values)
    threshold = gates.bisect_threshold(soft)
    np.testing.assert_array_equal(mask, soft > threshold)
    # Half an edge, unless more than one lies within the width that bisection does not resolve.
    near = (np.abs(soft - threshold) <= gates.BISECTION_WIDTH).sum()
    assert abs(mask.sum() - soft.sum()) <= near / 2 + 1e-6


@pytest.mark.parametrize("n_open", [0, 1, 40, 93, 94])
def test_discretising_clear_gates_keeps_the_open_ones(n_open):
    values = np.full(94, -20.0)
    values[np.random.default_rng(0).permutation(94)[:n_open]] = 20.0
    np.testing.assert_array_equal(gates.discretise(edges(values)).values, values > 0)


@relaxed
@given(st.lists(st.integers(-3, 3), min_size=94, max_size=94), st.integers(0, 94))
def test_discretising_to_a_number_keeps_the_largest_and_then_the_first(values, count):
    mask = gates.discretise(edges(values), edges=count)
    best = sorted(range(94), key=lambda edge: (-values[edge], edge))[:count]
    assert np.flatnonzero(mask.values).tolist() == sorted(best)
    assert mask.graph is REVERSE and mask.values.dtype == jnp.float32


@pytest.mark.parametrize("count", [-1, 95])
def test_a_number_that_the_graph_does_not_have_is_refused(count):
    with pytest.raises(ValueError, match=f"edges must be between 0 and 94: got {count}"):
        gates.discretise(edges(np.zeros(94)), edges=count)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("count", [None, 3])
def test_gates_that_are_not_finite_are_refused(bad, count):
    values = np.zeros(94)
    values[7] = bad
    with pytest.raises(ValueError, match=f"gates must be finite: got {bad} at edge 7"):
        gates.discretise(edges(values), edges=count)


@pytest.mark.parametrize("n", [94, 1000])
def test_the_threshold_leaves_the_nearest_number(n):
    for seed in range(20):
        soft = np.random.default_rng(seed).permutation(np.linspace(0, 1, n)) ** 2
        kept = (soft > gates.bisect_threshold(soft)).sum()
        assert kept == round(soft.sum())


def test_equal_soft_masks_stay_together():
    soft = np.repeat([0.2, 0.8], 50)  # the sum is 50: the half that is larger
    np.testing.assert_array_equal(soft > gates.bisect_threshold(soft), soft == 0.8)
    assert (np.full(9, 0.4) > gates.bisect_threshold(np.full(9, 0.4))).sum() in (0, 9)


def test_binary_masks_are_the_hard_concrete_ones_rounded():
    values = jnp.linspace(-3, 3, 13)
    n = 40_000
    keys = jax.random.split(jax.random.key(1), n)
    binary = jax.vmap(lambda key: gates.sample_binary(values, key=key))(keys)
    rounded = jax.vmap(lambda key: jnp.round(gates.sample(values, key=key)))(keys)
    assert set(np.unique(binary)) == {0, 1}
    for masks in (binary, rounded):
        np.testing.assert_allclose(np.mean(masks, 0), logistic(values), atol=4.5 * 0.5 / n**0.5)


@relaxed
@given(st.lists(st.floats(-60, 60, width=32, allow_subnormal=False), min_size=1, max_size=9))
def test_the_probability_of_a_mask_is_the_product_over_its_gates(values):
    log_alpha = np.array(values, np.float32)
    mask = np.random.default_rng(0).integers(0, 2, len(values)).astype(np.float32)
    signed = np.where(mask == 1, 1, -1) * log_alpha.astype(np.float64)
    expected = -np.logaddexp(0, -signed).sum()
    found = float(gates.log_probability(jnp.asarray(mask), jnp.asarray(log_alpha)))
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_the_most_likely_mask_has_the_gates_above_one_half():
    values = np.linspace(-3, 3, 94)
    np.testing.assert_array_equal(gates.most_likely(edges(values)).values, values > 0)
