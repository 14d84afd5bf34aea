"""Split over eight simulated devices, everything is as on one, and no outbox travels."""

import re
import shutil
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checks import assert_close, quick_jit

from edgeprune_jax import sharding
from edgeprune_jax.ablation import ablated_writes
from edgeprune_jax.checkpoints import Policy
from edgeprune_jax.engine import masked_forward
from edgeprune_jax.gates import sample_gates
from edgeprune_jax.graph import Edges, Graph
from edgeprune_jax.masked_layers import Streams, make_layers, segment_masks
from edgeprune_jax.models import gpt2, llama
from edgeprune_jax.models.loaded import Loaded
from edgeprune_jax.pruning import init, make_step
from edgeprune_jax.run import run_pruning
from edgeprune_jax.settings import PruneConfig
from edgeprune_jax.sharding import MeshShape, make_mesh
from edgeprune_jax.stream import Model
from edgeprune_jax.tasks.batch import Batch

B, T, D, HEADS, HEAD = 8, 6, 32, 4, 8
MESHES = [MeshShape(1, 8), MeshShape(2, 4), MeshShape(4, 2), MeshShape(8, 1), MeshShape(2, 2, 2)]
LLAMA = llama.LlamaConfig(
    2, heads=HEADS, kv_heads=2, head_dim=HEAD, width=D, hidden=48, vocab=11, qkv_bias=True
)
GPT2 = gpt2.GPT2Config(2, heads=HEADS, width=D, hidden=48, vocab=11, positions=7)
CONFIG = PruneConfig(
    steps=20, batch_size=B, warmup=40, gate_init=1.0, start=0.2, target=0.9, rate_warmup=5,
    price=0.0, seed=3,
)  # fmt: skip
OWN_MASKS = replace(CONFIG, own_masks=True)
REPLICAS = replace(OWN_MASKS, replicas=2, bootstrap=True)


class Setting(NamedTuple):
    model: Model
    params: Any
    graph: Graph


def setting(family, config) -> Setting:
    params = family.random_params(config, key=jax.random.key(0))
    return Setting(family.build(config), params, family.graph(config))


@pytest.fixture(scope="module")
def small() -> Setting:
    return setting(llama, LLAMA)


@pytest.fixture(scope="module", params=MESHES, ids=lambda s: f"{s.data}x{s.model}x{s.fsdp}")
def mesh(request):
    return make_mesh(request.param)


def prompts(n=B) -> Batch:
    tokens, corrupted = np.random.default_rng(0).integers(0, 11, (2, n, T), dtype=np.int32)
    one = np.ones((n, 1), np.int32)
    return Batch(
        tokens, corrupted, np.ones((n, T), bool), one * (T - 1), one.astype(np.float32),
        tokens[:, :1], tokens[:, 1:2],
    )  # fmt: skip


def logits_and_slopes(case, values, params, batch):
    def loss(values):
        logits = masked_forward(
            case.model, params, batch.tokens, Edges(values, case.graph),
            corrupted_tokens=batch.corrupted, valid=batch.valid, segment=1,
        )  # fmt: skip
        return jnp.sum(jnp.sin(jnp.arange(logits.size).reshape(logits.shape)) * logits), logits

    slopes, logits = jax.grad(loss, has_aux=True)(values)
    return logits, slopes


def on(mesh, case):
    return sharding.place(case.params, sharding.weight_shardings, mesh)


class Slopes(NamedTuple):
    """Logits and slopes as a function of mask, weights and batch; what it gives on one device."""

    case: Setting
    run: Any
    values: Any
    expected: Any


def slopes_of(case) -> Slopes:
    values = jnp.asarray(np.random.default_rng(1).uniform(size=case.graph.n_edges), jnp.float32)
    run = quick_jit(partial(logits_and_slopes, case))
    return Slopes(case, run, values, run(values, case.params, prompts()))


@pytest.fixture(scope="module")
def llama_slopes(small):
    return slopes_of(small)


@pytest.fixture(scope="module")
def gpt2_slopes():
    return slopes_of(setting(gpt2, GPT2))


def test_logits_and_mask_gradients_are_those_of_one_device(llama_slopes, mesh):
    check_logits_and_slopes(llama_slopes, mesh)


@pytest.mark.parametrize("shape", MESHES[1::3], ids=["2x4x1", "2x2x2"])
def test_gpt2_is_that_of_one_device(gpt2_slopes, shape):
    check_logits_and_slopes(gpt2_slopes, make_mesh(shape))


def check_logits_and_slopes(slopes, mesh):
    batch = sharding.place(prompts(), sharding.batch_shardings, mesh)
    with sharding.using(mesh):
        got = slopes.run(slopes.values, on(mesh, slopes.case), batch)
    assert got[0].sharding.shard_shape(got[0].shape)[0] == B // (mesh.size // mesh.shape["model"])
    jax.tree.map(partial(assert_close, share=1e-5), got, slopes.expected)


@pytest.fixture(scope="module")
def one_device(small, tmp_path_factory):
    return moved_gates(small, tmp_path_factory.mktemp("one"), CONFIG)


@pytest.fixture(scope="module")
def one_device_own_masks(small, tmp_path_factory):
    return moved_gates(small, tmp_path_factory.mktemp("own"), OWN_MASKS)


@pytest.fixture(scope="module")
def one_device_replicas(small, tmp_path_factory):
    return pruned(small, tmp_path_factory.mktemp("replicas"), None, REPLICAS)


def moved_gates(case, folder, config):
    gates = pruned(case, folder, None, config)
    moved = np.abs(gates - np.asarray(init(case.graph, config).trainable.edges.values))
    assert (moved > 0.1 * config.gate_rate).mean() > 0.5
    return gates


@pytest.fixture(scope="module")
def on_the_mesh(small, mesh, tmp_path_factory):
    return pruned(small, tmp_path_factory.mktemp("mesh"), mesh)


def pruned(case, folder, mesh, config=CONFIG, **options):
    loaded = Loaded(case.model, case.params, case.graph, None, "tiny", "none")
    gates = run_pruning(
        loaded, prompts(24), config, folder, mesh=mesh, policy=Policy(every=4), **options
    )
    return np.asarray(gates.values)


def test_a_run_ends_with_the_gates_of_one_device(on_the_mesh, one_device):
    np.testing.assert_allclose(on_the_mesh, one_device, rtol=0, atol=1e-5)


def test_a_run_with_a_mask_for_each_example_ends_so_too(
    small, mesh, one_device, one_device_own_masks, tmp_path
):
    gates = pruned(small, tmp_path, mesh, OWN_MASKS)
    np.testing.assert_allclose(gates, one_device_own_masks, rtol=0, atol=1e-5)
    assert np.abs(gates - one_device).max() > 0.01


@pytest.mark.parametrize("shape", MESHES[1::3], ids=["2x4x1", "2x2x2"])
def test_replicas_end_so_too(small, shape, one_device_replicas, one_device, tmp_path):
    gates = pruned(small, tmp_path, make_mesh(shape), REPLICAS)
    np.testing.assert_allclose(gates, one_device_replicas, rtol=0, atol=1e-5)
    assert np.abs(gates - one_device).max() > 0.01


def test_a_stopped_run_goes_on_bit_by_bit_and_on_another_mesh(
    small, mesh, on_the_mesh, one_device, tmp_path
):
    def stop(row):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pruned(small, tmp_path / "own", mesh, on_log=stop)
    assert {path.name for path in (tmp_path / "own" / "checkpoints").iterdir()} == {"4", "8"}
    shutil.copytree(tmp_path / "own", tmp_path / "other")
    rows = []
    again = pruned(small, tmp_path / "own", mesh, on_log=rows.append)
    np.testing.assert_array_equal(again, on_the_mesh)
    elsewhere = pruned(small, tmp_path / "other", None, on_log=rows.append)
    np.testing.assert_allclose(elsewhere, one_device, rtol=0, atol=1e-5)
    assert [row["step"] for row in rows] == [10, 20, 10, 20]


def test_masks_are_drawn_bit_by_bit_as_on_one_device(small, mesh):
    gates = init(small.graph, CONFIG).trainable.edges
    draw = jax.jit(partial(sample_gates, key=jax.random.key(7)))
    with sharding.using(mesh):
        got = draw(sharding.place(gates, sharding.replicated, mesh)).values
    np.testing.assert_array_equal(got, draw(gates).values)


def test_outbox_and_cotangents_are_split_by_examples_and_width(small, mesh):
    """The outbox as it is kept for the backward pass, and the cotangents of the embeddings."""
    case, batch = small, jax.tree.map(jnp.asarray, prompts())
    layers = make_layers(case.model, case.graph, 1)
    mask = Edges(jnp.ones(case.graph.n_edges), case.graph)

    def run(ms, params):
        ablated = ablated_writes(case.model, params, batch.corrupted)
        streams = (Streams(ablated.embeds[0], ablated.embeds[0]),) * case.graph.layers

        def read(ms, embeds):
            given = (params.blocks, streams, ablated.layers, batch.valid, None)
            return layers(ms, mask.rows()[1], embeds, *given)

        out, pull = jax.vjp(read, ms, case.model.embed(params, batch.tokens))
        return pull, *pull(out)

    with sharding.using(mesh):
        pull, g_masks, g_embeds = quick_jit(run)(segment_masks(mask, 1), on(mesh, case))
    shard = (B // (mesh.shape["data"] * mesh.shape["fsdp"]), T, D // mesh.shape["model"])
    whole = (case.graph.n_writers, B, T, D)
    (outbox,) = [leaf for leaf in jax.tree.leaves(pull) if leaf.shape == whole]
    assert outbox.sharding.shard_shape(whole) == (case.graph.n_writers, *shard)
    assert g_embeds.sharding.shard_shape(g_embeds.shape) == (1, *shard)
    assert all(g_mask.sharding.is_fully_replicated for g_mask in g_masks)


@pytest.mark.parametrize("config", [CONFIG, OWN_MASKS], ids=["one mask", "own masks"])
def test_a_step_gathers_no_outbox(small, mesh, config):
    """The largest that travels is one stream's width, or what all heads read, for the examples."""
    case, batch = small, sharding.place(prompts(), sharding.batch_shardings, mesh)
    params, step = on(mesh, case), make_step(small.model, config)
    state = sharding.place(init(case.graph, config), sharding.replicated, mesh)
    teacher = sharding.place(np.zeros((B, 1, 11), np.float32), sharding.by_example, mesh)
    with sharding.using(mesh):  # with what a run gives, for it was compiled for that already
        program = step.func.lower(
            *step.args, state, params, batch, teacher, None, np.arange(B)
        ).compile()
    text = program.as_text()
    held = outboxes(text, case.graph.n_writers)
    assert held == {B * T * D // mesh.size}
    sizes = travelling(text)
    assert mesh.shape["model"] == 1 or sizes
    examples = B // (mesh.shape["data"] * mesh.shape["fsdp"])
    largest = examples * T * max(D, HEADS * HEAD)
    weights = max(leaf.size for leaf in jax.tree.leaves(case.params)) // mesh.shape["model"]
    assert max(sizes, default=0) <= max(largest, weights * (mesh.shape["fsdp"] > 1))
    assert largest < examples * T * D * HEADS  # what one layer's heads write is larger


def travelling(hlo: str) -> list[int]:
    """Elements of each array that a collective other than a sum leaves on a device."""
    kinds = r"(?:all-gather|all-to-all|collective-permute|collective-broadcast)(?:-start)?\("
    found = re.findall(rf"= (.*?) {kinds}", hlo)
    shapes = [shape for one in found for shape in re.findall(r"\w+\[([\d,]*)\]", one)]
    return [int(np.prod([int(n) for n in shape.split(",") if n])) for shape in shapes]


def outboxes(hlo: str, writers: int) -> set[int]:
    """Elements, for one writer, of all arrays that one writer after the other is written into."""
    found = re.findall(r"= \w+\[([\d,]+)\][^=]*? dynamic-update-slice\(", hlo)
    shapes = [[int(n) for n in shape.split(",")] for shape in found]
    return {int(np.prod(shape)) // writers for shape in shapes if writers in shape}
