"""MIB's files: its edges and their number, merged and repeated writers, and what is refused."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from edgeprune_jax import mib, mib_submission
from edgeprune_jax.circuits import Circuit
from edgeprune_jax.graph import POSITIONS, TOKENS, Edges, Graph
from edgeprune_jax.measures.curve import weighted_edges

GROUPED = Graph(2, 4, 2, (TOKENS, POSITIONS))


def scored(graph, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=graph.n_edges).astype(np.float32)
    return Edges(jnp.asarray(values), graph), Circuit(graph, rng.random(graph.n_edges) < 0.3)


def written(tmp_path, graph, seed=0):
    scores, circuit = scored(graph, seed)
    mib.write(scores, circuit.kept, tmp_path / "a.json", width=8)
    return scores, circuit, json.loads((tmp_path / "a.json").read_text())


@pytest.mark.parametrize(
    "layers, heads, count",
    [(12, 12, 32_491), (24, 14, 179_749), (26, 8, 74_218), (6, 4, 1_108), (32, 32, 1_592_881)],
)
def test_the_edges_of_mibs_models_are_counted_as_it_counts_them(layers, heads, count):
    names = mib.edge_names(layers, heads)
    assert len(names) == len(set(names)) == count
    assert names[:4] == ["input->a0.h0<q>", "input->a0.h0<k>", "input->a0.h0<v>", "input->a0.h1<q>"]
    assert names[-1] == f"m{layers - 1}->logits"
    assert len(mib.nodes(layers, heads)) == 2 + layers * (heads + 1)


@pytest.mark.parametrize("graph", [Graph(3, 2, 2, (TOKENS,)), GROUPED], ids=["plain", "grouped"])
def test_what_is_written_says_of_every_edge_what_the_circuit_says(tmp_path, graph):
    scores, circuit, content = written(tmp_path, graph)
    assert content["cfg"] == {
        "n_layers": graph.layers, "n_heads": graph.heads, "parallel_attn_mlp": False, "d_model": 8,
    }  # fmt: skip
    assert list(content["edges"]) == mib.edge_names(graph.layers, graph.heads)
    values, shared = np.asarray(scores.values), graph.heads // graph.kv_heads
    for name, entry in content["edges"].items():
        writer, reader = name.split("->")
        if "<" in reader:
            layer, head, slot = reader[1:].replace(".h", " ").replace("<", " ")[:-1].split()
            group = int(head) if slot == "q" else int(head) // shared
            reader = f"a{layer}.h{group}.{slot}"
        reader = "resid_post" if reader == "logits" else reader
        writers = graph.embeddings if writer == "input" else [writer]
        found = [graph.index(one, reader) for one in writers]
        assert entry["score"] == pytest.approx(values[found][np.abs(values[found]).argmax()])
        assert entry["in_graph"] == circuit.kept[found].any()
    inside = [name for name, entry in content["edges"].items() if entry["in_graph"]]
    assert len(content["edges"]) == weighted_edges(Circuit(graph, np.ones(graph.n_edges, bool)))
    ends = {end.partition("<")[0] for name in inside for end in name.split("->")}
    assert {name for name, entry in content["nodes"].items() if entry["in_graph"]} == ends


def test_with_a_head_for_every_key_nothing_is_lost(tmp_path):
    graph = Graph(3, 2, 2, (TOKENS,))
    scores, circuit, _ = written(tmp_path, graph)
    back, kept = mib.read(tmp_path / "a.json", graph)
    np.testing.assert_allclose(back.values, scores.values, rtol=1e-7)
    assert kept == circuit


def test_merged_writers_share_what_comes_back(tmp_path):
    scores, _, content = written(tmp_path, GROUPED)
    back, kept = mib.read(tmp_path / "a.json", GROUPED)
    mib.write(back, kept.kept, tmp_path / "b.json", width=8)
    again = json.loads((tmp_path / "b.json").read_text())
    assert again["nodes"] == content["nodes"]
    for name, entry in content["edges"].items():
        assert again["edges"][name]["in_graph"] == entry["in_graph"]
        assert again["edges"][name]["score"] == pytest.approx(entry["score"], rel=1e-6)
    tokens, positions = (GROUPED.index(one, "m0") for one in (TOKENS, POSITIONS))
    assert float(back.values[tokens]) == float(back.values[positions])


def test_heads_that_differ_on_a_shared_key_come_in_as_the_larger(tmp_path):
    _, _, content = written(tmp_path, GROUPED)
    for head, score in enumerate((0.5, -2.0, 0.25, 0.125)):
        content["edges"][f"m0->a1.h{head}<k>"] = {"score": score, "in_graph": head == 3}
    (tmp_path / "a.json").write_text(json.dumps(content))
    back, kept = mib.read(tmp_path / "a.json", GROUPED)
    first, second = (GROUPED.index("m0", f"a1.h{group}.k") for group in (0, 1))
    assert float(back.values[first]) == -2 and float(back.values[second]) == 0.25
    assert not kept.kept[first] and kept.kept[second]


def damage(content, where, value):
    *path, last = where
    for step in path:
        content = content[step]
    if value is None:
        del content[last]
    else:
        content[last] = value


@pytest.mark.parametrize(
    "where, value, words",
    [
        (("edges", "m0->logits"), None, "m0->logits is missing"),
        (("edges", "m9->logits"), {"score": 1.0, "in_graph": True}, "is not of this model"),
        (("edges", "m0->logits", "score"), None, "must have a finite score"),
        (("edges", "m0->logits", "score"), True, "must have a finite score"),
        (("edges", "m0->logits", "score"), 10**400, "must have a finite score"),
        (("edges", "m0->logits", "in_graph"), 1, "must say in_graph"),
        (("nodes", "input"), None, "nodes.input is missing"),
        (("cfg", "n_layers"), 3, "must be 2, the model's"),
        (("cfg", "n_layers"), 10**9, "from 1 to"),
        (("cfg", "parallel_attn_mlp"), True, "no model here is parallel"),
        (("cfg",), None, "must be an object of cfg"),
        (("cfg",), [], "must be an object of cfg"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(tmp_path, where, value, words):
    _, _, content = written(tmp_path, GROUPED)
    damage(content, where, value)
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=words) as error:
        mib.read(tmp_path / "a.json", GROUPED)
    assert "a.json" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "[]", "NaN", '{"cfg": Infinity}', "[" * 100_000])
def test_what_is_no_such_json_is_refused(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match="a.json"):
        mib.check(tmp_path / "a.json")


def test_a_graph_without_an_input_is_refused(tmp_path):
    scores, circuit = scored(Graph(2, 2, 1))
    with pytest.raises(ValueError, match="no embedding writers"):
        mib.write(scores, circuit.kept, tmp_path / "a.json", width=8)


def cell(folder, *, sizes=(), shapes=(3, 2)):
    """A cell's folder: circuits with so many edges, or one file of scores."""
    graph = Graph(*shapes, shapes[1], (TOKENS,))
    folder.mkdir(parents=True)
    for number, size in enumerate(sizes or (graph.n_edges,)):
        kept = np.arange(graph.n_edges) < size
        mib.write(scored(graph)[0], kept, folder / f"{number}.json", width=8)


def test_a_submission_has_two_tasks_and_two_models(tmp_path):
    cell(tmp_path / "ioi_gpt2")
    assert [row["cell"] for row in mib_submission.check(tmp_path / "ioi_gpt2")] == ["ioi_gpt2"]
    with pytest.raises(ValueError, match="two tasks and two models"):
        mib_submission.check(tmp_path)
    cell(tmp_path / "mcqa_qwen2.5", sizes=(0, 0, 0, 1, 2, 5, 10, 20, 50))
    assert len(mib_submission.check(tmp_path)) == 10


@pytest.mark.parametrize(
    "name, sizes, words",
    [
        ("ioi_gpt2", (0, 0, 0, 1, 2, 5, 10, 20, 80), "at most 50.0% of 100"),
        ("ioi_gpt2", (1, 2), "one file of scores or nine circuits: got 2"),
        ("ioi", (), "must be named TASK_MODEL"),
    ],
)
def test_what_cannot_be_submitted_is_refused(tmp_path, name, sizes, words):
    cell(tmp_path / name, sizes=sizes)
    with pytest.raises(ValueError, match=words):
        mib_submission.check(tmp_path / name)


def test_pickles_are_not_opened(tmp_path):
    cell(tmp_path / "ioi_gpt2")
    (tmp_path / "ioi_gpt2" / "scores.pt").write_bytes(b"")
    with pytest.raises(ValueError, match="json files alone: got 'scores.pt'"):
        mib_submission.check(tmp_path / "ioi_gpt2")
