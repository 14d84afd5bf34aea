"""What a step is said to cost, against what XLA counts and allocates."""

import jax
import jax.numpy as jnp
import pytest

from edgeprune_jax import cost
from edgeprune_jax.models import gpt2, llama
from edgeprune_jax.pruning import init, make_step
from edgeprune_jax.settings import PruneConfig
from edgeprune_jax.tasks.batch import Batch

GPT2 = gpt2.GPT2Config(layers=9, heads=4, width=128, hidden=512, vocab=500, positions=64)
LLAMA = llama.LlamaConfig(
    layers=10, heads=6, kv_heads=2, head_dim=32, width=192, hidden=512, vocab=500
)
CASES = [(gpt2, GPT2), (llama, LLAMA)]


def compiled_step(family, config, batch, tokens, **settings):
    model, graph = family.build(config), family.graph(config)
    params = family.abstract_params(config)
    prune = PruneConfig(batch_size=batch, **settings)

    def array(*shape, dtype=jnp.int32):
        return jax.ShapeDtypeStruct(shape, dtype)

    data = Batch(
        array(batch, tokens), array(batch, tokens), array(batch, tokens, dtype=bool),
        array(batch, 1), array(batch, 1, dtype=jnp.float32), array(batch, 1), array(batch, 1),
    )  # fmt: skip
    teacher = array(batch, 1, config.vocab, dtype=jnp.float32)
    state = jax.eval_shape(lambda: init(graph, prune))
    step = make_step(model, prune)
    program = step.func.lower(*step.args, state, params, data, teacher, None).compile()
    return model, params, graph, program


@pytest.mark.parametrize(("family", "config"), CASES, ids=["gpt2", "llama"])
@pytest.mark.parametrize("ablation", ["interchange", "zero"])
def test_the_operations_counted_are_those_of_the_compiled_step(family, config, ablation):
    model, params, graph, program = compiled_step(family, config, 4, 20, ablation=ablation)
    counted = cost.step_flops(
        model, params, graph, cost.Shapes(4, 20, 1), ablation=ablation
    )  # fmt: skip
    assert sum(counted) == pytest.approx(program.cost_analysis()["flops"], rel=0.15)


@pytest.mark.parametrize(("family", "config"), CASES, ids=["gpt2", "llama"])
@pytest.mark.parametrize("batch", [4, 16])
def test_the_memory_counted_is_about_what_xla_allocates(family, config, batch):
    model, params, graph, program = compiled_step(family, config, batch, 20)
    counted = cost.step_bytes(model, params, graph, cost.Shapes(batch, 20, 1))
    allocated = program.memory_analysis().temp_size_in_bytes
    assert counted.temporary == pytest.approx(allocated, rel=0.3)


def test_the_sums_are_at_least_one_for_every_edge_and_grow_with_fewer_segments():
    graph = gpt2.graph(GPT2)
    forward, backward = zip(*(cost.sums(graph, segment=n) for n in (1, 3, 9)), strict=True)
    assert all(n >= graph.n_edges for n in forward)
    assert all(b >= 2 * graph.n_edges for b in backward)
    assert backward[0] <= backward[1] <= backward[2]


def test_a_layer_alone_has_one_product_for_each_edge():
    graph = gpt2.graph(gpt2.GPT2Config(1, 2, 8, 16, 11, 5))
    assert cost.sums(graph)[0] == graph.n_edges


def test_a_bfloat16_outbox_halves_the_outbox_and_its_cotangents_alone():
    params, shapes = gpt2.abstract_params(GPT2), cost.Shapes(4, 20, 1)
    args = (gpt2.build(GPT2), params, gpt2.graph(GPT2), shapes)
    single, half = (cost.step_bytes(*args, outbox_dtype=d) for d in ("float32", "bfloat16"))
    assert (half.outbox * 2, half.cotangents * 2) == (single.outbox, single.cotangents)
    assert half.readers == single.readers and half.products == single.products


def test_the_largest_batch_fits_and_a_tenth_more_does_not():
    params = gpt2.abstract_params(GPT2)
    args = (gpt2.build(GPT2), params, gpt2.graph(GPT2))

    def total(batch):
        held = cost.step_bytes(*args, cost.Shapes(batch, 20, 1))
        return held.weights + held.gates + held.temporary

    held, limit = cost.step_bytes(*args, cost.Shapes(8, 20, 1)), total(37)
    fixed = held.weights + held.gates
    batch = cost.largest_batch(limit, fixed, held.temporary, 8)
    assert total(batch) <= limit < total(round(1.1 * batch))
    assert cost.largest_batch(held.weights, fixed, held.temporary, 8) == 0


def test_masks_multiply_the_masked_passes_and_evaluation_has_no_backward_pass():
    params, shapes = gpt2.abstract_params(GPT2), cost.Shapes(4, 20, 1)
    args = (gpt2.build(GPT2), params, gpt2.graph(GPT2), shapes)
    one, three = cost.step_flops(*args), cost.step_flops(*args, masks=3)
    evaluated = cost.step_flops(*args, masks=3, differentiated=False)
    assert three.corrupted_run == one.corrupted_run
    assert three[1:] == tuple(3 * count for count in one[1:])
    assert evaluated == three._replace(backward=0.0, backward_sums=0.0)
