"""`edgeprune prune --warm-start` begins with the ranks of scores, and refuses those of others."""

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from edgeprune_jax import circuit_json, scores_file
from edgeprune_jax.cli.inputs import find_model
from edgeprune_jax.graph import Edges

PROGRAM = ("--model", "xproportion", "--task", "domain", "--divergence", "squared")


@pytest.fixture
def scores(tmp_path):
    """A file of scores of the program's edges, of both signs."""
    loaded = find_model("xproportion")
    values = np.random.default_rng(0).normal(size=loaded.graph.n_edges)
    said = {"method": "eap", "model": {"name": loaded.name, "digest": loaded.digest}}
    edges = Edges(jnp.asarray(values, jnp.float32), loaded.graph)
    scores_file.save(scores_file.Scores(edges, "absolute", None, said), tmp_path / "s.safetensors")
    return tmp_path / "s.safetensors"


def test_a_run_starts_from_scores_and_says_so(scores, tmp_path, answer, call):
    run = (
        "prune", "--out", tmp_path / "run", *PROGRAM, "--steps", "1", "--ablation", "zero",
        "--gate-rate", "0", "--test-examples", "0",
    )  # fmt: skip
    assert answer(*run, "--warm-start", scores)[0] == 0
    said = circuit_json.load(tmp_path / "run" / "circuit.json").provenance["warm_start"]
    assert said["method"] == "eap" and said["digest"].startswith("sha256:")
    gates = load_file(tmp_path / "run" / "gates.safetensors")["edges"]
    sizes = np.abs(np.asarray(scores_file.load(scores).edges.values))
    np.testing.assert_array_equal(np.argsort(-gates), np.argsort(-sizes))
    assert np.ptp(gates) > 5
    written = scores_file.load(tmp_path / "run" / "scores.safetensors")
    np.testing.assert_allclose(written.edges.values, gates - gates.min(), atol=1e-5)
    code, _, err = call(*run)
    assert code == 2 and "it differs in warm_start" in err


@pytest.mark.parametrize(
    "flags, words",
    [
        (("--model", "reverse"), "reverse of Graph"),
        (("--start", "0"), "a warm start begins at the settings' `start`"),
        (("--warm-start", "missing.safetensors"), "missing.safetensors"),
    ],
)
def test_scores_that_no_run_can_start_from_are_refused(scores, tmp_path, call, flags, words):
    out = tmp_path / "run"
    code, said, err = call("prune", "--out", out, *PROGRAM, "--warm-start", scores, *flags)
    assert code == 2 and said == "" and words in err and err.count("\n") == 1
    assert not out.exists()


def test_scores_on_other_weights_are_refused(scores, tmp_path, call):
    found = scores_file.load(scores)
    other = found.provenance | {"model": {"digest": "sha256:0"}}
    scores_file.save(found._replace(provenance=other), scores)
    code, _, err = call("prune", "--out", tmp_path / "run", *PROGRAM, "--warm-start", scores)
    assert code == 2 and "made on weights sha256:0" in err
