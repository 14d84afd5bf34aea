"""ACDC's choices are those of a plain loop that cuts one edge at a time."""

import numpy as np
import pytest

from edgeprune_jax.baselines.acdc import acdc, order
from edgeprune_jax.circuits import Circuit
from edgeprune_jax.graph import POSITIONS, TOKENS, Graph


def by_hand(small, threshold, metric, kept):
    """Readers from the output back, writers from the latest back, by name."""
    graph = small.case.graph
    kept, nearest = kept.astype(float), np.inf
    current = -small.mean(kept, metric)
    readers = ["resid_post"]
    for layer in reversed(range(graph.layers)):
        readers.append(f"m{layer}")
        readers += [f"a{layer}.h{h}.q" for h in reversed(range(graph.heads))]
        readers += [f"a{layer}.h{g}.{s}" for s in "kv" for g in reversed(range(graph.kv_heads))]
    for reader in readers:
        for writer in reversed(graph.writers):
            try:
                edge = graph.index(writer, reader)
            except ValueError:
                continue  # it writes later
            if not kept[edge]:
                continue
            kept[edge] = 0
            without = -small.mean(kept, metric)
            nearest = min(nearest, abs(without - current - threshold))
            if without - current < threshold:
                current = without
            else:
                kept[edge] = 1
    return kept.astype(bool), nearest


@pytest.mark.parametrize("threshold, metric", [(0.02, "kl"), (0.3, "kl"), (0.1, "answer")])
def test_choices_are_those_of_a_plain_loop(small, threshold, metric):
    case, graph = small.case, small.case.graph
    expected, nearest = by_hand(small, threshold, metric, np.ones(graph.n_edges, bool))
    found = acdc(
        case.model, case.params, graph, small.data, threshold=threshold, metric=metric,
        batch_size=2,
    )  # fmt: skip
    assert nearest > 1e-5  # no choice hangs on rounding
    assert 0 < expected.sum() < graph.n_edges
    np.testing.assert_array_equal(np.asarray(found.values) >= threshold, expected)


def test_it_can_start_from_a_circuit(small):
    case, graph = small.case, small.case.graph
    start = np.random.default_rng(0).random(graph.n_edges) < 0.7
    expected, _ = by_hand(small, 0.02, "kl", start)
    found = acdc(
        case.model, case.params, graph, small.data, threshold=0.02, start=Circuit(graph, start)
    )
    np.testing.assert_array_equal(np.asarray(found.values) >= 0.02, expected)
    assert not np.asarray(found.values)[~start].any()


def test_every_edge_has_one_turn():
    graph = Graph(3, 4, 2, (TOKENS, POSITIONS))
    turns = np.concatenate([edges for _, edges in order(graph)])
    assert sorted(turns) == list(range(graph.n_edges))


@pytest.mark.parametrize("threshold", [0.0, -1.0, float("nan"), float("inf")])
def test_a_threshold_must_be_positive(small, threshold):
    case = small.case
    with pytest.raises(ValueError, match="threshold must be above 0"):
        acdc(case.model, case.params, case.graph, small.data, threshold=threshold)
