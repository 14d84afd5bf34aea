"""Bootstrap: how far a mean could be off, had other prompts been drawn.

Prompts are drawn with replacement, the same draws for every column, so that differences and
ratios of means have intervals too, and paired ones.

Axes: N examples, M columns, R resamples.
"""

import numpy as np
from jaxtyping import Float

RESAMPLES = 2000
LEVEL = 0.95
BLOCK = 2**24  # draws held at a time


def resampled_means(
    columns: Float[np.ndarray, "N M"], *, seed: int, resamples: int = RESAMPLES
) -> Float[np.ndarray, "R M"]:
    """The mean of each column over N examples drawn with replacement, `resamples` times.

    Entries that are nan are left out of their column's means; a resample that drew none of the
    others has a mean of nan.
    """
    n = len(columns)
    there = ~np.isnan(columns)
    values = np.where(there, columns, 0.0).astype(float)
    generator = np.random.default_rng(seed)
    found = []
    block = max(1, BLOCK // n)
    for start in range(0, resamples, block):
        drawn = generator.integers(0, n, (min(block, resamples - start), n))
        counts = np.stack([np.bincount(row, minlength=n) for row in drawn]).astype(float)
        with np.errstate(invalid="ignore"):
            found.append((counts @ values) / (counts @ there.astype(float)))
    return np.concatenate(found)


def interval(values: Float[np.ndarray, " R"], *, level: float = LEVEL) -> tuple[float, float]:
    """The percentile interval of a resampled statistic; resamples without a value do not count."""
    tail = (1 - level) / 2
    low, high = np.nanquantile(values, (tail, 1 - tail))
    return float(low), float(high)
