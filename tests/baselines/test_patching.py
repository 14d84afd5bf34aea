"""Exact patching cuts one edge at a time; EAP agrees with it where the model is linear."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

from edgeprune_jax.baselines import integrated, patching
from edgeprune_jax.baselines.eap import eap, mask_gradient
from edgeprune_jax.baselines.integrated import eap_ig
from edgeprune_jax.baselines.patching import patch_edges
from edgeprune_jax.graph import TOKENS, Graph
from edgeprune_jax.stream import Model
from edgeprune_jax.tasks.batch import Batch


@pytest.mark.parametrize("metric", ["answer", "kl", "loss"])
def test_effects_are_those_of_cutting_edges_one_by_one(small, metric):
    case, ones = small.case, np.ones(small.case.graph.n_edges)
    whole = small.mean(ones, metric)
    expected = np.array([whole - small.mean(ones - edge, metric) for edge in np.eye(len(ones))])
    found = patch_edges(
        case.model, case.params, case.graph, small.data, metric=metric, batch_size=2
    ).values
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


class LinearBlock(NamedTuple):
    v: Any  # H D D
    up: Any  # D D


class LinearParams(NamedTuple):
    blocks: tuple
    table: Any
    unembedding: Any


@pytest.fixture(scope="module")
def linear():
    """A transformer without a nonlinearity: heads average what came before, MLPs are matrices."""
    rng, width, vocab, length = np.random.default_rng(0), 4, 6, 5
    graph = Graph(3, 2, 1, (TOKENS,))

    def draw(*shape):
        return jnp.asarray(rng.normal(size=shape) / 2, jnp.float32)

    def attend(b, x_q, x_k, x_v, valid):
        seen = jnp.tril(jnp.ones((x_v.shape[2],) * 2)) / jnp.arange(1, x_v.shape[2] + 1)[:, None]
        return jnp.einsum("st,gbtd,hde->hbse", seen, x_v, b.v) + 0 * x_q.sum() + 0 * x_k.sum()

    model = Model(
        lambda p, tokens: p.table[tokens][None], attend, lambda b, x: x @ b.up,
        lambda p, x: x @ p.unembedding,
    )  # fmt: skip
    blocks = tuple(LinearBlock(draw(2, width, width), draw(width, width)) for _ in range(3))
    params = LinearParams(blocks, draw(vocab, width), draw(width, vocab))
    tokens, corrupted = rng.integers(0, vocab, (2, 4, length)).astype(np.int32)
    one = np.ones((4, 1), np.int32)
    data = Batch(
        tokens, corrupted, np.ones((4, length), bool), one * (length - 1), one.astype(np.float32),
        one, 2 * one,
    )  # fmt: skip
    return model, params, graph, data


METHODS = {
    "eap": eap,
    "inputs": lambda *a: eap_ig(*a, kind="inputs", steps=2),
    "activations": lambda *a: eap_ig(*a, kind="activations", steps=2),
    "exact": patch_edges,
}


@pytest.mark.parametrize("name", METHODS)
def test_on_a_linear_model_the_scores_of_a_cut_sum_to_the_total_effect(linear, name):
    """What leaves the embeddings, and what enters the output, is the whole difference."""
    model, params, graph, data = linear

    def answer(tokens):
        mean = np.tril(np.ones((tokens.shape[1],) * 2)) / np.arange(1, tokens.shape[1] + 1)[:, None]
        x = np.asarray(params.table, np.float64)[tokens]
        for block in params.blocks:
            x = x + (mean @ x) @ np.asarray(block.v, np.float64).sum(0)
            x = x + x @ np.asarray(block.up, np.float64)
        logits = x[:, -1] @ np.asarray(params.unembedding, np.float64)
        return logits[:, 1] - logits[:, 2]

    total = (answer(data.tokens) - answer(data.corrupted)).mean()
    scores = np.asarray(METHODS[name](model, params, graph, data).values, np.float64)
    first = [graph.index(TOKENS, reader) for reader in graph.readers]
    last = [graph.index(writer, "resid_post") for writer in graph.writers]
    assert abs(total) > 0.1
    assert scores[first].sum() == pytest.approx(total, rel=1e-4)
    assert scores[last].sum() == pytest.approx(total, rel=1e-4)


def test_on_a_linear_model_all_attributions_are_exact(linear):
    expected = patch_edges(*linear).values
    for name in ("eap", "inputs", "activations"):
        np.testing.assert_allclose(METHODS[name](*linear).values, expected, rtol=0, atol=1e-5)


def test_a_second_call_compiles_nothing(linear):
    compiled = (mask_gradient, integrated._on_inputs, integrated._on_activations, patching._metrics)
    for method in METHODS.values():
        method(*linear)
    before = [function._cache_size() for function in compiled]
    for method in METHODS.values():
        method(*linear)
    assert before == [function._cache_size() for function in compiled] and min(before) >= 1


@pytest.mark.parametrize(
    "metric, words",
    [
        ("kl", "no gradient"),
        ("probability-difference", "ordered choices"),
        ("logit-difference", "example 2 has none"),
        ("fame", "metric must be one of"),
    ],
)
def test_a_metric_that_cannot_be_is_refused(small, metric, words):
    case = small.case
    with pytest.raises(ValueError, match=words):
        eap(case.model, case.params, case.graph, small.data, metric=metric)
