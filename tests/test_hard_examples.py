"""Batches return to examples as often as they failed, and are otherwise what they were."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune_jax.hard_examples import MEMORY, choose, no_failures, remember

relaxed = settings(max_examples=50, deadline=None)
USUAL = np.arange(100, 140)


@relaxed
@given(st.integers(0, 99), st.integers(0, 999), st.floats(0, 1))
def test_a_share_of_the_batch_is_replaced_by_examples_that_failed(seed, step, share):
    failures = np.zeros(200, np.float32)
    failures[[3, 50, 77]] = 0.1, 1e-4, 1.0
    found = choose(USUAL, failures, share, seed=seed, step=step)
    hard = round(share * 40)
    assert found.shape == USUAL.shape
    np.testing.assert_array_equal(found[: 40 - hard], USUAL[: 40 - hard])
    assert set(found[40 - hard :]) <= {3, 50, 77}
    np.testing.assert_array_equal(found, choose(USUAL, failures, share, seed=seed, step=step))


def test_examples_are_drawn_as_often_as_they_failed():
    failures = np.array([0.0, 0.6, 0.3, 0.1, 0.0])
    steps = range(500)
    drawn = np.concatenate([choose(USUAL, failures, 1.0, seed=0, step=step) for step in steps])
    counts = np.bincount(drawn, minlength=5)
    expected = len(drawn) * failures
    deviation = np.sqrt(expected * (1 - failures))
    assert (np.abs(counts - expected) <= 4 * deviation).all()


def test_another_step_or_seed_draws_other_examples():
    failures = np.ones(1000)
    first, *others = (
        choose(USUAL, failures, 0.5, seed=seed, step=step)
        for seed, step in ((0, 0), (0, 1), (1, 0))
    )
    assert all((other[20:] != first[20:]).any() for other in others)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_without_failures_the_batch_is_the_usual_one(share):
    assert choose(USUAL, np.asarray(no_failures(200)), share, seed=0, step=0) is USUAL


def test_what_was_not_seen_is_remembered_and_what_was_seen_fades():
    before = jnp.array([1.0, 0.5, 0.0, 0.2])
    after = remember(before, jnp.array([0, 2, 0]), jnp.array([0.0, 1.0, 0.0]))
    expected = [MEMORY, 0.5, 1 - MEMORY, 0.2]
    np.testing.assert_allclose(after, expected, rtol=1e-6)
