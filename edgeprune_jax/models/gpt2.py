"""GPT-2: learned positions, LayerNorm before each sublayer, biases everywhere, tanh-GELU.

Tokens and positions are two writers. The bias of the attention's output projection is split
evenly over the heads, so that a cut head takes its part along, as in the reference.

Axes: H heads, B batch, T tokens, A scored positions, K head width, D residual width, F hidden
      width of the MLP, V vocabulary, P positions.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from edgeprune_jax.graph import POSITIONS, TOKENS, Graph
from edgeprune_jax.models import layers, stored
from edgeprune_jax.models.stored import Stored
from edgeprune_jax.sharding import constrain, gathered
from edgeprune_jax.stream import Model

HUGGINGFACE: Mapping[str, str] = MappingProxyType(
    {
        "embedding": "transformer.wte.weight",
        "positions": "transformer.wpe.weight",
        "norm": "transformer.ln_f",
        "unembedding": "lm_head.weight",
        "attention_norm": "transformer.h.{}.ln_1",
        "qkv": "transformer.h.{}.attn.c_attn",
        "o": "transformer.h.{}.attn.c_proj",
        "mlp_norm": "transformer.h.{}.ln_2",
        "up": "transformer.h.{}.mlp.c_fc",
        "down": "transformer.h.{}.mlp.c_proj",
    }
)


@dataclass(frozen=True)
class GPT2Config:
    """The shape of a model. Raises `ValueError` for one that cannot be."""

    layers: int
    heads: int
    width: int
    hidden: int
    vocab: int
    positions: int
    norm_eps: float = 1e-5
    tie_embeddings: bool = True

    def __post_init__(self):
        for name in ("layers", "heads", "width", "hidden", "vocab", "positions"):
            size = getattr(self, name)
            if not isinstance(size, int) or isinstance(size, bool) or size < 1:
                raise ValueError(f"{name} must be an integer >= 1: got {size!r}")
        if self.width % self.heads:
            raise ValueError(
                f"width must be a multiple of heads: got {self.width} and {self.heads}"
            )
        if not 0 < self.norm_eps < float("inf"):
            raise ValueError(f"norm_eps must be positive: got {self.norm_eps}")


class Block(NamedTuple):
    attention_norm: Array  # D
    attention_norm_bias: Array  # D
    q: Array  # H K D
    k: Array  # H K D
    v: Array  # H K D
    q_bias: Array  # H K
    k_bias: Array  # H K
    v_bias: Array  # H K
    o: Array  # H K D
    o_bias: Array  # D
    mlp_norm: Array  # D
    mlp_norm_bias: Array  # D
    up: Array  # F D
    up_bias: Array  # F
    down: Array  # F D
    down_bias: Array  # D


class Params(NamedTuple):
    blocks: tuple[Block, ...]
    embedding: Array  # V D
    positions: Array  # P D
    norm: Array  # D
    norm_bias: Array  # D
    unembedding: Array | None  # V D; None: the embedding serves


def graph(config: GPT2Config) -> Graph:
    """The graph of the model, with its two embeddings as writers."""
    return Graph(config.layers, config.heads, config.heads, (TOKENS, POSITIONS))


def layout(config: GPT2Config, names: Mapping[str, str] = HUGGINGFACE) -> Params:
    """The tree of parameters, with a `Stored` where an array will be.

    GPT-2's files store matrices as [in, out], and q, k and v side by side in one of them.
    """
    d, f, heads = config.width, config.hidden, config.heads
    head = (heads, d // heads)

    def plain(name: str, *shape: int) -> Any:
        return Stored(name, shape, shape)

    def block(layer: int) -> Block:
        at = {field: name.format(layer) for field, name in names.items()}

        def part(index: int) -> Any:
            return Stored(at["qkv"] + ".weight", (d, 3 * d), (*head, d), True, index * d)

        def part_bias(index: int) -> Any:
            return Stored(at["qkv"] + ".bias", (3 * d,), head, first=index * d)

        o: Any = Stored(at["o"] + ".weight", (d, d), (*head, d))
        up: Any = Stored(at["up"] + ".weight", (d, f), (f, d), transposed=True)
        return Block(
            attention_norm=plain(at["attention_norm"] + ".weight", d),
            attention_norm_bias=plain(at["attention_norm"] + ".bias", d),
            q=part(0),
            k=part(1),
            v=part(2),
            q_bias=part_bias(0),
            k_bias=part_bias(1),
            v_bias=part_bias(2),
            o=o,
            o_bias=plain(at["o"] + ".bias", d),
            mlp_norm=plain(at["mlp_norm"] + ".weight", d),
            mlp_norm_bias=plain(at["mlp_norm"] + ".bias", d),
            up=up,
            up_bias=plain(at["up"] + ".bias", f),
            down=plain(at["down"] + ".weight", f, d),
            down_bias=plain(at["down"] + ".bias", d),
        )

    return Params(
        blocks=tuple(block(layer) for layer in range(config.layers)),
        embedding=plain(names["embedding"], config.vocab, d),
        positions=plain(names["positions"], config.positions, d),
        norm=plain(names["norm"] + ".weight", d),
        norm_bias=plain(names["norm"] + ".bias", d),
        unembedding=None if config.tie_embeddings else plain(names["unembedding"], config.vocab, d),
    )


def abstract_params(config: GPT2Config, *, dtype: str = "float32") -> Params:
    """The shapes of the parameters, for compiling without them."""
    return stored.abstract(layout(config), dtype=dtype)


def random_params(config: GPT2Config, *, key: Key[Array, ""], dtype: str = "float32") -> Params:
    """Random parameters, for tests and benchmarks."""
    return stored.random(layout(config), key=key, dtype=dtype)


def build(config: GPT2Config) -> Model:
    """The four functions of the family, for one shape."""
    return Model(
        embed=embed,
        attend=partial(attend, config),
        mlp=partial(mlp, config),
        unembed=partial(unembed, config),
    )


def embed(params: Params, tokens: Int[Array, "B T"]) -> Float[Array, "2 B T D"]:
    length, limit = tokens.shape[1], params.positions.shape[0]
    if length > limit:
        raise ValueError(f"prompts must fit the model's {limit} positions: got {length} tokens")
    # `take` answers an id outside the vocabulary with NaN, where indexing would clamp it.
    words = jnp.take(params.embedding, tokens, axis=0)
    positions = jnp.broadcast_to(params.positions[:length], words.shape)
    return constrain(jnp.stack([words, positions]), "- B - D")


def attend(
    config: GPT2Config,
    block: Block,
    x_q: Float[Array, "#H B T D"],
    x_k: Float[Array, "#H B T D"],
    x_v: Float[Array, "#H B T D"],
    valid: Bool[Array, "B T"],
) -> Float[Array, "H B T D"]:
    del valid  # causal, and padded on the right: no token sees the padding after it

    block = gathered(block)

    def project(x, weight, bias):
        x = constrain(x, "- B - D")
        x = layers.layer_norm(
            x, block.attention_norm, block.attention_norm_bias, eps=config.norm_eps
        )
        return constrain(jnp.einsum("hbtd,hkd->hbtk", x, weight) + bias[:, None, None], "H B - -")

    q = project(x_q, block.q, block.q_bias)
    k = project(x_k, block.k, block.k_bias)
    v = project(x_v, block.v, block.v_bias)
    read = constrain(layers.attention(q, k, v, causal=True), "- B - -")
    y = constrain(jnp.einsum("hbtk,hkd->hbtd", read, block.o), "- B - D")
    return y + (block.o_bias / config.heads)[None, None, None]


def mlp(config: GPT2Config, block: Block, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
    block = gathered(block)
    x = layers.layer_norm(x, block.mlp_norm, block.mlp_norm_bias, eps=config.norm_eps)
    x = constrain(x, "B - -")
    up = constrain(jnp.einsum("btd,fd->btf", x, block.up) + block.up_bias[None, None], "B - F")
    y = jnp.einsum("btf,fd->btd", jax.nn.gelu(up, approximate=True), block.down)
    return constrain(y, "B - D") + block.down_bias[None, None]


def unembed(config: GPT2Config, params: Params, x: Float[Array, "B A D"]) -> Float[Array, "B A V"]:
    """Logits, in float32 at least, whatever the weights are."""
    x = layers.layer_norm(x, params.norm, params.norm_bias, eps=config.norm_eps)
    weight = params.embedding if params.unembedding is None else params.unembedding
    wide = layers.at_least_float32(x.dtype)
    return constrain(jnp.einsum("bad,vd->bav", x, weight, preferred_element_type=wide), "B - -")
