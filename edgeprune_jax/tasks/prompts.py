"""Prompts as text, and their encoding into a `Batch` with one scored position.

Axes: B examples, T tokens, A scored positions, which is one here.
"""

import warnings
from collections.abc import Iterable
from itertools import chain
from typing import NamedTuple

import numpy as np
from jaxtyping import Int
from tokenizers import Tokenizer

from edgeprune_jax.tasks.batch import Batch, check, take


class Prompts(NamedTuple):
    """Prompt pairs as text; entry i of every field belongs to pair i.

    The token after the prompt is the answer. Answers, foils and changed words carry the space
    before them, and are one token there. A pair must differ at the tokens of its `changed` words,
    and nowhere else.
    """

    texts: list[str]
    corrupted: list[str]
    answers: list[str]
    foils: list[str]
    changed: list[tuple[str, ...]]  # what the corruption replaced: equally many words in each pair


def single_tokens(words: Iterable[str], tokenizer: Tokenizer) -> dict[str, int]:
    """The token of each word that is one token after other text; the other words are left out."""
    words = list(words)
    # Some tokenizers treat the start of a text apart, so a word is tried behind another.
    before = tokenizer.encode("the", add_special_tokens=False).ids
    unknown = getattr(tokenizer.model, "unk_token", None)
    encodings = tokenizer.encode_batch([f"the{word}" for word in words], add_special_tokens=False)
    return {
        word: encoding.ids[-1]
        for word, encoding in zip(words, encodings, strict=True)
        if encoding.ids[:-1] == before and encoding.tokens[-1] != unknown
    }


def encode(prompts: Prompts, tokenizer: Tokenizer) -> Batch:
    """Tokens of the prompts, right-padded with 0 to the longest; drops misaligned pairs, and warns.

    The reference matches token counts only, so a name of two tokens may shift what follows it;
    here every position is compared. Special tokens are those that the tokenizer itself adds.
    """
    if tokenizer.padding or tokenizer.truncation:
        raise ValueError(
            "the tokenizer must neither pad nor truncate: call `no_padding()` and "
            f"`no_truncation()` first; got {tokenizer.padding=} and {tokenizer.truncation=}."
        )
    # A dict keeps the words in order, so that the message is the same in every run.
    words = dict.fromkeys(chain(prompts.answers, prompts.foils, *prompts.changed))
    ids = single_tokens(words, tokenizer)
    if missing := [word for word in words if word not in ids]:
        raise ValueError(f"answers, foils and changed words must be single tokens: {missing} not.")

    tokens, lengths = _table(prompts.texts, tokenizer)
    corrupted, corrupted_lengths = _table(prompts.corrupted, tokenizer)
    # No pair of equal length is longer than the narrower table.
    width = min(tokens.shape[1], corrupted.shape[1])
    tokens, corrupted = tokens[:, :width], corrupted[:, :width]
    valid = np.arange(width) < lengths[:, None]
    swapped = np.zeros_like(valid)
    for group in zip(*prompts.changed, strict=True):
        swapped |= tokens == np.array([ids[word] for word in group])[:, None]
    differs = tokens != corrupted
    keep = (lengths == corrupted_lengths) & ((differs == swapped) | ~valid).all(axis=1)
    if not keep.all():
        message = (
            f"the tokens of {(~keep).sum()} of {len(keep)} prompt pairs do not align, "
            f"as in {prompts.texts[keep.argmin()]!r}"
        )
        if not keep.any():
            raise ValueError(f"{message}; none is left.")
        warnings.warn(f"{message}; dropped.", stacklevel=2)

    answers, foils = (
        np.array([ids[word] for word in side], np.int32)[:, None]
        for side in (prompts.answers, prompts.foils)
    )
    positions = (lengths - 1)[:, None].astype(np.int32)
    scored = np.ones(positions.shape, np.float32)
    batch = take(Batch(tokens, corrupted, valid, positions, scored, answers, foils), keep)
    longest = lengths[keep].max()
    return check(
        Batch(
            batch.tokens[:, :longest],
            batch.corrupted[:, :longest],
            batch.valid[:, :longest],
            batch.positions,
            batch.scored,
            batch.targets,
            batch.foils,
        )
    )


def _table(
    texts: list[str], tokenizer: Tokenizer
) -> tuple[Int[np.ndarray, "B T"], Int[np.ndarray, " B"]]:
    """The token of each text, one row each and 0 after its end, and the lengths."""
    rows = [encoding.ids for encoding in tokenizer.encode_batch(texts)]
    lengths = np.array([len(row) for row in rows])
    table = np.zeros((len(rows), lengths.max()), np.int32)
    table[np.arange(table.shape[1]) < lengths[:, None]] = np.concatenate(rows)
    return table, lengths
