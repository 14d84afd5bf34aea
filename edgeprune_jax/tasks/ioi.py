"""Indirect object identification: of two people, one gives; the answer is the other.

    "While Anna and Paul were waiting near the gym, Paul passed a key to"   -> " Anna"
    "While Carl and Ruth were waiting near the gym, Leo passed a key to"    corrupted

The corruption is the paper's: each of the three names in the prompt becomes a different random
name, none of them in the clean prompt, so that nobody is named twice and no answer is right.

Templates, not sentences, are split, so that a circuit is tested on sentence forms it was not found
on: 14 for training, 2 for validation, 4 for test, each with the answer named first (ABBA) or
second (BABA). Names, places and objects are common to all splits. `ioi-t1` has a single template;
there the splits have scenes (a place and an object) of their own. `ioi-instruction` has the pairs
of `ioi` as a chat: the user asks for the sentence to be completed, the assistant has begun it.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from tokenizers import Tokenizer

from edgeprune_jax.tasks.prompts import Pair, fill, known
from edgeprune_jax.tasks.splits import SPLITS, Split, distinct, generator, others, portion
from edgeprune_jax.tasks.words import NAMES, OBJECTS, PLACES, TEMPLATES

# Drawn once, before any result: `random.Random(0).sample(range(20), 6)`, test first.
TEST = (12, 13, 1, 8)
VALIDATION = (15, 6)
T1 = TEMPLATES[1]
# The markup is ChatML, that of SmolLM2 and Qwen.
INSTRUCTION = (
    "<|im_start|>user\nComplete the sentence with a name.<|im_end|>\n<|im_start|>assistant\n"
)
SCENES = tuple((place, thing) for place in PLACES for thing in OBJECTS)


def ioi(tokenizer: Tokenizer, *, split: Split, n: int, seed: int) -> Iterator[Pair]:
    """`n` different pairs of a split, with the names that are one token each in this tokenizer."""
    return draw(known(NAMES, tokenizer), templates(split), SCENES, split=split, n=n, seed=seed)


def ioi_instruction(tokenizer: Tokenizer, *, split: Split, n: int, seed: int) -> Iterator[Pair]:
    """The pairs of `ioi`, behind an instruction."""
    for pair in ioi(tokenizer, split=split, n=n, seed=seed):
        clean, corrupted = ((INSTRUCTION, *prompt) for prompt in (pair.clean, pair.corrupted))
        yield pair._replace(clean=clean, corrupted=corrupted)


def ioi_t1(tokenizer: Tokenizer, *, split: Split, n: int, seed: int) -> Iterator[Pair]:
    """The same with one template, and scenes that belong to one split each."""
    scenes = portion(SCENES, split)
    return draw(known(NAMES, tokenizer), (T1,), scenes, split=split, n=n, seed=seed)


def templates(split: Split) -> tuple[str, ...]:
    """The sentences of a split."""
    if split not in SPLITS:
        raise ValueError(f"the splits are {', '.join(SPLITS)}: got {split!r}.")
    train = tuple(i for i in range(len(TEMPLATES)) if i not in TEST + VALIDATION)
    chosen = {"train": train, "validation": VALIDATION, "test": TEST}[split]
    return tuple(TEMPLATES[i] for i in chosen)


def draw(
    names: Sequence[str],
    sentences: Sequence[str],
    scenes: Sequence[tuple[str, str]],
    *,
    split: Split,
    n: int,
    seed: int,
) -> Iterator[Pair]:
    """`n` different prompts, uniform over all there are, and their corruptions."""
    if len(names) < 5:
        raise ValueError(
            "a pair needs 5 different names, 2 clean and 3 corrupted: the tokenizer has "
            f"{len(names)} of ours as single tokens ({', '.join(names)})."
        )
    rng = generator(seed, split)
    axes = (len(sentences), 2, len(names), len(names) - 1, len(scenes))
    sentence, swap, a, b, scene = distinct(rng, axes, n, split=split)
    b = b + (b >= a)  # skips A
    people = np.stack([np.where(swap, b, a), np.where(swap, a, b), b], axis=1)
    corrupted = others(rng, people[:, :2], len(names), 3)
    for s, c, clean, other, answer in zip(sentence, scene, people, corrupted, a, strict=True):
        place, thing = scenes[c]

        def pieces(trio, template=sentences[int(s)], place=place, thing=thing):
            first, second, giver = (names[int(i)] for i in trio)
            return fill(
                template, first=first, second=second, giver=giver, place=place, object=thing
            )

        yield Pair(pieces(clean), pieces(other), f" {names[answer]}", f" {names[clean[2]]}")
