"""A drawing shows the circuit: every edge and every node that it has, once, and no other."""

import xml.etree.ElementTree as ElementTree
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune_jax.circuits import Circuit, from_names
from edgeprune_jax.graph import ALIASES, FINAL, Graph, full
from edgeprune_jax.report.draw import draw
from edgeprune_jax.report.layout import HEIGHT, arrange
from edgeprune_jax.report.routes import route

SVG = "{http://www.w3.org/2000/svg}"
GRAPHS = [
    Graph(1, 1, 1),
    Graph(4, 1, 1, ("tok_embeds", "pos_embeds")),
    Graph(3, 4, 4, ("tok_embeds",)),
    Graph(3, 6, 2, ("tok_embeds",)),
    Graph(3, 4, 1),
]


any_circuit = given(
    st.sampled_from(GRAPHS), st.sampled_from((0.0, 0.05, 0.3, 1.0)), st.integers(0, 1000)
)


def make(graph, density, seed):
    return Circuit(graph, np.random.default_rng(seed).random(graph.n_edges) < density)


def nodes(graph, edges):
    """The boxes that a drawing of these edges needs."""
    grouped = graph.kv_heads < graph.heads
    for writer, reader in edges:
        yield writer
        shared = grouped and reader.endswith((".k", ".v"))
        yield reader if shared or reader.count(".") < 2 else reader.rsplit(".", 1)[0]


@settings(max_examples=40, deadline=None)
@any_circuit
def test_every_used_node_and_edge_is_drawn_once(graph, density, seed):
    circuit = make(graph, density, seed)
    root = ElementTree.fromstring(draw(circuit, title="a circuit"))
    drawn = Counter(path[0].text for path in root.iter(f"{SVG}path") if len(path))
    assert drawn == Counter(" → ".join(edge) for edge in circuit)
    boxes = Counter(
        group.find(f"{SVG}title").text.split(":")[0]
        for group in root.iter(f"{SVG}g")
        if group.get("class") == "node"
    )
    assert boxes == Counter(set(nodes(circuit.graph, circuit)))


@settings(max_examples=40, deadline=None)
@any_circuit
def test_everything_is_inside_the_drawing(graph, density, seed):
    circuit = make(graph, density, seed)
    root = ElementTree.fromstring(draw(circuit, title="a circuit"))
    width, height = float(root.get("width")), float(root.get("height"))
    frame = next(g for g in root if g.get("transform"))
    right, down = map(float, frame.get("transform")[len("translate(") : -1].split())
    for box in frame.iter(f"{SVG}rect"):
        left, top = float(box.get("x")) + right, float(box.get("y")) + down
        assert 0 <= left and left + float(box.get("width")) <= width
        assert 0 <= top and top + float(box.get("height")) <= height


@settings(max_examples=40, deadline=None)
@any_circuit
def test_boxes_do_not_overlap_and_edges_go_up(graph, density, seed):
    circuit = make(graph, density, seed)
    places = arrange(circuit, gap=40.0)
    for a in places.boxes.values():
        for b in places.boxes.values():
            if a.name < b.name and a.row == b.row:
                assert abs(a.x - b.x) >= (a.width + b.width) / 2
    for points in route(circuit, places):
        heights = [y for _, y in points]
        assert heights == sorted(heights, reverse=True) and heights[0] > heights[-1]


@settings(max_examples=40, deadline=None)
@any_circuit
def test_edges_on_lanes_cross_no_box_and_no_other_edge(graph, density, seed):
    circuit = make(graph, density, seed)
    places = arrange(circuit, gap=40.0)
    passing = Counter()
    for points in route(circuit, places):
        if len(points) == 2:
            continue
        _, (x, bottom), (same, top), _ = points
        assert x == same
        for row, y in enumerate(places.tops):
            if top <= y < bottom:
                passing[row, x] += 1
        for box in places.boxes.values():
            between = top - HEIGHT < box.y < bottom
            assert not (between and abs(box.x - x) <= box.width / 2)
    assert all(count == 1 for count in passing.values())


def test_edges_land_on_the_query_key_or_value():
    graph = GRAPHS[2]
    edges = [("a0.h1", f"a1.h2.{letter}") for letter in "qkv"]
    places = arrange(from_names(graph, edges), gap=40.0)
    entries = [places.entries[reader] for _, reader in edges]
    assert {box.name for box, _ in entries} == {"a1.h2"}
    assert entries[0][1] < entries[1][1] < entries[2][1]


def test_shared_keys_stand_beside_the_heads_of_their_group():
    graph = GRAPHS[3]
    names = [("tok_embeds", "a1.h1.k"), ("tok_embeds", "a1.h1.q"), ("a1.h5", FINAL)]
    names.append(("a1.h1", FINAL))
    places = arrange(from_names(graph, names), gap=40.0)
    order = sorted((box.x, name) for name, box in places.boxes.items() if name.startswith("a"))
    assert [name for _, name in order] == ["a1.h1", "a1.h5", "a1.h1.k"]
    assert len(places.panels) == 1  # of the second group; head 1 is alone in the first


def test_unused_layers_are_left_out():
    graph = Graph(30, 2, 2, ("tok_embeds",))
    places = arrange(from_names(graph, [("tok_embeds", "m5"), ("m5", FINAL)]), gap=40.0)
    assert [(band.layer, band.skipped) for band in places.bands] == [(5, 5)]
    assert len(places.tops) == 3


@pytest.mark.parametrize("title", ["<script>&\"'", "nul \0 and \ud800 and \ufffe", "]]>"])
def test_any_title_gives_valid_xml(title):
    circuit = from_names(GRAPHS[0], [("m0", FINAL)])
    text = draw(circuit, title=title)
    root = ElementTree.fromstring(text.encode())
    assert root.find(f"{SVG}title").text.startswith(title[:3].replace("\0", "\ufffd"))


def test_drawing_is_deterministic_and_shows_scores():
    graph = GRAPHS[2]
    circuit = Circuit(graph, np.ones(graph.n_edges, bool))
    first = draw(circuit, title="t", scores=full(graph, 0.25))
    assert first == draw(circuit, title="t", scores=full(graph, 0.25))
    assert "<title>tok_embeds → m0: 0.25</title>" in first
    with pytest.raises(ValueError, match="layers=3.*layers=1"):
        draw(circuit, title="t", scores=full(GRAPHS[0], 1.0))


def test_aliases_are_drawn_by_their_published_name():
    for alias, name in ALIASES.items():
        circuit = from_names(GRAPHS[2], [(alias, "m0")])
        assert f"<title>{name} → m0</title>" in draw(circuit, title="t")


def test_thousands_of_edges_give_a_file_of_moderate_size():
    graph = Graph(30, 9, 3, ("tok_embeds",))
    circuit = Circuit(graph, np.random.default_rng(0).random(graph.n_edges) < 0.1)
    assert len(draw(circuit, title="many")) < 200 * len(circuit)
