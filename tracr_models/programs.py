"""RASP programs to compile, each with the prompts on which it is judged.

An entry is `name: (source, vocabulary, longest)` and, where a default does not suit, a dict of
options. The domain of a program is every sequence of `shortest` to `longest` symbols. The source
returns a RASP expression; its parameters, if any, are the modules `rasp` (`tracr.rasp.rasp`) and
`lib` (`tracr.compiler.lib`, the compiler's own programs), so that this list can be read without
the compiler.

    shortest       fewest symbols of a prompt (1)
    bos            whether the output at BOS counts, where RASP itself defines none (False)
    max_seq_len    the length that the weights are made for (`longest`)
    causal         compile with causal attention, and judge by causal RASP (False)
    mlp_exactness  steepness of the MLPs' ramps (100)
"""


def sort(rasp, lib):
    return lib.make_sort(rasp.tokens, rasp.tokens, max_seq_len=4, min_key=1)


def shuffle_dyck(lib):
    return lib.make_shuffle_dyck(["()"])


def nary_sequencemap(rasp, lib):
    return lib.make_nary_sequencemap(
        lambda x, y, i: x + y - i, rasp.tokens, rasp.tokens, rasp.indices
    )


def after_ab(lib, rasp):
    """Whether the last two symbols, this one included, are a and b."""
    return lib.detect_pattern(rasp.tokens, "ab")


def cancelling(rasp, lib):
    """The share of x so far. The share of y is added and taken off, by two heads and two MLPs."""
    x, y, again = (
        rasp.numerical(lib.make_frac_prevs(flag).named(name))
        for name, flag in (
            ("x", rasp.tokens == "x"), ("y", rasp.tokens == "y"), ("again", rasp.tokens == "y"),
        )
    )  # fmt: skip
    both = rasp.numerical(rasp.LinearSequenceMap(x, y, 1, 1)).named("both")
    return rasp.numerical(rasp.LinearSequenceMap(both, again, 1, -1)).named("cancelling")


def clock(rasp):
    """The position, moved on by the symbol, on a dial of four: no head takes part."""
    return rasp.SequenceMap(lambda x, i: (x + i) % 4, rasp.tokens, rasp.indices).named("clock")


def shifted_flag(rasp, symbol, offset):
    """Whether the symbol `offset` places away is `symbol`: False beyond the ends."""
    there = rasp.Select(rasp.indices, rasp.indices, lambda key, query: key == query + offset)
    flag = rasp.numerical(rasp.tokens == symbol)
    return rasp.numerical(rasp.Aggregate(there, flag, default=0)) > 0.5


def either_side(rasp):
    """Whether the symbol before or the symbol after is an x: two paths that do the same."""
    return (shifted_flag(rasp, "x", -1) | shifted_flag(rasp, "x", 1)).named("either_side")


def ends_match(rasp, lib):
    """Whether the first symbol is the last one."""
    zero = rasp.Map(lambda i: 0, rasp.indices)
    first, last = (
        rasp.Aggregate(rasp.Select(rasp.indices, place, rasp.Comparison.EQ), rasp.tokens)
        for place in (zero, lib.make_length() - 1)
    )
    return rasp.SequenceMap(lambda x, y: x == y, first, last).named("ends_match")


def first_time(rasp, lib):
    """Whether this symbol has not occurred before; causal."""
    return (lib.make_hist() == 1).named("first_time")


def majority(rasp, lib):
    """Whether there are more a than b."""
    counts = (lib.make_count(rasp.tokens, symbol) for symbol in "ab")
    return rasp.SequenceMap(lambda x, y: x > y, *counts).named("majority")


def mixture(rasp, lib):
    """A third of the share of x so far, and two thirds of that of y."""
    x, y = (rasp.numerical(lib.make_frac_prevs(rasp.tokens == s).named(s)) for s in "xy")
    return rasp.numerical(rasp.LinearSequenceMap(x, y, 1 / 3, 2 / 3)).named("mixture")


def palindrome(rasp, lib):
    """Whether the prompt reads the same backward."""
    differ = rasp.SequenceMap(lambda x, y: x != y, rasp.tokens, lib.make_reverse(rasp.tokens))
    everywhere = rasp.Select(rasp.indices, rasp.indices, rasp.Comparison.TRUE)
    flag = rasp.numerical(rasp.Map(int, differ))
    return (rasp.numerical(rasp.Aggregate(everywhere, flag, default=0)) == 0).named("palindrome")


def rotate(rasp, lib):
    """The symbol after this one, and the first after the last."""
    following = rasp.SequenceMap(lambda i, n: (i + 1) % max(n, 1), rasp.indices, lib.make_length())
    there = rasp.Select(rasp.indices, following, rasp.Comparison.EQ)
    return rasp.Aggregate(there, rasp.tokens).named("rotate")


def smaller_odd(rasp):
    """Whether an odd number of symbols are smaller than this one."""
    smaller = rasp.Select(rasp.tokens, rasp.tokens, rasp.Comparison.LT)
    return rasp.Map(lambda n: n % 2, rasp.SelectorWidth(smaller)).named("smaller_odd")


def three_back(rasp, lib):
    """The symbol three places before; causal."""
    return lib.shift_by(3, rasp.tokens)


def induction(rasp, lib):
    """Of the earlier places that followed this symbol, the share that held an x; causal."""
    before = lib.shift_by(1, rasp.tokens)
    followed = rasp.Select(before, rasp.tokens, lambda key, query: key == query)
    flag = rasp.numerical(rasp.tokens == "x")
    return rasp.numerical(rasp.Aggregate(followed, flag, default=0)).named("induction")


def commonest(rasp, lib):
    """Which of a, b and c is the commonest, the first of equals: three heads of one layer."""
    a, b, c = (lib.make_count(rasp.tokens, symbol) for symbol in "abc")
    two = rasp.SequenceMap(lambda x, y: ("a", x) if x >= y else ("b", y), a, b)
    return rasp.SequenceMap(lambda x, y: x[0] if x[1] >= y else "c", two, c).named("commonest")


def hist_of_hist(rasp, lib):
    """How many symbols are as frequent as this one."""
    often = lib.make_hist()
    alike = rasp.Select(often, often, rasp.Comparison.EQ)
    return rasp.numerical(rasp.SelectorWidth(alike)).named("hist_of_hist")


def step_chain(rasp):
    """Four MLPs, one after the other, each of which reads the symbol or the position again."""
    x = rasp.SequenceMap(lambda x, i: (x + i) % 3, rasp.tokens, rasp.indices)
    x = rasp.SequenceMap(lambda x, t: (x * t + 1) % 3, x, rasp.tokens)
    x = rasp.SequenceMap(lambda x, i: (x + i * i) % 3, x, rasp.indices)
    return rasp.SequenceMap(lambda x, t: (x + 2 * t) % 3, x, rasp.tokens).named("step_chain")


PROGRAMS = {
    # The two of the paper, with its domains.
    "reverse": (
        lambda rasp, lib: lib.make_reverse(rasp.tokens), [1, 2, 3], 3,
        {"shortest": 3, "max_seq_len": 5},
    ),
    "xproportion": (
        lambda rasp, lib: lib.make_frac_prevs(rasp.tokens == "x"), ["a", "b", "c", "x"], 4,
        {"shortest": 4, "max_seq_len": 5, "bos": True},
    ),
    # The compiler's own.
    "make_length": (lambda lib: lib.make_length(), ["a", "b"], 5),
    "hist": (lambda lib: lib.make_hist(), ["a", "b", "c"], 4),
    "sort": (sort, [1, 2, 3], 4),
    "sort_unique": (
        lambda rasp, lib: lib.make_sort_unique(rasp.tokens, rasp.tokens), [1, 2, 3], 3,
    ),
    "sort_freq": (lambda lib: lib.make_sort_freq(max_seq_len=4), [1, 2, 3], 4),
    "count": (lambda rasp, lib: lib.make_count(rasp.tokens, "a"), ["a", "b", "c"], 4),
    "count_less_freq": (lambda lib: lib.make_count_less_freq(2), ["a", "b", "c"], 5),
    "frac_prevs": (
        lambda rasp, lib: lib.make_frac_prevs(rasp.tokens == "x"), ["a", "b", "x"], 5,
    ),
    "pair_balance": (
        lambda rasp, lib: lib.make_pair_balance(rasp.tokens, "(", ")"), ["(", ")", "a"], 4,
    ),
    "shuffle_dyck": (shuffle_dyck, ["(", ")"], 6),
    "shuffle_dyck2": (lambda lib: lib.make_shuffle_dyck2(), ["(", ")", "{", "}"], 4),
    "nary_sequencemap": (nary_sequencemap, [1, 2, 3], 4),
    # Others, of other anatomies.
    "after_ab": (after_ab, ["a", "b", "c"], 4),
    "cancelling": (cancelling, ["x", "y", "z"], 4),
    "clock": (clock, [0, 1, 2], 4),
    "commonest": (commonest, ["a", "b", "c"], 4),
    "either_side": (either_side, ["a", "x"], 5),
    "ends_match": (ends_match, ["a", "b", "c"], 4),
    "first_time": (first_time, ["a", "b", "c"], 4, {"causal": True}),
    "hist_of_hist": (hist_of_hist, ["a", "b", "c"], 4),
    "induction": (induction, ["a", "b", "x"], 5, {"causal": True}),
    "majority": (majority, ["a", "b", "c"], 4),
    "mixture": (mixture, ["x", "y", "z"], 4),
    "palindrome": (palindrome, ["a", "b"], 5),
    "rotate": (rotate, ["a", "b", "c"], 4),
    "smaller_odd": (smaller_odd, [1, 2, 3], 4),
    "step_chain": (step_chain, [0, 1, 2], 4),
    "three_back": (three_back, ["a", "b"], 5, {"causal": True}),
}  # fmt: skip
