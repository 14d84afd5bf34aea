"""`edgeprune attribute` writes scores that say how they were made, and other commands read them."""

import numpy as np
import pytest

from edgeprune_jax import circuit_json, scores_file

ZERO = ("--model", "reverse", "--task", "domain", "--ablation", "zero")


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """ACDC on reverse, which keeps the edges that it needs."""
    from edgeprune_jax.cli.main import main

    folder = tmp_path_factory.mktemp("runs") / "acdc"
    assert main(["attribute", "--out", str(folder), *ZERO, "--method", "acdc", "--json"]) == 0
    return folder


def test_scores_and_circuit_say_how_they_were_made(scored):
    scores = scores_file.load(scored / "scores.safetensors")
    circuit = circuit_json.load(scored / "circuit.json")
    assert scores.keep == len(circuit) and 0 < len(circuit) < 94
    np.testing.assert_array_equal(np.asarray(scores.edges.values) >= 0.01, circuit.kept)
    for said in (scores.provenance, circuit.provenance):
        assert said["method"] == "acdc" and said["ablation"] == "zero" and said["task"] == "domain"
        assert said["settings"]["threshold"] == 0.01 and said["model"]["digest"]
        assert said["data"] == {"seed": 0, "n_train": 27, "split": "train"}


def test_evaluate_reads_scores(scored, answer):
    names = [str(scored / name) for name in ("circuit.json", "scores.safetensors")]
    code, found = answer("evaluate", *names, "--random-circuits", "0", "--no-eap")
    assert code == 0 and found["ablation"] == "zero"
    assert found["rows"][names[0]] == found["rows"][names[1]]
    assert found["rows"][names[0]]["kl"] < found["rows"]["empty"]["kl"] / 2
    code, found = answer(
        "evaluate", names[1], "--edges", "40", "--random-circuits", "0", "--no-eap"
    )
    assert found["rows"][names[1]]["edges"] == 40


def test_scores_alone_are_no_circuit(tmp_path, answer, call):
    code, found = answer("attribute", "--out", tmp_path, *ZERO, "--sign", "signed")
    assert code == 0 and found["written"] == ["scores.safetensors"] and found["edges"] is None
    effects = [edge["effect"] for edge in found["top"]]
    assert effects == sorted(effects, reverse=True) and len(effects) == 10
    code, out, err = call("evaluate", tmp_path / "scores.safetensors")
    assert code == 2 and out == "" and "--edges" in err and err.count("\n") == 1


@pytest.mark.parametrize(
    "flags, words",
    [
        (("--metric", "kl"), "no gradient at the full model"),
        (("--metric", "logit-difference"), "needs foils: example 0 has none"),
        (("--threshold", "0"), "threshold must be above 0"),
        (("--method", "magic"), "method"),
        (("--edges", "95"), "--edges must be between 0 and 94"),
        (("--ig-steps", "0"), "ig_steps must be at least 1"),
        (("--sign", "upward"), "sign must be one of"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(tmp_path, call, flags, words):
    code, out, err = call("attribute", "--out", tmp_path / "run", *ZERO, *flags)
    assert code == 2 and out == "" and words in err and err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_hostile_file_of_scores_is_refused_in_one_line(tmp_path, call):
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"\xff" * 64)
    code, out, err = call("evaluate", path, "--edges", "3")
    assert code == 2 and out == "" and "not a safetensors file" in err and err.count("\n") == 1
