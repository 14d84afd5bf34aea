"""Divergences, the sparsity constraint and its schedule, against pen and paper."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune_jax import objectives
from edgeprune_jax.objectives import (
    Multipliers,
    constraint,
    kl,
    mistaken,
    moved,
    ramp,
    squared_error,
    target_sparsity,
)

relaxed = settings(max_examples=50, deadline=None)
SCORED = np.array([[1, 1, 0], [0, 1, 0], [0, 0, 0]], np.float32)


def draw(seed, scale=3.0):
    return np.random.default_rng(seed).normal(size=(3, 3, 6)).astype(np.float32) * scale


def log_softmax(x):
    x = x.astype(np.float64)
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def mean_over(values, scored):
    return [row[s == 1].mean() if s.any() else 0 for row, s in zip(values, scored, strict=True)]


@relaxed
@given(st.integers(0, 999), st.floats(0.01, 30))
def test_kl_is_that_of_numpy_and_never_negative(seed, scale):
    teacher, logits = draw(seed, scale), draw(seed + 1, scale)
    p, q = log_softmax(teacher), log_softmax(logits)
    expected = mean_over((np.exp(p) * (p - q)).sum(-1), SCORED)
    found = np.asarray(kl(*map(jnp.asarray, (teacher, logits, SCORED))))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-6)
    assert (found > -1e-6).all()


def test_kl_is_in_nats_from_teacher_to_circuit():
    teacher, logits = jnp.log(jnp.array([[[0.5, 0.5]]])), jnp.log(jnp.array([[[0.25, 0.75]]]))
    expected = 0.5 * np.log(0.5 / 0.25) + 0.5 * np.log(0.5 / 0.75)
    assert float(kl(teacher, logits, jnp.ones((1, 1)))[0]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("divergence", [kl, squared_error])
def test_equal_logits_have_no_divergence_and_no_gradient(divergence):
    teacher = jnp.asarray(draw(0))
    scored = jnp.asarray(SCORED)
    value, slope = jax.value_and_grad(lambda x: divergence(teacher, x, scored).sum())(teacher)
    assert float(value) == 0
    np.testing.assert_allclose(slope, 0, atol=1e-7)


def test_kl_does_not_change_when_logits_are_shifted():
    teacher, logits = draw(0), draw(1)
    shifted = kl(*map(jnp.asarray, (teacher + 50, logits - 30, SCORED)))
    np.testing.assert_allclose(shifted, kl(*map(jnp.asarray, (teacher, logits, SCORED))), atol=1e-4)


@pytest.mark.parametrize("divergence", [kl, squared_error])
def test_positions_that_are_not_scored_do_not_count(divergence):
    teacher, logits, scored = map(jnp.asarray, (draw(0), draw(1), SCORED))
    noise = jnp.where(scored[..., None] == 1, 0, draw(2))
    first = divergence(teacher, logits, scored)
    np.testing.assert_array_equal(first, divergence(teacher, logits + noise, scored))
    assert first[2] == 0  # nothing of this example is scored
    slope = jax.grad(lambda x: divergence(teacher, x, scored).sum())(logits)
    moved = np.abs(slope).sum(-1)
    assert (moved[SCORED == 0] == 0).all() and (moved[SCORED == 1] > 0).all()


def test_the_squared_error_is_summed_over_outputs_and_averaged_over_positions():
    teacher, logits = draw(0), draw(1)
    expected = mean_over(((teacher - logits).astype(np.float64) ** 2).sum(-1), SCORED)
    found = squared_error(*map(jnp.asarray, (teacher, logits, SCORED)))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_half_precision_is_widened_before_anything_is_computed():
    teacher, logits = (jnp.asarray(draw(seed), jnp.bfloat16) for seed in (0, 1))
    exact = kl(teacher.astype(jnp.float32), logits.astype(jnp.float32), jnp.asarray(SCORED))
    np.testing.assert_array_equal(kl(teacher, logits, jnp.asarray(SCORED)), exact)


def test_an_example_is_mistaken_where_any_scored_answer_differs():
    teacher = np.zeros((4, 2, 3), np.float32)
    teacher[..., 0] = 1
    logits = teacher * 0.2
    logits[1, 1] = 0, 0.3, 0
    logits[2, 1] = 0, 0.3, 0
    scored = np.ones((4, 2), np.float32)
    scored[2, 1] = 0
    arguments = map(jnp.asarray, (teacher, logits, scored))
    np.testing.assert_array_equal(mistaken(*arguments), [0, 1, 0, 0])


@pytest.mark.parametrize("divergence, tolerance", [(mistaken, 0.05), (moved, 0.01)])
def test_a_number_is_wrong_beyond_the_tolerance(divergence, tolerance):
    teacher = np.full((4, 1, 1), 2.0, np.float32)
    off = np.array([0.0, 0.8, -0.8, 1.2], np.float32) * tolerance
    logits = teacher + off[:, None, None]
    found = divergence(*map(jnp.asarray, (teacher, logits, np.ones((4, 1), np.float32))))
    np.testing.assert_array_equal(found, [0, 0, 0, 1])


def test_an_output_may_move_though_the_answer_stays():
    teacher = jnp.array([[[1.0, 0.0]], [[1.0, 0.0]]])
    logits = jnp.array([[[0.9, 0.0]], [[0.992, 0.008]]])
    np.testing.assert_array_equal(moved(teacher, logits, jnp.ones((2, 1))), [1, 0])
    np.testing.assert_array_equal(mistaken(teacher, logits, jnp.ones((2, 1))), [0, 0])


def test_on_the_log_scale_a_halving_counts_the_same_everywhere():
    values = [float(objectives.on_log_scale(jnp.array(d), 1e-4)) for d in (0.0, 0.1, 0.2, 0.4)]
    assert values[0] == 0
    np.testing.assert_allclose(np.diff(values[1:]), np.log(2), rtol=1e-3)


def test_divergences_go_by_name():
    assert objectives.DIVERGENCES == {
        "kl": kl, "squared": squared_error, "mistaken": mistaken, "moved": moved,
    }  # fmt: skip


@pytest.mark.parametrize("sparsity, target", [(0.3, 0.8), (0.9, 0.8), (0.5, 1.1)])
def test_the_constraint_and_its_gradients_are_those_of_pen_and_paper(sparsity, target):
    linear, quadratic, gap = -2.0, 5.0, sparsity - target
    arguments = Multipliers(jnp.array(linear), jnp.array(quadratic)), jnp.array(sparsity)
    value, (by_multiplier, by_sparsity) = jax.value_and_grad(constraint, (0, 1))(
        *arguments, jnp.array(target)
    )
    assert float(value) == pytest.approx(linear * gap + quadratic * gap**2, rel=1e-5)
    # Ascent drives the linear one towards the violated side and the quadratic one always up.
    assert float(by_multiplier.linear) == pytest.approx(gap, rel=1e-5)
    assert float(by_multiplier.quadratic) == pytest.approx(gap**2, rel=1e-5)
    assert float(by_sparsity) == pytest.approx(linear + 2 * quadratic * gap, rel=1e-5)


def test_there_is_no_constraint_at_the_start():
    nothing = objectives.no_multipliers()
    assert nothing == Multipliers(0, 0)
    assert float(constraint(nothing, jnp.array(0.1), jnp.array(0.9))) == 0


def at(step, **schedule):
    schedule = {"start": 0.2, "end": 0.9, "warmup": 100} | schedule
    return float(target_sparsity(jnp.array(float(step)), **schedule))


@pytest.mark.parametrize("kind", ["linear", "logarithmic"])
def test_a_schedule_goes_from_start_to_end_and_stays(kind):
    assert at(0, kind=kind) == pytest.approx(0.2)
    assert at(100, kind=kind) == at(5000, kind=kind) == pytest.approx(0.9)
    steps = [at(step, kind=kind) for step in range(0, 101, 10)]
    assert all(np.diff(steps) > 0)


def test_the_middle_of_a_schedule_is_linear_in_sparsity_or_in_log_density():
    assert at(50) == pytest.approx(0.55)
    assert at(25) == pytest.approx(0.375)
    assert 1 - at(50, kind="logarithmic") == pytest.approx((0.8 * 0.1) ** 0.5)


@pytest.mark.parametrize(("start", "end"), [(1e-4, 1e-2), (2.0, -1.0)])
def test_a_ramp_goes_by_the_same_difference_in_every_step_and_stays(start, end):
    found = [float(ramp(jnp.int32(n), start=start, end=end, steps=8)) for n in (*range(9), 50)]
    np.testing.assert_allclose(found, [*np.linspace(start, end, 9), end], rtol=1e-5)


def test_a_ramp_of_no_steps_is_at_its_end_after_the_first():
    found = [float(ramp(jnp.int32(n), start=1.0, end=3.0, steps=0)) for n in range(3)]
    assert found == [1, 3, 3]


def test_a_target_above_one_only_pushes():
    assert at(100, end=1.1) == pytest.approx(1.1)


def test_without_warmup_the_target_holds_from_the_second_step():
    assert at(1, warmup=0) == pytest.approx(0.9)


def test_an_unknown_schedule_is_refused():
    with pytest.raises(ValueError, match="one of linear, logarithmic: got 'cosine'"):
        inspect.unwrap(target_sparsity)(0.0, start=0.0, end=1.0, warmup=1, kind="cosine")


def test_no_kl_is_taken_between_single_numbers():
    numbers = jnp.ones((2, 3, 1))
    with pytest.raises(ValueError, match="one number is 0: use 'squared'"):
        objectives.kl(numbers, 2 * numbers, jnp.ones((2, 3)))
