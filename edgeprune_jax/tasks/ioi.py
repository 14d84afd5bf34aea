"""Indirect object identification: of two people, one gives; the answer is the other.

    "While Anna and Paul were waiting near the gym, Paul passed a key to"   -> " Anna"
    "While Carl and Ruth were waiting near the gym, Leo passed a key to"    corrupted

The corruption is the paper's: each of the three names in the prompt becomes a different random
name, none of them in the clean prompt, so that nobody is named twice and no answer is right.

Templates, not sentences, are split, so that a circuit is tested on sentence forms it was not found
on: 14 for training, 2 for validation, 4 for test, each with the answer named first (ABBA) or
second (BABA). Names, places and objects are common to all splits.
"""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from jaxtyping import Int
from tokenizers import Tokenizer

from edgeprune_jax.tasks.batch import Batch
from edgeprune_jax.tasks.prompts import Prompts, encode, single_tokens
from edgeprune_jax.tasks.words import NAMES, OBJECTS, PLACES, TEMPLATES

Split = Literal["train", "validation", "test"]

# Drawn once, before any result: `random.Random(0).sample(range(20), 6)`, test first.
TEST = (12, 13, 1, 8)
VALIDATION = (15, 6)


def make_ioi(tokenizer: Tokenizer, *, split: Split, n: int, seed: int) -> Batch:
    """`n` prompt pairs of a split, all different, the same for the same tokenizer and seed."""
    return encode(ioi_prompts(tokenizer, split=split, n=n, seed=seed), tokenizer)


def ioi_prompts(tokenizer: Tokenizer, *, split: Split, n: int, seed: int) -> Prompts:
    """The text of `make_ioi`, with the names that are one token each in this tokenizer."""
    tokens = single_tokens([f" {name}" for name in NAMES], tokenizer)
    return draw([word.removeprefix(" ") for word in tokens], split=split, n=n, seed=seed)


def templates(split: Split) -> tuple[str, ...]:
    """The sentences of a split."""
    if split not in get_args(Split):
        raise ValueError(f"the splits are {', '.join(get_args(Split))}: got {split!r}.")
    train = tuple(i for i in range(len(TEMPLATES)) if i not in TEST + VALIDATION)
    chosen = {"train": train, "validation": VALIDATION, "test": TEST}[split]
    return tuple(TEMPLATES[i] for i in chosen)


def draw(names: Sequence[str], *, split: Split, n: int, seed: int) -> Prompts:
    """`n` different prompts of a split, uniform over all there are, and their corruptions."""
    if len(names) < 5:
        raise ValueError(
            "a pair needs 5 different names, 2 clean and 3 corrupted: the tokenizer has "
            f"{len(names)} of ours as single tokens ({', '.join(names)})."
        )
    sentences = templates(split)
    axes = (len(sentences), 2, len(names), len(names) - 1, len(PLACES), len(OBJECTS))
    most = int(np.prod(axes))
    if not 1 <= n <= most:
        raise ValueError(f"the {split} split holds {most} different prompts: {n} asked for.")

    rng = np.random.default_rng((seed, get_args(Split).index(split)))
    # A prompt is a number in mixed radix, so different numbers are different prompts.
    sentence, swap, a, b, place, thing = np.unravel_index(rng.choice(most, n, replace=False), axes)
    b = b + (b >= a)  # skips A
    order = rng.random((n, len(names)))
    order[np.arange(n), a] = order[np.arange(n), b] = np.inf
    others = order.argsort(axis=1)[:, :3]
    people = np.stack([np.where(swap, b, a), np.where(swap, a, b), b], axis=1)

    scenes = list(zip(sentence, np.take(PLACES, place), np.take(OBJECTS, thing), strict=True))

    def fill(people: Int[np.ndarray, "B 3"]) -> list[str]:
        return [
            sentences[s].format(
                first=names[first], second=names[second], giver=names[giver], place=p, object=o
            )
            for (s, p, o), (first, second, giver) in zip(scenes, people, strict=True)
        ]

    answers, foils = ([f" {names[i]}" for i in side] for side in (a, b))
    changed = list(zip(answers, foils, strict=True))
    return Prompts(fill(people), fill(others), answers, foils, changed)
