"""What holds for every family: parity with PyTorch, causality, and readers that share an input."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edgeprune_jax.models import gpt2, llama
from edgeprune_jax.models.load import load_model
from edgeprune_jax.stream import plain_forward

CHECKPOINTS = (
    "gpt2",
    "gpt2_untied",
    "llama_gqa_tied",
    "llama_mha",
    "llama_mqa_bias",
    "mistral_wide_heads",
    "qwen2",
)


@pytest.fixture(scope="module", params=CHECKPOINTS)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def expected(recorded, name):
    with np.load(recorded / name / "expected.npz") as file:
        return jnp.asarray(file["tokens"], jnp.int32), file["logits"]


@pytest.fixture(scope="module")
def loaded(recorded, name):
    return load_model(recorded / name)


@pytest.fixture(scope="module")
def attend(loaded):
    return jax.jit(loaded.model.attend)


def logits(loaded, tokens):
    return jax.jit(plain_forward, static_argnums=0)(loaded.model, loaded.params, tokens)


def test_logits_equal_those_of_pytorch(loaded, expected):
    tokens, recorded_logits = expected
    np.testing.assert_allclose(logits(loaded, tokens), recorded_logits, atol=1e-5)


def test_live_logits_equal_those_of_pytorch(recorded, name, loaded):
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(recorded / name)
    tokens = np.random.default_rng(0).integers(0, 48, (2, 16))
    with torch.no_grad():
        expected = theirs(torch.tensor(tokens)).logits.numpy()
    got = logits(loaded, jnp.asarray(tokens, jnp.int32))
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_graph_and_parameters_have_the_same_shape(loaded):
    block, graph = loaded.params.blocks[0], loaded.graph
    assert len(loaded.params.blocks) == graph.layers
    assert block.q.shape[0] == block.o.shape[0] == graph.heads
    assert block.k.shape[0] == block.v.shape[0] == graph.kv_heads
    tokens = jnp.zeros((1, 3), jnp.int32)
    assert len(loaded.model.embed(loaded.params, tokens)) == len(graph.embeddings)


def test_later_tokens_and_padding_never_change_earlier_logits(loaded, expected):
    tokens, recorded_logits = expected
    padded = logits(loaded, tokens.at[:, 7:].set(0))
    np.testing.assert_allclose(padded[:, :7], recorded_logits[:, :7], atol=1e-5)
    short = logits(loaded, tokens[:, :7])
    np.testing.assert_allclose(short, recorded_logits[:, :7], atol=1e-5)


def test_no_gradient_flows_from_later_tokens(loaded, attend):
    shape = (1, 1, 6, loaded.params.blocks[0].q.shape[-1])
    x = jax.random.normal(jax.random.key(0), shape)

    def third(x):
        return attend(loaded.params.blocks[0], x, x, x, jnp.ones((1, 6), bool))[:, :, 2].sum()

    slope = np.abs(jax.jit(jax.grad(third))(x)).sum((0, 1, 3))
    assert (slope[3:] == 0).all() and (slope[:3] > 0).all()


@pytest.fixture(scope="module")
def inputs(loaded, expected):
    """The first layer's input, shared and repeated for each head and group."""
    tokens, _ = expected
    x = loaded.model.embed(loaded.params, tokens).sum(axis=0)
    heads = jnp.broadcast_to(x, (loaded.graph.heads, *x.shape))
    groups = jnp.broadcast_to(x, (loaded.graph.kv_heads, *x.shape))
    return x[None], heads, groups, jnp.ones(tokens.shape, bool)


def test_readers_may_share_one_input(loaded, inputs, attend):
    x, heads, groups, valid = inputs
    for block in loaded.params.blocks:
        shared = attend(block, x, x, x, valid)
        assert shared.shape == heads.shape
        np.testing.assert_allclose(shared, attend(block, heads, groups, groups, valid), atol=1e-5)


def test_each_head_reads_its_own_input(loaded, inputs, attend):
    _, heads, groups, valid = inputs
    n, ratio = loaded.graph.heads, loaded.graph.heads // loaded.graph.kv_heads
    block = loaded.params.blocks[0]
    base = attend(block, heads, groups, groups, valid)
    last = groups.at[-1].multiply(-1)
    for changed, inputs_ in (
        (np.arange(n) == 1, (heads.at[1].multiply(-1), groups, groups)),
        (np.arange(n) >= n - ratio, (heads, last, groups)),
        (np.arange(n) >= n - ratio, (heads, groups, last)),
    ):
        moved = np.abs(attend(block, *inputs_, valid) - base).max((1, 2, 3))
        np.testing.assert_array_equal(moved > 1e-4, changed)


def test_an_output_bias_is_split_evenly_over_the_heads(loaded, inputs, attend):
    block = loaded.params.blocks[0]
    if block.o_bias is None:
        pytest.skip("this family has no output bias")
    x, _, _, valid = inputs
    y = attend(block._replace(o=jnp.zeros_like(block.o)), x, x, x, valid)
    share = np.asarray(block.o_bias) / loaded.graph.heads
    np.testing.assert_allclose(y, np.broadcast_to(share, y.shape), rtol=1e-6)


def test_bfloat16_weights_give_float32_logits_nearby(recorded, name, expected):
    tokens, recorded_logits = expected
    loaded = load_model(recorded / name, dtype="bfloat16")
    assert {leaf.dtype for leaf in jax.tree.leaves(loaded.params)} == {jnp.dtype("bfloat16")}
    got = logits(loaded, tokens)
    assert got.dtype == jnp.float32
    assert 1e-4 < np.abs(np.asarray(got) - recorded_logits).max() < 0.3


def test_an_unknown_token_is_loud(loaded):
    tokens = jnp.full((1, 3), 48)
    assert np.isnan(loaded.model.embed(loaded.params, tokens)[0]).all()


SIZES = dict(layers=1, heads=4, width=16, hidden=20, vocab=11)


@pytest.mark.parametrize(
    "family, config",
    [
        (llama, llama.LlamaConfig(kv_heads=2, head_dim=6, qkv_bias=True, **SIZES)),
        (gpt2, gpt2.GPT2Config(positions=9, tie_embeddings=False, **SIZES)),
    ],
)
def test_random_parameters_have_the_abstract_shapes_and_sane_outputs(family, config):
    key = jax.random.key(0)
    for dtype in ("float32", "bfloat16"):
        draw = partial(family.random_params, config, dtype=dtype)
        assert jax.eval_shape(draw, key=key) == family.abstract_params(config, dtype=dtype)

    @jax.jit
    def run(key):
        params = family.random_params(config, key=key)
        return plain_forward(family.build(config), params, jnp.arange(8)[None])

    assert 0.1 < np.std(run(key)) < 10


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(layers=0), "layers must be an integer >= 1: got 0"),
        (dict(width=-2), "width must be an integer >= 1: got -2"),
        (dict(kv_heads=3), "heads must be a multiple of kv_heads: got 4 and 3"),
        (dict(head_dim=5), "head_dim must be even for rotary pairs: got 5"),
        (dict(norm_eps=0.0), "norm_eps must be positive: got 0.0"),
        (dict(rope_theta=float("inf")), "rope_theta must be positive: got inf"),
        (dict(rope_scaling=(1.0,)), "rope_scaling must have head_dim / 2 = 3 entries: got 1"),
        (dict(rope_scaling=(1.0, 0.0, 1.0)), "rope_scaling must be positive: got 0.0"),
        (dict(window=0), "window must be at least 1 token: got 0"),
    ],
)
def test_a_llama_that_cannot_be_is_refused(change, message):
    sizes = SIZES | dict(kv_heads=2, head_dim=6)
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        llama.LlamaConfig(**sizes | change)


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(positions=True), "positions must be an integer >= 1: got True"),
        (dict(heads=3), "width must be a multiple of heads: got 16 and 3"),
        (dict(norm_eps=-1.0), "norm_eps must be positive: got -1.0"),
    ],
)
def test_a_gpt2_that_cannot_be_is_refused(change, message):
    sizes = SIZES | dict(positions=9)
    with pytest.raises(ValueError, match=message):
        gpt2.GPT2Config(**sizes | change)


def test_a_prompt_beyond_the_position_table_is_refused(recorded):
    loaded = load_model(recorded / "gpt2")
    with pytest.raises(ValueError, match="the model's 16 positions: got 17 tokens"):
        jax.eval_shape(lambda t: loaded.model.embed(loaded.params, t), jnp.zeros((1, 17), int))


def test_a_prompt_beyond_the_sliding_window_is_refused(edit):
    loaded = load_model(edit("mistral_wide_heads", settings={"sliding_window": 6}))
    logits(loaded, jnp.zeros((1, 6), jnp.int32))
    with pytest.raises(ValueError, match="sliding window of 6 tokens.*got 7 tokens"):
        logits(loaded, jnp.zeros((1, 7), jnp.int32))
