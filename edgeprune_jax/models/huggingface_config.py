"""The shape of a model, from the `config.json` of its Hugging Face checkpoint.

Every setting is either translated, known to leave the logits of inference alone, or refused by
name: a setting that is skipped in silence is a model that is wrong in silence.
"""

import math
from typing import Any

from edgeprune_jax.models.gpt2 import GPT2Config
from edgeprune_jax.models.llama import LlamaConfig

_MAX_SIZE = 2**24  # of anything a config counts: more is no model, but would fill the memory
Settings = dict[str, Any]  # what is left to translate: whoever handles a setting removes it

_IGNORED = {
    "architectures", "model_type", "transformers_version", "torch_dtype", "dtype", "use_cache",
    "bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id", "initializer_range",
    "attention_dropout", "attn_pdrop", "embd_pdrop", "resid_pdrop", "gradient_checkpointing",
    "max_position_embeddings", "n_ctx", "max_window_layers", "pretraining_tp", "id2label",
    "label2id", "task_specific_params", "summary_activation", "summary_first_dropout",
    "summary_proj_to_labels", "summary_type", "summary_use_proj", "reorder_and_upcast_attn",
    "is_llama_config", "transformers.js_config",
}  # fmt: skip


def gpt2_config(settings: Settings) -> GPT2Config:
    """The shape of a GPT-2."""
    rest = dict(settings)
    width = _size(rest, "n_embd")
    _require(rest, "activation_function", ("gelu_new", "gelu_pytorch_tanh"))
    _require(rest, "scale_attn_weights", (True,))
    config = GPT2Config(
        layers=_size(rest, "n_layer"),
        heads=_size(rest, "n_head"),
        width=width,
        hidden=_size(rest, "n_inner", 4 * width),
        vocab=_size(rest, "vocab_size"),
        positions=_size(rest, "n_positions"),
        norm_eps=_number(rest, "layer_norm_epsilon", 1e-5),
        tie_embeddings=_flag(rest, "tie_word_embeddings", True),
    )
    _refuse(rest)
    return config


def llama_config(settings: Settings) -> LlamaConfig:
    """The shape of a Llama, Mistral or Qwen2, which differ in biases and defaults."""
    rest = dict(settings)
    kind = rest.get("model_type")
    heads, width = _size(rest, "num_attention_heads"), _size(rest, "hidden_size")
    head_dim = _size(rest, "head_dim", max(1, width // heads))
    # Only Llama's early files leave this out, and mean as many as there are query heads.
    kv_heads = _size(rest, "num_key_value_heads", heads if kind == "llama" else None)
    _require(rest, "hidden_act", ("silu",))
    bias = _flag(rest, "attention_bias", False) if kind == "llama" else False
    rope_theta, rope_scaling = _rope(rest, head_dim)
    config = LlamaConfig(
        layers=_size(rest, "num_hidden_layers"),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        width=width,
        hidden=_size(rest, "intermediate_size"),
        vocab=_size(rest, "vocab_size"),
        norm_eps=_number(rest, "rms_norm_eps", 1e-6),
        rope_theta=rope_theta,
        rope_scaling=rope_scaling,
        tie_embeddings=_flag(rest, "tie_word_embeddings", False),
        qkv_bias=bias or kind == "qwen2",
        output_bias=bias,
        window=_window(rest, kind),
    )
    _refuse(rest)
    return config


def _window(rest: Settings, kind: str | None) -> int | None:
    window = rest.pop("sliding_window", 4096 if kind == "mistral" else None)
    used = _flag(rest, "use_sliding_window", False) if kind == "qwen2" else kind == "mistral"
    kinds = rest.pop("layer_types", None) or []
    if not isinstance(kinds, list):
        raise ValueError(f"layer_types must be a list: got {kinds!r}")
    unknown = [name for name in kinds if name not in ("full_attention", "sliding_attention")]
    if unknown:
        raise ValueError(f"layer_types {unknown[0]!r} is not supported")
    used = used or "sliding_attention" in kinds
    if not used or window is None:
        return None
    return _size({"sliding_window": window}, "sliding_window")


def _rope(rest: Settings, head_dim: int) -> tuple[float, tuple[float, ...]]:
    """The base of the rotary frequencies, and what divides each of them."""
    # Older files have rope_theta and rope_scaling, newer ones one dictionary for both.
    rope: Settings = {"rope_theta": rest.pop("rope_theta", 10_000.0)}
    for name in ("rope_scaling", "rope_parameters"):
        given = rest.pop(name, None) or {}
        if not isinstance(given, dict):
            raise ValueError(f"{name} must be an object: got {given!r}")
        rope |= given
    theta = _number(rope, "rope_theta")
    kind = rope.pop("rope_type", rope.pop("type", "default"))
    rope.pop("type", None)
    if _number(rope, "partial_rotary_factor", 1.0) != 1:
        raise ValueError("partial_rotary_factor other than 1 is not supported")
    half = head_dim // 2
    if kind == "default":
        return theta, ()
    if kind == "linear":
        return theta, (_number(rope, "factor"),) * half
    if kind == "llama3":
        factor, low, high, length = (
            _number(rope, name)
            for name in (
                "factor",
                "low_freq_factor",
                "high_freq_factor",
                "original_max_position_embeddings",
            )
        )
        if low >= high:
            raise ValueError(f"low_freq_factor must be below high_freq_factor: got {low}, {high}")
        turns = [length * theta ** (-i / half) / (2 * math.pi) for i in range(half)]
        # Frequencies that turn often in the trained length stay, slow ones are divided, and
        # those between are interpolated.
        shares = [min(max((turn - low) / (high - low), 0.0), 1.0) for turn in turns]
        return theta, tuple(1 / (share + (1 - share) / factor) for share in shares)
    raise ValueError(f"rope_type must be default, linear or llama3: got {kind!r}")


def _size(rest: Settings, name: str, default: int | None = None) -> int:
    value = rest.pop(name, None)
    value = default if value is None else value
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _MAX_SIZE:
        raise ValueError(f"{name} must be an integer in [1, {_MAX_SIZE}]: got {value!r}")
    return value


def _number(rest: Settings, name: str, default: float | None = None) -> float:
    value = rest.pop(name, None)
    value = default if value is None else value
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < math.inf:
        raise ValueError(f"{name} must be a positive number: got {value!r}")
    return float(value)


def _flag(rest: Settings, name: str, default: bool) -> bool:
    value = rest.pop(name, None)
    value = default if value is None else value
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be true or false: got {value!r}")
    return value


def _require(rest: Settings, name: str, allowed: tuple) -> None:
    value = rest.pop(name, allowed[0])
    if value not in allowed:
        raise ValueError(f"{name} must be {' or '.join(map(repr, allowed))}: got {value!r}")


def _refuse(rest: Settings) -> None:
    """Raises for every setting that is neither translated nor ignored, unless it is off."""
    left = {
        name: value
        for name, value in rest.items()
        if name not in _IGNORED and not name.startswith("_") and value not in (None, False, [], {})
    }
    if left:
        given = ", ".join(f"{name} = {value!r}" for name, value in left.items())
        raise ValueError(f"these settings are not supported: {given}")
