"""Docstring: which argument of a function is documented next.

    def load(self, table, window, market, bridge):
        \"\"\"river stone garden

        :param table: winter paper
        :param window: sugar engine
        :param                              -> " market", not " bridge"

After Heimersheim and Janiak 2023. In the corrupted prompt all four arguments have other names,
in the definition and in the documentation, so that nothing in it says what follows. The splits have
disjoint argument names; functions are common to all, and descriptions take the other words.
"""

from collections.abc import Iterator

from tokenizers import Tokenizer

from edgeprune_jax.tasks.prompts import Pair, fill, known
from edgeprune_jax.tasks.splits import (
    Split,
    distinct,
    generator,
    others,
    portion,
    without_repeats,
)
from edgeprune_jax.tasks.words import NOUNS

FUNCTIONS = tuple(
    "build check clean close copy count fetch find load make merge move open parse print read run"
    " save send sort split start stop store test update write".split()
)
TEMPLATE = (
    'def {function}(self, {a}, {b}, {c}, {d}):\n    """{u} {v} {w}\n\n'
    "    :param {a}: {x} {y}\n    :param {b}: {z} {t}\n    :param"
)
ARGUMENTS = 4


def docstring(tokenizer: Tokenizer, *, split: Split, n: int, seed: int) -> Iterator[Pair]:
    """`n` different pairs of a split."""
    nouns = known(NOUNS, tokenizer)
    pool = portion(nouns, split, at_least=2 * ARGUMENTS)
    described = [noun for noun in nouns if noun not in pool]  # never name an argument
    rng = generator(seed, split)
    axes = (len(FUNCTIONS), *(len(pool) - i for i in range(ARGUMENTS)))
    function, *columns = distinct(rng, axes, n, split=split)
    clean = without_repeats(columns)
    corrupted = others(rng, clean, len(pool), ARGUMENTS)
    texts = rng.integers(0, len(described), (n, len("uvwxyzt")))
    for row in range(n):
        words = {slot: described[i] for slot, i in zip("uvwxyzt", texts[row], strict=True)}

        def pieces(chosen, row=row, words=words):
            named = {slot: pool[i] for slot, i in zip("abcd", chosen, strict=True)}
            return fill(TEMPLATE, function=FUNCTIONS[function[row]], **named, **words)

        *_, answer, foil = (pool[i] for i in clean[row])
        yield Pair(pieces(clean[row]), pieces(corrupted[row]), f" {answer}", f" {foil}")
