import inspect
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune_jax.tasks.splits import (
    SPLITS,
    distinct,
    generator,
    others,
    portion,
    without_repeats,
)

seeds = st.integers(0, 2**32)


@settings(deadline=None)
@given(count=st.integers(8, 200))
def test_portions_are_disjoint_and_together_everything(count):
    parts = [portion(range(count), split) for split in SPLITS]
    assert sorted(sum(parts, ())) == list(range(count))
    assert parts == [portion(range(count), split) for split in SPLITS]
    assert len(parts[0]) > len(parts[2]) >= len(parts[1]) >= 1


def test_a_portion_that_is_too_small_is_refused():
    with pytest.raises(ValueError, match="test split needs 9 words .* it has 5 of 20"):
        portion(range(20), "test", at_least=9)


@settings(deadline=None)
@given(axes=st.lists(st.integers(1, 4), min_size=1, max_size=4), seed=seeds)
def test_all_points_of_a_grid_are_drawn_once_and_no_more(axes, seed):
    most = int(np.prod(axes))
    points = distinct(generator(seed, "train"), axes, most, split="train")
    assert len(set(zip(*(axis.tolist() for axis in points), strict=True))) == most
    assert all(axis.max() < size for axis, size in zip(points, axes, strict=True))
    with pytest.raises(ValueError, match=f"train split holds {most} .* {most + 1} asked"):
        distinct(generator(seed, "train"), axes, most + 1, split="train")


@settings(deadline=None)
@given(seed=seeds)
def test_splits_and_seeds_draw_for_themselves(seed):
    draws = [tuple(generator(s, split).integers(0, 2**40, 4)) for s in (seed, seed + 1)
             for split in SPLITS]  # fmt: skip
    assert len(set(draws)) == 6


def test_an_unknown_split_is_refused():
    for function in (lambda split: generator(0, split), lambda split: portion("ab", split)):
        with pytest.raises(Exception, match="train, validation, test|dev"):
            function("dev")
    with pytest.raises(ValueError, match="train, validation, test: got 'dev'"):
        inspect.unwrap(generator)(0, "dev")  # the test run's type check would refuse it first


@settings(deadline=None)
@given(size=st.integers(3, 6))
def test_coordinates_without_repeats_are_all_the_arrangements(size):
    grid = np.indices((size, size - 1, size - 2)).reshape(3, -1)
    found = without_repeats(list(grid))
    assert sorted(map(tuple, found.tolist())) == list(permutations(range(size), 3))


@settings(deadline=None)
@given(seed=seeds, size=st.integers(7, 12))
def test_others_are_new_to_their_row(seed, size):
    used = np.array([[0, 1, 2], [size - 1, 3, 4]] * 10)
    found = others(generator(seed, "train"), used, size, 4)
    assert found.shape == (20, 4) and found.max() < size
    for mine, more in zip(used, found, strict=True):
        assert len({*mine, *more}) == 7
    with pytest.raises(ValueError, match="needs 7 different words .* 6 of ours"):
        others(generator(seed, "train"), used, 6, 4)
