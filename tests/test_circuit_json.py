"""Circuits survive the disk, and whatever is wrong with a file is said in one line."""

import json
from importlib import resources

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune_jax import atomic, circuit_json, provenance
from edgeprune_jax.circuits import Circuit, from_names
from edgeprune_jax.graph import FINAL, Graph

GRAPH = Graph(2, 4, 2, ("tok_embeds",))
EDGES = [("tok_embeds", "m0"), ("a0.h3", "a1.h1.k"), ("m1", FINAL)]
CIRCUIT = from_names(GRAPH, EDGES, provenance={"task": "ioi", "sparsity": {"soft": 0.5}})


def refusal(path, graph=None):
    with pytest.raises(ValueError) as caught:
        circuit_json.load(path, graph)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    assert len(message) < len(str(path)) + 300
    return message


@pytest.fixture
def content(tmp_path):
    """A saved circuit as JSON, to be damaged."""
    circuit_json.save(CIRCUIT, tmp_path / "good.json")
    return json.loads((tmp_path / "good.json").read_text())


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.1, 1.0]))
def test_round_trip(tmp_path_factory, seed, density):
    path = tmp_path_factory.mktemp("circuits") / "circuit.json"
    kept = np.random.default_rng(seed).random(GRAPH.n_edges) < density
    circuit = Circuit(GRAPH, kept, {"settings": {"é": [1, 0.1, None, True, "<&>"]}})
    circuit_json.save(circuit, path)
    loaded = circuit_json.load(path, GRAPH)
    assert loaded == circuit and loaded.provenance == circuit.provenance
    assert [file.name for file in path.parent.iterdir()] == ["circuit.json"]


def test_a_file_has_one_edge_per_line(tmp_path):
    circuit_json.save(CIRCUIT, tmp_path / "c.json")
    lines = (tmp_path / "c.json").read_text().splitlines()
    assert lines[-6:] == [
        '  "edges": [',
        '    ["tok_embeds", "m0"],',
        '    ["a0.h3", "a1.h1.k"],',
        '    ["m1", "resid_post"]',
        "  ]",
        "}",
    ]


def test_the_references_list_of_edges_is_read(tmp_path):
    path = tmp_path / "edges.json"
    path.write_text('[["embeds", "m0"], ["a0.h3", "a1.h1.k"], ["m1", "resid_post"]]')
    assert circuit_json.load(path, GRAPH) == CIRCUIT
    assert "pass `graph`" in refusal(path)
    path.write_text('[["token_embeds", "m0"], ["tok_embeds", "m0"]]')
    assert "edges[1]" in refusal(path, GRAPH)


def test_a_circuit_of_another_graph_is_refused(tmp_path):
    circuit_json.save(CIRCUIT, tmp_path / "c.json")
    message = refusal(tmp_path / "c.json", Graph(3, 4, 2, ("tok_embeds",)))
    assert "layers=3" in message and "layers=2" in message


TEXTS = {
    "": "not JSON",
    "circuit": "not JSON",
    '{"schema": ': "not JSON",
    "null": "must hold",
    "3": "must hold",
    "{}": "schema",
    "[" * 100_000: "nested",
    '{"schema":' * 100_000: "nested",
    "9" * 5000: "",
    '{"a": NaN}': "NaN",
    '{"edges": [], "edges": []}': "twice",
}


@pytest.mark.parametrize(("text", "expected"), TEXTS.items(), ids=range(len(TEXTS)))
def test_what_is_not_a_circuit_is_refused(tmp_path, text, expected):
    (tmp_path / "bad.json").write_text(text)
    assert expected in refusal(tmp_path / "bad.json", GRAPH)


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "bad.json").write_bytes(b'{"schema": "\xff"}')
    assert "not UTF-8" in refusal(tmp_path / "bad.json")


def test_a_huge_file_is_not_read(tmp_path):
    with open(tmp_path / "huge.json", "wb") as file:
        file.truncate(circuit_json.MAX_BYTES + 1)
    assert "larger than" in refusal(tmp_path / "huge.json")


def test_a_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        circuit_json.load(tmp_path / "none.json")


LONG = "a" * 100_000
DEEP = json.loads('{"x":' * 100 + "1" + "}" * 100)
DAMAGE = [
    (("schema",), "edgeprune.circuit/2", "edgeprune.circuit/2"),
    (("schema",), 1, "schema"),
    (("surprise",), 1, "'surprise' is not known"),
    (("graph",), [], "graph"),
    (("graph", "extra"), 1, "graph"),
    (("graph", "layers"), 10**9, "graph.layers"),
    (("graph", "layers"), 0, "graph.layers"),
    (("graph", "layers"), 2.0, "graph.layers"),
    (("graph", "layers"), True, "graph.layers"),
    (("graph", "heads"), "4", "graph.heads"),
    (("graph", "heads"), 3, "multiple"),
    (("graph", "kv_heads"), None, "graph.kv_heads"),
    (("graph", "kv_heads"), 10**4000, "graph.kv_heads"),
    (("graph",), dict(layers=4096, heads=4096, kv_heads=1, embeddings=[]), "50000000"),
    (("graph", "embeddings"), "tok_embeds", "graph.embeddings"),
    (("graph", "embeddings"), [[]], "graph.embeddings"),
    (("graph", "embeddings"), ["rotary"], "rotary"),
    (("graph", "embeddings"), ["tok_embeds"] * 2, "differ"),
    (("graph", "embeddings"), [LONG], "graph"),
    (("edges",), {}, "edges"),
    (("edges", 1), "m0", "edges[1]"),
    (("edges", 1), ["m0"], "edges[1]"),
    (("edges", 1), ["m0", "m1", "m1"], "edges[1]"),
    (("edges", 1), ["m0", 1], "edges[1]"),
    (("edges", 1), [["m0"], "m1"], "edges[1]"),
    (("edges", 1), ["m0", LONG], "edges[1]"),
    (("edges", 1), ["m0", "m1\n"], "edges[1]"),
    (("edges", 1), ["m0", "\ud800"], "edges[1]"),
    (("edges", 1), ["m0", "a1.h3.k"], "edges[1]"),
    (("edges", 1), ["m0", "a9.h0.k"], "edges[1]"),
    (("edges", 1), ["a1.h0", "a0.h0.q"], "edges[1]"),
    (("edges", 1), ["tok_embeds", "m0"], "edges[1]"),
    (("provenance",), [], "provenance"),
    (("provenance", "task"), 3, "provenance.task must be text"),
    (("provenance", "model"), "gpt2", "provenance.model"),
    (("provenance", "sparsity"), {"soft": "0.9"}, "provenance.sparsity.soft"),
    (("provenance", "sparsity"), {"soft": True}, "provenance.sparsity.soft"),
    (("provenance", "operands"), [{}, 1], "provenance.operands[1]"),
    (("provenance", "operands"), [{"task": 1}], "provenance.operands[0].task"),
    (("provenance", "settings"), DEEP, "nested"),
    (("provenance", "command"), "\ud800", "provenance.command"),
    (("provenance", LONG), {"\ud800": 1}, "provenance"),
]


@pytest.mark.parametrize(("where", "value", "expected"), DAMAGE, ids=range(len(DAMAGE)))
def test_what_is_wrong_is_named(tmp_path, content, where, value, expected):
    inner = content
    for key in where[:-1]:
        inner = inner[key]
    inner[where[-1]] = value
    (tmp_path / "bad.json").write_text(json.dumps(content))
    assert expected in refusal(tmp_path / "bad.json")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400"])
def test_numbers_are_finite(tmp_path, content, number):
    text = json.dumps(content).replace("0.5", number)
    (tmp_path / "bad.json").write_text(text)
    refusal(tmp_path / "bad.json")


@pytest.mark.parametrize("missing", ["schema", "graph", "provenance", "edges"])
def test_every_entry_is_needed(tmp_path, content, missing):
    del content[missing]
    (tmp_path / "bad.json").write_text(json.dumps(content))
    assert missing in refusal(tmp_path / "bad.json")


@pytest.mark.parametrize("value", [float("nan"), object(), {1: 2}, np.zeros(2), {"x": [np.inf]}])
def test_provenance_that_is_not_json_is_not_saved(tmp_path, value):
    circuit = Circuit(GRAPH, CIRCUIT.kept, {"settings": {"x": value}})
    with pytest.raises(ValueError, match="provenance.settings.x"):
        circuit_json.save(circuit, tmp_path / "c.json")
    assert not list(tmp_path.iterdir())


def test_collected_provenance_can_be_saved(tmp_path):
    origin = provenance.collect(
        devices=["cpu"], task="ioi", settings={"lr": np.float32(0.5), "steps": (1, 2)}
    )
    assert origin["settings"] == {"lr": 0.5, "steps": [1, 2]}
    assert origin["versions"]["jax"] and origin["date"].endswith("+00:00")
    circuit_json.save(Circuit(GRAPH, CIRCUIT.kept, origin), tmp_path / "c.json")
    assert circuit_json.load(tmp_path / "c.json").provenance == origin


def test_collect_lets_a_caller_repeat_an_earlier_run():
    assert provenance.collect(date="2026-01-01")["date"] == "2026-01-01"


def test_the_schema_names_what_the_code_checks(content):
    text = (resources.files("edgeprune_jax") / "schema/circuit-1.json").read_text()
    schema = json.loads(text)
    assert schema["properties"].keys() == content.keys()
    assert schema["properties"]["graph"]["properties"].keys() == content["graph"].keys()
    assert schema["properties"]["schema"]["const"] == circuit_json.SCHEMA
    assert schema["$defs"]["provenance"]["properties"].keys() == provenance.TYPES.keys()


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file.txt"
    atomic.write(path, "old")

    def fail(descriptor):
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        atomic.write(path, "new")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
