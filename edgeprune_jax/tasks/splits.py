"""Splits of a task, and draws from them that depend on a seed and nothing else.

What a split holds is fixed: which templates, words or years belong to the test set does not
depend on the seed of the prompts.
"""

import math
from collections.abc import Sequence
from typing import Literal, TypeVar, get_args

import numpy as np
from jaxtyping import Int

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
SHARES = (0.6, 0.15, 0.25)  # of a task's material
BLOCK = 4096  # rows that are drawn together, so that memory does not grow with their number
Item = TypeVar("Item")


def generator(seed: int, split: Split) -> np.random.Generator:
    """The source of randomness of one split: splits of one seed have draws of their own."""
    if split not in SPLITS:
        raise ValueError(f"the splits are {', '.join(SPLITS)}: got {split!r}.")
    return np.random.default_rng((seed, SPLITS.index(split)))


def portion(items: Sequence[Item], split: Split, *, at_least: int = 1) -> tuple[Item, ...]:
    """The items of a split, in order: disjoint between splits, together all of them.

    Raises `ValueError` where fewer than `at_least` fall to the split.
    """
    generator(0, split)  # refuses what is no split
    order = np.random.default_rng(0).permutation(len(items))
    cuts = np.rint(np.cumsum((0, *SHARES)) * len(items)).astype(int)
    which = SPLITS.index(split)
    chosen = sorted(order[cuts[which] : cuts[which + 1]].tolist())
    if len(chosen) < at_least:
        raise ValueError(
            f"the {split} split needs {at_least} words that are one token each in this "
            f"tokenizer: it has {len(chosen)} of {len(items)}."
        )
    return tuple(items[i] for i in chosen)


def distinct(
    rng: np.random.Generator, axes: Sequence[int], n: int, *, split: Split
) -> tuple[Int[np.ndarray, " n"], ...]:
    """`n` different points of a grid, uniformly drawn: one array of coordinates for each axis.

    A prompt is a number in mixed radix, so that different numbers are different prompts.
    """
    most = math.prod(axes)
    if not 1 <= n <= most:
        raise ValueError(f"the {split} split holds {most} different prompts: {n} asked for.")
    return np.unravel_index(rng.choice(most, n, replace=False), tuple(axes))


def without_repeats(
    columns: Sequence[Int[np.ndarray, " n"]],
) -> Int[np.ndarray, "n k"]:
    """Coordinates below s, s - 1, s - 2, ... as different numbers below s, one to one."""
    chosen: list[np.ndarray] = []
    for column in columns:
        for taken in np.sort(np.stack(chosen), axis=0) if chosen else ():
            column = column + (column >= taken)
        chosen.append(column)
    return np.stack(chosen, axis=1)


def others(
    rng: np.random.Generator, used: Int[np.ndarray, "n k"], size: int, count: int
) -> Int[np.ndarray, "n count"]:
    """For each row `count` different numbers below `size`, none of those in `used`."""
    if size < used.shape[1] + count:
        raise ValueError(
            f"a pair needs {used.shape[1] + count} different words that are one token each: "
            f"the tokenizer has {size} of ours."
        )
    rows = []
    for start in range(0, len(used), BLOCK):
        block = used[start : start + BLOCK]
        order = rng.random((len(block), size))
        np.put_along_axis(order, block, np.inf, axis=1)
        rows.append(order.argsort(axis=1)[:, :count])
    return np.concatenate(rows)
