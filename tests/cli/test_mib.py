"""`edgeprune export-mib` and `import-mib`, there and back on a compiled program."""

import numpy as np
import pytest

from edgeprune_jax import circuit_json, scores_file


def test_gates_scores_and_circuits_are_exported(pruned, tmp_path, answer):
    for number, source in enumerate((pruned, pruned / "circuit.json")):
        out = tmp_path / f"{number}.json"
        code, row = answer("export-mib", source, "--out", out)
        assert code == 0 and row["edges"] == 23 and 0 < row["in_graph"] <= 9
        assert answer("export-mib", "--check", out) == (0, [row])


def test_scores_go_there_and_back(tmp_path, answer):
    place = ("--model", "reverse")
    assert answer("attribute", "--out", tmp_path, *place, "--task", "domain")[0] == 0
    scores = scores_file.load(tmp_path / "scores.safetensors")
    out = tmp_path / "a.json"
    code, row = answer("export-mib", tmp_path / "scores.safetensors", "--out", out, "--edges", "30")
    code, back = answer("import-mib", out, *place, "--out", tmp_path / "back")
    assert code == 0 and back["edges"] >= row["in_graph"]
    found = scores_file.load(tmp_path / "back" / "scores.safetensors")
    graph, size = scores.edges.graph, np.abs(np.asarray(scores.edges.values))
    later = [i for i, (writer, _) in enumerate(graph.edges()) if "embeds" not in writer]
    np.testing.assert_allclose(np.asarray(found.edges.values)[later], size[later], rtol=1e-6)
    assert len(circuit_json.load(tmp_path / "back" / "circuit.json")) == back["edges"]


@pytest.mark.parametrize(
    "arguments, words",
    [((), "needs a source"), (("--check", "nowhere.json"), "nowhere.json does not exist")],
)
def test_what_cannot_be_is_refused_in_one_line(call, arguments, words):
    code, out, err = call("export-mib", *arguments)
    assert code == 2 and out == "" and words in err and err.count("\n") == 1
