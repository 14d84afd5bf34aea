"""Multiple choice: read a colour, answer with the symbol beside it.

    "A lamp is brown. What color is a lamp?\\nA. gray\\nB. black\\nC. white\\nD. brown\\nAnswer:"
                                                                      -> " D", not " K"
    the same with the symbols Q, M, T, K: corrupted; its answer is the wrong one

The form is that of MIB's copycolors task with its symbol counterfactual (Mueller et al. 2025); the
wording is ours. The splits have disjoint objects.
"""

from collections.abc import Iterator
from string import ascii_uppercase

import numpy as np
from tokenizers import Tokenizer

from edgeprune_jax.tasks.prompts import Pair, fill
from edgeprune_jax.tasks.splits import (
    Split,
    distinct,
    generator,
    others,
    portion,
    without_repeats,
)
from edgeprune_jax.tasks.words import OBJECTS

COLORS = tuple(
    "black blue brown gold gray green orange pink purple red silver white yellow".split()
)
TEMPLATE = (
    "A {object} is {color}. What color is a {object}?\n"
    "{a}. {p}\n{b}. {q}\n{c}. {r}\n{d}. {s}\nAnswer:"
)
CHOICES = 4


def multiple_choice(tokenizer: Tokenizer, *, split: Split, n: int, seed: int) -> Iterator[Pair]:
    """`n` different pairs of a split."""
    things = portion(OBJECTS, split)
    rng = generator(seed, split)
    axes = (len(things), CHOICES, *(len(COLORS) - i for i in range(CHOICES)))
    thing, right, *columns = distinct(rng, axes, n, split=split)
    colors = without_repeats(columns)
    usual = list(range(CHOICES))
    symbols = others(rng, np.tile(usual, (n, 1)), len(ascii_uppercase), CHOICES)
    for row in range(n):
        named = {slot: COLORS[i] for slot, i in zip("pqrs", colors[row], strict=True)}
        named |= {"object": things[thing[row]], "color": COLORS[colors[row, right[row]]]}

        def pieces(chosen, named=named):
            letters = {slot: ascii_uppercase[i] for slot, i in zip("abcd", chosen, strict=True)}
            return fill(TEMPLATE, **named, **letters)

        answer, foil = (f" {ascii_uppercase[x[right[row]]]}" for x in (usual, symbols[row]))
        yield Pair(pieces(usual), pieces(symbols[row]), answer, foil)
