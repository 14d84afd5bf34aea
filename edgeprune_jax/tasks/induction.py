"""Induction: a list of words that begins again goes on as it did before.

    "river stone market paper river stone"   -> " market", not " paper"
    "sugar glass window table river stone"   corrupted: the first round holds other words

Words do not repeat within a round. Rounds have 4, 6 or 8 words, so that prompts come in several
lengths. The splits have disjoint words.
"""

from collections.abc import Iterator

import numpy as np
from tokenizers import Tokenizer

from edgeprune_jax.tasks.prompts import Pair, known
from edgeprune_jax.tasks.splits import (
    Split,
    distinct,
    generator,
    others,
    portion,
    without_repeats,
)
from edgeprune_jax.tasks.words import NOUNS

ROUNDS = (4, 6, 8)
LEAD = "List:"


def induction(tokenizer: Tokenizer, *, split: Split, n: int, seed: int) -> Iterator[Pair]:
    """`n` different pairs of a split."""
    longest = max(ROUNDS)
    pool = portion(known(NOUNS, tokenizer), split, at_least=2 * longest)
    rng = generator(seed, split)
    # The first three words and the length tell all prompts apart.
    axes = (len(ROUNDS), len(pool), len(pool) - 1, len(pool) - 2)
    which, *columns = distinct(rng, axes, n, split=split)
    start = without_repeats(columns)
    clean = np.concatenate([start, others(rng, start, len(pool), longest - 3)], axis=1)
    corrupted = others(rng, clean, len(pool), longest)
    luck = rng.random(n)
    for row in range(n):
        length = ROUNDS[which[row]]
        again = 2 + int(luck[row] * (length - 3))  # the words repeated: 2 to length - 2

        def words(chosen):
            return tuple(f" {pool[i]}" for i in chosen)

        first, twin = words(clean[row, :length]), words(corrupted[row, :length])
        second = first[:again]
        yield Pair((LEAD, *first, *second), (LEAD, *twin, *second), first[again], first[again + 1])
