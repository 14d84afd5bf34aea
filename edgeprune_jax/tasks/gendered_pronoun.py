"""Gendered pronoun: a name, a habit, and the pronoun of a tag question.

    "So Victor is always early for dinner, isn't"   -> " he", not " she"
    "So Olivia is always early for dinner, isn't"   corrupted: a name of the other gender

After Mathwin et al. and the paper's section 4. The splits have disjoint sentences: 18 for
training, 4 for validation, 8 for test.
"""

from collections.abc import Iterator

from tokenizers import Tokenizer

from edgeprune_jax.tasks.prompts import Pair, fill, known
from edgeprune_jax.tasks.splits import Split, distinct, generator, portion
from edgeprune_jax.tasks.words import NAMES

WOMEN = frozenset(
    "Alice Amanda Amy Andrea Angela Anna Ashley Barbara Carol Catherine Christina Christine Claire"
    " Clara Diana Elizabeth Ellen Emily Emma Hannah Heather Helen Jane Jennifer Jessica Joan Julia"
    " Julie Karen Kate Kelly Laura Lauren Linda Lisa Lucy Margaret Maria Martha Mary Melissa"
    " Michelle Nancy Nicole Olivia Rachel Rebecca Ruth Samantha Sandra Sara Sarah Sharon Sophia"
    " Sophie Susan Teresa Victoria".split()
)

SENTENCES = (
    "So {name} is always early for dinner, isn't",
    "So {name} is really good at chess, isn't",
    "So {name} is a friend of the family, isn't",
    "So {name} is afraid of the dark, isn't",
    "So {name} is never late for work, is",
    "So {name} is the best cook in town, isn't",
    "So {name} is too tired to drive, isn't",
    "So {name} is not coming to the wedding, is",
    "So {name} is still looking for the keys, isn't",
    "So {name} is always ready to help, isn't",
    "So {name} is quite proud of the garden, isn't",
    "So {name} is moving to the city, isn't",
    "So {name} can play the piano, can't",
    "So {name} can run very fast, can't",
    "So {name} can speak three languages, can't",
    "So {name} can fix the car alone, can't",
    "So {name} can sing well, can't",
    "So {name} can keep a secret, can't",
    "So {name} loves to read in bed, doesn't",
    "So {name} likes strong coffee, doesn't",
    "So {name} lives near the station, doesn't",
    "So {name} works at the hospital, doesn't",
    "So {name} plays tennis every week, doesn't",
    "So {name} knows the way home, doesn't",
    "So {name} wants a new bicycle, doesn't",
    "So {name} hates long meetings, doesn't",
    "So {name} sleeps until noon, doesn't",
    "So {name} tells good stories, doesn't",
    "So {name} needs more time, doesn't",
    "So {name} takes the bus to school, doesn't",
)


def gendered_pronoun(tokenizer: Tokenizer, *, split: Split, n: int, seed: int) -> Iterator[Pair]:
    """`n` different pairs of a split: sentence, name and corrupted name."""
    names = known(NAMES, tokenizer)
    women, men = ([x for x in names if (x in WOMEN) == kind] for kind in (True, False))
    if not (women and men):
        raise ValueError("none of our women's or men's names is one token in this tokenizer.")
    sentences = portion(SENTENCES, split)
    axes = (len(sentences), 2, len(women), len(men))
    for sentence, swapped, woman, man in zip(
        *distinct(generator(seed, split), axes, n, split=split), strict=True
    ):
        pair = [(women[woman], " she"), (men[man], " he")]
        (name, answer), (other, foil) = pair[::-1] if swapped else pair
        clean, corrupted = (fill(sentences[sentence], name=x) for x in (name, other))
        yield Pair(clean, corrupted, answer, foil)
