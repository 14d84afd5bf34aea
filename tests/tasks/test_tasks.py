"""What every task promises, and what each means, read back from its text."""

import ast
import re

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from edgeprune_jax.tasks import boolean, gendered_pronoun, greater_than
from edgeprune_jax.tasks.make import TASKS, make_task
from edgeprune_jax.tasks.splits import SPLITS
from edgeprune_jax.tasks.words import NAMES, NOUNS


def texts(name, tokenizer, split="train", n=200, seed=0):
    for p in TASKS[name](tokenizer, split=split, n=n, seed=seed):
        yield "".join(p.clean), "".join(p.corrupted), p


@pytest.mark.parametrize("name", TASKS)
def test_every_pair_is_aligned_and_different(name, smollm2):
    made = make_task(name, smollm2, split="train", n=300, seed=1)
    assert made.left_out == 0 and len(made.batch) == 300
    # Pairs are distinct; a prompt may come back with another twin.
    both = np.concatenate([made.batch.tokens, made.batch.corrupted], axis=1)
    assert len(np.unique(both, axis=0)) == 300
    answered = np.concatenate([made.batch.targets, made.batch.foils], axis=1)
    assert made.batch.choices is not None or (answered >= -1).all()


@pytest.mark.parametrize("name", ["addition", "subtraction"])
def test_many_pairs_of_operands_are_all_different(name, smollm2):
    drawn = {(clean, corrupted) for clean, corrupted, _ in texts(name, smollm2, n=30_000)}
    assert len(drawn) == 30_000


def test_no_solved_expression_is_asked_for():
    shown = {line.rsplit(" is ", 1)[0] for line in boolean.FEW_SHOT[0].splitlines()}
    assert len(shown) == 3 and not shown & {text for text, _ in boolean.expressions()}


@pytest.mark.parametrize("name", TASKS)
def test_splits_share_no_prompt_and_seeds_differ(name, smollm2):
    seen = [{text for text, *_ in texts(name, smollm2, split)} for split in SPLITS]
    assert not seen[0] & seen[1] and not seen[0] & seen[2] and not seen[1] & seen[2]
    first = list(texts(name, smollm2, n=20, seed=3))
    assert first == list(texts(name, smollm2, n=20, seed=3))
    assert first != list(texts(name, smollm2, n=20, seed=4))


@pytest.mark.parametrize("name", TASKS)
def test_the_corrupted_prompt_does_not_say_the_answer(name, smollm2):
    for clean, corrupted, p in texts(name, smollm2):
        assert clean != corrupted
        if name in ("ioi", "ioi-t1", "ioi-instruction", "docstring", "induction"):
            assert p.answer in clean and p.answer not in corrupted
            assert p.foil is not None and p.foil != p.answer


def test_a_year_comes_after_the_one_that_is_shown(smollm2):
    years = []
    for split in SPLITS:
        years.append(set())
        for clean, corrupted, p in texts("greater-than", smollm2, split):
            century, year, end = re.search(r"(\d\d)(\d\d)\D+(\d\d)$", clean).groups()
            assert century == end and p.choices == tuple("0123456789")
            assert p.pivot == int(year) // 10 and 1 <= p.pivot <= 8
            assert int(p.answer) > p.pivot
            other = re.search(r"(\d\d)(\d\d)\D+(\d\d)$", corrupted).groups()
            assert other[0] == other[2] and other[:2] != (century, year)
            years[-1] |= {year, other[1]}
    assert not years[0] & years[1] and not years[0] & years[2] and not years[1] & years[2]


def halves() -> Tokenizer:
    """Words, and numbers cut into twos, some years being one token, as in GPT-2."""
    split = pre_tokenizers.Sequence([pre_tokenizers.Whitespace()])
    words = {w for t in greater_than.TEMPLATES for w in re.findall(r"\w+", t)}
    words |= {*greater_than.NOUNS, "the"}
    vocab = {c: i for i, c in enumerate("0123456789abcdefghijklmnopqrstuvwxyzTY")}
    merges = []

    def add(a, b):
        if a + b not in vocab:
            vocab[a + b] = len(vocab)
            merges.append((a, b))

    for i in range(100):
        add(str(i // 10), str(i % 10))
    for year in range(1900, 1950):
        add(str(year)[:2], str(year)[2:])
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = split
    return tokenizer


def test_with_tokens_of_two_digits_all_years_are_choices():
    tokenizer = halves()
    made = make_task("greater-than", tokenizer, split="train", n=400, seed=0)
    assert made.left_out < 10  # no later year is cut in two in both centuries
    assert made.batch.choices.shape == (400 - made.left_out, 100)
    drawn = list(texts("greater-than", tokenizer, n=400))
    for row, pivot in zip(made.rows, made.batch.pivots, strict=True):
        clean, _, p = drawn[row]
        year = int(re.search(r"\d\d(\d\d)\D", clean)[1])
        assert year == p.pivot == pivot  # and not the one before it
        assert int(p.answer) > year
        assert not re.search(r"19[0-4]\d", clean)  # one token, not two


def test_a_tokenizer_that_cuts_years_otherwise_is_refused():
    words = Tokenizer(models.WordLevel({"the": 0, "year": 1, "?": 2}, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    with pytest.raises(ValueError, match="halves or its digits: this one cuts 1743 after .* none"):
        make_task("greater-than", words, split="train", n=2, seed=0)


def test_the_pronoun_is_that_of_the_name(smollm2):
    assert gendered_pronoun.WOMEN < set(NAMES)
    assert len(set(gendered_pronoun.SENTENCES)) == 30
    for clean, corrupted, p in texts("gendered-pronoun", smollm2):
        name, other = (re.match(r"So (\w+) ", text)[1] for text in (clean, corrupted))
        assert (name in gendered_pronoun.WOMEN) == (p.answer == " she")
        assert (other in gendered_pronoun.WOMEN) == (p.answer == " he")
        assert {p.answer, p.foil} == {" he", " she"}
        assert clean.replace(name, other) == corrupted


def value(text: str) -> bool:
    """Of a Boolean expression, by Python's own grammar."""

    def of(node):
        match node:
            case ast.Constant(value=bool(v)):
                return v
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return not of(operand)
            case ast.BoolOp(op=op, values=values):
                return (all if isinstance(op, ast.And) else any)(map(of, values))
        raise AssertionError(ast.dump(node))

    return of(ast.parse(text, mode="eval").body)


@pytest.mark.parametrize("name", ["boolean-few-shot", "boolean-instruction"])
def test_a_boolean_pair_has_opposite_values(name, smollm2):
    for _, _, p in texts(name, smollm2):
        assert str(value(p.clean[1])) == p.answer.strip() != p.foil.strip()
        assert value(p.corrupted[1]) != value(p.clean[1])


def test_expressions_are_those_of_the_generator():
    found = boolean.expressions()
    assert 5000 < len(found) == len(dict(found))
    literals = [len(re.findall("True|False", text)) for text, _ in found]
    assert set(literals) == {1, 2, 3, 4, 5, 6}
    assert 0.45 < np.mean([v for _, v in found]) < 0.55
    assert all(value(text) == v for text, v in found[::7])
    solved = boolean.FEW_SHOT[0].splitlines()
    assert all(str(value(line.split(" is ")[0])) == line.split(" is ")[1] for line in solved)


@pytest.mark.parametrize("name, sign", [("addition", "+"), ("subtraction", "-")])
def test_results_are_right(name, sign, smollm2):
    for clean, corrupted, p in texts(name, smollm2):
        for text, result in ((clean, p.answer), (corrupted, p.foil)):
            a, b = map(int, re.findall(r"\d\d", text))
            assert int(result) == (a + b if sign == "+" else a - b)
        assert p.answer != p.foil


def test_the_documented_argument_is_the_third(smollm2):
    for clean, corrupted, p in texts("docstring", smollm2):
        for text in (clean, corrupted):
            arguments = re.search(r"\(self, (.*)\)", text)[1].split(", ")
            assert len(set(arguments)) == 4
            assert re.findall(r":param (\w+):", text) == arguments[:2]
        _, _, *last = re.search(r"f, (.*)\)", clean)[1].split(", ")
        assert [f" {argument}" for argument in last] == [p.answer, p.foil]


def test_a_list_goes_on_as_it_began(smollm2):
    for clean, corrupted, p in texts("induction", smollm2):
        words, twin = clean.split()[1:], corrupted.split()[1:]
        length = words.index(words[0], 1)
        again = words[length:]
        assert words[: len(again)] == again == twin[length:]
        assert p.answer == f" {words[len(again)]}" and p.foil == f" {words[len(again) + 1]}"
        assert len(set(words[:length])) == length and not set(twin[:length]) & set(words)


def test_the_symbol_is_the_one_beside_the_color(smollm2):
    for clean, corrupted, p in texts("multiple-choice", smollm2):
        for text, symbol in ((clean, p.answer), (corrupted, p.foil)):
            color = re.match(r"A \w+ is (\w+)\.", text)[1]
            assert re.findall(rf"^(\w)\. {color}$", text, re.M) == [symbol.strip()]


def test_nouns_are_different():
    assert len(set(NOUNS)) == len(NOUNS)


@pytest.mark.parametrize("name", TASKS)
def test_more_prompts_than_there_are_is_refused(name, smollm2):
    with pytest.raises(ValueError, match="split holds|different prompts"):
        list(TASKS[name](smollm2, split="test", n=10**12, seed=0))
