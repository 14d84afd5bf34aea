"""A warm start reads ranks, opens the share it is asked for, and gives a run less to do."""

import numpy as np
import pytest

from edgeprune_jax.graph import Edges, Graph
from edgeprune_jax.pruning import init
from edgeprune_jax.settings import PruneConfig
from edgeprune_jax.warm_start import warm_start

GRAPH = Graph(3, 4, 2, ("tok_embeds",))
SCORES = np.random.default_rng(0).normal(size=GRAPH.n_edges).astype(np.float32) ** 3


def started(scores, sparsity=0.8):
    return np.asarray(warm_start(Edges(scores, GRAPH), sparsity=sparsity).values, np.float64)


def open_probability(log_alpha):
    return 1 / (1 + np.exp(-log_alpha))


@pytest.mark.parametrize("sparsity", [0.02, 0.8, 0.99])
def test_the_share_of_open_gates_is_the_one_asked_for(sparsity):
    found = open_probability(started(SCORES, sparsity))
    assert found.mean() == pytest.approx(1 - sparsity, rel=1e-4)


def test_log_alphas_are_in_the_order_of_the_scores_and_depend_on_nothing_else():
    found = started(SCORES)
    np.testing.assert_array_equal(np.argsort(-found), np.argsort(-SCORES))
    np.testing.assert_array_equal(started(np.exp(SCORES / 10)), found)


def test_the_law_is_that_of_the_docstring():
    n = GRAPH.n_edges
    found = started(np.arange(n, 0, -1, dtype=np.float32))
    law = -2 * np.log(np.arange(n) + n / 200)
    np.testing.assert_allclose(found - found[0], law - law[0], atol=1e-4)


def test_of_equal_scores_the_first_edge_comes_first():
    assert (np.diff(started(np.zeros(GRAPH.n_edges, np.float32))) < 0).all()


def test_a_run_starts_from_what_it_is_given():
    first = warm_start(Edges(SCORES, GRAPH), sparsity=0.9)
    state = init(GRAPH, PruneConfig(gate_init=10.0), first=first)
    np.testing.assert_array_equal(state.trainable.edges.values, first.values)


@pytest.mark.parametrize("sparsity", [0.0, 1.0, float("nan")])
def test_a_share_that_no_gates_have_is_refused(sparsity):
    with pytest.raises(ValueError, match="sparsity must be between 0 and 1"):
        started(SCORES, sparsity)


def test_scores_that_are_not_finite_are_refused():
    scores = SCORES.copy()
    scores[3] = np.nan
    with pytest.raises(ValueError, match="finite: got nan"):
        started(scores)
