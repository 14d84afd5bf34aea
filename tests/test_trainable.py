"""The optimiser moves gates and multipliers at the rates of the paper, each in its direction."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edgeprune_jax.graph import Edges, Graph
from edgeprune_jax.objectives import Multipliers
from edgeprune_jax.settings import PAPER, PruneConfig
from edgeprune_jax.trainable import Trainable, bounded, folded, optimiser


def test_log_alphas_are_the_smaller_of_edge_and_writer():
    graph = Graph(2, 2, 1, ("tok_embeds",))
    rng = np.random.default_rng(0)
    edges, nodes = (rng.normal(size=n).astype(np.float32) for n in (graph.n_edges, graph.n_writers))
    nothing = Multipliers(jnp.zeros(()), jnp.zeros(()))
    trainable = Trainable(Edges(jnp.asarray(edges), graph), jnp.asarray(nodes), nothing, None)
    expected = [
        min(edge, nodes[graph.writer_index(writer)])
        for edge, (writer, _) in zip(edges, graph.edges(), strict=True)
    ]
    found = folded(trainable)
    np.testing.assert_array_equal(found.values, np.float32(expected))
    assert folded(trainable._replace(nodes=None)) is trainable.edges


def moved(config, trainable, gradients):
    """What the optimiser makes of a sequence of gradients."""
    move = optimiser(config)

    def step(carry, gradient):
        trainable, state = carry
        updates, state = move.update(gradient, state, trainable)
        return (jax.tree.map(jnp.add, trainable, updates), state), None

    run = jax.jit(lambda *carry: jax.lax.scan(step, carry, gradients)[0][0])
    return run(trainable, move.init(trainable))


def few_gates(*values):
    """A trainable of three gates."""
    graph = Graph(1, 1, 1)
    ones = Multipliers(jnp.ones(()), jnp.ones(()))
    return Trainable(Edges(jnp.asarray(values, jnp.float32), graph), None, ones, None)


def test_rates_decay_and_signs_are_the_paper_s_over_a_whole_run():
    """Adam's step under a constant gradient is the rate itself, so that sums can be written down:
    the rates of the shipped schedule sum to 0.8 x 1500."""
    gradient = few_gates(0.1, 0.1, 0.0)
    gradient = gradient._replace(edge_multipliers=Multipliers(jnp.array(0.1), jnp.array(0.0)))
    steps = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (3000, *leaf.shape)), gradient)
    rates = 0.8 * np.concatenate([np.arange(200) / 200, 1 - np.arange(2800) / 2800])
    assert rates.sum() == pytest.approx(1200)
    expected = np.array([10.0, -5.0, 10.0, 1.0, 1.0])  # three gates and two multipliers
    direction = np.array([-1, -1, 0, 1, 0])
    for rate in rates:
        expected = expected * (1 - 0.01 * rate) + rate * direction
    end = moved(PAPER, few_gates(10.0, -5.0, 10.0), steps)
    np.testing.assert_allclose(
        [*end.edges.values, *end.edge_multipliers], expected, rtol=2e-3, atol=1e-5
    )
    assert expected[2] == pytest.approx(10 * np.exp(-12), rel=0.05)


def test_larger_log_alphas_become_the_largest_and_nothing_else_changes():
    trainable = few_gates(7.0, -9.0, 5.0)._replace(nodes=jnp.array([6.0, 1.0]))
    found = bounded(trainable, 5.0)
    np.testing.assert_array_equal(found.edges.values, [5, -9, 5])
    np.testing.assert_array_equal(found.nodes, [5, 1])
    assert found.edge_multipliers == trainable.edge_multipliers
    assert bounded(trainable, None) is trainable


def test_a_gradient_is_clipped_as_a_whole():
    config = PruneConfig(rate_warmup=0, clip=1.0)
    start = few_gates(1.0, 1.0, 1.0)
    large, small = few_gates(30.0, -40.0, 2.0), few_gates(0.1, 0.2, -0.1)
    norm = np.sqrt(30**2 + 40**2 + 2**2 + 2)  # the multipliers' too
    clipped = jax.tree.map(lambda leaf: leaf / norm, large)
    below = jax.tree.map(lambda leaf: leaf / 100, large)  # short enough to stay as it is
    found, expected, other = (
        moved(config, start, jax.tree.map(lambda *leaves: jnp.stack(leaves), first, small))
        for first in (large, clipped, below)
    )
    np.testing.assert_allclose(found.edges.values, expected.edges.values, rtol=1e-6)
    assert np.abs(found.edges.values - other.edges.values).max() > 1e-3
