from dataclasses import replace

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune_jax.tasks.batch import Batch, check, digest, parts, rows, take

small = st.integers(1, 40)
seeds = st.integers(0, 2**32)


@pytest.fixture
def batch():
    return Batch(
        tokens=np.array([[5, 6, 7], [5, 6, 0]], np.int32),
        corrupted=np.array([[5, 8, 7], [5, 8, 0]], np.int32),
        valid=np.array([[True, True, True], [True, True, False]]),
        positions=np.array([[2, 1], [1, 0]], np.int32),
        scored=np.array([[1, 1], [1, 0]], np.float32),
        targets=np.array([[6, 7], [6, 0]], np.int32),
        foils=np.array([[8, -1], [8, 0]], np.int32),
    )


@given(n=small, size=small, seed=seeds)
def test_every_epoch_is_a_permutation(n, size, seed):
    steps = -(-3 * n // size)
    order = np.concatenate([rows(n, size, seed=seed, step=step) for step in range(steps)])
    for epoch in range(3):
        assert sorted(order[epoch * n : (epoch + 1) * n]) == list(range(n))


@given(n=small, size=small, seed=seeds, step=st.integers(0, 10_000))
def test_a_resumed_order_equals_the_uninterrupted_one(n, size, seed, step):
    batch = rows(n, size, seed=seed, step=step)
    assert batch.shape == (size,)
    # The order does not depend on how it is cut into batches.
    single = [rows(n, 1, seed=seed, step=step * size + i)[0] for i in range(size)]
    np.testing.assert_array_equal(batch, single)


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = [rows(50, 50, seed=seed, step=step) for seed in (0, 1) for step in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4


@pytest.mark.parametrize("n, size, step", [(0, 4, 0), (4, 0, 0), (4, 2, -1)])
def test_rows_refuses_what_has_no_order(n, size, step):
    with pytest.raises(ValueError, match=f"{n=}, {size=}, {step=}"):
        rows(n, size, seed=0, step=step)


@given(n=small, size=small)
def test_parts_go_once_through_all_examples_in_one_shape(n, size):
    pieces = parts(n, size)
    assert {len(chosen) for chosen, _ in pieces} == {size}
    assert [i for chosen, count in pieces for i in chosen[:count]] == list(range(n))
    assert all(i == n - 1 for chosen, count in pieces for i in chosen[count:])


def test_take_selects_the_same_rows_of_every_field(batch):
    picked = take(batch, np.array([1, 0, 1]))
    assert len(picked) == 3
    np.testing.assert_array_equal(picked.tokens[1], batch.tokens[0])
    np.testing.assert_array_equal(picked.scored[2], batch.scored[1])


def test_check_returns_a_good_batch(batch):
    assert check(batch) is batch


@pytest.mark.parametrize(
    "field, entry, value, rule",
    [
        ("valid", (1, 0), False, "false after it"),
        ("valid", 1, False, "false after it"),
        ("tokens", (1, 1), -1, "tokens must not be negative"),
        ("corrupted", (1, 1), -1, "corrupted tokens must not be negative"),
        ("scored", (1, 1), 0.5, "must be 0 or 1"),
        ("positions", (1, 1), 3, "inside the padded row"),
        ("positions", (1, 0), 2, "inside the prompt"),
        ("targets", (1, 0), -1, "must have a target"),
        ("foils", (1, 0), 6, "foil must differ"),
    ],
)
def test_check_names_the_row_and_the_rule(batch, field, entry, value, rule):
    array = getattr(batch, field).copy()
    array[entry] = value
    with pytest.raises(ValueError, match=rf"row 1 \(1 of 2 rows\): .*{rule}"):
        check(replace(batch, **{field: array}))


@pytest.mark.parametrize("field", ["corrupted", "valid", "scored", "targets", "foils"])
def test_check_names_the_field_of_another_shape(batch, field):
    with pytest.raises(ValueError, match=rf"`{field}` must have shape"):
        check(replace(batch, **{field: getattr(batch, field)[:, :1]}))


@pytest.mark.parametrize(
    "choices, pivots, rule",
    [
        ([[1, 2, 3], [1, 2, 2]], [1, 1], "row 1 .*choices must be different"),
        ([[1, 2, 3], [1, -1, 2]], [1, 1], "row 1 .*choices must be different"),
        ([[1, 2, 3], [1, 2, 3]], [1, 2], "row 1 .*choices on both sides"),
        ([[1, 2, 3], [1, 2, 3]], [1, 0], "row 1 .*choices on both sides"),
        ([[1, 2, 3], [1, 2, 3]], None, "go together"),
        ([[1, 2, 3]], [1, 1], "`choices` must have shape"),
    ],
)
def test_check_looks_at_choices(batch, choices, pivots, rule):
    good = replace(batch, choices=np.array([[1, 2, 3]] * 2), pivots=np.array([1, 1]))
    assert check(good) is good and len(take(good, [0]).pivots) == 1
    pivots = None if pivots is None else np.array(pivots)
    with pytest.raises(ValueError, match=rule):
        check(replace(batch, choices=np.array(choices), pivots=pivots))


def test_a_digest_tells_every_change_of_the_data():
    tokens = np.arange(12, dtype=np.int32).reshape(3, 4)
    one = np.ones((3, 1), np.int32)
    data = Batch(tokens, tokens + 1, tokens >= 0, one, one.astype(np.float32), one, one * 2)
    same = jax.tree.map(np.array, data)
    assert digest(data) == digest(same) and digest(data).startswith("sha256:")
    others = [
        take(data, [1, 0, 2]),
        take(data, slice(2)),
        replace(data, corrupted=tokens),
        replace(data, foils=one * 3),
        replace(data, choices=tokens, pivots=one[:, 0]),
        replace(data, tokens=tokens.astype(np.int64)),
    ]
    assert len({digest(data), *map(digest, others)}) == 7
