"""Addition and subtraction of numbers of two digits, with results of two digits.

    "The sum of 23 and 45 is"   -> " 68", not " 81"
    "The sum of 17 and 64 is"   corrupted: two other operands; their result is the wrong answer

The form is that of MIB's arithmetic tasks with its random counterfactual (Mueller et al. 2025); the
wording is ours. The splits have disjoint pairs of operands. Where digits are tokens, both digits of
the result are scored, the second after the right first one.
"""

from collections.abc import Iterator
from operator import add, sub

import numpy as np
from tokenizers import Tokenizer

from edgeprune_jax.tasks.prompts import Pair, fill, space_stands_alone
from edgeprune_jax.tasks.splits import Split, distinct, generator, portion

SUMS = (
    "{a} + {b} =",
    "The sum of {a} and {b} is",
    "Q: What is {a} plus {b}? A:",
    "If you add {a} and {b}, you get",
)
DIFFERENCES = (
    "{a} - {b} =",
    "The difference between {a} and {b} is",
    "Q: What is {a} minus {b}? A:",
    "If you take {a} and subtract {b}, you get",
)
TWO_DIGITS = range(10, 100)


def addition(tokenizer: Tokenizer, *, split: Split, n: int, seed: int) -> Iterator[Pair]:
    """`n` different pairs of sums of a split."""
    return _draw(tokenizer, add, SUMS, split, n, seed)


def subtraction(tokenizer: Tokenizer, *, split: Split, n: int, seed: int) -> Iterator[Pair]:
    """`n` different pairs of differences of a split."""
    return _draw(tokenizer, sub, DIFFERENCES, split, n, seed)


def _draw(tokenizer, operation, templates, split: Split, n: int, seed: int) -> Iterator[Pair]:
    operands = portion(
        [(a, b) for a in TWO_DIGITS for b in TWO_DIGITS if operation(a, b) in TWO_DIGITS], split
    )
    results = np.array([operation(a, b) for a, b in operands])
    # The twins of operands have another result, so that there is a wrong answer; clean operands and
    # a twin of theirs are a number below the sum of the twins.
    twins = {result: np.flatnonzero(results != result) for result in results.tolist()}
    ends = np.cumsum([len(twins[result]) for result in results.tolist()])
    axes = (len(templates), int(ends[-1]))
    behind, before = (" ", "") if space_stands_alone(tokenizer) else ("", " ")
    chosen, numbers = distinct(generator(seed, split), axes, n, split=split)
    cleans = np.searchsorted(ends, numbers, side="right")
    for t, number, clean in zip(chosen, numbers, cleans, strict=True):
        twin = twins[int(results[clean])][number - ends[clean]]

        def pieces(which, t=t):
            a, b = operands[which]
            return (*fill(templates[t], a=str(a), b=str(b)), behind)

        answer, foil = (f"{before}{results[which]}" for which in (clean, twin))
        yield Pair(pieces(clean), pieces(twin), answer, foil)
