"""Boolean expressions, after three solved ones (few-shot) or an instruction.

    "(True and False) or (not False) is"   -> " True", not " False"

Generated after the reference's way: one to six literals, joined by random or, and, not until one
expression is left, at most three operations deep and two nots in a row; the three solved ones are
left out. The reference makes no corrupted prompts; here the corrupted prompt holds *another
expression of the same split, of equally many tokens and the opposite value*. What an edge carries
is then what it would carry if the answer were the other.

The splits have disjoint expressions, 60 % of them for training.
"""

import random
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from tokenizers import Tokenizer

from edgeprune_jax.tasks.prompts import Pair
from edgeprune_jax.tasks.splits import Split, distinct, generator, portion

FEW_SHOT = (
    "(True and False) or (False and True) is False\n"
    "(True or (not True)) and False is False\n"
    "(not (True and False)) or (False and True) is True\n",
    " is",
    " ",
)
# The markup is that of Llama 2, as in the paper; the answer follows the quote directly.
INSTRUCTION = (
    "[INST] <<SYS>>\nEvaluate the following boolean expression as either 'True' or 'False'.\n"
    "<</SYS>>\n\n",
    " [/INST] '",
    "",
)
SOLVED = {line.rsplit(" is ", 1)[0] for line in FEW_SHOT[0].splitlines()}
TRIES, DEPTH, NOTS, LITERALS = 50_000, 3, 2, 6


def few_shot(tokenizer: Tokenizer, *, split: Split, n: int, seed: int) -> Iterator[Pair]:
    """`n` different pairs of expressions of a split, after three solved ones."""
    return _draw(tokenizer, FEW_SHOT, split, n, seed)


def instruction(tokenizer: Tokenizer, *, split: Split, n: int, seed: int) -> Iterator[Pair]:
    """The same behind an instruction."""
    return _draw(tokenizer, INSTRUCTION, split, n, seed)


def _draw(tokenizer, form: tuple[str, str, str], split: Split, n: int, seed: int) -> Iterator[Pair]:
    before, after, space = form
    pool = portion(expressions(), split)
    encodings = tokenizer.encode_batch([before + text + after for text, _ in pool])
    lengths = np.array([len(encoding) for encoding in encodings])
    values = np.array([value for _, value in pool])
    # The twins of an expression are a group; a pair is a number below the sum of their sizes.
    groups = {(k, v): np.flatnonzero((lengths == k) & (values == v))
              for k in np.unique(lengths).tolist() for v in (False, True)}  # fmt: skip
    twins = [
        groups[length, not value] for length, value in zip(lengths.tolist(), values, strict=True)
    ]
    ends = np.cumsum([len(group) for group in twins])
    (numbers,) = distinct(generator(seed, split), (int(ends[-1]),), n, split=split)
    for number, row in zip(numbers, np.searchsorted(ends, numbers, side="right"), strict=True):
        text, value = pool[row]
        other, _ = pool[twins[row][number - ends[row]]]
        yield Pair(
            (before, text, after), (before, other, after), f"{space}{value}", f"{space}{not value}"
        )


@lru_cache
def expressions() -> tuple[tuple[str, bool], ...]:
    """Every expression that the generator finds, with its value, in the order of discovery."""
    rng = random.Random(42)
    found = {}
    for _ in range(TRIES):
        drawn = _expression(rng)
        if drawn is not None and drawn[0] not in SOLVED:
            found.setdefault(*drawn)
    return tuple(found.items())


def _expression(rng: random.Random) -> tuple[str, bool] | None:
    """A random expression and its value; None where it is too deep."""
    # Each part is its text, its value, its depth and the number of nots at its top.
    parts = []
    for _ in range(rng.randint(1, LITERALS)):
        value = rng.random() < 0.5
        parts.append((str(value), value, 0, 0))
    while len(parts) > 1 or (parts[0][2] == 0 and rng.random() < 0.9):
        operation = rng.choice(("or", "and", "not"))
        if operation == "not":
            at = rng.randrange(len(parts))
            text, value, depth, nots = parts[at]
            parts[at] = (f"not {_operand(text, depth)}", not value, depth + 1, nots + 1)
        elif len(parts) > 1:
            at = rng.randrange(len(parts) - 1)
            (a, x, d, _), (b, y, e, _) = parts[at : at + 2]
            value = (x or y) if operation == "or" else (x and y)
            text = f"{_operand(a, d)} {operation} {_operand(b, e)}"
            parts[at : at + 2] = [(text, value, max(d, e) + 1, 0)]
        if any(depth > DEPTH or nots > NOTS for _, _, depth, nots in parts):
            return None
    return parts[0][:2]


def _operand(text: str, depth: int) -> str:
    return f"({text})" if depth else text
