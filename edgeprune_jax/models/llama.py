"""Llama and the models built like it: CodeLlama, SmolLM2, Mistral, Qwen2.

Pre-norm blocks with RMSNorm, rotary positions, grouped key/value heads and a gated MLP:

    head_h = O_h softmax(q_h k_g / sqrt(K)) v_g        mlp = D^T (silu(G x) * U x)

Weights keep their heads as an axis, and contract their *last* axis with the stream, which is
the fast layout for CPU products.

Axes: H query heads, G key/value heads, B batch, T tokens, A scored positions, K head width,
      D residual width, F hidden width of the MLP, V vocabulary.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from math import prod
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from edgeprune_jax.graph import TOKENS, Graph
from edgeprune_jax.models import layers, stored
from edgeprune_jax.models.stored import Stored
from edgeprune_jax.sharding import constrain, gathered
from edgeprune_jax.stream import Model

HUGGINGFACE: Mapping[str, str] = MappingProxyType(
    {
        "embedding": "model.embed_tokens.weight",
        "norm": "model.norm.weight",
        "unembedding": "lm_head.weight",
        "attention_norm": "model.layers.{}.input_layernorm.weight",
        "q": "model.layers.{}.self_attn.q_proj.weight",
        "k": "model.layers.{}.self_attn.k_proj.weight",
        "v": "model.layers.{}.self_attn.v_proj.weight",
        "o": "model.layers.{}.self_attn.o_proj.weight",
        "q_bias": "model.layers.{}.self_attn.q_proj.bias",
        "k_bias": "model.layers.{}.self_attn.k_proj.bias",
        "v_bias": "model.layers.{}.self_attn.v_proj.bias",
        "o_bias": "model.layers.{}.self_attn.o_proj.bias",
        "mlp_norm": "model.layers.{}.post_attention_layernorm.weight",
        "gate": "model.layers.{}.mlp.gate_proj.weight",
        "up": "model.layers.{}.mlp.up_proj.weight",
        "down": "model.layers.{}.mlp.down_proj.weight",
    }
)


@dataclass(frozen=True)
class LlamaConfig:
    """The shape of a model. Raises `ValueError` for one that cannot be."""

    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    width: int
    hidden: int
    vocab: int
    norm_eps: float = 1e-5
    rope_theta: float = 10_000.0
    rope_scaling: tuple[float, ...] = ()  # what divides each frequency; empty: nothing
    tie_embeddings: bool = False
    qkv_bias: bool = False
    output_bias: bool = False
    window: int | None = None  # of sliding attention: longer prompts are refused

    def __post_init__(self):
        for name in ("layers", "heads", "kv_heads", "head_dim", "width", "hidden", "vocab"):
            size = getattr(self, name)
            if not isinstance(size, int) or isinstance(size, bool) or size < 1:
                raise ValueError(f"{name} must be an integer >= 1: got {size!r}")
        if self.heads % self.kv_heads:
            raise ValueError(
                f"heads must be a multiple of kv_heads: got {self.heads} and {self.kv_heads}"
            )
        if self.head_dim % 2:
            raise ValueError(f"head_dim must be even for rotary pairs: got {self.head_dim}")
        for name in ("norm_eps", "rope_theta"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be positive: got {getattr(self, name)}")
        if len(self.rope_scaling) not in (0, self.head_dim // 2):
            raise ValueError(
                f"rope_scaling must have head_dim / 2 = {self.head_dim // 2} entries: "
                f"got {len(self.rope_scaling)}"
            )
        if not all(0 < divisor < float("inf") for divisor in self.rope_scaling):
            raise ValueError(f"rope_scaling must be positive: got {min(self.rope_scaling)}")
        if self.window is not None and self.window < 1:
            raise ValueError(f"window must be at least 1 token: got {self.window}")


class Block(NamedTuple):
    """One layer. A bias that the model lacks is None."""

    attention_norm: Array  # D
    q: Array  # H K D
    k: Array  # G K D
    v: Array  # G K D
    o: Array  # H K D
    q_bias: Array | None  # H K
    k_bias: Array | None  # G K
    v_bias: Array | None  # G K
    o_bias: Array | None  # D
    mlp_norm: Array  # D
    gate: Array  # F D
    up: Array  # F D
    down: Array  # F D


class Params(NamedTuple):
    blocks: tuple[Block, ...]
    embedding: Array  # V D
    norm: Array  # D
    unembedding: Array | None  # V D; None: the embedding serves


def graph(config: LlamaConfig) -> Graph:
    """The graph of the model, with its token embedding as a writer."""
    return Graph(config.layers, config.heads, config.kv_heads, (TOKENS,))


def layout(config: LlamaConfig, names: Mapping[str, str] = HUGGINGFACE) -> Params:
    """The tree of parameters, with a `Stored` where an array will be."""
    d, f, v = config.width, config.hidden, config.vocab
    heads, groups = (config.heads, config.head_dim), (config.kv_heads, config.head_dim)

    def matrix(name: str, *rows: int) -> Any:
        return Stored(name, (prod(rows), d), (*rows, d))

    def transposed(name: str, *rows: int) -> Any:
        return Stored(name, (d, prod(rows)), (*rows, d), transposed=True)

    def vector(name: str, *shape: int) -> Any:
        return Stored(name, (prod(shape),), shape)

    def block(layer: int) -> Block:
        at = {field: name.format(layer) for field, name in names.items()}
        qkv = config.qkv_bias
        return Block(
            attention_norm=vector(at["attention_norm"], d),
            q=matrix(at["q"], *heads),
            k=matrix(at["k"], *groups),
            v=matrix(at["v"], *groups),
            o=transposed(at["o"], *heads),
            q_bias=vector(at["q_bias"], *heads) if qkv else None,
            k_bias=vector(at["k_bias"], *groups) if qkv else None,
            v_bias=vector(at["v_bias"], *groups) if qkv else None,
            o_bias=vector(at["o_bias"], d) if config.output_bias else None,
            mlp_norm=vector(at["mlp_norm"], d),
            gate=matrix(at["gate"], f),
            up=matrix(at["up"], f),
            down=transposed(at["down"], f),
        )

    return Params(
        blocks=tuple(block(layer) for layer in range(config.layers)),
        embedding=matrix(names["embedding"], v),
        norm=vector(names["norm"], d),
        unembedding=None if config.tie_embeddings else matrix(names["unembedding"], v),
    )


def abstract_params(config: LlamaConfig, *, dtype: str = "float32") -> Params:
    """The shapes of the parameters, for compiling without them."""
    return stored.abstract(layout(config), dtype=dtype)


def random_params(config: LlamaConfig, *, key: Key[Array, ""], dtype: str = "float32") -> Params:
    """Random parameters, for tests and benchmarks."""
    return stored.random(layout(config), key=key, dtype=dtype)


def build(config: LlamaConfig) -> Model:
    """The four functions of the family, for one shape."""
    frequencies = config.rope_theta ** (-np.arange(0, config.head_dim, 2) / config.head_dim)
    if config.rope_scaling:
        frequencies = frequencies / np.array(config.rope_scaling)
    return Model(
        embed=embed,
        attend=partial(attend, config, frequencies),
        mlp=partial(mlp, config),
        unembed=partial(unembed, config),
    )


def embed(params: Params, tokens: Int[Array, "B T"]) -> Float[Array, "1 B T D"]:
    # `take` answers an id outside the vocabulary with NaN, where indexing would clamp it.
    return constrain(jnp.take(params.embedding, tokens, axis=0)[None], "- B - D")


def attend(
    config: LlamaConfig,
    frequencies: Float[np.ndarray, " half"],
    block: Block,
    x_q: Float[Array, "#H B T D"],
    x_k: Float[Array, "#G B T D"],
    x_v: Float[Array, "#G B T D"],
    valid: Bool[Array, "B T"],
) -> Float[Array, "H B T D"]:
    del valid  # causal, and padded on the right: no token sees the padding after it
    if config.window is not None and x_q.shape[2] > config.window:
        raise ValueError(
            f"prompts must fit the model's sliding window of {config.window} tokens, because "
            f"windowed attention is not implemented: got {x_q.shape[2]} tokens"
        )

    block = gathered(block)

    def project(x, weight, bias):
        x = constrain(x, "- B - D")
        x = layers.rms_norm(x, block.attention_norm, eps=config.norm_eps)
        y = jnp.einsum("hbtd,hkd->hbtk", x, weight)
        return constrain(y if bias is None else y + bias[:, None, None], "H B - -")

    q = layers.rotary(project(x_q, block.q, block.q_bias), frequencies)
    k = layers.rotary(project(x_k, block.k, block.k_bias), frequencies)
    v = project(x_v, block.v, block.v_bias)
    read = constrain(layers.attention(q, k, v, causal=True), "- B - -")
    y = constrain(jnp.einsum("hbtk,hkd->hbtd", read, block.o), "- B - D")
    return y if block.o_bias is None else y + (block.o_bias / config.heads)[None, None, None]


def mlp(config: LlamaConfig, block: Block, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
    block = gathered(block)
    x = constrain(layers.rms_norm(x, block.mlp_norm, eps=config.norm_eps), "B - -")
    gate, up = (
        constrain(jnp.einsum("btd,fd->btf", x, weight), "B - F")
        for weight in (block.gate, block.up)
    )
    return constrain(jnp.einsum("btf,fd->btd", jax.nn.silu(gate) * up, block.down), "B - D")


def unembed(config: LlamaConfig, params: Params, x: Float[Array, "B A D"]) -> Float[Array, "B A V"]:
    """Logits, in float32 at least, whatever the weights are."""
    x = layers.rms_norm(x, params.norm, eps=config.norm_eps)
    weight = params.embedding if params.unembedding is None else params.unembedding
    wide = layers.at_least_float32(x.dtype)
    return constrain(jnp.einsum("bad,vd->bav", x, weight, preferred_element_type=wide), "B - -")
