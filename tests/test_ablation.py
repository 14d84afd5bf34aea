"""What cut edges carry: the corrupted prompt token by token, a mean over valid tokens, nothing."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edgeprune_jax import ablation
from edgeprune_jax.ablation import ABLATIONS, ablated_writes, settle
from edgeprune_jax.engine import masked_forward
from edgeprune_jax.graph import full
from edgeprune_jax.tasks.batch import take

BOTH = ("tok_embeds", "pos_embeds")


@pytest.fixture(scope="module")
def case(toy_case):
    """Five prompts, the last of them padded."""
    return toy_case(2, 2, 1, BOTH, batch=5)


@pytest.fixture(scope="module")
def writes(case):
    """The ablated writes of each kind, by the name of the ablation."""
    _, corrupted, valid = case.on_device
    run = jax.jit(ablated_writes, static_argnums=(0, 3))
    return {name: run(case.model, case.params, corrupted, name, valid=valid) for name in ABLATIONS}


@pytest.mark.parametrize("name", ["interchange", "mean"])
def test_ablated_writes_are_those_of_the_formula(case, writes, plain, name):
    found = plain.by_name(case, writes[name])
    for writer, expected in plain.cut_values(case, name).items():
        everywhere = np.broadcast_to(found[writer], expected.shape)
        np.testing.assert_allclose(everywhere, expected, atol=5e-6)


def test_a_mean_is_one_vector_per_writer_over_valid_tokens_only(case, writes, plain):
    assert {leaf.shape[-3:-1] for leaf in jax.tree.leaves(writes["mean"])} == {(1, 1)}
    by_hand = [y[~case.valid].mean(0) for y in plain.cut_values(case, "interchange").values()]
    found = plain.by_name(case, writes["mean"]).values()
    # The padding has another mean, so that counting it would show.
    assert all(np.abs(f[0, 0] - p).max() > 0.01 for f, p in zip(found, by_hand, strict=True))


def test_zero_ablation_carries_nothing_and_takes_no_room(writes):
    for leaf in jax.tree.leaves(writes["zero"]):
        assert not leaf.any() and leaf.size == 3


def test_a_mean_is_taken_in_float32_and_kept_in_the_dtype_of_the_weights(toy_case):
    case = toy_case(1, 1, 1, batch=100)
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), case.params)
    tokens, _, valid = case.on_device

    @jax.jit
    def run(params):
        mean = ablated_writes(case.model, params, tokens, "mean", valid=valid)
        return mean.embeds, case.model.embed(params, tokens)

    mean, embeds = run(params)
    assert mean.dtype == jnp.bfloat16
    exact = np.asarray(embeds[0], np.float32)[case.valid].mean(0)
    np.testing.assert_allclose(np.asarray(mean[0, 0, 0], np.float32), exact, rtol=2**-8)


def test_an_unknown_ablation_is_refused(case):
    with pytest.raises(ValueError, match="one of interchange, zero, mean: got 'resample'"):
        inspect.unwrap(ablated_writes)(case.model, case.params, case.tokens, "resample")


def test_only_a_mean_is_settled(case, plain):
    data = plain.as_batch(case)
    for name in ("interchange", "zero"):
        assert settle(case.model, case.params, data, name) == name


def test_a_settled_mean_is_over_the_first_corrupted_prompts(case, plain, monkeypatch):
    monkeypatch.setattr(ablation, "SETTLE_EXAMPLES", 3)
    settled = settle(case.model, case.params, plain.as_batch(case), "mean")
    first = case._replace(corrupted=case.corrupted[:3], valid=case.valid[:3])
    first = first._replace(tokens=case.tokens[:3])
    for name, mean in plain.by_name(case, settled).items():
        expected = plain.cut_values(first, "mean")[name][0, 0]
        np.testing.assert_allclose(mean[0, 0], expected, atol=1e-6)


def test_a_settled_mean_does_not_depend_on_batches(case, plain):
    data = jax.tree.map(jnp.asarray, plain.as_batch(case))
    settled = settle(case.model, case.params, data, "mean")

    @jax.jit
    def both(batch):
        common = case.model, case.params, batch.tokens, full(case.graph, 0.5)
        return (
            masked_forward(*common, ablation=settled, valid=batch.valid),
            masked_forward(
                *common, ablation="mean", corrupted_tokens=batch.corrupted, valid=batch.valid
            ),
        )

    whole = both(take(data, np.arange(5)))
    # Repeated examples keep the shape, and with it the compilation.
    part = both(take(data, np.array([0, 1, 0, 1, 0])))
    np.testing.assert_allclose(part[0][:2], whole[0][:2], atol=1e-6)
    assert np.abs(part[1][:2] - whole[1][:2]).max() > 1e-3


def test_padding_is_read_as_valid_where_nothing_is_said(case):
    _, corrupted, valid = case.on_device

    @jax.jit
    def run(corrupted, valid=None):
        return ablated_writes(case.model, case.params, corrupted, "mean", valid=valid).embeds

    everything = run(corrupted, jnp.ones_like(valid))
    np.testing.assert_allclose(run(corrupted), everything, atol=1e-6)
    assert np.abs(run(corrupted, valid) - everything).max() > 1e-3
