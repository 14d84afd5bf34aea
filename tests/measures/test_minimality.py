"""Minimality on a compiled program, whose needed edges are known, and on a model by hand."""

from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from edgeprune_jax import circuit_json
from edgeprune_jax.circuits import Circuit, from_names, mask, reachable
from edgeprune_jax.evaluation import measure_masks, random_circuits
from edgeprune_jax.measures.minimality import AT_ONCE, greedily, minimality, one_by_one, removals
from edgeprune_jax.models.load import load_model
from tracr_models.domain import full_domain

PROGRAM = Path(str(resources.files("tracr_models"))) / "xproportion"


@pytest.fixture(scope="module")
def program():
    """The compiled program, its domain, the full model's outputs and the true circuit."""
    loaded, data = load_model(PROGRAM), full_domain(PROGRAM)
    return loaded, data, circuit_json.load(PROGRAM / "truth_zero_decoded.json")


def test_every_edge_of_the_truth_is_needed_and_no_other(program):
    loaded, data, truth = program
    larger = truth | random_circuits(truth.graph, 12, 1, seed=0)[0]
    assert len(larger) > len(truth) + 4
    found = minimality(
        loaded.model, loaded.params, larger, data, ablation="zero", tolerance=1e-6
    )
    needed = [edge for edge in found["one_by_one"]["edges"] if edge[2] > 1e-6]
    assert {tuple(edge[:2]) for edge in needed} == set(truth)
    assert found["one_by_one"]["needless"] == len(larger) - len(truth)
    assert found["greedy"]["edges"] == len(truth)
    assert found["divergence"] < 1e-6 > found["greedy"]["divergence"]


@pytest.fixture(scope="module")
def case(toy_case):
    return toy_case(1, 2, 1, ("tok_embeds", "pos_embeds"), batch=3)


@pytest.fixture(scope="module")
def toy(case, plain):
    data = plain.as_batch(case)
    circuit = Circuit(case.graph, np.random.default_rng(2).random(case.graph.n_edges) < 0.7)
    return circuit, data, removals(case.model, case.params, circuit, data)


def test_a_rise_is_the_difference_of_two_runs(case, toy):
    circuit, data, remove = toy
    indices = np.flatnonzero(circuit.kept)
    cut = np.tile(circuit.kept, (len(indices), 1))
    cut[np.arange(len(indices)), indices] = False
    masks = [mask(Circuit(case.graph, row)) for row in (circuit.kept, *cut)]
    base, *others = (
        one["kl"].mean() for one in measure_masks(case.model, case.params, masks, data)
    )
    said = []

    def listen(done, of):
        said.append((done, of))

    found = one_by_one(circuit, remove, ablation="interchange", on_edges=listen)
    np.testing.assert_allclose(found, np.array(others) - base, atol=1e-5)
    runs = len(reachable(circuit))
    assert said == [(min(done + AT_ONCE, runs), runs) for done in range(0, runs, AT_ONCE)]
    assert np.abs(found).max() > 0.01


def test_an_edge_on_no_path_is_not_run_and_changes_nothing(case, toy):
    graph, remove = case.graph, toy[2]
    circuit = from_names(graph, [("tok_embeds", "resid_post"), ("tok_embeds", "a0.h0.q")])
    by_interchange = one_by_one(circuit, remove, ablation="interchange")
    run_all = one_by_one(circuit, remove, ablation="zero")  # of the same runs, none left out
    np.testing.assert_allclose(by_interchange, run_all, atol=1e-6)
    dead = list(circuit).index(("tok_embeds", "a0.h0.q"))
    assert by_interchange[dead] == 0 != by_interchange[1 - dead]


@pytest.mark.parametrize("tolerance", [0.0, 0.02, 0.3, 1e9])
def test_greedy_removal_is_that_of_single_edges_and_keeps_its_promise(toy, tolerance):
    """Each edge left was refused when everything before it in the order had been decided."""
    circuit, _, remove = toy
    order = np.random.default_rng(3).permutation(np.flatnonzero(circuit.kept))
    left = greedily(circuit, remove, order, tolerance=tolerance)
    limit = remove.divergence(circuit.kept) + tolerance
    assert remove.divergence(left.kept) <= limit + 1e-6
    assert not (left - circuit).kept.any()
    decided = np.array(circuit.kept)
    for index in order:
        if left.kept[index]:
            trial = decided.copy()
            trial[index] = False
            assert remove.divergence(trial) > limit - 1e-6
        decided[index] = left.kept[index]
    assert len(left) == 0 or tolerance < 1e9
