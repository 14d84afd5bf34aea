"""Prompt pairs as text: what a task draws, before any tokenizer has seen it."""

from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from string import Formatter
from typing import NamedTuple

from tokenizers import Tokenizer


class Pair(NamedTuple):
    """A prompt, its corrupted twin and the answer that follows them.

    Both prompts come in equally many pieces, the fixed text and what stands in its slots in turn:
    piece by piece they must have equally many tokens. Answer and foil carry the space before
    them, if there is one.
    """

    clean: tuple[str, ...]
    corrupted: tuple[str, ...]
    answer: str
    foil: str | None = None
    choices: tuple[str, ...] = ()  # ordered answers, the same for all pairs of a task
    pivot: int = 0  # index of the choice that a right one must exceed


# tokenizer, split=, n=, seed= -> n different pairs of the split, the same for the same arguments
Draw = Callable[..., Iterator[Pair]]


def fill(template: str, **slots: str) -> tuple[str, ...]:
    """The pieces of a template with `{name}` slots."""
    return tuple(slots[text] if is_slot else text for text, is_slot in _parts(template))


@lru_cache
def _parts(template: str) -> tuple[tuple[str, bool], ...]:
    parts = []
    for text, slot, _, _ in Formatter().parse(template):
        parts.append((text, False))
        if slot is not None:
            parts.append((slot, True))
    return tuple(parts)


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


def known(words: Iterable[str], tokenizer: Tokenizer) -> list[str]:
    """The words that are one token each after a space, without it."""
    found = single_tokens([f" {word}" for word in words], tokenizer)
    return [word.removeprefix(" ") for word in found]


def space_stands_alone(tokenizer: Tokenizer) -> bool:
    """Whether the space before a number is a token of its own, and so belongs to the prompt."""
    return any(end == 2 for _, end in tokenizer.encode("= 68").offsets)
