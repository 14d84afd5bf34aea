"""Plans of steps: their numbers against those of models that are there, and their refusals."""

import importlib.util
import json

import jax
import jax.numpy as jnp
import pytest

from edgeprune_jax.cli.main import main
from edgeprune_jax.models import gpt2, llama
from edgeprune_jax.plan import process
from edgeprune_jax.plan.exact import exact_flops
from edgeprune_jax.plan.make import MOST_EXAMPLES, largest_batch
from edgeprune_jax.plan.named import Shape, names, read_shape
from edgeprune_jax.plan.request import Request
from edgeprune_jax.plan.topology import DEVICES, find_topology

SIZES = {"codellama-13b": 13.016e9, "llama-3-70b": 70.554e9, "llama-3-8b": 8.030e9,
         "codellama-7b": 6.738e9, "gpt2": 124.44e6, "smollm2-135m": 134.5e6}  # fmt: skip


@pytest.mark.parametrize("name", names())
def test_a_named_shape_has_the_parameters_that_its_authors_count(name):
    shape = read_shape(name, dtype="bfloat16")
    count = sum(leaf.size for leaf in jax.tree.leaves(shape.params))
    assert count == pytest.approx(SIZES[name], rel=1e-3)


def test_the_large_models_have_the_papers_edges():
    assert read_shape("codellama-13b", dtype="bfloat16").graph.n_edges == 3_877_661
    assert read_shape("gpt2", dtype="float32").graph.n_edges == 32_936


def products(function, *inputs):
    """Operations of all dots of a function, by walking its jaxpr."""
    total = 0
    for equation in jax.make_jaxpr(function)(*inputs).eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left, out = equation.invars[0].aval.shape, equation.outvars[0].aval.size
            for axis in contracted:
                out *= left[axis]
            total += 2 * out
    return total


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_exact_count_of_a_layer_is_that_of_its_products_with_causal_attention(family):
    if family == "gpt2":
        module, config = gpt2, gpt2.GPT2Config(1, 4, 32, 96, 50, 16)
    else:
        module = llama
        config = llama.LlamaConfig(1, 4, 2, head_dim=8, width=24, hidden=40, vocab=50)
    model, params, T = module.build(config), module.abstract_params(config), 5
    shape = Shape(model, params, module.graph(config), config.vocab)
    exact = exact_flops(shape, Request("a model", "cpu:1", batch=3, length=T))
    valid = jnp.ones((3, T), bool)

    def layer(params, x):
        block, x = params.blocks[0], x[None]
        return model.attend(block, x, x, x, valid), model.mlp(block, x[0])

    width = params.embedding.shape[-1]
    found = products(layer, params, jax.ShapeDtypeStruct((3, T, width), "float32"))
    heads = shape.graph.heads * params.blocks[0].q.shape[1]
    not_causal = 2 * 2 * 3 * heads * (T * T - T * (T + 1) // 2)
    assert exact.masked == found - not_causal
    assert exact.corrupted == exact.masked
    edges, W = shape.graph.n_edges, shape.graph.n_writers
    assert exact.masked_sums == 2 * width * 3 * (T * (edges - W) + W)
    assert exact.teacher == exact.masked + exact.unembedding / 2
    assert sum(exact) - exact.teacher == exact.step


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("v7x:2x2", "a topology is one of"), ("v5e", "the extent of v5e is NxN, such as v5e:2x4"),
        ("v5e:8", "such as v5e:2x4"), ("v5p:2x2", "such as v5p:2x2x2"), ("h100:x", "as h100:8"),
        ("v5e:0x4", "such as v5e"), ("v6e:8x16", "up to 64 chips"), ("h100:9", "up to 8 chips"),
    ],
)  # fmt: skip
def test_a_topology_that_does_not_exist_is_refused(name, message):
    with pytest.raises(ValueError, match=message):
        find_topology(name)


def test_a_v4_chip_is_two_devices():
    assert find_topology("v4:2x2x1").devices == 8 and find_topology("v5p:2x2x1").devices == 4
    assert all(device.source for device in DEVICES.values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "llama-9"], "neither a folder with a config.json nor one of codellama-13b"),
        (["--data", "3", "--batch", "3"], "data x fsdp must divide the 8 devices of v5e:2x4"),
        (["--data", "8", "--batch", "9"], "batch must be a multiple of data x fsdp = 8: got 9"),
        (["--batch", "0"], "batch must be at least 1: got 0"),
        (["--layers", "0", "--batch", "1"], "layers must be at least 1"),
        (["--dtype", "int8"], "--dtype must be bfloat16 or float32: got 'int8'"),
        (["--topology", "tpu"], "a topology is one of"),
    ],
)
def test_bad_input_is_one_line_before_any_compiling(arguments, message, capsys, monkeypatch):
    monkeypatch.setattr(process.subprocess, "run", lambda *_, **__: pytest.fail("it compiles"))
    assert main(["plan", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.parametrize(("topology", "extra"), [("v5e:2x4", "plan-tpu"), ("h100:8", "plan-gpu")])
def test_a_machine_without_the_compiler_is_told_what_to_install(
    topology, extra, capsys, monkeypatch
):
    monkeypatch.setattr(process.importlib.util, "find_spec", lambda name: None)
    assert main(["plan", "--model", "gpt2", "--topology", topology, "--batch", "8"]) == 2
    assert f"pip install 'edgeprune_jax[{extra}]'" in capsys.readouterr().err


CURVES = {  # bytes of a step by its examples; 370 are usable, 100 are weights and gates
    "a line": lambda n: 100 + 7.2 * n,
    "a bent line": lambda n: 100 + 4 * n + n**2 / 12,
    "a line that is eased near its end": lambda n: min(100 + 8 * n, 300 + 1.8 * n),
    "stairs": lambda n: 100 + 57 * -(-n // 8),
    "nothing but weights": lambda n: 100,
}


def pretend(monkeypatch, curve, *, silent=False):
    """Plans by a curve instead of the compiler; `silent` ones do not say by how much."""
    tried = []

    def plan(request, *, steps):
        tried.append(request.batch)
        needed = int(curve(request.batch))
        fits = needed <= 370
        return {
            "fits": fits, "bytes_per_device": None if silent and not fits else needed,
            "memory_bytes": 370, "weights_bytes": 80, "gates_bytes": 20, "batch": request.batch,
        }  # fmt: skip

    monkeypatch.setattr("edgeprune_jax.plan.make.make_plan", plan)
    return tried


@pytest.mark.parametrize("silent", [False, True])
@pytest.mark.parametrize("start", [8, 30, 200])
@pytest.mark.parametrize("name", list(CURVES)[:-1])
def test_the_largest_batch_is_found_and_its_neighbour_does_not_fit(
    name, start, silent, monkeypatch
):
    curve = CURVES[name]
    tried = pretend(monkeypatch, curve, silent=silent)
    largest, found = largest_batch(Request("gpt2", "v5e:2x4", batch=start, length=8), steps=1)
    assert int(curve(largest)) <= 370 < int(curve(largest + 1))
    assert found["batch"] == largest and largest + 1 in tried and len(tried) < 12


def test_a_line_needs_no_more_than_three_batches(monkeypatch):
    for start in (8, 30, 60):
        tried = pretend(monkeypatch, CURVES["a line"])
        found = largest_batch(Request("gpt2", "v5e:2x4", batch=start, length=8), steps=1)
        assert found[0] == 37 and len(tried) <= 3


def test_the_largest_batch_is_a_multiple_of_its_parts_and_may_be_none_or_the_limit(monkeypatch):
    pretend(monkeypatch, CURVES["a line"])
    request = Request("gpt2", "v5e:2x4", batch=40, length=8, data=8)
    assert largest_batch(request, steps=1)[0] == 32
    pretend(monkeypatch, lambda n: 1000)
    largest, found = largest_batch(request, steps=1)
    assert largest == 0 and found["batch"] == 8 and found["fits"] is False
    pretend(monkeypatch, CURVES["nothing but weights"])
    assert largest_batch(request, steps=1)[0] == 8 * MOST_EXAMPLES


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The config of a small Llama, in a folder without weights."""
    folder = tmp_path_factory.mktemp("small")
    config = {
        "model_type": "llama", "hidden_size": 256, "intermediate_size": 512,
        "num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 8,
        "vocab_size": 1000, "hidden_act": "silu",
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    return folder


KEYS = ("fits", "bytes_per_device", "flops_per_device", "bytes_accessed_per_device",
        "seconds_per_step", "compile_seconds")  # fmt: skip


def planned(capsys, *arguments):
    assert main(["plan", "--json", *map(str, arguments)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(KEYS) <= found.keys()
    return found


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs libtpu")
def test_a_step_is_compiled_for_tpus_that_are_not_there(small, capsys):
    found = planned(capsys, "--model", small, "--topology", "v5e:2x2", "--batch", 4, "--length", 16)
    assert found["fits"] is True and found["devices"] == 4
    assert 1.0 <= found["flops_over_exact"] < 2.5
    parts = ("weights_bytes", "gates_bytes", "batch_bytes", "temporary_bytes")
    assert sum(found[part] for part in parts) == pytest.approx(found["bytes_per_device"], rel=0.2)
    bounds = found["seconds"]
    assert found["seconds_per_step"] == max(bounds.values()) > 0
    assert found["seconds_per_run"] == 6000 * found["seconds_per_step"]


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs libtpu")
def test_out_of_memory_is_an_answer(small, capsys):
    sizes = ("--batch", 4096, "--length", 2048)
    found = planned(capsys, "--model", small, "--topology", "v5e:2x2", *sizes)
    assert found["fits"] is False and found["flops_per_device"] is None
    assert found["bytes_per_device"] > found["memory_bytes"]


def test_a_mesh_that_cannot_split_the_model_names_the_weight(capsys):
    arguments = ("--model", "gpt2", "--topology", "cpu:5", "--batch", "5", "--length", "8")
    assert main(["plan", *arguments]) == 2
    error = capsys.readouterr().err
    assert "must be a multiple of 5" in error and error.count("\n") == 1
