import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edgeprune_jax.models import layers

attention = jax.jit(layers.attention, static_argnames="causal")


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def test_rms_norm_divides_by_the_root_mean_square():
    x, weight = normal(0, 3, 4, 8), normal(1, 8)
    expected = np.asarray(x) / np.sqrt((np.asarray(x) ** 2).mean(-1, keepdims=True) + 0.1)
    got = layers.rms_norm(x, weight, eps=0.1)
    np.testing.assert_allclose(got, expected * np.asarray(weight), rtol=1e-5)


def test_layer_norm_standardises():
    x, weight, bias = normal(0, 3, 4, 8), normal(1, 8), normal(2, 8)
    wide = np.asarray(x)
    standard = (wide - wide.mean(-1, keepdims=True)) / np.sqrt(wide.var(-1, keepdims=True) + 0.1)
    got = layers.layer_norm(x, weight, bias, eps=0.1)
    np.testing.assert_allclose(got, standard * np.asarray(weight) + np.asarray(bias), atol=1e-5)


def test_norms_keep_the_dtype_and_do_not_overflow_in_half_precision():
    x, one = jnp.full((2, 4), 1_000.0, jnp.float16), jnp.ones(4, jnp.float16)  # x * x > 65504
    for y in (
        layers.rms_norm(x, one, eps=1e-6),
        layers.layer_norm(x, one, one, eps=1e-6) * 1,
    ):
        assert y.dtype == jnp.float16
        np.testing.assert_allclose(y, 1.0, rtol=1e-3)


def test_rotary_makes_scores_depend_on_distance_only():
    frequencies = 10.0 ** -np.arange(4)
    q, k = (jnp.broadcast_to(normal(seed, 1, 1, 1, 8), (1, 1, 12, 8)) for seed in (0, 1))
    q, k = layers.rotary(q, frequencies), layers.rotary(k, frequencies)
    scores = np.asarray(jnp.einsum("nbtk,nbsk->ts", q, k))
    for distance in range(1, 6):
        along = np.diagonal(scores, -distance)
        np.testing.assert_allclose(along, along[0], atol=1e-5)
    assert np.ptp(scores[:, 0]) > 0.1


def test_rotary_leaves_the_first_position_alone():
    x = normal(0, 2, 3, 5, 8)
    np.testing.assert_array_equal(layers.rotary(x, np.ones(4))[:, :, 0], x[:, :, 0])


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("causal", [True, False])
def test_attention_is_the_textbook_formula(groups, causal):
    heads, batch, length, width = 4, 2, 5, 6
    q = normal(0, heads, batch, length, width)
    k, v = normal(1, groups, batch, length, width), normal(2, groups, batch, length, width)
    got = attention(q, k, v, causal=causal)
    for head in range(heads):
        group = head // (heads // groups)
        for b in range(batch):
            scores = np.asarray(q[head, b] @ k[group, b].T) / np.sqrt(width)
            if causal:
                scores[np.triu_indices(length, 1)] = -np.inf
            pattern = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
            np.testing.assert_allclose(got[head, b], pattern @ np.asarray(v[group, b]), atol=1e-5)


def test_attention_skips_keys_that_are_not_valid():
    q, k, v = normal(0, 2, 1, 6, 4), normal(1, 2, 1, 6, 4), normal(2, 2, 1, 6, 4)
    valid = jnp.array([[True, True, False, True, False, False]])
    got = attention(q, k, v, causal=False, valid=valid)
    kept = np.flatnonzero(valid[0])
    expected = attention(q, k[:, :, kept], v[:, :, kept], causal=False)
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_attention_without_any_key_is_finite():
    x = normal(0, 1, 2, 3, 4)
    valid = jnp.array([[True, True, True], [False, False, False]])
    y, slope = jax.jit(
        jax.value_and_grad(lambda x: attention(x, x, x, causal=False, valid=valid).sum())
    )(x)
    assert np.isfinite(y) and np.isfinite(slope).all()
