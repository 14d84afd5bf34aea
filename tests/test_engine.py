"""The masked forward pass is the circuit formula, edge by edge, and so are its derivatives."""

import inspect
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from edgeprune_jax.ablation import ABLATIONS, ablated_writes
from edgeprune_jax.engine import masked_forward
from edgeprune_jax.graph import Edges, Graph, full
from edgeprune_jax.stream import plain_forward, plain_run

BOTH = ("tok_embeds", "pos_embeds")
ONES, ZEROS, SOFT, HARD = range(4)
# Compiling is most of the time here, and what is compiled are thousands of tiny products.
quick_jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def masks(graph, seed=0):
    """Ones, zeros, a mask in between, and a random circuit; in the order of the names above."""
    rng, n = np.random.default_rng(seed), graph.n_edges
    return np.stack([np.ones(n), np.zeros(n), rng.uniform(0, 1, n), rng.random(n) < 0.5])


def cotangent(case, seed=1):
    """Random weights of the logits, 0 at padding."""
    shape = (*case.tokens.shape, case.parts.unembed(case.params64, 0 * stream(case)).shape[-1])
    return np.random.default_rng(seed).normal(size=shape) * case.valid[..., None]


def stream(case):
    return next(iter(case.parts.embed(case.params64, case.tokens).values()))


def assert_close(got, expected, share):
    """No entry is off by more than a share of the largest."""
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=0, atol=share * np.abs(expected).max())


class Outcome(NamedTuple):
    """Logits, and the gradients of a weighted sum of them."""

    logits: np.ndarray
    mask: np.ndarray
    params: Any
    ablation: Any


class Runs(NamedTuple):
    """What the engine makes of a case under each ablation."""

    case: Any
    clean: np.ndarray
    corrupted: np.ndarray
    written: dict[str, np.ndarray]
    weight: np.ndarray
    outcomes: dict[str, list[Outcome]]  # one for each of the masks


def run_engine(case, plain, segment):
    weight, prompts = cotangent(case), case.on_device

    @quick_jit
    def ordinary(params, tokens):
        _, writes = plain_run(case.model, params, tokens, valid=prompts.valid)
        return plain_forward(case.model, params, tokens, valid=prompts.valid), writes

    def loss(values, params, ablation, tokens, valid):
        logits = masked_forward(
            case.model, params, tokens, Edges(values, case.graph), ablation=ablation,
            valid=valid, segment=segment,
        )  # fmt: skip
        return jnp.sum(logits * weight), logits

    engine = quick_jit(jax.grad(loss, (0, 1, 2), has_aux=True))
    (clean, writes), (corrupted, _) = (ordinary(case.params, t) for t in prompts[:2])
    written, outcomes = plain.by_name(case, writes), {}
    for ablation in ABLATIONS:
        writes, found = plain.as_writes(case, plain.cut_values(case, ablation)), []
        for values in jnp.asarray(masks(case.graph), jnp.float32):
            gradient, logits = engine(values, case.params, writes, prompts.tokens, prompts.valid)
            found.append(Outcome(*jax.tree.map(np.asarray, (logits, *gradient))))
        outcomes[ablation] = found
    return Runs(case, np.asarray(clean), np.asarray(corrupted), written, weight, outcomes)


@pytest.fixture(scope="module")
def runs(family, plain):
    """Every family, in segments that do not divide three layers."""
    return run_engine(family, plain, 2)


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


def test_the_mask_gradient_is_that_of_the_formula(runs, plain):
    case, cut = runs.case, plain.cut_values(runs.case, "interchange")
    expected = plain.mask_gradient(case, runs.weight, masks(case.graph)[SOFT], cut)
    assert_close(runs.outcomes["interchange"][SOFT].mask, expected, 1e-5)


def check_directions(case, plain, weight, outcome, cut, share):
    """Gradients of parameters and ablated writes, each array's along a random direction."""
    rng, mask = np.random.default_rng(2), masks(case.graph)[SOFT]
    leaves, tree = jax.tree.flatten(case.params64)
    got, expected = [], []
    for position, gradient in enumerate(jax.tree.leaves(outcome.params)):
        by = [np.zeros_like(leaf) for leaf in leaves]
        by[position] = rng.normal(size=gradient.shape)
        got.append((gradient * by[position]).sum())
        moved = jax.tree.unflatten(tree, by)
        expected.append(plain.slope(case, weight, mask, cut, params_by=moved))
    for name, gradient in plain.by_name(case, outcome.ablation).items():
        by = rng.normal(size=gradient.shape)
        got.append((gradient * by).sum())
        expected.append(plain.slope(case, weight, mask, cut, cut_by={name: by}))
    assert_close(got, expected, share)


def test_gradients_of_parameters_and_ablated_writes_are_those_of_the_formula(runs, plain):
    cut = plain.cut_values(runs.case, "interchange")
    outcome = runs.outcomes["interchange"][SOFT]
    check_directions(runs.case, plain, runs.weight, outcome, cut, 1e-5)


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


# From here on: a family that compiles fast, in float64.


def float64(case):
    return case._replace(params=jax.tree.map(jnp.asarray, case.params64))


@pytest.fixture
def wide():
    with jax.enable_x64(True):
        yield


def engine_64(case, plain, ablation, segment, values, by=(0, 1, 2)):
    """Logits and gradients in float64."""
    weight, prompts = cotangent(case), case.on_device
    writes = plain.as_writes(case, plain.cut_values(case, ablation), np.float64)

    def loss(values, params, writes):
        logits = masked_forward(
            case.model, params, prompts.tokens, Edges(values, case.graph), ablation=writes,
            valid=prompts.valid, segment=segment,
        )  # fmt: skip
        return jnp.sum(logits * weight), logits

    run = quick_jit(jax.grad(loss, by, has_aux=True))
    gradient, logits = jax.tree.map(np.asarray, run(values, case.params, writes))
    return weight, logits, *gradient


@settings(max_examples=4, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
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
def test_every_shape_and_segment_gives_the_formula_and_its_derivatives(
    toy_case, plain, layers, heads, names, segment, batch, length, ablation, seed
):
    names, are_writers = names
    with jax.enable_x64(True):
        case = float64(
            toy_case(
                layers, *heads, names, graph_names=names if are_writers else (), batch=batch,
                length=length, seed=seed,
            )
        )  # fmt: skip
        mask, cut = masks(case.graph, seed)[SOFT], plain.cut_values(case, ablation)
        weight, logits, gradient = engine_64(case, plain, ablation, segment, mask, by=(0,))
        assert logits.dtype == gradient.dtype == np.float64
        assert_close(logits, plain.formula(case, mask, cut)[0], 1e-12)
        assert_close(gradient, plain.mask_gradient(case, weight, mask, cut), 1e-11)


def test_gradients_are_exact_in_float64(toy_case, plain, wide):
    case = float64(toy_case(3, 2, 1, BOTH))
    mask, cut = masks(case.graph)[SOFT], plain.cut_values(case, "interchange")
    weight, *found = engine_64(case, plain, "interchange", 2, mask)
    check_directions(case, plain, weight, Outcome(*found), cut, 1e-11)


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


def test_masks_can_be_mapped(small):
    _, run, values = small
    single = quick_jit(loss_and_slope(run))
    loop = [jnp.stack(found) for found in zip(*map(single, values), strict=True)]
    mapped = quick_jit(jax.vmap(loss_and_slope(run)))(values)
    for got, expected in zip(mapped, loop, strict=True):
        assert_close(got, expected, 1e-6)


def test_compiling_changes_nothing(small):
    _, run, values = small
    assert_close(quick_jit(run)(values[SOFT]), run(values[SOFT]), 1e-6)


def test_shards_on_four_devices_give_what_one_device_gives(family):
    """Logits and the mask's gradient, prompts and the last axis of every weight split in two."""
    mesh = jax.make_mesh((2, 2), ("prompts", "width"), axis_types=(AxisType.Auto,) * 2)

    def place(leaf):
        axis = None if leaf.shape[-1] % 2 else "width"
        return jax.device_put(leaf, NamedSharding(mesh, P(*[None] * (leaf.ndim - 1), axis)))

    @quick_jit
    def run(values, params, prompts):
        def loss(values):
            logits = masked_forward(
                family.model, params, prompts.tokens, Edges(values, family.graph),
                corrupted_tokens=prompts.corrupted, valid=prompts.valid, segment=2,
            )  # fmt: skip
            return jnp.sum(logits**2), logits

        return jax.grad(loss, has_aux=True)(values)

    values = jnp.asarray(masks(family.graph)[SOFT], jnp.float32)
    prompts = jax.device_put(family.on_device, NamedSharding(mesh, P("prompts")))
    spread = run(values, jax.tree.map(place, family.params), prompts)
    assert len(spread[1].sharding.device_set) == 4
    alone = run(values, family.params, family.on_device)
    jax.tree.map(partial(assert_close, share=1e-5), spread, alone)


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


def without(names, **shape):
    return Graph(**{"layers": 2, "heads": 2, "kv_heads": 1} | shape, embeddings=names)


@pytest.mark.parametrize(
    "graph, options, message",
    [
        (without(("tok_embeds",), layers=3), {}, "the mask's graph has 3 layers, the model 2"),
        (
            without(("tok_embeds",), heads=1),
            {"ablation": "zero"},
            "the mask's graph has 1 heads, the model 2",
        ),
        (without(BOTH), {}, "the mask's graph has 2 embedding writers .*the model writes 1"),
        (without(("tok_embeds",)), {"corrupted_tokens": None}, "needs corrupted_tokens: got None"),
        (
            without(("tok_embeds",)),
            {"corrupted_tokens": jnp.zeros((1, 4), jnp.int32)},
            r"must have the shape of tokens, .*got \(1, 4\) and \(2, 4\)",
        ),
        (without(("tok_embeds",)), {"ablation": "nought"}, "interchange, zero, mean: got 'nought'"),
    ],
)
def test_what_does_not_fit_is_refused(toy_case, graph, options, message):
    unchecked = inspect.unwrap(masked_forward)  # the types of a test run refuse some of it first
    case = toy_case(2, 2, 1)
    tokens, corrupted, _ = case.on_device
    options = {"corrupted_tokens": corrupted} | options
    with pytest.raises(ValueError, match=message):
        unchecked(case.model, case.params, tokens, full(graph, 1.0), **options)


def test_a_mask_of_another_length_is_refused(toy_case):
    case = toy_case(2, 2, 1)
    tokens, corrupted, _ = case.on_device
    mask = Edges(jnp.ones(case.graph.n_edges - 1), case.graph)
    with pytest.raises(ValueError, match=rf"shape \({case.graph.n_edges},\), one per edge"):
        masked_forward(case.model, case.params, tokens, mask, corrupted_tokens=corrupted)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"segment": 0}, "segment must be at least 1"),
        ({"outbox_dtype": "int8"}, "outbox_dtype must be a floating type"),
        ({"segment": -1}, "segment must be at least 1"),
        ({"valid": np.ones((1, 2), bool)}, "valid must have the shape of tokens"),
        ({"positions": np.zeros((1, 1), int)}, "positions must have a row"),
        ({"positions": np.zeros(3, int)}, "positions must have a row"),
    ],
)
def test_arguments_that_do_not_fit_the_prompts_are_refused(change, words, toy_case):
    case = toy_case(2, 2, 1)
    tokens, corrupted, _ = case.on_device
    change = jax.tree.map(lambda v: jnp.asarray(v) if isinstance(v, np.ndarray) else v, change)
    mask = Edges(jnp.ones(case.graph.n_edges), case.graph)
    with pytest.raises(ValueError, match=words):
        # Without the annotations' checks, which users do not have.
        inspect.unwrap(masked_forward)(
            case.model, case.params, tokens, mask, corrupted_tokens=corrupted, **change
        )


def test_an_ablation_of_other_prompts_or_layers_is_refused(toy_case):
    case = toy_case(2, 2, 1)
    tokens, corrupted, _ = case.on_device
    mask = Edges(jnp.ones(case.graph.n_edges), case.graph)
    writes = ablated_writes(case.model, case.params, corrupted)
    with pytest.raises(ValueError, match="layers, the ablation"):
        fewer = writes._replace(layers=writes.layers[:-1])
        masked_forward(case.model, case.params, tokens, mask, ablation=fewer)
    with pytest.raises(ValueError, match="must be of prompts of shape"):
        other = jnp.concatenate([corrupted] * 2)
        wider = ablated_writes(case.model, case.params, other)
        masked_forward(case.model, case.params, tokens, mask, ablation=wider)
