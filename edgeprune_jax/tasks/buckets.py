"""Buckets: examples of similar length together, so that little is spent on padding.

A data set is cut into at most four widths. Every batch comes from one bucket, so that a step is
compiled once for each width. Which examples make batch number `step`, and in which order, is a
function of the seed and the step alone: nothing is remembered, a resumed run goes on as if it had
not stopped, and any number of hosts agree.

Axes: N examples, B examples of a batch.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from edgeprune_jax.tasks.batch import Batch, rows

MOST = 4  # widths: each costs a compilation
PADDING = 0.15  # of the tokens; a further width that would only mend less than this is not made


class Buckets(NamedTuple):
    """The rows of each bucket, and the width that holds them."""

    rows: tuple[Int[np.ndarray, " _"], ...]
    widths: tuple[int, ...]


def widths(lengths: Int[np.ndarray, " N"], most: int = MOST) -> tuple[int, ...]:
    """The fewest widths, ascending, that hold all lengths with at most 15 % of padding.

    At most `most`, and of as many those with the least padding.
    """
    values, counts = np.unique(lengths, return_counts=True)
    total = np.concatenate([[0], np.cumsum(counts)])
    # best[j]: the tokens that the j shortest lengths take, and the widths with which they do.
    best: list[tuple[float, tuple[int, ...]]] = [(0, ())] + [(np.inf, ())] * len(values)
    for _ in range(most):
        best = [best[0]] + [
            min(
                (
                    tokens + int(values[j - 1] * (total[j] - total[i])),
                    (*narrower, int(values[j - 1])),
                )
                for i, (tokens, narrower) in enumerate(best[:j])
            )
            for j in range(1, len(best))
        ]
        if best[-1][0] <= (1 + PADDING) * (values * counts).sum():
            break
    return best[-1][1]


def bucket(data: Batch, most: int = MOST) -> Buckets:
    """The buckets of a data set: each holds the lengths above the width before it."""
    lengths = np.asarray(data.valid).sum(axis=1)
    chosen = widths(lengths, most)
    which = np.searchsorted(chosen, lengths)
    return Buckets(tuple(np.flatnonzero(which == k) for k in range(len(chosen))), chosen)


def bucketed_rows(buckets: Buckets, size: int, *, seed: int, step: int) -> Int[np.ndarray, " B"]:
    """The examples of batch `step`, all of one bucket.

    Each bucket's batches go through its examples as `rows` does, in a new order every epoch,
    epochs end to end. In an epoch of the whole, a bucket has as many batches as its examples fill,
    what is left over being carried into the next, and the batches come in random order. With one
    bucket this is `rows`.
    """
    sizes = [len(chosen) for chosen in buckets.rows]

    def before(epoch: int) -> list[int]:
        """The batches that each bucket has had before an epoch."""
        return [epoch * n // size for n in sizes]

    epoch = step * size // sum(sizes)
    while sum(before(epoch + 1)) <= step:
        epoch += 1
    done = before(epoch)
    counts = np.subtract(before(epoch + 1), done)
    order = np.random.default_rng((seed, epoch, len(sizes))).permutation(
        np.repeat(np.arange(len(sizes)), counts)
    )
    place = step - sum(done)
    which = order[place]
    number = done[which] + int((order[:place] == which).sum())
    return buckets.rows[which][rows(sizes[which], size, seed=seed, step=number)]


def fit(data: Batch, chosen: Int[np.ndarray, " B"], buckets: Buckets) -> Batch:
    """All examples, cut to the narrowest width that holds those at `chosen`; nothing is copied."""
    longest = int(data.valid[chosen].sum(axis=1).max())
    width = next(width for width in buckets.widths if width >= longest)
    return replace(
        data, tokens=data.tokens[:, :width], corrupted=data.corrupted[:, :width],
        valid=data.valid[:, :width],
    )  # fmt: skip
