"""RASP programs to compile, each with the prompts on which it is judged.

An entry is `name: (source, vocabulary, longest)` and, where a default does not suit, a dict of
options. The domain of a program is every sequence of `shortest` to `longest` symbols. The source
returns a RASP expression. One that takes an argument is handed the module `tracr.rasp.rasp`, so
that this list can be read without the compiler; one that takes none imports it itself.

    shortest       fewest symbols of a prompt (1)
    bos            whether the output at BOS counts, where RASP itself defines none (False)
    max_seq_len    the length that the weights are made for (`longest`)
    causal         compile with causal attention, and judge by causal RASP (False)
    mlp_exactness  steepness of the MLPs' ramps (100)
"""


def length(rasp):
    everything = rasp.Select(rasp.tokens, rasp.tokens, rasp.Comparison.TRUE)
    return rasp.SelectorWidth(everything).named("length")


def reverse(rasp):
    opposite = length(rasp) - rasp.indices - 1
    mirror = rasp.Select(rasp.indices, opposite, rasp.Comparison.EQ)
    return rasp.Aggregate(mirror, rasp.tokens).named("reverse")


def share_so_far(rasp, flag):
    """The fraction of positions, up to and with this one, where `flag` is true."""
    earlier = rasp.Select(rasp.indices, rasp.indices, rasp.Comparison.LEQ)
    mean = rasp.Aggregate(earlier, rasp.numerical(flag), default=0)
    return rasp.numerical(mean).named("share")


def xproportion(rasp):
    return share_so_far(rasp, rasp.tokens == "x")


def hist(rasp):
    """How often this position's symbol occurs."""
    alike = rasp.Select(rasp.tokens, rasp.tokens, rasp.Comparison.EQ)
    return rasp.SelectorWidth(alike).named("hist")


def count_a(rasp):
    found = rasp.Select(rasp.tokens, rasp.tokens, lambda key, query: key == "a")
    return rasp.SelectorWidth(found).named("count")


def count_rare(rasp):
    """How many positions hold a symbol that occurs at most twice."""
    often = hist(rasp)
    rare = rasp.Select(often, often, lambda key, query: key <= 2)
    return rasp.SelectorWidth(rare).named("count_rare")


def sorted_by(rasp, keys):
    """The tokens in the order of `keys`. Where keys are equal, the first has no successor."""
    smaller = rasp.Select(keys, keys, rasp.Comparison.LT)
    place = rasp.SelectorWidth(smaller).named("place")
    here = rasp.Select(place, rasp.indices, rasp.Comparison.EQ)
    return rasp.Aggregate(here, rasp.tokens).named("sorted")


def sort_unique(rasp):
    return sorted_by(rasp, rasp.tokens)


def sort(rasp):
    # Positions, in tenths, break ties between equal symbols.
    return sorted_by(rasp, rasp.SequenceMap(lambda x, i: x + i / 10, rasp.tokens, rasp.indices))


def pair_balance(rasp):
    opened = share_so_far(rasp, rasp.tokens == "(").named("opened")
    closed = share_so_far(rasp, rasp.tokens == ")").named("closed")
    return rasp.numerical(rasp.LinearSequenceMap(opened, closed, 1, -1)).named("balance")


PROGRAMS = {
    # The two of the paper, with its domains.
    "reverse": (reverse, [1, 2, 3], 3, {"shortest": 3, "max_seq_len": 5}),
    "xproportion": (
        xproportion, ["a", "b", "c", "x"], 4, {"shortest": 4, "max_seq_len": 5, "bos": True},
    ),
    "length": (length, ["a", "b"], 5),
    "hist": (hist, ["a", "b", "c"], 4),
    "count_a": (count_a, ["a", "b", "c"], 4),
    "count_rare": (count_rare, ["a", "b", "c"], 5),
    "sort_unique": (sort_unique, [1, 2, 3], 3),
    "sort": (sort, [1, 2, 3], 4),
    "pair_balance": (pair_balance, ["(", ")", "a"], 4),
}  # fmt: skip
