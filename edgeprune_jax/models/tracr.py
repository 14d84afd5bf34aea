"""Compiled Tracr programs: transformers whose weights a compiler wrote, not training.

A ReLU MLP, no norms, and attention to every valid token unless the program was compiled causal.
A model is a folder of `config.json` and `model.safetensors`, which `tracr_models/compile.py`
writes; reading it needs no compiler.

Axes: H heads, K key size, B batch, T tokens, A scored positions, D residual width, F MLP width,
      S token ids, P positions, V outputs: one per class, or the number itself.
"""

import json
import math
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from safetensors import SafetensorError
from safetensors.numpy import load as read_safetensors

from edgeprune_jax.graph import POSITIONS, TOKENS, Graph
from edgeprune_jax.models import stored
from edgeprune_jax.models.loaded import Loaded
from edgeprune_jax.models.stored import Stored
from edgeprune_jax.stream import Model

# A program tells 1/3 from 1/4 by a steep ramp: the fast float32 of an accelerator would not do.
_einsum = partial(jnp.einsum, precision="highest")
_MAX_SIZE = 2**14  # of anything a config counts: more is no program, but would fill the memory


class Block(NamedTuple):
    q: Array  # H K D
    k: Array  # H K D
    v: Array  # H K D
    q_bias: Array  # H K
    k_bias: Array  # H K
    v_bias: Array  # H K
    o: Array  # H K D
    o_bias: Array  # D
    up: Array  # F D
    up_bias: Array  # F
    down: Array  # F D
    down_bias: Array  # D


class Params(NamedTuple):
    tokens: Array  # S D
    positions: Array  # P D
    blocks: tuple[Block, ...]
    unembedding: Array  # D V


class Config(NamedTuple):
    """The shape of a compiled program, and what its token ids and outputs stand for.

    `vocabulary` gives the symbol of each token id, those of BOS and padding included; `outputs`
    the value of each class, or None where the output is a number. Prompts start with BOS.
    """

    name: str
    layers: int
    heads: int
    key_size: int
    width: int
    mlp_size: int
    max_seq_len: int  # BOS not counted
    causal: bool
    vocabulary: tuple
    bos: int
    pad: int
    outputs: tuple | None

    @property
    def graph(self) -> Graph:
        return Graph(self.layers, self.heads, self.heads, (TOKENS, POSITIONS))

    @property
    def symbols(self) -> tuple[int, ...]:
        """The token ids that a prompt may hold after BOS."""
        return tuple(i for i in range(len(self.vocabulary)) if i not in (self.bos, self.pad))

    def encode(self, symbols) -> list[int]:
        """Token ids of a prompt, BOS first. Raises `ValueError` for what it cannot hold."""
        if len(symbols) > self.max_seq_len:
            raise ValueError(
                f"{self.name} reads at most {self.max_seq_len} symbols: got {len(symbols)}"
            )
        known = {self.vocabulary[i]: i for i in self.symbols}
        for symbol in symbols:
            if symbol not in known:
                raise ValueError(f"symbols must be among {list(known)}: got {symbol!r}")
        return [self.bos, *(known[symbol] for symbol in symbols)]

    def decode(self, logits: Float[Array | np.ndarray, "A V"]) -> list:
        """The value that each row of logits stands for, a class's or the number itself."""
        if self.outputs is None:
            return [float(row[0]) for row in logits]
        return [self.outputs[int(best)] for best in np.argmax(logits, axis=-1)]


def embed(params: Params, tokens: Int[Array, "B T"]) -> Float[Array, "2 B T D"]:
    length, longest = tokens.shape[1], params.positions.shape[0]
    if length > longest:
        raise ValueError(f"prompts must have at most {longest} tokens, BOS included: got {length}")
    symbols = params.tokens[tokens]
    return jnp.stack([symbols, jnp.broadcast_to(params.positions[:length], symbols.shape)])


def attend(
    block: Block,
    x_q: Float[Array, "#H B T D"],
    x_k: Float[Array, "#H B T D"],
    x_v: Float[Array, "#H B T D"],
    valid: Bool[Array, "B T"],
    *,
    causal: bool,
) -> Float[Array, "H B T D"]:
    q = _einsum("hbtd,hkd->hbtk", x_q, block.q) + block.q_bias[:, None, None]
    k = _einsum("hbtd,hkd->hbtk", x_k, block.k) + block.k_bias[:, None, None]
    v = _einsum("hbtd,hkd->hbtk", x_v, block.v) + block.v_bias[:, None, None]
    seen = valid[None, :, None, :]
    if causal:
        length = valid.shape[1]
        seen = seen & jnp.tril(jnp.ones((1, 1, length, length), bool))
    scores = _einsum("hbqk,hbtk->hbqt", q, k) / math.sqrt(q.shape[-1])
    weights = jax.nn.softmax(jnp.where(seen, scores, -1e30), axis=-1)  # finite: no NaN if none
    out = _einsum("hbtk,hkd->hbtd", _einsum("hbqt,hbtk->hbqk", weights, v), block.o)
    return out + block.o_bias[None, None, None] / len(block.o)


def mlp(block: Block, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
    hidden = jax.nn.relu(_einsum("btd,fd->btf", x, block.up) + block.up_bias[None, None])
    return _einsum("btf,fd->btd", hidden, block.down) + block.down_bias[None, None]


def unembed(params: Params, x: Float[Array, "B A D"]) -> Float[Array, "B A V"]:
    """The output directions of the stream: a one-hot class, or one number."""
    return _einsum("bad,dv->bav", x, params.unembedding)


@cache  # equal models compare equal, so that a second load compiles nothing anew
def build(*, causal: bool) -> Model:
    return Model(embed, partial(attend, causal=causal), mlp, unembed)


def layout(config: Config) -> Params:
    """The tree of parameters, with a `Stored` where an array will be."""
    width, hidden = (config.width,), (config.mlp_size,)
    head = (config.heads, config.key_size)

    def weight(name: str, *shape: int) -> Any:
        return Stored(name, shape, shape)

    def block(at: str) -> Block:
        return Block(
            **{name: weight(f"{at}.{name}", *head, *width) for name in "qkvo"},
            **{f"{name}_bias": weight(f"{at}.{name}_bias", *head) for name in "qkv"},
            o_bias=weight(f"{at}.o_bias", *width),
            up=weight(f"{at}.up", *hidden, *width),
            up_bias=weight(f"{at}.up_bias", *hidden),
            down=weight(f"{at}.down", *hidden, *width),
            down_bias=weight(f"{at}.down_bias", *width),
        )

    return Params(
        tokens=weight("tokens", len(config.vocabulary), *width),
        positions=weight("positions", config.max_seq_len + 1, *width),
        blocks=tuple(block(f"blocks.{layer}") for layer in range(config.layers)),
        unembedding=weight("unembedding", *width, len(config.outputs or (None,))),
    )


def read_config(folder: str | Path) -> Config:
    """Reads `config.json`. Raises `ValueError` naming the file and what is wrong with it."""
    path = Path(folder) / "config.json"
    try:
        entries = json.loads(path.read_text("utf-8"))
        if not isinstance(entries, dict) or entries.get("model_type") != "tracr":
            raise ValueError('model_type must be "tracr"')
        if missing := [field for field in Config._fields if field not in entries]:
            raise ValueError(f"{missing[0]} is missing")
        config = Config(*(_tuples(entries[field]) for field in Config._fields))
        _check(config)
        return config
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: {error}") from None


def load(folder: str | Path) -> Loaded:
    """Loads a compiled program.

    Raises `ValueError`, naming the file and the tensor, for weights that do not fit the config.
    """
    config, path = read_config(folder), Path(folder) / "model.safetensors"
    try:
        tensors = read_safetensors(path.read_bytes())
    except (SafetensorError, KeyError, ValueError) as error:  # KeyError: a type unknown to numpy
        raise ValueError(f"{path}: not a safetensors file: {error}") from None
    params = stored.read(
        layout(config), {name: tensor.shape for name, tensor in tensors.items()},
        lambda name, index: tensors[name][index], dtype="float32", source=str(path),
    )  # fmt: skip
    model = build(causal=config.causal)
    return Loaded(
        model, params, config.graph, None, config.name, stored.digest([path]), Path(folder)
    )  # fmt: skip


def _check(config: Config) -> None:
    """Raises `ValueError` for the first field that does not fit."""
    ids = range(len(config.vocabulary) if _distinct(config.vocabulary) else 0)
    sizes = ("layers", "heads", "key_size", "width", "mlp_size", "max_seq_len")
    rules = [
        *((name, f"an integer from 1 to {_MAX_SIZE}",
           _among(getattr(config, name), range(1, _MAX_SIZE + 1))) for name in sizes),
        ("name", "text", isinstance(config.name, str)),
        ("causal", "true or false", isinstance(config.causal, bool)),
        ("vocabulary", "a list of different symbols", len(ids) > 0),
        ("bos", f"a token id below {len(ids)}", _among(config.bos, ids)),
        ("pad", f"another token id below {len(ids)}",
         _among(config.pad, ids) and config.pad != config.bos),
        ("outputs", "null or a list of different values",
         config.outputs is None or _distinct(config.outputs)),
    ]  # fmt: skip
    for name, expected, fits in rules:
        if not fits:
            got = ascii(getattr(config, name))[:80]
            raise ValueError(f"{name} must be {expected}: got {got}")


def _among(value: object, integers: range) -> bool:
    return type(value) is int and value in integers  # a bool is an int too


def _distinct(values: object) -> bool:
    """Whether it is a tuple of hashable values that all differ: 1, 1.0 and true do not."""
    return isinstance(values, tuple) and len(values) > 0 and len(set(values)) == len(values)


def _tuples(value: object) -> Any:
    """JSON's lists as tuples: a program's symbols may be tuples, and have to be hashable."""
    if isinstance(value, dict):
        raise ValueError("there must be no objects in it")
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
