"""Stability: whether runs that differ in their seeds find the same circuit.

The measure is the Jaccard index, shared edges over all edges of either, of two circuits; of S
circuits its mean over the S (S - 1) / 2 pairs. Pairs share circuits, so that they are not
independent: the bootstrap draws circuits, not pairs. What most of the circuits keep is their
*consensus*.

Axes: S circuits, R resamples.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from edgeprune_jax.circuits import Circuit, jaccard
from edgeprune_jax.measures.bootstrap import LEVEL, RESAMPLES, interval


def jaccards(circuits: Sequence[Circuit]) -> Float[np.ndarray, "S S"]:
    """The Jaccard index of every pair. Raises `ValueError` for circuits of different graphs."""
    found = np.eye(len(circuits))
    for a, b in itertools.combinations(range(len(circuits)), 2):
        found[a, b] = found[b, a] = jaccard(circuits[a], circuits[b])
    return found


def resampled_jaccards(
    pairs: Float[np.ndarray, "S S"], *, seed: int, resamples: int = RESAMPLES
) -> Float[np.ndarray, " R"]:
    """The mean over pairs, circuits being drawn with replacement, `resamples` times.

    A circuit drawn twice makes no pair with itself, of which 1 would be no news. Where all drawn
    are one circuit there is no pair, and the mean is nan.
    """
    n = len(pairs)
    drawn = np.random.default_rng(seed).integers(0, n, (resamples, n))
    counts = (drawn[:, :, None] == np.arange(n)).sum(axis=1).astype(float)  # R S
    others = 1 - np.eye(n)
    total, number = (
        np.einsum("ri,ij,rj->r", counts, weight, counts) for weight in (pairs * others, others)
    )
    return np.divide(total, number, out=np.full(resamples, np.nan), where=number > 0)


def by_chance(circuits: Sequence[Circuit]) -> float:
    """The mean Jaccard index that random circuits of the same sizes would have, nearly.

    Of two circuits of a and b edges among E, a b / E shared ones are expected.
    """
    found = []
    for a, b in itertools.combinations(circuits, 2):
        shared = len(a) * len(b) / a.graph.n_edges
        either = len(a) + len(b) - shared
        found.append(shared / either if either else 1.0)
    return float(np.mean(found))


def consensus(circuits: Sequence[Circuit], *, share: float = 0.5) -> Circuit:
    """The edges that more than `share` of the circuits keep; by default most of them.

    With 0 it is the union. Raises `ValueError` for no circuits, and for different graphs.
    """
    if not circuits:
        raise ValueError("a consensus needs circuits: got none")
    jaccards(circuits)  # refuses different graphs
    often = np.mean([circuit.kept for circuit in circuits], axis=0)
    said = {
        "operation": "consensus", "share": share,
        "operands": [circuit.provenance for circuit in circuits],
    }  # fmt: skip
    return Circuit(circuits[0].graph, often > share, said)


def stability(circuits: Sequence[Circuit], *, seed: int = 0) -> dict[str, Any]:
    """How alike circuits are, as plain JSON.

    `jaccard` is the mean over pairs, with its bootstrap `interval` over circuits and the `range`
    of the pairs; `by_chance` is that of random circuits of these sizes. `edges` are those in
    `all` of the circuits, in most (`consensus`) and in `any`. Few circuits make a wide interval,
    and two make none. Raises `ValueError` for fewer than two.
    """
    if len(circuits) < 2:
        raise ValueError(f"stability needs two circuits or more: got {len(circuits)}")
    pairs = jaccards(circuits)
    values = pairs[np.triu_indices(len(circuits), 1)]
    kept = np.stack([circuit.kept for circuit in circuits])
    resampled = resampled_jaccards(pairs, seed=seed)
    return {
        "circuits": len(circuits),
        "jaccard": float(values.mean()),
        "interval": list(interval(resampled)) if len(circuits) > 2 else None,
        "level": LEVEL,
        "range": [float(values.min()), float(values.max())],
        "by_chance": by_chance(circuits),
        "edges": {
            "all": int(kept.all(axis=0).sum()),
            "consensus": len(consensus(circuits)),
            "any": int(kept.any(axis=0).sum()),
        },
    }


def sentence(found: dict[str, Any]) -> str:
    """A `stability` in words: the mean index, its interval if it has one, and that of chance."""
    spread = ""
    if found["interval"]:
        low, high = found["interval"]
        spread = f" ({found['level']:.0%} interval {low:.3f} to {high:.3f})"
    return f"mean Jaccard index {found['jaccard']:.3f}{spread}, by chance {found['by_chance']:.3f}"
