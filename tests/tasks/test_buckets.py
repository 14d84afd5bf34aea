"""Batches of one length, in an order that nobody has to remember."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune_jax.tasks.batch import Batch, rows
from edgeprune_jax.tasks.buckets import (
    MOST,
    PADDING,
    Buckets,
    bucket,
    bucketed_rows,
    fit,
    widths,
)

lengths = st.lists(st.integers(1, 12), min_size=1, max_size=40).map(np.array)
buckets = st.lists(st.integers(1, 25), min_size=1, max_size=4).map(
    lambda sizes: Buckets(
        tuple(np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1])),
        tuple(range(1, len(sizes) + 1)),
    )
)
seeds = st.integers(0, 2**32)


def tokens(lengths, chosen):
    return sum(min(w for w in chosen if w >= length) for length in lengths)


@settings(deadline=None)
@given(lengths=lengths)
def test_widths_are_the_fewest_and_the_best_of_as_many(lengths):
    chosen = widths(lengths)
    assert chosen == tuple(sorted(set(chosen))) and chosen[-1] == lengths.max()
    used = tokens(lengths, chosen)
    values = sorted(set(lengths.tolist()))
    for count in range(1, min(MOST, len(values)) + 1):
        best = min(
            tokens(lengths, (*some, values[-1])) for some in combinations(values[:-1], count - 1)
        )
        if count < len(chosen):
            assert best > (1 + PADDING) * lengths.sum()
        if count == len(chosen):
            assert best == used
    assert len(chosen) == MOST or used <= (1 + PADDING) * lengths.sum()


@settings(deadline=None, max_examples=25)
@given(buckets=buckets, size=st.integers(1, 6), seed=seeds)
def test_a_batch_is_of_one_bucket_and_examples_come_equally_often(buckets, size, seed):
    n = sum(map(len, buckets.rows))
    epochs = 3 * size  # after as many epochs nothing is left over
    steps = epochs * n // size
    seen = np.zeros(n, int)
    for step in range(steps):
        chosen = bucketed_rows(buckets, size, seed=seed, step=step)
        assert len(chosen) == size
        assert sum(bool(np.isin(chosen, one).any()) for one in buckets.rows) == 1
        np.add.at(seen, chosen, 1)
    assert set(seen) == {epochs}


@settings(deadline=None)
@given(buckets=buckets, size=st.integers(1, 9), seed=seeds, step=st.integers(0, 10_000))
def test_the_order_depends_on_seed_and_step_alone(buckets, size, seed, step):
    first = bucketed_rows(buckets, size, seed=seed, step=step)
    bucketed_rows(buckets, size, seed=seed, step=step + 1)
    np.testing.assert_array_equal(first, bucketed_rows(buckets, size, seed=seed, step=step))


@settings(deadline=None)
@given(n=st.integers(1, 40), size=st.integers(1, 40), seed=seeds, step=st.integers(0, 500))
def test_one_bucket_is_the_plain_order(n, size, seed, step):
    one = Buckets((np.arange(n),), (7,))
    found = bucketed_rows(one, size, seed=seed, step=step)
    np.testing.assert_array_equal(found, rows(n, size, seed=seed, step=step))


def test_an_epoch_mixes_its_buckets():
    two = Buckets((np.arange(80), np.arange(80, 160)), (5, 9))
    first = [bucketed_rows(two, 8, seed=0, step=step)[0] < 80 for step in range(20)]
    assert sum(first) == 10 and first != sorted(first) and first != sorted(first)[::-1]
    later = [bucketed_rows(two, 8, seed=0, step=step)[0] < 80 for step in range(20, 40)]
    assert sum(later) == 10 and later != first


@pytest.fixture
def data():
    sizes = np.array([3, 9, 4, 9, 3, 8])
    valid = np.arange(9) < sizes[:, None]
    words = np.where(valid, np.arange(54).reshape(6, 9) + 1, 0).astype(np.int32)
    one = np.ones((6, 1), np.int32)
    return Batch(words, words + 100, valid, one, one.astype(np.float32), one, one * 2)


def test_a_batch_is_cut_to_the_width_that_holds_it(data):
    found = bucket(data)
    assert found.widths == (4, 9)
    assert [one.tolist() for one in found.rows] == [[0, 2, 4], [1, 3, 5]]
    short, mixed = fit(data, np.array([2, 0]), found), fit(data, np.array([2, 5]), found)
    assert short.tokens.shape == short.valid.shape == (6, 4) and mixed.corrupted.shape == (6, 9)
    np.testing.assert_array_equal(short.tokens, data.tokens[:, :4])
    assert np.shares_memory(short.tokens, data.tokens) and short.targets is data.targets
    assert bucket(data, 1).widths == (9,)
