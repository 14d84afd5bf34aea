"""How sure one can be that the necessary edges of a program are *the* true circuit.

Two writers can cancel, so that a circuit smaller than the necessary edges does the same. The
certificate says that this was looked for and not found:

    no proper subset of the necessary edges is faithful, and
    no circuit that lacks a necessary edge is faithful, whatever else it keeps.

The first is tried on all subsets where there are few, else on all that lack one, two or three
edges and on random ones; the second on random circuits.

Axes: E edges of the graph, M circuits.
"""

from collections.abc import Callable
from itertools import combinations

import numpy as np
from jaxtyping import Bool

EXHAUSTIVE = 13  # necessary edges up to which all subsets are tried
DRAWS = 10_000
Judge = Callable[[np.ndarray], np.ndarray]  # kept edges "M E" -> faithful or not "M"


def certify(judge: Judge, necessary: Bool[np.ndarray, " E"], *, seed: int) -> dict:
    """Whether the necessary edges suffice, and counts of the other circuits tried, as JSON."""
    if not judge(necessary[None])[0]:
        return {"sufficient": False, "unique": False}
    subsets, which = proper_subsets(necessary, seed=seed)
    fewer = _tried(judge, subsets)
    others = _tried(judge, lacking_one(necessary, seed=seed))
    return {
        "sufficient": True,
        "unique": fewer["faithful"] + others["faithful"] == 0,
        "proper_subsets": {"which": which, **fewer},
        "lacking_a_necessary_edge": {"which": "random", **others},
    }


def proper_subsets(
    necessary: Bool[np.ndarray, " E"], *, seed: int
) -> tuple[Bool[np.ndarray, "M E"], str]:
    """Circuits of fewer edges than the necessary ones, and which they are."""
    edges = np.flatnonzero(necessary)
    if len(edges) <= EXHAUSTIVE:
        # Row i keeps the edges that are the set bits of i. The last row, all of them, is left out.
        kept = np.arange(2 ** len(edges) - 1)[:, None] >> np.arange(len(edges)) & 1 == 1
        which = "all"
    else:
        few = [gone for size in (1, 2, 3) for gone in combinations(range(len(edges)), size)]
        kept = np.ones((len(few) + DRAWS, len(edges)), bool)
        for row, gone in enumerate(few):
            kept[row, list(gone)] = False
        kept[len(few) :] = _drop_some(DRAWS, len(edges), most=1.0, seed=seed)
        which = "all that lack one, two or three edges, and random ones"
    circuits = np.zeros((len(kept), len(necessary)), bool)
    circuits[:, edges] = kept
    return circuits, which


def lacking_one(necessary: Bool[np.ndarray, " E"], *, seed: int) -> Bool[np.ndarray, "M E"]:
    """Random circuits of the whole graph that lack a necessary edge, and up to half of all."""
    edges = np.flatnonzero(necessary)
    circuits = _drop_some(DRAWS if len(edges) else 0, len(necessary), most=0.5, seed=seed)
    # `_drop_some` need not hit a necessary edge.
    gone = np.random.default_rng((seed, 1)).choice(edges, len(circuits)) if len(edges) else edges
    circuits[np.arange(len(circuits)), gone] = False
    return circuits


def _drop_some(count: int, size: int, *, most: float, seed: int) -> Bool[np.ndarray, "M E"]:
    """Rows that each drop a random share of their entries, at most `most`, and at least one."""
    rng = np.random.default_rng(seed)
    kept = rng.random((count, size)) >= rng.uniform(0, most, (count, 1))
    kept[np.arange(count), rng.integers(size, size=count)] = False
    return kept


def _tried(judge: Judge, circuits: Bool[np.ndarray, "M E"]) -> dict:
    faithful = circuits[judge(circuits)]
    smallest = int(faithful.sum(-1).min()) if len(faithful) else None
    return {"tried": len(circuits), "faithful": len(faithful), "smallest": smallest}
