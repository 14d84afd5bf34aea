"""Completeness: what a model does without a circuit."""

import numpy as np
import pytest

from edgeprune_jax.circuits import Circuit
from edgeprune_jax.evaluation import evaluate, random_circuits
from edgeprune_jax.measures.completeness import completeness, knockout


@pytest.fixture(scope="module")
def case(toy_case):
    return toy_case(1, 2, 1, ("tok_embeds", "pos_embeds"), batch=5)


@pytest.fixture(scope="module")
def run(case, plain):
    data = plain.as_batch(case)

    def measured(circuit, **options):
        return completeness(case.model, case.params, circuit, data, **options)

    return measured


def test_without_everything_nothing_is_left_and_without_nothing_everything(case, run):
    all_of_it = Circuit(case.graph, np.ones(case.graph.n_edges, bool))
    assert run(all_of_it, n_random=0)["left"]["logit_difference"]["value"] == 0
    found = run(knockout(all_of_it), n_random=0)
    assert found["left"]["logit_difference"]["value"] == pytest.approx(1, abs=1e-5)
    assert found["without circuit"]["exact_match"] == 1


def test_the_measures_are_those_of_the_other_edges(case, run, plain):
    circuit = random_circuits(case.graph, 9, 1, seed=3)[0]
    found = run(circuit, n_random=2, seed=4)
    rest = Circuit(case.graph, np.array([(w, r) not in circuit for w, r in case.graph.edges()]))
    cut = {f"{i}": knockout(one) for i, one in enumerate(random_circuits(case.graph, 9, 2, seed=4))}
    rows = evaluate(case.model, case.params, {"rest": rest, **cut}, plain.as_batch(case))
    for name, value in found["without circuit"].items():
        assert value == pytest.approx(rows["rest"][name], abs=1e-5)
        mean = (rows["0"][name] + rows["1"][name]) / 2
        assert found["without random"][name] == pytest.approx(mean, abs=1e-5)
    of = {name: row["logit_difference"] for name, row in rows.items()}
    left = (of["rest"] - of["empty"]) / (of["full"] - of["empty"])
    assert found["left"]["logit_difference"]["value"] == pytest.approx(left, abs=1e-4)


def test_knocking_out_twice_gives_the_circuit_back(case):
    circuit = random_circuits(case.graph, 9, 1, seed=3)[0]
    assert knockout(knockout(circuit)) == circuit
    assert not (circuit & knockout(circuit)).kept.any()
