"""Stability is the mean over pairs, its interval is over circuits, and most decide a consensus."""

import itertools
import json

import numpy as np
import pytest

from edgeprune_jax.circuits import Circuit
from edgeprune_jax.graph import Graph
from edgeprune_jax.measures.stability import (
    by_chance,
    consensus,
    jaccards,
    resampled_jaccards,
    stability,
)

GRAPH = Graph(2, 2, 2, ("tok_embeds",))


def holding(*indices):
    kept = np.zeros(GRAPH.n_edges, bool)
    kept[list(indices)] = True
    return Circuit(GRAPH, kept, {"seed": len(indices)})


THREE = [holding(0, 1, 2, 3), holding(2, 3, 4, 5), holding(3, 5, 6)]  # 2/6, 1/6, 2/5


def test_the_mean_over_pairs_is_that_of_pen_and_paper():
    found = stability(THREE)
    assert found["jaccard"] == pytest.approx((2 / 6 + 1 / 6 + 2 / 5) / 3)
    assert found["range"] == pytest.approx([1 / 6, 2 / 5])
    assert found["edges"] == {"all": 1, "consensus": 3, "any": 7}
    assert found["circuits"] == 3 and json.loads(json.dumps(found)) == found


def test_the_interval_draws_circuits_and_never_pairs_one_with_itself():
    """All 27 draws of three circuits, written out, against the resampled means."""
    pairs = jaccards(THREE)
    allowed = set()
    for drawn in itertools.product(range(3), repeat=3):
        values = [pairs[i, j] for i, j in itertools.combinations(drawn, 2) if i != j]
        allowed.add(round(float(np.mean(values)), 9) if values else None)
    found = resampled_jaccards(pairs, seed=0)
    assert {None if np.isnan(x) else round(float(x), 9) for x in found} == allowed
    assert np.isnan(found).mean() == pytest.approx(3 / 27, abs=0.03)
    low, high = stability(THREE)["interval"]
    assert 1 / 6 - 1e-9 < low < stability(THREE)["jaccard"] < high < 0.4 + 1e-9


def test_the_interval_holds_the_expected_overlap_of_many_random_circuits():
    """60 experiments of 12 circuits, each edge kept with probability 0.3: pairs share 0.3 / 1.7.

    Few circuits make intervals too narrow, so that less is asked of them than their level.
    """
    rng, held, truth = np.random.default_rng(0), 0, 0.3 / 1.7
    big = Graph(8, 4, 4, ("tok_embeds",))
    for seed in range(60):
        circuits = [Circuit(big, rng.random(big.n_edges) < 0.3) for _ in range(12)]
        low, high = stability(circuits, seed=seed)["interval"]
        held += low <= truth <= high
        assert high - low < 0.05
    assert held >= 48


def test_random_circuits_are_as_alike_as_chance_says():
    rng = np.random.default_rng(1)
    big = Graph(8, 4, 4, ("tok_embeds",))
    circuits = []
    for size in [60] * 10 + [200] * 10:
        kept = np.zeros(big.n_edges, bool)
        kept[rng.choice(big.n_edges, size, replace=False)] = True
        circuits.append(Circuit(big, kept))
    assert stability(circuits)["jaccard"] == pytest.approx(by_chance(circuits), rel=0.05)


def test_equal_circuits_are_perfectly_stable():
    found = stability([THREE[0]] * 4)
    assert found["jaccard"] == 1 and found["interval"] == [1, 1]
    assert consensus([THREE[0]] * 4) == THREE[0]


def test_the_consensus_is_what_more_than_a_share_keep():
    assert consensus(THREE) == holding(2, 3, 5)
    assert consensus(THREE[:2]) == THREE[0] & THREE[1]  # one of two is not most
    assert consensus(THREE, share=0.0) == THREE[0] | THREE[1] | THREE[2]
    said = consensus(THREE).provenance
    assert said["operation"] == "consensus" and said["operands"][0] == {"seed": 4}


def test_two_circuits_have_no_interval_and_one_no_stability():
    assert stability(THREE[:2])["interval"] is None
    with pytest.raises(ValueError, match="two circuits or more: got 1"):
        stability(THREE[:1])
    with pytest.raises(ValueError, match="needs circuits: got none"):
        consensus([])


def test_circuits_of_different_graphs_are_refused():
    other = Circuit(Graph(1, 1, 1), np.zeros(Graph(1, 1, 1).n_edges, bool))
    for measure in (stability, consensus):
        with pytest.raises(ValueError, match="same graph"):
            measure([THREE[0], other])
