"""Weights go from the file to the devices part by part, and the host never holds much of them."""

import json
import mmap
import weakref
from collections import Counter

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from edgeprune_jax.models import huggingface, llama, stored
from edgeprune_jax.models.load import load_model
from edgeprune_jax.sharding import MeshShape, make_mesh, weight_shardings

WIDE = llama.LlamaConfig(
    2, heads=8, kv_heads=4, head_dim=64, width=512, hidden=1024, vocab=2048, output_bias=True,
    qkv_bias=True,
)  # fmt: skip


def on(shape: MeshShape):
    mesh = make_mesh(shape)
    return lambda shapes: weight_shardings(shapes, mesh)


@pytest.fixture
def wide(tmp_path):
    """A checkpoint of 29 MB in three files, whose largest tensors have 4 MB."""
    rng = np.random.default_rng(0)
    leaves = jax.tree.leaves(llama.layout(WIDE))
    weights = {leaf.name: rng.normal(size=leaf.shape).astype(np.float32) for leaf in leaves}
    names, where = sorted(weights), {}
    for number in range(3):
        file = f"model-{number + 1:05}-of-00003.safetensors"
        part = names[number::3]
        save_file({name: weights[name] for name in part}, tmp_path / file)
        where |= dict.fromkeys(part, file)
    (tmp_path / huggingface.INDEX).write_text(json.dumps({"weight_map": where}))
    settings = {
        "model_type": "llama", "num_hidden_layers": 2, "num_attention_heads": 8,
        "num_key_value_heads": 4, "head_dim": 64, "hidden_size": 512, "intermediate_size": 1024,
        "vocab_size": 2048, "hidden_act": "silu", "attention_bias": True, "rope_theta": 1e4,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(settings))
    return tmp_path, weights


@pytest.mark.parametrize("name", ["gpt2", "llama_mha", "llama_gqa_tied", "llama_mqa_bias", "qwen2"])
@pytest.mark.parametrize("shape", [MeshShape(model=4), MeshShape(2, 2, 2), MeshShape(fsdp=2)])
def test_weights_read_in_parts_equal_those_read_whole(recorded, name, shape, monkeypatch):
    whole = load_model(recorded / name).params
    monkeypatch.setattr(stored, "STRIP", 40)  # strips of a row or two, ends included
    split = load_model(recorded / name, shardings=on(shape)).params
    mesh = make_mesh(shape)
    assert jax.tree.map(lambda leaf: leaf.sharding, split) == weight_shardings(whole, mesh)
    jax.tree.map(np.testing.assert_array_equal, split, whole)


def test_each_number_is_read_once_and_in_strips(wide, monkeypatch):
    folder, weights = wide
    monkeypatch.setattr(stored, "STRIP", 2**15)
    reads, largest, real = Counter(), [0], stored.read

    def read(layout, shapes, part, **rest):
        def counted(name, index):
            found = part(name, index)
            reads[name] += found.size
            largest[0] = max(largest[0], found.size)
            return found

        return real(layout, shapes, counted, **rest)

    monkeypatch.setattr(stored, "read", read)
    load_model(folder, shardings=on(MeshShape(data=2, model=2, fsdp=2)))
    assert reads == {name: weight.size for name, weight in weights.items()}
    assert largest[0] <= 2**15


@pytest.mark.parametrize("shape", [MeshShape(), MeshShape(model=2), MeshShape(2, 2, 2)])
def test_the_host_holds_one_part_at_a_time_beside_a_strip(wide, shape, monkeypatch):
    folder, weights = wide
    held, most = set(), []

    class Pages(mmap.mmap):
        """Memory that is counted while it is there."""

        def __init__(self, _, size):
            entry = (len(most), size)
            held.add(entry)
            most.append(sum(size for _, size in held))
            weakref.finalize(self, held.remove, entry)

    monkeypatch.setattr(stored.mmap, "mmap", Pages)
    # As on a device with memory of its own; a CPU takes the part over instead.
    put = jax.device_put
    monkeypatch.setattr(jax, "device_put", lambda x, *to: put(jax.numpy.array(x), *to))
    load_model(folder, shardings=on(shape))
    largest = max(weight.nbytes for weight in weights.values())
    assert max(most) == largest // shape.model  # that of an embedding, V D
