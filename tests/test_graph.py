"""The graph counts, orders and names the edges of a transformer, and edges hold one number each."""

from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune_jax.graph import Edge, Edges, Graph, full, scale_writers

BOTH = ("tok_embeds", "pos_embeds")
GPT2_SMALL = Graph(12, 12, 12, BOTH)
GROUPED = Graph(3, 4, 2, BOTH)

shapes = st.tuples(
    st.integers(1, 4),
    st.sampled_from([(1, 1), (2, 1), (2, 2), (4, 2), (6, 2), (9, 3), (3, 3)]),
    st.sampled_from([(), ("tok_embeds",), ("pos_embeds",), BOTH]),
)
relaxed = settings(deadline=None)  # other work on the machine is no failure


def make(shape):
    layers, (heads, groups), names = shape
    return Graph(layers, heads, groups, names)


def enumerate_edges(graph):
    """Every writer and reader in the order in which they act, by the definition of an edge."""
    edges, writers = [], list(graph.embeddings)
    for layer in range(graph.layers):
        heads = range(graph.heads)
        readers = [f"a{layer}.h{h}.q" for h in heads]
        readers += [f"a{layer}.h{g}.k" for g in range(graph.kv_heads)]
        readers += [f"a{layer}.h{g}.v" for g in range(graph.kv_heads)]
        edges += [(writer, reader) for reader in readers for writer in writers]
        writers += [f"a{layer}.h{h}" for h in heads]
        edges += [(writer, f"m{layer}") for writer in writers]
        writers.append(f"m{layer}")
    return edges + [(writer, "resid_post") for writer in writers]


@pytest.mark.parametrize(
    "graph, writers, readers, edges",
    [
        (GPT2_SMALL, 158, 445, 32_936),
        (Graph(12, 12, 12), 156, 445, 32_046),
        (Graph(40, 40, 40), 1_640, 4_841, 3_872_820),
        (Graph(40, 40, 40, ("tok_embeds",)), 1_641, 4_841, 3_877_661),
        (Graph(30, 9, 3, ("tok_embeds",)), 301, 481, 70_651),
        (Graph(4, 1, 1, BOTH), 10, 17, 94),
        (Graph(2, 1, 1, BOTH), 6, 9, 32),
    ],
)
def test_published_models_have_their_published_sizes(graph, writers, readers, edges):
    assert (graph.n_writers, graph.n_readers, graph.n_edges) == (writers, readers, edges)


@relaxed
@given(shapes)
def test_edges_are_those_of_the_definition_in_its_order(shape):
    graph = make(shape)
    expected = enumerate_edges(graph)
    assert list(graph.edges()) == expected
    assert graph.n_edges == len(expected)
    assert list(graph.readers) == list(dict.fromkeys(reader for _, reader in expected)) or (
        not graph.embeddings  # the first attention then reads nothing
    )
    assert graph.writers == tuple(writer for writer, reader in expected if reader == "resid_post")


@relaxed
@given(shapes)
def test_the_number_of_edges_has_a_closed_form(shape):
    graph = make(shape)
    L, H, G, E = graph.layers, graph.heads, graph.kv_heads, len(graph.embeddings)
    per_layer = H + 2 * G + 1
    pairs = per_layer * (L * E + (H + 1) * L * (L - 1) // 2)
    assert graph.n_edges == pairs + L * H + E + L * (H + 1)


@relaxed
@given(shapes)
def test_index_and_edge_are_inverse(shape):
    graph = make(shape)
    for position, edge in enumerate(graph.edges()):
        assert graph.index(*edge) == position
        assert graph.edge(position) == edge
    for name, length, start in zip(
        graph.readers, graph.row_lengths, graph.row_starts[:-1], strict=True
    ):
        assert graph.readers[graph.reader_index(name)] == name
        if length:
            assert graph.edge(start) == Edge(graph.writers[0], name)
    for position, name in enumerate(graph.writers):
        assert graph.writer_index(name) == position


def test_nodes_are_named_and_ordered_as_published():
    assert GROUPED.writers[:8] == (*BOTH, "a0.h0", "a0.h1", "a0.h2", "a0.h3", "m0", "a1.h0")
    assert GROUPED.readers[:9] == (
        "a0.h0.q", "a0.h1.q", "a0.h2.q", "a0.h3.q", "a0.h0.k", "a0.h1.k", "a0.h0.v", "a0.h1.v",
        "m0",
    )  # fmt: skip
    assert GROUPED.readers[-1] == "resid_post"
    assert GROUPED.index("pos_embeds", "a0.h1.q") == 3


@pytest.mark.parametrize("alias", ["embeds", "token_embeds"])
def test_aliases_name_the_token_embedding(alias):
    graph = Graph(1, 1, 1, ("pos_embeds", "tok_embeds"))
    assert graph.writer_index(alias) == graph.writer_index("tok_embeds") == 1
    assert graph.index(alias, "m0") == graph.index("tok_embeds", "m0")


@pytest.mark.parametrize(
    "name, message",
    [
        ("a0.h4", "writer 'a0.h4' does not exist in a graph of 3 layers, 4 heads, 2 key/value"),
        ("a3.h0", "writer 'a3.h0' does not exist"),
        ("m3", "writer 'm3' does not exist"),
        ("a0.h0.q", "writer 'a0.h0.q' does not exist"),
        ("a00.h0", "writer 'a00.h0' does not exist"),
        ("a٠.h0", "'a٠.h0' is not the name of a writer: expected one like tok_embeds, pos_embeds"),
        ("m²", "not the name of a writer"),
        ("a-1.h0", "not the name of a writer"),
        ("m0 ", "not the name of a writer"),
        ("resid_post", "not the name of a writer"),
        ("", "not the name of a writer"),
    ],
)
def test_a_writer_that_does_not_exist_is_named(name, message):
    with pytest.raises(ValueError, match=message):
        GROUPED.writer_index(name)
    with pytest.raises(ValueError, match=message):
        GROUPED.index(name, "resid_post")


@pytest.mark.parametrize(
    "name, message",
    [
        ("a0.h2.k", "reader 'a0.h2.k' does not exist in a graph of .* 2 key/value heads"),
        ("a1.h3.v", "reader 'a1.h3.v' does not exist"),
        ("a0.h4.q", "reader 'a0.h4.q' does not exist"),
        ("a3.h0.q", "reader 'a3.h0.q' does not exist"),
        ("a0.h0", "reader 'a0.h0' does not exist"),
        ("m3", "reader 'm3' does not exist"),
        ("a0.h0.o", "'a0.h0.o' is not the name of a reader: expected one like a0.h0.q, m0, resid"),
        ("a٠.h0.q", "not the name of a reader"),
        ("tok_embeds", "not the name of a reader"),
    ],
)
def test_a_reader_that_does_not_exist_is_named(name, message):
    with pytest.raises(ValueError, match=message):
        GROUPED.reader_index(name)
    with pytest.raises(ValueError, match=message):
        GROUPED.index("tok_embeds", name)


@pytest.mark.parametrize("name", ["tok_embeds", "embeds", "pos_embeds"])
def test_a_graph_without_embedding_writers_has_none(name):
    with pytest.raises(ValueError, match="expected one like a0.h0, m0"):
        Graph(1, 1, 1).writer_index(name)


@pytest.mark.parametrize(
    "writer, reader",
    [("a0.h0", "a0.h0.q"), ("m0", "m0"), ("m1", "a1.h0.v"), ("a2.h1", "a1.h0.k"), ("m2", "m1")],
)
def test_an_edge_back_in_time_does_not_exist(writer, reader):
    with pytest.raises(ValueError, match=f"no edge {writer} -> {reader}: {writer} writes later"):
        GROUPED.index(writer, reader)


@pytest.mark.parametrize("index", [-1, 32_936])
def test_a_position_outside_the_graph_is_refused(index):
    with pytest.raises(ValueError, match=rf"\[0, 32936\): got {index}"):
        GPT2_SMALL.edge(index)


@pytest.mark.parametrize(
    "shape, message",
    [
        ((0, 1, 1), r"integers >= 1: got \(0, 1, 1\)"),
        ((1, -2, 1), r"integers >= 1: got \(1, -2, 1\)"),
        ((1, 2, 0), r"integers >= 1: got \(1, 2, 0\)"),
        ((1, 4, 3), "heads must be a multiple of kv_heads: got 4 and 3"),
        ((1, 2, 4), "heads must be a multiple of kv_heads: got 2 and 4"),
        ((1, 1, 1, ("embeds",)), "embeddings must be among .*: got .'embeds',"),
        ((1, 1, 1, ("tok_embeds", "tok_embeds")), "embeddings must differ"),
    ],
)
def test_a_graph_that_cannot_be_is_refused(shape, message):
    with pytest.raises(ValueError, match=message):
        Graph(*shape)


few = pytest.mark.parametrize("graph", [Graph(1, 1, 1), Graph(2, 2, 1, BOTH), GROUPED])


@few
def test_rows_hold_the_values_that_their_names_say(graph):
    layers, final = jax.tree.map(
        np.asarray, jax.jit(Edges.rows)(Edges(jnp.arange(graph.n_edges), graph))
    )
    seen = Counter()
    for number, row in enumerate(layers):
        names = [f"a{number}.h{h}.q" for h in range(graph.heads)]
        names += [f"a{number}.h{g}.{s}" for s in "kv" for g in range(graph.kv_heads)]
        readers = [*zip(names, row.attention, strict=True), (f"m{number}", row.mlp)]
        for reader, values in readers:
            for writer, value in zip(graph.writers, values, strict=False):
                assert graph.index(writer, reader) == value
                seen[int(value)] += 1
    for writer, value in zip(graph.writers, final, strict=True):
        assert graph.index(writer, "resid_post") == value
        seen[int(value)] += 1
    assert seen == Counter(range(graph.n_edges))


@few
def test_scaled_writers_equal_a_loop_over_edges(graph):
    rng = np.random.default_rng(0)
    values, nodes = rng.normal(size=graph.n_edges), rng.normal(size=graph.n_writers)
    edges = Edges(jnp.asarray(values, jnp.float32), graph)
    scaled = jax.jit(scale_writers)(edges, jnp.asarray(nodes, jnp.float32))
    expected = [
        value * nodes[graph.writer_index(writer)]
        for value, (writer, _) in zip(values, graph.edges(), strict=True)
    ]
    np.testing.assert_allclose(scaled.values, expected, rtol=1e-6)


def test_edges_are_a_tree_that_keeps_its_graph():
    ones = full(GROUPED, 1.0)
    assert ones.values.shape == (GROUPED.n_edges,) and ones.values.dtype == jnp.float32
    halves = jax.tree.map(lambda values: values / 2, ones)
    assert halves.graph is GROUPED and (halves.values == 0.5).all()
    assert len(jax.tree.leaves(ones)) == 1
