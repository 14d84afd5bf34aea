"""Circuits are sets of edges, and their reachable part is what the output can depend on."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune_jax import circuits
from edgeprune_jax.circuits import Circuit
from edgeprune_jax.graph import FINAL, Edges, Graph, full

GRAPHS = [
    Graph(layers, heads, groups, embeddings)
    for layers, (heads, groups), embeddings in itertools.product(
        (1, 2, 3),
        ((1, 1), (2, 1), (2, 2)),
        ((), ("tok_embeds",), ("tok_embeds", "pos_embeds")),
    )
]
REVERSE = Graph(4, 1, 1, ("tok_embeds", "pos_embeds"))


relaxed = settings(deadline=None)  # JAX compiles for each graph
graphs = st.sampled_from(GRAPHS)
# Of every density: a uniform choice of edges would leave nothing unreachable.
picks = st.tuples(st.sampled_from((0.05, 0.15, 0.3, 0.6, 1.0)), st.integers(0, 2**32 - 1))


def make(graph, pick):
    density, seed = pick
    return Circuit(graph, np.random.default_rng(seed).random(graph.n_edges) < density)


@relaxed
@given(graphs, picks, picks, picks)
def test_circuits_are_sets(graph, first, second, third):
    a, b, c = (make(graph, pick) for pick in (first, second, third))
    assert a | b == b | a and a & b == b & a
    assert (a | b) | c == a | (b | c) and (a & b) & c == a & (b & c)
    assert a & (b | c) == (a & b) | (a & c)
    assert a - b == a - (a & b) and (a - b) | (a & b) == a
    assert len(a | b) + len(a & b) == len(a) + len(b)
    assert set((a - b).edges()) == set(a.edges()) - set(b.edges())


@relaxed
@given(graphs, picks, picks)
def test_jaccard_is_the_shared_part(graph, first, second):
    a, b = make(graph, first), make(graph, second)
    union = len(set(a) | set(b))
    expected = len(set(a) & set(b)) / union if union else 1.0
    assert circuits.jaccard(a, b) == circuits.jaccard(b, a) == expected
    assert circuits.jaccard(a, a) == 1.0


def test_operations_record_their_operands():
    a = Circuit(REVERSE, np.zeros(94, bool), {"task": "a"})
    b = Circuit(REVERSE, np.zeros(94, bool), {"task": "b"})
    assert (a | b).provenance == {"operation": "union", "operands": [{"task": "a"}, {"task": "b"}]}
    assert circuits.reachable(a).provenance == {"task": "a", "operation": "reachable"}


@pytest.mark.parametrize("operation", ["__or__", "__and__", "__sub__"])
def test_operations_refuse_circuits_of_different_graphs(operation):
    a, b = (Circuit(g, np.zeros(g.n_edges, bool)) for g in (GRAPHS[0], REVERSE))
    with pytest.raises(ValueError, match="layers=1.*layers=4"):
        getattr(a, operation)(b)
    with pytest.raises(ValueError, match="layers=1.*layers=4"):
        circuits.jaccard(a, b)
    assert a != b


@settings(max_examples=40, deadline=None)
@given(graphs, picks)
def test_names_ends_and_masks_agree(graph, pick):
    circuit = make(graph, pick)
    assert [graph.index(*edge) for edge in circuit] == np.flatnonzero(circuit.kept).tolist()
    assert circuits.from_names(graph, circuit.edges()) == circuit
    assert circuits.from_mask(circuits.mask(circuit)) == circuit
    assert circuits.mask(circuit).values.dtype == jnp.float32
    assert len(circuit) == sum(1 for _ in circuit)
    assert circuit.sparsity == pytest.approx(1 - len(circuit) / graph.n_edges)
    assert all(edge in circuit for edge in circuit)


def test_kept_cannot_be_changed():
    kept = np.zeros(REVERSE.n_edges, bool)
    circuit = Circuit(REVERSE, kept)
    kept[0] = True
    assert len(circuit) == 0
    with pytest.raises(ValueError, match="read-only"):
        circuit.kept[0] = True


@relaxed
@given(graphs, st.integers(0, 1000), st.floats(0, 1))
def test_from_scores_keeps_the_highest_and_then_the_first(graph, seed, share):
    n = graph.n_edges
    scores = np.random.default_rng(seed).integers(-3, 4, n)  # few values, many ties
    keep = round(share * n)
    circuit = circuits.from_scores(Edges(jnp.asarray(scores, jnp.float32), graph), keep)
    best = sorted(range(n), key=lambda edge: (-scores[edge], edge))[:keep]
    assert np.flatnonzero(circuit.kept).tolist() == sorted(best)


@pytest.mark.parametrize("keep", [-1, 95])
def test_from_scores_refuses_an_impossible_size(keep):
    with pytest.raises(ValueError, match=rf"\[0, 94\].*{keep}"):
        circuits.from_scores(full(REVERSE, 1.0), keep)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_must_be_finite(bad):
    scores = full(REVERSE, 1.0)
    scores = Edges(scores.values.at[3].set(bad), REVERSE)
    with pytest.raises(ValueError, match=r"finite.*pos_embeds -> a0.h0.k"):
        circuits.from_scores(scores, 1)


def test_from_mask_refuses_a_soft_mask():
    with pytest.raises(ValueError, match="0.5 at edge 0 .tok_embeds -> a0.h0.q"):
        circuits.from_mask(full(REVERSE, 0.5))


@pytest.mark.parametrize("values", [np.zeros(93), np.zeros((94, 1))])
def test_scores_must_be_one_per_edge(values):
    with pytest.raises(ValueError, match="94"):
        circuits.from_scores(Edges(jnp.asarray(values), REVERSE), 0)


@pytest.mark.parametrize("kept", [np.zeros(93, bool), np.zeros(94), np.zeros((2, 47), bool)])
def test_kept_must_be_one_boolean_per_edge(kept):
    with pytest.raises(ValueError, match="94 booleans"):
        Circuit(REVERSE, kept)


def test_from_names_says_which_entry_is_wrong():
    good = ("tok_embeds", "m0")
    with pytest.raises(ValueError, match=r"edges\[1\].*writes later"):
        circuits.from_names(REVERSE, [good, ("m1", "m0")])
    with pytest.raises(ValueError, match=r"edges\[1\].*twice"):
        circuits.from_names(REVERSE, [good, ("embeds", "m0")])


def followed(start, steps):
    """All that can be reached from `start`, itself included, by a search of the paths."""
    found, todo = {*start}, [*start]
    while todo:
        todo += (new := steps.get(todo.pop(), set()) - found)
        found |= new
    return found


def brute_force(circuit):
    """The edges on a path, found by walking from node to node by name."""
    graph = circuit.graph
    forward = {}
    for writer, reader in circuit:
        forward.setdefault(writer + " out", set()).add(reader)
    for layer, head in itertools.product(range(graph.layers), range(graph.heads)):
        group = head * graph.kv_heads // graph.heads
        for reader in (f"h{head}.q", f"h{group}.k", f"h{group}.v"):
            forward.setdefault(f"a{layer}.{reader}", set()).add(f"a{layer}.h{head} out")
        forward[f"m{layer}"] = {f"m{layer} out"}
    starts = {f"{name} out" for name in graph.embeddings or graph.writers}
    fed = followed(starts, forward)
    return {
        (writer, reader)
        for writer, reader in circuit
        if writer + " out" in fed and FINAL in followed({reader}, forward)
    }


@settings(max_examples=200, deadline=None)
@given(graphs, picks)
def test_reachable_edges_are_those_on_a_path(graph, pick):
    circuit = make(graph, pick)
    part = circuits.reachable(circuit)
    assert set(part) == brute_force(circuit)
    assert circuits.reachable(part) == part
    assert part - circuit == circuit - circuit


def test_a_full_circuit_is_reachable():
    for graph in GRAPHS:
        everything = Circuit(graph, np.ones(graph.n_edges, bool))
        assert circuits.reachable(everything) == everything


def test_the_true_circuit_of_reverse_is_reachable():
    truth = [
        ("tok_embeds", "a0.h0.v"), ("a0.h0", "m0"), ("tok_embeds", "m0"), ("m0", "m1"),
        ("tok_embeds", "m1"), ("pos_embeds", "m1"), ("m1", "m2"), ("m2", "a3.h0.q"),
        ("pos_embeds", "a3.h0.k"), ("tok_embeds", "a3.h0.v"), ("a3.h0", FINAL),
    ]  # fmt: skip
    circuit = circuits.from_names(REVERSE, truth)
    assert circuits.reachable(circuit) == circuit
    # Without its only reader, MLP 2 and all that feeds it alone is a dead end.
    cut = circuit - circuits.from_names(REVERSE, [("m2", "a3.h0.q")])
    assert set(circuits.reachable(cut)) == set(truth[-3:])


def interchange(circuit, seed):
    """The output of a network of scalars in which a cut edge carries the corrupted value."""
    graph = circuit.graph
    rng = np.random.default_rng(seed)
    gain = rng.normal(size=graph.n_readers)
    base, change = rng.normal(size=(2, max(1, len(graph.embeddings))))

    def run(kept, corrupt, embedded):
        writes = list(embedded) if graph.embeddings else []

        def read(name):
            row = graph.reader_index(name)
            mask = kept[graph.row_starts[row] : graph.row_starts[row + 1]]
            stream = np.zeros(len(mask)) if corrupt is None else corrupt[: len(mask)]
            always = 0.0 if graph.embeddings else embedded[0]
            live = np.array(writes[: len(mask)])
            return gain[row] * (always + (stream + mask * (live - stream)).sum())

        for layer in range(graph.layers):
            heads = []
            for head in range(graph.heads):
                group = head * graph.kv_heads // graph.heads
                names = (f"h{head}.q", f"h{group}.k", f"h{group}.v")
                q, k, v = (read(f"a{layer}.{name}") for name in names)
                heads.append(np.tanh(q * k) + np.tanh(v + 0.3))
            writes += heads
            writes.append(np.tanh(read(f"m{layer}") + 0.5))
        return read(FINAL), np.array(writes)

    everything = np.ones(graph.n_edges, bool)
    _, corrupt = run(everything, None, base)
    return run(circuit.kept, corrupt, base + change)[0]


@relaxed
@given(graphs, picks, st.integers(0, 1000))
def test_dropping_the_unreachable_is_exact_under_interchange(graph, pick, seed):
    circuit = make(graph, pick)
    part = circuits.reachable(circuit)
    assert interchange(part, seed) == pytest.approx(interchange(circuit, seed), abs=1e-9)
