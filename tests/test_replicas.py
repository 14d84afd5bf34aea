"""Replicas are the runs of their seeds, on the same batches, for less work."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edgeprune_jax import replicas
from edgeprune_jax.pruning import final_gates, init, make_step, prune
from edgeprune_jax.settings import PruneConfig
from edgeprune_jax.stream import plain_forward
from edgeprune_jax.tasks.batch import take

CONFIG = PruneConfig(steps=6, batch_size=6, warmup=3, rate_warmup=1, price=0.01, seed=7)


@pytest.fixture(scope="module")
def case(toy_case, plain):
    case = toy_case(2, 2, 1, batch=6, seed=3)
    return case, plain.as_batch(case)


def gates(case, data, config):
    """The final log-alphas of a run."""
    *_, (state, _) = prune(
        case.model, case.params, data, None, config, init(case.graph, config)
    )  # fmt: skip
    return np.asarray(final_gates(state).values)


@pytest.mark.parametrize(
    "change",
    [
        {}, {"node_gates": True}, {"control": "price", "last_price": 0.1}, {"samples": 2},
        {"seed": 2**32 - 3},
    ],
    ids=str,
)  # fmt: skip
def test_a_replica_is_the_run_of_its_seed_on_the_same_batches(case, change):
    case, data = case
    config = replace(CONFIG, **change)
    found = gates(case, data, replace(config, replicas=3))
    assert found.shape == (3, case.graph.n_edges)
    for number, values in enumerate(found):
        # Batches are of all examples, and one mask serves all: their order is of no matter.
        alone = gates(case, data, replace(config, seed=config.seed + number))
        np.testing.assert_allclose(values, alone, atol=2e-4)


def test_a_replica_of_a_bootstrap_is_a_run_on_the_examples_it_drew(case):
    case, data = case
    config = replace(CONFIG, replicas=2, bootstrap=True)
    found = gates(case, data, config)
    drawn = replicas.resampled(len(data), 2, seed=config.seed)
    assert not np.array_equal(*drawn)
    for number, (values, counts) in enumerate(zip(found, drawn, strict=True)):
        again = take(data, np.repeat(np.arange(len(data)), counts.astype(int)))
        alone = gates(case, again, replace(CONFIG, seed=config.seed + number))
        np.testing.assert_allclose(values, alone, atol=2e-4)
    assert np.abs(found - gates(case, data, replace(config, bootstrap=False))).max() > 0.01


def test_every_replica_draws_as_many_examples_as_there_are():
    drawn = replicas.resampled(50, 200, seed=0)
    np.testing.assert_array_equal(drawn.sum(axis=1), 50)
    # Of N draws each example is missed with probability (1 - 1/N)^N: 0.364 of 50.
    assert abs((drawn == 0).mean() - (1 - 1 / 50) ** 50) < 0.01


def test_what_does_not_depend_on_the_gates_is_computed_once(case):
    case, data = case

    def operations(function, *inputs):
        return jax.jit(function).lower(*inputs).compile().cost_analysis()["flops"]

    data = jax.tree.map(jnp.asarray, data)
    forward = partial(plain_forward, case.model)
    teacher = forward(
        case.params, data.tokens, valid=data.valid, positions=data.positions
    )  # fmt: skip
    corrupted = operations(forward, case.params, data.corrupted)
    one, three = (
        operations(
            make_step(case.model, config), init(case.graph, config), case.params, data, teacher,
            None,
        )
        for config in (CONFIG, replace(CONFIG, replicas=3))
    )  # fmt: skip
    assert three < 3 * one - 1.5 * corrupted


def test_the_mean_of_replicas_stands_for_them(case):
    case, _ = case
    states = init(case.graph, replace(CONFIG, replicas=2))
    each = final_gates(states)
    mean = replicas.mean(each)
    np.testing.assert_allclose(mean.values, np.asarray(each.values).mean(axis=0))
    assert replicas.mean(mean) is mean
    first, second = replicas.separate(each.values, case.graph)
    np.testing.assert_array_equal(first.values, each.values[0])
    np.testing.assert_array_equal(second.values, each.values[1])
    for number, one in enumerate((first, second)):
        alone = init(case.graph, replace(CONFIG, seed=CONFIG.seed + number)).trainable.edges
        np.testing.assert_array_equal(one.values, alone.values)
