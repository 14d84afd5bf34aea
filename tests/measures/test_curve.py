"""CPR and CMD: MIB's constants, its edge counts, and a curve followed by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from edgeprune_jax.circuits import Circuit, reachable
from edgeprune_jax.evaluation import evaluate, random_circuits
from edgeprune_jax.graph import Edges, Graph
from edgeprune_jax.measures.curve import (
    FRACTIONS,
    areas,
    cmd,
    cpr,
    orderings,
    weighted_edges,
)


def test_mibs_constants():
    """A dead curve, 0 but at 100 %, and a perfect one, which starts at 0.1 %."""
    dead, perfect = [0.0] * 9 + [1.0], [1.0] * 10
    assert cpr(FRACTIONS, dead) == pytest.approx(0.25)
    assert cmd(FRACTIONS, dead) == pytest.approx(0.749)
    assert cpr(FRACTIONS, perfect) == pytest.approx(0.999)
    assert cmd(FRACTIONS, perfect) == 0


def test_the_weight_of_each_size_is_mibs():
    weights = [cpr(FRACTIONS, list(np.eye(10)[i])) for i in range(10)]
    expected = [0.0005, 0.002, 0.004, 0.0075, 0.02, 0.04, 0.075, 0.2, 0.4, 0.25]
    np.testing.assert_allclose(weights, expected, rtol=1e-9)


def test_overshooting_raises_cpr_and_cmd():
    """f = 2 everywhere: twice the area, and as far from 1 as nothing at all."""
    assert cpr(FRACTIONS, [2.0] * 10) == pytest.approx(1.998)
    assert cmd(FRACTIONS, [2.0] * 10) == pytest.approx(0.999) == cmd(FRACTIONS, [0.0] * 10)


def test_sizes_for_gpt2_are_mibs():
    assert [int(k * 32_491) for k in FRACTIONS] == [
        32, 64, 162, 324, 649, 1624, 3249, 6498, 16245, 32491,
    ]  # fmt: skip


@pytest.mark.parametrize(
    "graph", [Graph(12, 12, 12, ("tok_embeds", "pos_embeds")), Graph(3, 6, 2, ("tok_embeds",))]
)
def test_weighted_edges_of_the_whole_graph_are_mibs_formula(graph):
    layers, heads = graph.layers, graph.heads
    before = [1 + layer * (heads + 1) for layer in range(layers + 1)]
    expected = before[-1] + sum(3 * heads * n + n + heads for n in before[:-1])
    assert weighted_edges(Circuit(graph, np.ones(graph.n_edges, bool))) == expected
    if layers == 12:
        assert expected == 32_491


def test_weighted_edges_of_a_circuit_are_those_of_the_ungrouped_graph():
    """Counted by name: groups spelled out head by head, dead heads dropped, one input."""
    graph, dead = Graph(2, 4, 2, ("tok_embeds", "pos_embeds")), 0
    for circuit in map(reachable, random_circuits(graph, 40, 8, seed=0)):
        writing = {writer for writer, _ in circuit}
        edges = set()
        for writer, reader in circuit:
            source = "input" if writer in graph.embeddings else writer
            node, _, slot = reader.rpartition(".")
            if slot in ("k", "v"):
                layer, group = node.split(".h")
                heads = {f"{layer}.h{2 * int(group) + head}" for head in (0, 1)}
                dead += len(heads - writing)
                edges |= {(source, f"{head}.{slot}") for head in heads & writing}
            else:
                edges.add((source, reader))
        assert weighted_edges(circuit) == len(edges)
    assert dead  # else the dropping was not tried


@pytest.fixture(scope="module")
def case(toy_case):
    return toy_case(2, 2, 1, ("tok_embeds",), batch=5)


def trimmed(graph, pairs):
    """MIB's pruning: nodes without incoming or outgoing edges go, again and again."""

    def node(reader):
        name, _, slot = reader.rpartition(".")
        return name if slot in ("q", "k", "v") else reader

    def served(name):  # the heads that a reader of a shared key or value feeds
        if ".h" not in name:
            return {name}
        layer, head = name.split(".h")
        return {f"{layer}.h{int(head) * 2 + i}" for i in (0, 1)}

    def fed_by(reader):
        return served(node(reader)) if reader[-2:] in (".k", ".v") else {node(reader)}

    pairs = set(pairs)
    while True:
        fed = {"tok_embeds"}.union(*(fed_by(reader) for _, reader in pairs))
        heard = {"resid_post"} | {writer for writer, _ in pairs}
        left = {(w, r) for w, r in pairs if w in fed and fed_by(r) & heard}
        if left == pairs:
            return pairs
        pairs = left


def test_circuits_are_cut_by_either_order_and_trimmed_as_mib_does(case):
    scores = np.random.default_rng(0).normal(size=case.graph.n_edges)
    found = orderings(Edges(jnp.asarray(scores), case.graph))
    edges = list(case.graph.edges())
    for name, by in (("signed", scores), ("absolute", abs(scores))):
        for fraction, circuit in zip(FRACTIONS, found[name], strict=True):
            first = np.argsort(-by)[: int(fraction * len(by))]
            assert set(circuit) == trimmed(case.graph, (edges[i] for i in first))


def test_a_curve_is_made_of_runs_of_its_circuits(case, plain):
    data = plain.as_batch(case)
    scores = Edges(
        jnp.asarray(np.random.default_rng(1).normal(size=case.graph.n_edges)), case.graph
    )
    found = areas(case.model, case.params, scores, data)
    for name, curve in orderings(scores).items():
        rows = evaluate(case.model, case.params, {str(i): one for i, one in enumerate(curve)}, data)
        of = {row: values["logit_difference"] for row, values in rows.items()}
        low, high = of["empty"], of["full"]
        f = [(of[str(i)] - low) / (high - low) for i in range(10)]
        counts = np.array([weighted_edges(one) for one in curve])
        np.testing.assert_allclose(found[name]["faithfulness"], f, atol=1e-4)
        assert found[name]["faithfulness"][-1] == pytest.approx(1, abs=1e-5)
        assert found[name]["cpr"]["shares"] == pytest.approx(cpr(FRACTIONS, f), abs=1e-4)
        assert found[name]["cmd"]["weighted"] == pytest.approx(
            cmd(list(counts / counts[-1]), f), abs=1e-4
        )


def test_a_measure_that_the_data_lack_is_refused(case, plain):
    data = plain.as_batch(case)
    scores = Edges(jnp.arange(float(case.graph.n_edges)), case.graph)
    with pytest.raises(ValueError, match="have no probability_difference: got kl"):
        areas(case.model, case.params, scores, data, measure="probability_difference")
