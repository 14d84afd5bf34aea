"""Attribution patching is the mask's gradient at the full model, averaged over the data."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edgeprune_jax.baselines.eap import eap, eap_circuit
from edgeprune_jax.baselines.metrics import answer_score
from edgeprune_jax.graph import Edges


@pytest.fixture(scope="module")
def case(toy_case):
    """Three prompts, the last padded."""
    return toy_case(1, 2, 1, batch=3)


@pytest.fixture(scope="module")
def data(case, plain):
    """Their batch: the second asks for the opposite of the first, the last has no foil."""
    batch = plain.as_batch(case)
    batch.targets[1], batch.foils[1] = batch.foils[0], batch.targets[0]
    batch.foils[-1] = -1
    return batch


def log_softmax(x):
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def score(logits, data):
    """The metric of each example, from logits at every token, one number at a time."""
    found = []
    for row, logit in enumerate(np.asarray(logits, np.float64)):
        values = []
        for a, position in enumerate(data.positions[row]):
            target, foil = data.targets[row, a], data.foils[row, a]
            if data.scored[row, a]:
                other = logit[position, foil] if foil >= 0 else None
                values.append(
                    log_softmax(logit[position])[target] if other is None
                    else logit[position, target] - other
                )  # fmt: skip
        found.append(np.mean(values))
    return np.array(found)


def weights(logits, data):
    """The metric's derivative with respect to the logits, averaged over examples."""
    weight = np.zeros(logits.shape)
    for row in range(len(data)):
        for a, position in enumerate(data.positions[row]):
            share = data.scored[row, a] / data.scored[row].sum() / len(data)
            weight[row, position, data.targets[row, a]] += share
            if data.foils[row, a] >= 0:
                weight[row, position, data.foils[row, a]] -= share
            else:
                weight[row, position] -= share * np.exp(log_softmax(logits[row, position]))
    return weight


def test_the_metric_is_a_logit_difference_or_a_log_probability(case, data, plain):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(*case.tokens.shape, 5))
    picked = np.take_along_axis(logits, data.positions[..., None], 1)
    found = answer_score(jnp.asarray(picked, jnp.float32), jax.tree.map(jnp.asarray, data))
    np.testing.assert_allclose(found, score(logits, data), rtol=1e-5)


@pytest.fixture(scope="module")
def scores(case, data):
    """Of each ablation; three examples in batches of two."""
    return {
        name: eap(case.model, case.params, case.graph, data, ablation=name, batch_size=2)
        for name in ("interchange", "mean")
    }


@pytest.mark.parametrize("ablation", ["interchange", "mean"])
def test_scores_are_the_averaged_mask_gradient(case, data, plain, scores, ablation):
    ones, cut = np.ones(case.graph.n_edges), plain.cut_values(case, ablation)
    weight = weights(plain.formula(case, ones, cut)[0], data)
    single = [
        plain.mask_gradient(case, weight * (np.arange(len(data)) == row)[:, None, None], ones, cut)
        for row in range(len(data))
    ]
    expected = np.sum(single, axis=0)
    assert scores[ablation].graph == case.graph
    largest = np.abs(expected).max()
    np.testing.assert_allclose(scores[ablation].values, expected, atol=1e-6 * largest)


def test_the_largest_effects_of_either_sign_are_kept(case):
    values = np.random.default_rng(0).normal(size=case.graph.n_edges)
    kept = eap_circuit(Edges(jnp.asarray(values), case.graph), 7).kept
    assert kept.sum() == 7 and np.abs(values[kept]).min() >= np.abs(values[~kept]).max()
    assert (values[kept] < 0).any() and (values[kept] > 0).any()


def test_scores_are_single_edge_patching_to_first_order(case, data, plain, scores):
    ones, cut = np.ones(case.graph.n_edges), plain.cut_values(case, "interchange")
    full, step = score(plain.formula(case, ones, cut)[0], data).mean(), 1e-5
    patched = [
        score(plain.formula(case, ones - step * edge, cut)[0], data).mean() - full
        for edge in np.eye(case.graph.n_edges)
    ]
    expected = -np.array(patched) / step
    found = scores["interchange"].values
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_scores_do_not_depend_on_batches(case, data, scores):
    whole = eap(case.model, case.params, case.graph, data, batch_size=8).values
    found = scores["interchange"].values
    np.testing.assert_allclose(found, whole, atol=1e-6 * np.abs(whole).max())
