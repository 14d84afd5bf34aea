"""The masked forward pass over random shapes, segments, positions and types of numbers."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checks import (
    BOTH,
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
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from edgeprune_jax.ablation import ABLATIONS
from edgeprune_jax.engine import masked_forward
from edgeprune_jax.graph import Edges, full
from edgeprune_jax.stream import plain_forward


def float64(case):
    return case._replace(params=jax.tree.map(jnp.asarray, case.params64))


@pytest.fixture
def wide():
    with jax.enable_x64(True):
        yield


def engine_64(case, plain, ablation, segment, values):
    """Logits and gradients in float64."""
    weight, prompts = cotangent(case), case.on_device
    writes = plain.as_writes(case, plain.cut_values(case, ablation), np.float64)

    def loss(values, params, writes):
        logits = masked_forward(
            case.model, params, prompts.tokens, Edges(values, case.graph), ablation=writes,
            valid=prompts.valid, segment=segment,
        )  # fmt: skip
        return jnp.sum(logits * weight), logits

    run = quick_jit(jax.grad(loss, (0, 1, 2), has_aux=True))
    gradient, logits = jax.tree.map(np.asarray, run(values, case.params, writes))
    return weight, Outcome(logits, *gradient)


PHASES = [Phase.explicit, Phase.reuse, Phase.generate]


def check_in_float64(case, plain, ablation, segment, seed):
    """Logits, and every derivative."""
    case = float64(case)
    mask, cut = masks(case.graph, seed)[SOFT], plain.cut_values(case, ablation)
    weight, outcome = engine_64(case, plain, ablation, segment, mask)
    assert outcome.logits.dtype == outcome.mask.dtype == np.float64
    assert_close(outcome.logits, plain.formula(case, mask, cut)[0], 1e-11)
    assert_close(outcome.mask, plain.mask_gradient(case, weight, mask, cut), 1e-11)
    check_arrays(case, plain, weight, mask, cut, outcome, 1e-11, 1e-3)


@settings(max_examples=4, deadline=None, phases=PHASES)
@given(
    layers=st.integers(1, 3),
    heads=st.sampled_from([(1, 1), (2, 1), (2, 2), (4, 2)]),
    names=st.sampled_from([(("tok_embeds",), True), (BOTH, True), (BOTH, False)]),
    segment=st.integers(1, 4),
    batch=st.integers(1, 2),
    length=st.integers(1, 4),
    ablation=st.sampled_from(ABLATIONS),
    seed=st.integers(0, 99),
)
@example(
    layers=3, heads=(2, 1), names=(BOTH, True), segment=2, batch=2, length=4,
    ablation="interchange", seed=0,
)  # fmt: skip
def test_every_shape_and_segment_gives_the_formula_and_its_derivatives(
    toy_case, plain, layers, heads, names, segment, batch, length, ablation, seed
):
    names, are_writers = names
    with jax.enable_x64(True):
        case = toy_case(
            layers, *heads, names, graph_names=names if are_writers else (), batch=batch,
            length=length, seed=seed,
        )  # fmt: skip
        check_in_float64(case, plain, ablation, segment, seed)


@settings(max_examples=1, deadline=None, phases=PHASES)
@given(
    layers=st.integers(1, 3),
    segment=st.integers(1, 4),
    batch=st.integers(1, 2),
    length=st.integers(2, 6),
    ablation=st.sampled_from(ABLATIONS),
    seed=st.integers(0, 99),
)
@example(layers=1, segment=1, batch=1, length=5, ablation="interchange", seed=0)
def test_every_shape_of_a_family_gives_the_formula_and_its_derivatives(
    make_family, plain, layers, segment, batch, length, ablation, seed
):
    """One layer and one prompt among them; a compiled program has the layers that it has."""
    with jax.enable_x64(True):
        case = make_family(layers=layers, batch=batch, length=length)
        check_in_float64(case, plain, ablation, segment, seed)


def test_gradients_equal_finite_differences(toy_case, plain, wide):
    case = float64(toy_case(2, 2, 1))
    writes = plain.as_writes(case, plain.cut_values(case, "interchange"), np.float64)
    weight, tokens = cotangent(case), case.on_device.tokens

    def loss(values):
        logits = masked_forward(
            case.model, case.params, tokens, Edges(values, case.graph), ablation=writes
        )
        return jnp.sum(logits * weight)

    values, step = masks(case.graph)[SOFT], 1e-5 * np.eye(case.graph.n_edges)
    many = quick_jit(jax.vmap(loss))
    difference = (many(values + step) - many(values - step)) / 2e-5
    assert_close(quick_jit(jax.grad(loss))(values), difference, 1e-8)


@pytest.mark.parametrize("names, are_writers", [(BOTH, True), (BOTH, False)])
@pytest.mark.parametrize("ablation", ABLATIONS)
def test_a_named_ablation_is_taken_from_the_corrupted_prompts(
    toy_case, plain, wide, names, are_writers, ablation
):
    """And its gradient, though the writes of zero and mean ablation are smaller arrays."""
    case = float64(toy_case(2, 2, 1, names, graph_names=names if are_writers else ()))
    mask, cut, weight = masks(case.graph)[SOFT], plain.cut_values(case, ablation), cotangent(case)
    prompts = case.on_device

    def run(values):
        logits = masked_forward(
            case.model, case.params, prompts.tokens, Edges(values, case.graph),
            corrupted_tokens=prompts.corrupted, ablation=ablation, valid=prompts.valid, segment=1,
        )  # fmt: skip
        return jnp.sum(logits * weight), logits

    (_, logits), gradient = quick_jit(jax.value_and_grad(run, has_aux=True))(mask)
    exact = ablation != "mean"  # means are taken in float32
    assert_close(logits, plain.formula(case, mask, cut)[0], 1e-12 if exact else 1e-6)
    expected = plain.mask_gradient(case, weight, mask, cut)
    assert_close(gradient, expected, 1e-11 if exact else 1e-5)


@pytest.fixture(scope="module")
def small(toy_case, plain):
    """A case of two segments, and its engine in float32 from a mask alone."""
    case = toy_case(2, 2, 1, BOTH)
    writes = plain.as_writes(case, plain.cut_values(case, "interchange"))
    prompts = case.on_device

    def run(values, positions=None):
        return masked_forward(
            case.model, case.params, prompts.tokens, Edges(values, case.graph), ablation=writes,
            valid=prompts.valid, positions=positions, segment=1,
        )  # fmt: skip

    return case, run, jnp.asarray(masks(case.graph), jnp.float32)


def loss_and_slope(run):
    return jax.value_and_grad(lambda values: jnp.sum(run(values) ** 2))


def test_compiling_changes_nothing(small):
    _, run, values = small
    assert_close(quick_jit(run)(values[SOFT]), run(values[SOFT]), 1e-6)


def test_a_bfloat16_outbox_rounds_what_is_kept_and_nothing_else(small):
    """A mask of zeros is still exact; the others move by a few roundings of 2^-9."""
    case, _, values = small
    prompts = case.on_device

    def run(dtype, values):
        def loss(values):
            logits = masked_forward(
                case.model, case.params, prompts.tokens, Edges(values, case.graph),
                corrupted_tokens=prompts.corrupted, valid=prompts.valid, outbox_dtype=dtype,
                segment=1,
            )  # fmt: skip
            return jnp.sum(logits**2), logits

        return quick_jit(jax.vmap(jax.grad(loss, has_aux=True)))(values)

    (slope, logits), (near_slope, near) = run("float32", values), run("bfloat16", values)
    assert near.dtype == near_slope.dtype == jnp.float32
    np.testing.assert_array_equal(near[ZEROS], logits[ZEROS])
    assert np.abs(near - logits)[ONES].max() > 1e-6
    assert_close(near, logits, 1e-2)
    assert_close(near_slope, slope, 3e-2)


def test_logits_at_positions_are_those_of_a_full_run(small):
    _, run, values = small
    positions = jnp.array([[0, 3, 3], [1, 0, 1]])

    def whole(values):
        return jnp.take_along_axis(run(values), positions[..., None], 1)

    def picked(values):
        return run(values, positions)

    for function in (lambda run: run, lambda run: loss_and_slope(run)):
        expected, got = (quick_jit(function(one))(values[SOFT]) for one in (whole, picked))
        jax.tree.map(partial(assert_close, share=1e-6), got, expected)


def test_the_plain_model_at_positions_is_the_plain_model(small):
    case, prompts = small[0], small[0].on_device
    positions = jnp.array([[0, 3, 3], [1, 0, 1]])
    run = quick_jit(partial(plain_forward, case.model, case.params, valid=prompts.valid))
    whole = np.asarray(run(prompts.tokens))
    picked = run(prompts.tokens, positions=positions)
    assert_close(picked, np.take_along_axis(whole, np.asarray(positions)[..., None], 1), 1e-6)


def test_tokens_beyond_the_prompt_are_never_read(toy_case):
    """Under every ablation, whatever stands in the padding of either prompt."""
    case = toy_case(2, 2, 1)
    mask = jnp.asarray(masks(case.graph)[SOFT], jnp.float32)
    tokens, corrupted, valid = case.on_device
    noise = jnp.where(valid, 0, 1)
    assert noise.any()

    @partial(quick_jit, static_argnames="ablation")
    def run(tokens, corrupted, ablation):
        return masked_forward(
            case.model, case.params, tokens, Edges(mask, case.graph),
            corrupted_tokens=corrupted, ablation=ablation, valid=valid,
        )  # fmt: skip

    for ablation in ABLATIONS:
        first = run(tokens, corrupted, ablation)
        again = run((tokens + noise) % 5, (corrupted + 2 * noise) % 5, ablation)
        assert np.abs(first - again).max() > 0.01  # at the padding itself
        np.testing.assert_array_equal(first[case.valid], again[case.valid])


def test_mean_ablation_averages_the_prompts_themselves_by_default(toy_case):
    case = toy_case(1, 1, 1)
    tokens, corrupted, _ = case.on_device

    @quick_jit
    def run(**options):
        mask = full(case.graph, 0.5)
        return masked_forward(case.model, case.params, tokens, mask, ablation="mean", **options)

    assert_close(run(), run(corrupted_tokens=tokens), 1e-6)
    assert np.abs(run(corrupted_tokens=corrupted) - run()).max() > 1e-3
