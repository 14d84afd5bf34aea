"""The table of shardings: every weight and every array of a batch has its place, or an error."""

from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh
from jax.sharding import PartitionSpec as P

from edgeprune_jax import sharding
from edgeprune_jax.models import gpt2, llama
from edgeprune_jax.sharding import MeshShape, make_mesh
from edgeprune_jax.tasks.batch import Batch

LLAMA = llama.LlamaConfig(
    2, heads=4, kv_heads=2, head_dim=8, width=32, hidden=48, vocab=11, qkv_bias=True,
    output_bias=True,
)  # fmt: skip
GPT2 = gpt2.GPT2Config(2, heads=4, width=32, hidden=48, vocab=11, positions=7)


def shards(tree, shardings):
    return jax.tree.map(lambda leaf, at: at.shard_shape(leaf.shape), tree, shardings)


def test_weights_of_llama_are_split_by_width_hidden_units_and_once_more():
    shapes = llama.abstract_params(LLAMA)
    mesh = make_mesh(MeshShape(model=2, fsdp=2))
    block = shards(shapes, sharding.weight_shardings(shapes, mesh)).blocks[1]
    assert block.q == block.o == (4, 4, 16)
    assert block.k == block.v == (2, 4, 16)
    assert block.gate == block.up == block.down == (24, 16)
    assert block.q_bias == (4, 8) and block.o_bias == block.mlp_norm == (16,)


@pytest.mark.parametrize("family, config", [(llama, LLAMA), (gpt2, GPT2)])
def test_every_matrix_is_split_over_model(family, config):
    shapes = family.abstract_params(config)
    placed = sharding.weight_shardings(shapes, make_mesh(MeshShape(model=4)))
    for leaf, shard in zip(
        jax.tree.leaves(shapes), jax.tree.leaves(shards(shapes, placed), is_leaf=is_shape),
        strict=True,
    ):  # fmt: skip
        if leaf.size > 32:
            assert np.prod(shard) * 4 == leaf.size


def is_shape(x):
    return isinstance(x, tuple) and all(isinstance(n, int) for n in x)


def test_a_batch_is_split_by_examples():
    pairs, answers = np.zeros((8, 5), np.int32), np.zeros((8, 2), np.int32)
    batch = Batch(pairs, pairs, pairs > 0, answers, answers, answers, answers)
    mesh = make_mesh(MeshShape(data=2, fsdp=2))
    placed = jax.device_put(batch, sharding.batch_shardings(batch, mesh))
    assert {leaf.sharding.shard_shape(leaf.shape)[0] for leaf in jax.tree.leaves(placed)} == {2}


def test_what_is_replicated_is_whole():
    tree = {"a": np.zeros(3), "b": np.zeros(())}
    assert {at.spec for at in sharding.replicated(tree, make_mesh(MeshShape(data=2))).values()} == {
        P()
    }


@pytest.mark.parametrize(
    "config, shape, expected",
    [
        (
            dict(width=36),
            (1, 1, 8),
            r"\.blocks\[0\]\.attention_norm: axis D .* of 8, .* model: got",
        ),
        (dict(hidden=50), (1, 1, 4), r"\.blocks\[0\]\.gate: axis F of F I .* of 4"),
        (dict(head_dim=6), (1, 4, 1), r"\.blocks\[0\]\.q: axis K of - K D .* along fsdp: got"),
    ],
)
def test_a_weight_that_does_not_divide_is_named(config, shape, expected):
    size = dict(layers=1, heads=4, kv_heads=2, head_dim=8, width=32, hidden=48, vocab=11) | config
    shapes = llama.abstract_params(llama.LlamaConfig(**size))
    with pytest.raises(ValueError, match=expected):
        sharding.weight_shardings(shapes, AbstractMesh(shape, sharding.MESH_AXES))


def test_an_uneven_batch_is_refused():
    mesh = AbstractMesh((2, 2, 1), sharding.MESH_AXES)
    with pytest.raises(ValueError, match=r"tokens'?\S*: axis B of B - .* of 4, .* data x fsdp"):
        sharding.batch_shardings(Tokens(np.zeros((6, 5))), mesh)


def test_a_weight_that_the_table_lacks_is_named():
    mesh = make_mesh(MeshShape())
    with pytest.raises(ValueError, match=r"\.surprise of shape \(2,\) is not in the table"):
        sharding.weight_shardings(Strange(np.zeros(2)), mesh)
    with pytest.raises(ValueError, match=r"\.gate must have axes F I: got shape \(48,\)"):
        sharding.weight_shardings(Gate(np.zeros(48)), mesh)


def test_a_mesh_needs_its_devices():
    with pytest.raises(ValueError, match="data 2 x fsdp 1 x model 64 needs 128 devices: got"):
        make_mesh(MeshShape(data=2, model=64))
    with pytest.raises(ValueError, match="mesh.model must be at least 1: got 0"):
        MeshShape(model=0)


def test_constrain_is_nothing_without_a_mesh_and_leaves_whole_what_does_not_divide():
    x = np.zeros((3, 4, 5, 8))

    def placed(axes):
        run = jax.jit(lambda x: sharding.constrain(x, axes))
        return run(x).sharding.shard_shape(x.shape)

    assert "sharding" not in str(jax.make_jaxpr(lambda x: sharding.constrain(x, "- B - D"))(x))
    with jax.set_mesh(make_mesh(MeshShape(data=2, model=2))):
        assert placed("- B - D") == (3, 2, 5, 4)
        assert placed("H B - -") == (3, 2, 5, 8)


class Tokens(NamedTuple):
    tokens: Any


class Strange(NamedTuple):
    surprise: Any


class Gate(NamedTuple):
    gate: Any
