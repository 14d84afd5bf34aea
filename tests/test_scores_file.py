"""Scores come back as they were written, and a file that holds none is refused in one line."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from edgeprune_jax import scores_file
from edgeprune_jax.graph import TOKENS, Edges, Graph
from edgeprune_jax.scores_file import Scores

GRAPH = Graph(2, 2, 1, (TOKENS,))
VALUES = np.random.default_rng(0).normal(size=GRAPH.n_edges).astype(np.float32)
HEAD = {
    "schema": "edgeprune.scores/1",
    "graph": {"layers": 2, "heads": 2, "kv_heads": 1, "embeddings": [TOKENS]},
    "sign": "absolute", "keep": None, "provenance": {"method": "eap"},
}  # fmt: skip


def write(path, head, **tensors):
    text = head if isinstance(head, str) else json.dumps(head)
    save_file(tensors or {"scores": VALUES}, path, {"edgeprune": text})
    return path


@pytest.mark.parametrize("sign", ["absolute", "signed"])
def test_scores_come_back(tmp_path, sign):
    path = tmp_path / "a.safetensors"
    scores_file.save(Scores(Edges(jnp.asarray(VALUES), GRAPH), sign, 5, {"task": "ioi"}), path)
    found = scores_file.load(path)
    np.testing.assert_array_equal(found.edges.values, VALUES)
    assert found.edges.graph == GRAPH and found.provenance == {"task": "ioi"}
    by = np.abs(VALUES) if sign == "absolute" else VALUES
    for keep, circuit in ((5, found.circuit()), (9, found.circuit(9))):
        assert len(circuit) == keep and by[circuit.kept].min() >= by[~circuit.kept].max()
        assert circuit.provenance == {"task": "ioi", "sign": sign}


def test_a_size_is_asked_for_where_the_method_has_none(tmp_path):
    with pytest.raises(ValueError, match="say how many to keep"):
        scores_file.load(write(tmp_path / "a.safetensors", HEAD)).circuit()


BAD = [
    (HEAD | {"schema": "edgeprune.scores/9"}, {}, "schema must be"),
    (HEAD | {"sign": "upward"}, {}, "sign must be"),
    (HEAD | {"keep": 10**9}, {}, "keep must be"),
    (HEAD | {"keep": True}, {}, "keep must be"),
    (HEAD | {"more": 1}, {}, "'more' is not known"),
    ({k: v for k, v in HEAD.items() if k != "graph"}, {}, "'graph' is missing"),
    (HEAD | {"graph": HEAD["graph"] | {"layers": 10**6}}, {}, "graph.layers must be"),
    (HEAD | {"graph": HEAD["graph"] | {"layers": 3}}, {}, "one per edge"),
    (HEAD | {"provenance": {"task": 3}}, {}, "provenance.task must be"),
    ([1], {}, "schema must be"),
    ("{", {}, "not JSON"),
    ('{"schema": NaN}', {}, "NaN is not a number"),
    ("[" * 100_000, {}, "nested too deeply"),
    (HEAD, {"scores": VALUES.astype(np.float16)}, "in F32"),
    (HEAD, {"scores": VALUES, "more": VALUES}, "one tensor"),
    (HEAD, {"weights": VALUES}, "one tensor"),
    (HEAD, {"scores": np.where(VALUES > 1, np.nan, VALUES)}, "must be finite"),
]


@pytest.mark.parametrize("head, tensors, words", BAD)
def test_a_wrong_file_is_refused_in_one_line(tmp_path, head, tensors, words):
    path = write(tmp_path / "a.safetensors", head, **tensors)
    with pytest.raises(ValueError, match=words) as error:
        scores_file.load(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff" * 40, b"\x08" + b"\0" * 7 + b"[1,2,3] "])
def test_what_is_no_safetensors_file_is_refused(tmp_path, content):
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="not a safetensors file"):
        scores_file.load(path)


def test_a_file_of_weights_is_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({"scores": VALUES}, path)
    with pytest.raises(ValueError, match="not a file of scores"):
        scores_file.load(path)


def test_scores_that_are_not_finite_are_not_written(tmp_path):
    wrong = Edges(jnp.asarray(VALUES).at[3].set(jnp.inf), GRAPH)
    with pytest.raises(ValueError, match="must be finite"):
        scores_file.save(Scores(wrong, "signed", None, {}), tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())
