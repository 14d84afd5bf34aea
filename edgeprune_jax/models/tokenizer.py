"""Tokenizers, from a `tokenizer.json` or from the vocabulary inside a GGUF file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

_CONTROL, _USER_DEFINED = 3, 4  # token types of GGUF that are matched before the text is split


def from_folder(folder: Path) -> Tokenizer | None:
    """The tokenizer of a Hugging Face folder, or None where it has no `tokenizer.json`."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        return None
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the type that `tokenizers` raises has no name
        raise ValueError(f"{path} is not a tokenizer: {error}") from error


def from_gguf(fields: Mapping[str, Any]) -> Tokenizer:
    """Byte-level BPE, as in GPT-2; in SmolLM2's variant every digit is a token of its own.

    Raises `ValueError` naming the field that is missing or of another kind.
    """
    supported = {"smollm": [pre_tokenizers.Digits(individual_digits=True)], "gpt-2": []}
    kind, split = fields.get("tokenizer.ggml.model"), fields.get("tokenizer.ggml.pre")
    if kind != "gpt2" or not isinstance(split, str) or split not in supported:
        raise ValueError(
            f"the tokenizer must be byte-level BPE (tokenizer.ggml.model = gpt2, "
            f"tokenizer.ggml.pre among {', '.join(supported)}): got {kind} and {split}"
        )

    def strings(name: str) -> list[str]:
        found = fields.get(name)
        if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
            raise ValueError(f"{name} must be a list of strings")
        return found

    tokens, merges = strings("tokenizer.ggml.tokens"), strings("tokenizer.ggml.merges")
    types = fields.get("tokenizer.ggml.token_type")
    if not isinstance(types, list) or len(types) != len(tokens):
        raise ValueError("tokenizer.ggml.token_type must have one entry per token")
    vocabulary = {token: index for index, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens):
        raise ValueError(
            f"tokenizer.ggml.tokens must differ: got {len(vocabulary)} among {len(tokens)}"
        )
    try:
        pairs = [(first, second) for first, second in (merge.split(" ") for merge in merges)]
        tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=pairs))
    except Exception as error:  # a merge of more than two parts, or of unknown ones
        raise ValueError(f"tokenizer.ggml.merges does not fit the tokens: {error}") from error

    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [*supported[split], pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]
    )
    tokenizer.decoder = decoders.ByteLevel()

    def whole(kind: int, special: bool) -> list[AddedToken]:
        chosen = (token for token, given in zip(tokens, types, strict=True) if given == kind)
        return [AddedToken(token, special=special, normalized=False) for token in chosen]

    tokenizer.add_special_tokens(whole(_CONTROL, special=True))
    tokenizer.add_tokens(whole(_USER_DEFINED, special=False))
    if fields.get("tokenizer.ggml.add_bos_token"):
        index = fields.get("tokenizer.ggml.bos_token_id")
        if not isinstance(index, int) or not 0 <= index < len(tokens):
            raise ValueError(f"tokenizer.ggml.bos_token_id must be a token: got {index}")
        bos = (tokens[index], index)
        tokenizer.post_processor = processors.TemplateProcessing(
            single=[bos[0], "$A"], special_tokens=[bos]
        )
    return tokenizer
