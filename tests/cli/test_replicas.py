"""A run of several replicas tells how alike their circuits are."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from edgeprune_jax import circuit_json
from edgeprune_jax.cli.inputs import find_model
from edgeprune_jax.run import read_gates, read_replicas

ARGUMENTS = (
    "prune", "--model", "xproportion", "--task", "domain", "--ablation", "zero", "--divergence",
    "squared", "--steps", "60", "--edges", "9", "--gate-rate", "0.1", "--multiplier-rate", "0",
    "--price", "0.002", "--random-circuits", "0", "--replicas", "3", "--bootstrap",
)  # fmt: skip


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    return tmp_path_factory.mktemp("replicas") / "run"


def test_replicas_have_circuits_and_a_jaccard_index(together, answer, call):
    code, found = answer(*ARGUMENTS, "--out", together)
    assert code == 0 and found["edges"] == 9
    graph = circuit_json.load(together / "circuit.json").graph
    circuits = [circuit_json.load(together / "replicas" / f"{n}.json", graph) for n in range(3)]
    assert [len(circuit) for circuit in circuits] == [9, 9, 9]
    assert [circuit.provenance["replica"] for circuit in circuits] == [0, 1, 2]
    alike = json.loads((together / "stability.json").read_text())
    assert alike == found["stability"] and alike["circuits"] == 3

    held = load_file(together / "gates.safetensors")
    np.testing.assert_allclose(held["replicas"].mean(axis=0), held["edges"], atol=1e-6)
    np.testing.assert_array_equal(read_gates(together, graph).values, held["edges"])
    kept = np.argsort(-held["replicas"][1], kind="stable")[:9]
    assert set(kept) == set(np.flatnonzero(circuits[1].kept))

    code, out, _ = call(*ARGUMENTS, "--out", together)  # finished: only read
    assert code == 0
    words = " ".join(out.split())
    assert f"3 replicas: mean Jaccard index {alike['jaccard']:.3f}" in words


def test_replicas_of_another_graph_are_refused(together, tmp_path):
    graph = find_model("xproportion").graph
    values = np.zeros((2, graph.n_edges - 1), np.float32)
    save_file(
        {"edges": np.zeros(graph.n_edges, np.float32), "replicas": values},
        tmp_path / "gates.safetensors",
    )
    with pytest.raises(ValueError, match=rf"gates\.safetensors must hold {graph.n_edges} gates a"):
        read_replicas(tmp_path, graph)
