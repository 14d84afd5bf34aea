"""What a certificate tries, and that it is refused where another circuit does as well."""

from itertools import product

import numpy as np
import pytest

from tracr_models import certificate
from tracr_models.certificate import certify


def needs(*edges):
    """Faithful is what keeps these edges."""
    return lambda kept: kept[:, list(edges)].all(1)


def cancelling(kept):
    """Edges 1 and 2 cancel: both or neither."""
    return kept[:, 0] & (kept[:, 1] == kept[:, 2])


def flags(size, *edges):
    return np.isin(np.arange(size), edges)


def test_of_few_edges_all_circuits_are_tried():
    report, minimal = certify(needs(0, 2), flags(5, 0, 2), whole=True, seed=0)
    assert report == {
        "sufficient": True, "unique": True, "proof": True, "live_edges": 5,
        "proper_subsets": {"which": "all", "tried": 3, "faithful": 0, "smallest": None},
        "lacking_a_necessary_edge":
            {"which": "all", "tried": 2**5 - 2**3, "faithful": 0, "smallest": None},
    }  # fmt: skip
    np.testing.assert_array_equal(minimal, [flags(5, 0, 2)])


@pytest.mark.parametrize("size", [4, 30])
def test_two_writers_that_cancel_cost_the_certificate(size):
    report, minimal = certify(cancelling, flags(size, 0, 1, 2), whole=True, seed=0)
    assert report["sufficient"] and not report["unique"] and not report["proof"]
    assert report["proper_subsets"] == {"which": "all", "tried": 7, "faithful": 1, "smallest": 1}
    assert report["lacking_a_necessary_edge"]["faithful"] > 0
    np.testing.assert_array_equal(minimal, [flags(size, 0)])


@pytest.mark.parametrize("size", [4, 30])
def test_paths_that_stand_in_for_each_other_are_all_listed(size):
    def judge(kept):  # 0, and one of the pairs 1, 2 and 3, 4
        return kept[:, 0] & (kept[:, [1, 2]].all(1) | kept[:, 3])

    report, minimal = certify(judge, flags(size, 0), whole=True, seed=0)
    assert not report["sufficient"] and not report["unique"]
    np.testing.assert_array_equal(minimal, [flags(size, 0, 3), flags(size, 0, 1, 2)])


def test_where_nothing_is_needed_the_empty_circuit_is_the_truth():
    for size in (3, 30):
        report, minimal = certify(
            lambda kept: np.ones(len(kept), bool), flags(size), whole=True, seed=0
        )
        assert report["unique"] and report["proof"] and not minimal.any()
        assert report["lacking_a_necessary_edge"]["tried"] == 0


def test_what_was_seen_on_drawn_examples_is_no_proof():
    report, minimal = certify(needs(0, 2), flags(5, 0, 2), whole=False, seed=0)
    assert report["sufficient"] and report["unique"] and not report["proof"]
    np.testing.assert_array_equal(minimal, [flags(5, 0, 2)])


def test_all_proper_subsets_are_tried_where_there_are_few():
    necessary = np.array([True, False, True, True])
    subsets, which = certificate.proper_subsets(necessary, seed=0)
    expected = {(a, 0, b, c) for a, b, c in product((0, 1), repeat=3)} - {(1, 0, 1, 1)}
    assert which == "all" and {tuple(row) for row in subsets.astype(int)} == expected


def test_sampled_circuits_lack_a_necessary_edge():
    necessary = np.arange(40) < 20
    subsets, which = certificate.proper_subsets(necessary, seed=0)
    assert "random" in which and len(subsets) == 20 + 190 + 1140 + certificate.DRAWS
    assert not subsets[:, 20:].any() and not subsets[:, :20].all(-1).any()
    others, which = certificate.lacking_one(necessary, seed=0)
    # Of all pairs and triples of 40, those that lie in the other 20 lack no necessary edge.
    few = 20 + (780 - 190) + (9880 - 1140)
    assert which == certificate.FEW and len(others) == few + certificate.DRAWS
    assert len(np.unique(others[:few], axis=0)) == few
    assert others[:, 20:].any() and not others[:, :20].all(-1).any()


def test_of_many_edges_only_the_necessary_ones_go_by_threes():
    necessary = np.arange(70) < 6
    others, which = certificate.lacking_one(necessary, seed=0)
    few = 6 + (15 + 6 * 64) + 20
    assert which == certificate.FEW_NECESSARY and len(others) == few + certificate.DRAWS
    assert not others[:, :6].all(-1).any() and (~others[:few]).sum(1).max() == 3
