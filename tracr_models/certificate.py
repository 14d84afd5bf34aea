"""How sure one can be that the necessary edges of a program are *the* true circuit.

Two writers can cancel, so that a circuit smaller than the necessary edges does the same. The
certificate says that this was looked for and not found:

    no proper subset of the necessary edges is faithful, and
    no circuit that lacks a necessary edge is faithful, whatever else it keeps.

Where a program has few live edges, all its circuits are tried, and the certificate is a proof if
they were judged on the whole domain: that a circuit does well on drawn pairs proves nothing.
Else all that lack one, two or three edges are, and random ones. If it fails, the minimal circuits
that could be found are listed: faithful ones from which no edge, and no pair of edges, can go.

Axes: L live edges (see `live`: the others make no difference), M circuits.
"""

from itertools import combinations
from math import comb

import numpy as np
from jaxtyping import Bool

from tracr_models.judge import Judge

ALL = 16  # live edges up to which all circuits are tried
ALL_SUBSETS = 13  # necessary edges up to which all subsets are
MAX_TRIPLES = 25_000  # of live edges; if there are more, of necessary ones alone
DRAWS = 10_000
STARTS = 16  # circuits that are made minimal
FEW = "all that lack one, two or three edges, and random ones"
FEW_NECESSARY = "all that lack one or two edges or three necessary ones, and random ones"


def certify(
    judge: Judge, necessary: Bool[np.ndarray, " L"], *, whole: bool, seed: int
) -> tuple[dict, Bool[np.ndarray, "M L"]]:
    """What was tried and found, as JSON; and the minimal circuits: the necessary edges, if unique.

    `sufficient`: the necessary edges are faithful by themselves. `unique`: so, and nothing that
    was tried and lacks one is. `proof`: so, and nothing is left to try: neither a circuit, nor,
    as `whole` says of what the judge has seen, a prompt or pair.
    """
    sufficient = bool(judge(necessary[None])[0])
    fewer, which_fewer = proper_subsets(necessary, seed=seed)
    others, which_others = lacking_one(necessary, seed=seed)
    faithful = [circuits[judge(circuits)] for circuits in (fewer, others)]
    unique = sufficient and not any(map(len, faithful))
    report = {
        "sufficient": sufficient,
        "unique": unique,
        "proof": unique and whole and which_others == "all",
        "live_edges": len(necessary),
        "proper_subsets": _count(fewer, which_fewer, faithful[0]),
        "lacking_a_necessary_edge": _count(others, which_others, faithful[1]),
    }
    if unique:
        return report, necessary[None]
    return report, minimal_circuits(judge, np.vstack(faithful), seed=seed)


def proper_subsets(
    necessary: Bool[np.ndarray, " L"], *, seed: int
) -> tuple[Bool[np.ndarray, "M L"], str]:
    """Circuits of fewer edges than the necessary ones, and which they are."""
    count = int(necessary.sum())
    if count <= ALL_SUBSETS:
        kept, which = _every_row(count)[:-1], "all"  # the last row keeps them all
    else:
        kept, which = _lacking_few(np.ones(count, bool), triples=True), FEW
        kept = np.vstack([kept, _drop_some(count, most=1.0, seed=seed)])
    circuits = np.zeros((len(kept), len(necessary)), bool)
    circuits[:, necessary] = kept
    return circuits, which


def lacking_one(
    necessary: Bool[np.ndarray, " L"], *, seed: int
) -> tuple[Bool[np.ndarray, "M L"], str]:
    """Circuits of the whole graph that lack a necessary edge, and which they are."""
    size = len(necessary)
    if size <= ALL:
        every = _every_row(size)
        return every[(every < necessary).any(1)], "all"
    if not necessary.any():
        return np.zeros((0, size), bool), "all"
    triples = comb(size, 3) <= MAX_TRIPLES
    few = [_lacking_few(necessary, triples=triples)]
    if not triples:
        circuits = np.ones((comb(int(necessary.sum()), 3), size), bool)
        three = list(combinations(np.flatnonzero(necessary), 3))
        circuits[np.arange(len(three))[:, None], np.array(three, int).reshape(-1, 3)] = False
        few.append(circuits)
    drawn = _drop_some(size, most=0.5, seed=seed)  # which need not hit a necessary edge
    gone = np.random.default_rng((seed, 1)).choice(np.flatnonzero(necessary), len(drawn))
    drawn[np.arange(len(drawn)), gone] = False
    return np.vstack([*few, drawn]), FEW if triples else FEW_NECESSARY


def minimal_circuits(
    judge: Judge, faithful: Bool[np.ndarray, "M L"], *, seed: int
) -> Bool[np.ndarray, "M L"]:
    """Faithful circuits from which no edge and no pair can go, smallest first, as many as found.

    They are made from the smallest of `faithful` and from the full model, edges being dropped in
    a random order. Where all circuits can be tried, these are all there are.
    """
    size = faithful.shape[1]
    if size <= ALL:
        every = _every_row(size)
        found = every[judge(every)]
    else:
        rng = np.random.default_rng((seed, 2))
        smallest = faithful[np.argsort(faithful.sum(1), kind="stable")[: STARTS // 2]]
        starts = [*smallest, *np.ones((STARTS - len(smallest), size), bool)]
        found = np.unique([_shrink(judge, start, rng) for start in starts], axis=0)
    minimal: list[np.ndarray] = []
    for kept in found[np.argsort(found.sum(1), kind="stable")]:
        if not any((other <= kept).all() for other in minimal):
            minimal.append(kept)
    return np.array(minimal)


def _shrink(judge: Judge, kept: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Drops single edges while one can go, then pairs, until none can."""
    while True:
        edges = rng.permutation(np.flatnonzero(kept))
        for size in (1, 2):
            groups = np.array(list(combinations(edges, size)), int).reshape(-1, size)
            tries = np.repeat(kept[None], len(groups), 0)
            tries[np.arange(len(groups))[:, None], groups] = False
            good = np.flatnonzero(judge(tries))
            if len(good):
                kept = tries[good[0]]
                break
        else:
            return kept


def _every_row(size: int) -> Bool[np.ndarray, "M size"]:
    """All rows: row i keeps the entries that are the set bits of i."""
    return np.arange(2**size)[:, None] >> np.arange(size) & 1 == 1


def _lacking_few(wanted: Bool[np.ndarray, " L"], *, triples: bool) -> Bool[np.ndarray, "M L"]:
    """All rows that lack one, two or three entries, at least one of them wanted."""
    size = len(wanted)
    parts = []
    for count in (1, 2, 3)[: 3 if triples else 2]:
        gone = np.array(list(combinations(range(size), count)), int).reshape(-1, count)
        gone = gone[wanted[gone].any(1)]
        kept = np.ones((len(gone), size), bool)
        kept[np.arange(len(gone))[:, None], gone] = False
        parts.append(kept)
    return np.vstack(parts)


def _drop_some(size: int, *, most: float, seed: int) -> Bool[np.ndarray, "M size"]:
    """Rows that each drop a random share of their entries, at most `most`, and at least one."""
    rng = np.random.default_rng(seed)
    kept = rng.random((DRAWS, size)) >= rng.uniform(0, most, (DRAWS, 1))
    kept[np.arange(DRAWS), rng.integers(size, size=DRAWS)] = False
    return kept


def _count(circuits: np.ndarray, which: str, faithful: np.ndarray) -> dict:
    smallest = int(faithful.sum(-1).min()) if len(faithful) else None
    return {"which": which, "tried": len(circuits), "faithful": len(faithful), "smallest": smallest}
