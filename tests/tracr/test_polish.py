"""Polish drops what can go, and sees no more than it says."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune_jax.circuits import Circuit
from edgeprune_jax.graph import Graph
from tracr_models.polish import EXAMPLES, MORE, examples_to_see, polish

GRAPH = Graph(4, 1, 1, ("tok_embeds", "pos_embeds"))  # 94 edges


def circuit(edges):
    kept = np.zeros(GRAPH.n_edges, bool)
    kept[list(edges)] = True
    return Circuit(GRAPH, kept)


def needing(true, seen=None):
    """Counts the true edges that a circuit lacks, as if each failed an example of its own."""

    def wrong(kept):
        if seen is not None:
            seen.append(kept.copy())
        return int((~kept[list(true)]).sum())

    return wrong


@settings(max_examples=40, deadline=None)
@given(st.sets(st.integers(0, 93), min_size=1, max_size=60), st.integers(0, 99))
def test_it_sees_the_circuit_and_at_most_a_tenth_more(found, seed):
    seen, true = [], range(20)
    ranking = np.random.default_rng(seed).normal(size=94)
    result, tried = polish(circuit(found), ranking, needing(true, seen))
    outside = [edge for edge in np.argsort(-ranking) if edge not in found]
    more = outside[: int(MORE * len(found))]
    assert set(np.flatnonzero(np.any(seen, axis=0))) == found | set(more)
    assert tried == len(seen) == 1 + len(found) + len(more)
    assert set(np.flatnonzero(result.kept)) == (found | set(more)) & set(true)


def test_a_needless_edge_is_dropped_and_a_missing_one_of_high_rank_added():
    ranking = -np.arange(94.0)
    true = range(11)
    found = (set(true) - {10}) | {60}
    result, tried = polish(circuit(found), ranking, needing(true))
    assert result == circuit(true)
    assert tried == 1 + 11 + 1


def test_an_edge_out_of_sight_stays_lost():
    true = range(11)
    result, _ = polish(circuit(range(9)), -np.arange(94.0)[::-1], needing(true))
    assert result == circuit(range(9))


@pytest.mark.parametrize("edges", [[], [3]])
def test_small_circuits_have_nothing_beside_them(edges):
    seen = []
    polish(circuit(edges), np.zeros(94), needing([3], seen))
    assert np.max(seen, axis=0).sum() == len(edges)


@settings(deadline=None)
@given(st.integers(1, 1000), st.integers(0, 99))
def test_all_of_few_examples_are_seen_and_of_many_the_hardest_and_some_others(n, seed):
    failures = np.random.default_rng(seed).random(n)
    chosen = examples_to_see(failures, seed=seed)
    assert len(set(chosen)) == len(chosen) == min(n, EXAMPLES)
    assert set(np.argsort(-failures)[: EXAMPLES // 2]) <= set(chosen)
