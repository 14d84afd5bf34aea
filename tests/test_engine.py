"""The masked forward pass of every family is the circuit formula, and so are its derivatives."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checks import (
    HARD,
    ONES,
    SOFT,
    ZEROS,
    Outcome,
    assert_close,
    check_arrays,
    cotangent,
    masks,
    quick_jit,
)  # fmt: skip
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from edgeprune_jax.ablation import ABLATIONS
from edgeprune_jax.engine import masked_forward
from edgeprune_jax.graph import Edges
from edgeprune_jax.stream import plain_forward, plain_run


class Runs(NamedTuple):
    """What the engine makes of a case under each ablation."""

    case: Any
    clean: np.ndarray
    corrupted: np.ndarray
    written: dict[str, np.ndarray]
    weight: np.ndarray
    outcomes: dict[str, list[Outcome]]  # one for each of the masks


def uneven(layers):
    """A segment's length that does not divide the depth, or 1 where there is none."""
    return next((n for n in range(layers - 1, 0, -1) if layers % n), 1)


def run_engine(case, plain):
    """The engine, compiled once for all masks together and every ablation."""
    weight, prompts = cotangent(case), case.on_device

    @quick_jit
    def ordinary(params, tokens):
        _, writes = plain_run(case.model, params, tokens, valid=prompts.valid)
        return plain_forward(case.model, params, tokens, valid=prompts.valid), writes

    def loss(values, params, ablation, tokens, valid):
        logits = masked_forward(
            case.model, params, tokens, Edges(values, case.graph), ablation=ablation,
            valid=valid, segment=uneven(case.graph.layers),
        )  # fmt: skip
        return jnp.sum(logits * weight), logits

    mapped = jax.vmap(jax.grad(loss, (0, 1, 2), has_aux=True), (0, None, None, None, None))
    engine = quick_jit(mapped)
    (clean, writes), (corrupted, _) = (ordinary(case.params, t) for t in prompts[:2])
    written, outcomes = plain.by_name(case, writes), {}
    values = jnp.asarray(masks(case.graph), jnp.float32)
    for ablation in ABLATIONS:
        writes = plain.as_writes(case, plain.cut_values(case, ablation))
        gradient, logits = engine(values, case.params, writes, prompts.tokens, prompts.valid)
        found = jax.tree.map(np.asarray, Outcome(logits, *gradient))
        outcomes[ablation] = [jax.tree.map(lambda x, i=i: x[i], found) for i in range(len(values))]
    return Runs(case, np.asarray(clean), np.asarray(corrupted), written, weight, outcomes)


@pytest.fixture(scope="module")
def runs(family, plain):
    """Every family, in segments of different lengths."""
    return run_engine(family, plain)


def test_the_plain_run_writes_what_the_formula_writes(runs, plain):
    graph = runs.case.graph
    nothing = dict.fromkeys(graph.writers, 0.0)
    logits, expected = plain.formula(runs.case, np.ones(graph.n_edges), nothing)
    np.testing.assert_allclose(runs.clean, logits, atol=1e-5)
    assert list(runs.written) == list(graph.writers)
    for name, value in runs.written.items():
        np.testing.assert_allclose(value, expected[name], atol=1e-5)


def test_all_ones_is_the_model(runs):
    for outcomes in runs.outcomes.values():
        np.testing.assert_allclose(outcomes[ONES].logits, runs.clean, atol=1e-5)


def test_all_zeros_is_the_corrupted_run_where_embeddings_are_writers(runs):
    logits = runs.outcomes["interchange"][ZEROS].logits
    assert np.abs(runs.clean - runs.corrupted).max() > 0.1
    if runs.case.graph.embeddings:
        np.testing.assert_allclose(logits, runs.corrupted, atol=1e-5)
    else:
        assert np.abs(logits - runs.corrupted).max() > 0.1


@pytest.mark.parametrize("ablation", ABLATIONS)
def test_all_zeros_leaves_what_cut_edges_carry_and_the_embeddings_that_are_no_writers(
    runs, plain, ablation
):
    case, cut = runs.case, plain.cut_values(runs.case, ablation)
    stream = sum(cut.values())
    if not case.graph.embeddings:
        stream = stream + sum(case.parts.embed(case.params64, case.tokens).values())
    expected = case.parts.unembed(case.params64, stream)
    assert_close(runs.outcomes[ablation][ZEROS].logits, expected, 1e-5)


@pytest.mark.parametrize("ablation", ABLATIONS)
def test_any_mask_is_the_formula_edge_by_edge(runs, plain, ablation):
    cut = plain.cut_values(runs.case, ablation)
    for mask, got in zip(masks(runs.case.graph), runs.outcomes[ablation], strict=True):
        assert_close(got.logits, plain.formula(runs.case, mask, cut)[0], 1e-5)


POINTS = [("interchange", SOFT), ("zero", HARD), ("mean", ONES)]


@pytest.mark.parametrize(("ablation", "at"), POINTS)
def test_the_mask_gradient_is_that_of_the_formula(runs, plain, ablation, at):
    case, cut = runs.case, plain.cut_values(runs.case, ablation)
    expected = plain.mask_gradient(case, runs.weight, masks(case.graph)[at], cut)
    assert_close(runs.outcomes[ablation][at].mask, expected, 1e-5)


@pytest.mark.parametrize(("ablation", "at"), POINTS)
def test_gradients_of_parameters_and_ablated_writes_are_those_of_the_formula(
    runs, plain, ablation, at
):
    """In float32 a share of the largest array; in float64 (random shapes) of each array itself."""
    case, cut, outcome = runs.case, plain.cut_values(runs.case, ablation), runs.outcomes[ablation]
    check_arrays(case, plain, runs.weight, masks(case.graph)[at], cut, outcome[at], 1e-5, 1.0)


@pytest.mark.parametrize("ablation", ABLATIONS)
def test_right_padding_changes_nothing(runs, plain, ablation):
    """The padded prompt, in the engine's batch, equals itself alone without padding."""
    case, cut = runs.case, plain.cut_values(runs.case, ablation)
    length = case.valid[-1].sum()
    assert length < case.tokens.shape[1]
    short = case._replace(tokens=case.tokens[-1:, :length], valid=case.valid[-1:, :length])
    short_cut = {name: value[-1:, :length] for name, value in cut.items()}
    for mask, got in zip(masks(case.graph), runs.outcomes[ablation], strict=True):
        assert_close(got.logits[-1:, :length], plain.formula(short, mask, short_cut)[0], 1e-5)


def test_shards_on_four_devices_give_the_formula(family, plain):
    """All masks together, prompts and the last axis of every weight split in two."""
    mesh = jax.make_mesh((2, 2), ("prompts", "width"), axis_types=(AxisType.Auto,) * 2)
    weight, cut = cotangent(family), plain.cut_values(family, "interchange")

    def place(leaf):
        axis = None if leaf.shape[-1] % 2 else "width"
        return jax.device_put(leaf, NamedSharding(mesh, P(*[None] * (leaf.ndim - 1), axis)))

    def run(values, params, prompts):
        logits = masked_forward(
            family.model, params, prompts.tokens, Edges(values, family.graph),
            corrupted_tokens=prompts.corrupted, valid=prompts.valid,
            segment=uneven(family.graph.layers),
        )  # fmt: skip
        return jnp.sum(logits * weight), logits

    mapped = quick_jit(jax.vmap(jax.grad(run, has_aux=True), (0, None, None)))
    prompts = jax.device_put(family.on_device, NamedSharding(mesh, P("prompts")))
    values = jnp.asarray(masks(family.graph), jnp.float32)
    gradients, logits = mapped(values, jax.tree.map(place, family.params), prompts)
    assert len(logits.sharding.device_set) == 4
    for mask, got in zip(masks(family.graph), logits, strict=True):
        assert_close(got, plain.formula(family, mask, cut)[0], 1e-5)
    expected = plain.mask_gradient(family, weight, masks(family.graph)[SOFT], cut)
    assert_close(gradients[SOFT], expected, 1e-5)
