"""Greater-than: an event that began in a year ends in a later one.

    "The siege lasted from the year 1743 to the year 17"   -> any of "44" to "99"
    "The siege lasted from the year 1528 to the year 15"   corrupted: other century, other year

After Hanna et al. 2023 and the paper's section 4. The pivot is the year that the prompt shows (the
reference's is one above it). The splits have disjoint two-digit years.

With a tokenizer of two-digit tokens, such as GPT-2's, the choices are 00 to 99. With one of single
digits, such as SmolLM2's, the answer is the decade digit alone: the choices are 0 to 9, the pivot
is the decade of the year shown, and years before 10 and after 89, whose decade has no other on one
side, do not occur. Tables call both "greater-than"; the number of choices tells them apart.
"""

from collections.abc import Iterator

from tokenizers import Tokenizer

from edgeprune_jax.tasks.prompts import Pair, fill
from edgeprune_jax.tasks.splits import Split, distinct, generator, portion

TEMPLATES = (
    "The {noun} lasted from the year {century}{year} to the year {end}",
    "The {noun} went on from the year {century}{year} to the year {end}",
    "The {noun} stretched from {century}{year} to {end}",
    "The {noun} took place between {century}{year} and {end}",
    "The {noun} began in {century}{year} and did not end until {end}",
    "The {noun} spanned the years {century}{year} to {end}",
)
NOUNS = tuple(
    "alliance blockade boycott campaign ceasefire conflict conquest construction crisis crusade"
    " debate decline dispute drought dynasty embargo empire epidemic exhibition expansion"
    " expedition experiment famine feud investigation journey lawsuit marriage migration mission"
    " negotiation occupation operation partnership peace pilgrimage plague project protest"
    " rebellion reform reign renovation revolt rivalry siege strike struggle survey tour trade"
    " trial truce uprising voyage war".split()
)
CENTURIES = range(10, 22)


def greater_than(tokenizer: Tokenizer, *, split: Split, n: int, seed: int) -> Iterator[Pair]:
    """`n` different pairs of a split, of years that are two or four tokens."""
    digits = single_digits(tokenizer)
    years = portion(range(10, 90) if digits else range(2, 98), split)
    valid = {c: _cut_in_two(c, tokenizer, digits) for c in CENTURIES}
    shown = [(c, y) for c in CENTURIES for y in years if y in valid[c]]
    rng = generator(seed, split)
    template, noun, start = distinct(rng, (len(TEMPLATES), len(NOUNS), len(shown)), n, split=split)
    twin = (start + rng.integers(1, len(shown), n)) % len(shown)
    luck = rng.random(n)
    choices = tuple("0123456789") if digits else tuple(f"{y:02}" for y in range(100))
    for row in range(n):
        (century, year), (other, changed) = shown[start[row]], shown[twin[row]]
        pivot = year // 10 if digits else year
        right = [
            y for y in range(pivot + 1, len(choices))
            if digits or (y in valid[century] and y in valid[other])
        ]  # fmt: skip
        # Where no later year is cut in two, alignment will leave the pair out.
        answer = choices[right[int(luck[row] * len(right))] if right else pivot + 1]

        def pieces(century, year, row=row):
            c = str(century)
            return fill(
                TEMPLATES[template[row]], noun=NOUNS[noun[row]], century=c, year=f"{year:02}",
                end=c,
            )  # fmt: skip

        yield Pair(
            pieces(century, year), pieces(other, changed), answer, choices=choices, pivot=pivot
        )


def single_digits(tokenizer: Tokenizer) -> bool:
    """Whether years are four tokens, not two. Raises `ValueError` for tokenizers of other kinds."""
    text = "the year 1743"
    cuts = {end - len(text) + 4 for _, end in tokenizer.encode(text).offsets} & {1, 2, 3, 4}
    if cuts not in ({1, 2, 3, 4}, {2, 4}):
        raise ValueError(
            "greater-than needs a tokenizer that cuts a year into its halves or its digits: "
            f"this one cuts 1743 after digit {', '.join(map(str, sorted(cuts - {4}))) or 'none'}"
        )
    return 1 in cuts


def _cut_in_two(century: int, tokenizer: Tokenizer, digits: bool) -> set[int]:
    """The years of a century whose halves are tokens, of at least one digit each."""
    if digits:
        return set(range(100))
    texts = [f"the year {century}{year:02}" for year in range(100)]
    ends = [{end for _, end in encoding.offsets} for encoding in tokenizer.encode_batch(texts)]
    half = len(texts[0]) - 2
    return {y for y, cut in enumerate(ends) if half in cut and not {half - 1, half + 1} & cut}
