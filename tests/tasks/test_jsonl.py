"""A user's file: read as it says, or refused in one line that names file, line and remedy."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from edgeprune_jax.cli.main import main
from edgeprune_jax.tasks.jsonl import LONGEST, parse, read, span
from edgeprune_jax.tasks.make import make_task
from edgeprune_jax.tasks.splits import SPLITS

MODEL = Path(__file__).parents[1] / "fixtures" / "models" / "gpt2"
WORDS = "? the cat dog cow sees and a in is big small red".split()
CLEAN, CORRUPTED = "the cat sees the<predict> dog</predict>", "the cow sees the"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    made = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="?"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return made


def line(**fields) -> bytes:
    return json.dumps({"clean": CLEAN, "corrupted": CORRUPTED} | fields).encode() + b"\n"


def without(name: str) -> bytes:
    return json.dumps({k: v for k, v in json.loads(line()).items() if k != name}).encode()


@pytest.fixture
def make(tmp_path, tokenizer):
    def run(*lines: bytes, split="train", n=100, seed=0):
        path = tmp_path / "mine.jsonl"
        path.write_bytes(b"".join(lines))
        return make_task(str(path), tokenizer, split=split, n=n, seed=seed)

    return run


def test_a_file_becomes_a_batch(make):
    made = make(line(split="train", wrong=" cow"), b"\n", line(split="test"))
    np.testing.assert_array_equal(made.batch.tokens, [[1, 2, 5, 1]])
    np.testing.assert_array_equal(made.batch.corrupted, [[1, 4, 5, 1]])
    np.testing.assert_array_equal(made.batch.targets, [[3]])
    np.testing.assert_array_equal(made.batch.foils, [[4]])
    other = make(line(split="train"), line(corrupted=f"{CORRUPTED}<predict> a</predict>",
                                            split="test"), split="test")  # fmt: skip
    np.testing.assert_array_equal(other.batch.corrupted, [[1, 4, 5, 1]])
    np.testing.assert_array_equal(other.batch.foils, [[-1]])


def test_lines_without_a_split_fall_to_one_split_each(make):
    lines = [line(clean=f"the{' and' * i} cat<predict> dog</predict>",
                  corrupted=f"the{' and' * i} cow") for i in range(20)]  # fmt: skip
    lengths = [make(*lines, split=split).batch.valid.sum(1).tolist() for split in SPLITS]
    assert sorted(sum(lengths, [])) == list(range(2, 22))
    assert len(lengths[0]) == 12 and len(lengths[2]) == 5
    few = make(*lines, n=4, seed=1).batch.valid.sum(1).tolist()
    assert len(few) == 4 and set(few) < set(lengths[0])
    assert few == make(*lines, n=4, seed=1).batch.valid.sum(1).tolist()


def test_lines_with_one_prompt_fall_to_one_split(make):
    lines = [line(clean=f"the{' and' * i} cat<predict> dog</predict>",
                  corrupted=f"the{' and' * i} {other}")
             for i in range(20) for other in ("cow", "dog", "red")]  # fmt: skip
    found = [make(*lines, split=split).batch.valid.sum(1).tolist() for split in SPLITS]
    for lengths in found:
        assert sorted(lengths) == sorted(3 * list(set(lengths)))
    assert sorted(sum(found, [])) == sorted(3 * list(range(2, 22)))


def test_pairs_that_do_not_line_up_are_left_out_and_named(make):
    made = make(line(split="train"), line(corrupted="the cow", split="train"))
    assert len(made.batch) == 1 and made.left_out == 1
    assert "4 tokens, its corrupted twin 2" in made.example and "line 2" in made.example


def test_a_split_that_no_line_has_is_refused(make):
    with pytest.raises(ValueError, match="no line belongs to the test split: .* of train"):
        make(line(split="train"), split="test")


HUGE = line(wrong="x" * LONGEST)
DEEP = b'{"clean": ' + b"[" * 100_000
# What is in the file, the line that is to be named, and a word of the remedy.
BAD = {
    "empty": (b"", 1, "one JSON object"),
    "blank lines only": (b"\n \n\t\n", 1, "one JSON object"),
    "words": (b"the cat\n", 1, "one object on one line"),
    "cut off": (line()[:-5], 1, "one object on one line"),
    "second line cut off": (line() + line()[:9], 2, "one object on one line"),
    "single quotes": (b"{'clean': 'a'}", 1, "one object on one line"),
    "trailing comma": (line()[:-2] + b",}\n", 1, "one object on one line"),
    "two objects on a line": (line().strip() + line(), 1, "one object on one line"),
    "object over several lines": (json.dumps(json.loads(line()), indent=1).encode(), 1, "one line"),
    "comment": (b"# mine\n" + line(), 1, "one object on one line"),
    "line break in a string": (line().replace(b"cat", b"c\nat"), 1, "one object on one line"),
    "a list of pairs": (b"[" + line().strip() + b"]", 1, "write {...}"),
    "a string": (b'"the cat"\n', 1, "write {...}"),
    "a number": (b"12\n", 1, "write {...}"),
    "null": (line() + b"null\n", 2, "write {...}"),
    "not a number": (b"NaN\n", 1, "write {...}"),
    "nested deeply": (DEEP, 1, "one"),
    "no clean": (without("clean"), 1, "`clean` is missing: add it"),
    "no corrupted": (line() + without("corrupted"), 2, "`corrupted` is missing: add it"),
    "misspelt field": (line(corrupt="a"), 1, "the fields are clean, corrupted, wrong, split"),
    "field twice": (line()[:-2] + b', "clean": "a"}', 1, "keep one"),
    "clean is a number": (line(clean=3), 1, "write a string"),
    "clean is a huge number": (line().replace(b'"the cow sees the"', b"9" * 9999), 1, "a string"),
    "corrupted is null": (line(corrupted=None), 1, "write a string"),
    "corrupted is a list": (line(corrupted=["a"]), 1, "write a string"),
    "wrong is a boolean": (line(wrong=False), 1, "write a string"),
    "wrong is an object": (line(wrong={}), 1, "write a string"),
    "clean is empty": (line(clean=""), 1, "write text"),
    "corrupted is empty": (line(corrupted=""), 1, "write text"),
    "wrong is empty": (line(wrong=""), 1, "write text"),
    "no span": (line(clean="the cat sees the dog"), 1, "mark one answer"),
    "two spans": (line(clean=CLEAN + CLEAN), 1, "mark one answer"),
    "span not closed": (line(clean="the cat<predict> dog"), 1, "mark one answer"),
    "span not opened": (line(clean="the cat dog</predict>"), 1, "mark one answer"),
    "span nested": (line(clean="a<predict><predict> dog</predict></predict>"), 1, "mark one"),
    "span turned round": (line(clean="a</predict> cat<predict> dog"), 1, "between them"),
    "span empty": (line(clean="the cat<predict></predict>"), 1, "write it between"),
    "text after the span": (line(clean=CLEAN + " and"), 1, "end it there"),
    "two spans in corrupted": (line(corrupted=CLEAN + CLEAN), 1, "`corrupted` has 2"),
    "text after corrupted's span": (line(corrupted=CLEAN + " and"), 1, "`corrupted` goes on"),
    "wrong is marked": (line(wrong="<predict> cow</predict>"), 1, "the wrong answer alone"),
    "wrong is right": (line(wrong=" dog"), 1, "write another"),
    "corrupted is clean": (line(corrupted="the cat sees the"), 1, "change it"),
    "unknown split": (line(split="dev"), 1, "train, validation, test"),
    "split in capitals": (line(split="Train"), 1, "train, validation, test"),
    "split is empty": (line(split=""), 1, "leave out"),
    "split is a number": (line(split=1), 1, "write a string"),
    "split on some lines": (line(split="train") + line(), 2, "every line or to none"),
    "split on later lines": (line() + b"\n" + line(split="train"), 3, "every line or to none"),
    "byte order mark": (b"\xef\xbb\xbf" + line(), 1, "without one"),
    "UTF-16": (line().decode().encode("utf-16"), 1, "UTF-8"),
    "UTF-16 without a mark": (line().decode().encode("utf-16-le"), 1, "UTF-8"),
    "Latin-1": (line().replace(b"cat", b"caf\xe9"), 1, "byte 19 is not UTF-8"),
    "binary": (bytes(range(256)), 1, "UTF-8"),
    "compressed": (b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xabV*.", 1, "UTF-8"),
    "half a surrogate pair": (line(wrong="\ud800"), 1, "the whole character"),
    "a line of 10 MB": (line() + b"x" * 10_000_000, 2, "shorten or split"),
    "a long JSON line": (HUGE, 1, "shorten or split"),
    "unequal lengths": (line(corrupted="the cow"), 1, "equally many"),
    "answer inside a word": (line(clean="the ca<predict>t</predict>"), 1, "answer"),
    "unknown answer": (line(clean="the cat<predict> zebra</predict>", corrupted="the cow"), 1,
                       "know the answer"),
}  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory, tokenizer) -> Path:
    folder = tmp_path_factory.mktemp("model") / "gpt2"
    shutil.copytree(MODEL, folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_file_is_one_line_of_complaint(kind, model, tmp_path, capsys):
    content, number, remedy = BAD[kind]
    path = tmp_path / "mine.jsonl"
    path.write_bytes(content)
    before = sorted(tmp_path.iterdir())
    arguments = ["--model", str(model), "--task", str(path), "--out", str(tmp_path / "run")]
    assert main(["prune", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and len(err) < 500, err
    assert str(path) in err and f"line {number}" in err and remedy in err, err
    assert sorted(tmp_path.iterdir()) == before


def test_what_is_no_file_is_refused(model, tmp_path, capsys):
    for path in (tmp_path / "none.jsonl", tmp_path):
        name = path if path.suffix else tmp_path / "folder.jsonl"
        if not path.suffix:
            name.mkdir()
        assert main(["prune", "--model", str(model), "--task", str(name), "--out", "x"]) == 2
        assert "is no file: give a .jsonl" in capsys.readouterr().err


plain = st.text(max_size=20).filter(
    lambda text: "<predict>" not in text and "</predict>" not in text
)
marks = st.lists(
    st.sampled_from(["<predict>", "</predict>", "a", " ", "<", "predict>"]), max_size=8
)


@settings(deadline=None)
@given(before=plain, answer=plain.filter(bool))
def test_a_span_is_read_back(before, answer):
    assert span(f"{before}<predict>{answer}</predict>") == (before, answer)


@settings(deadline=None)
@given(text=st.text() | marks.map("".join))
def test_any_text_is_a_span_or_refused(text):
    try:
        before, answer = span(text)
    except ValueError as error:
        assert "<predict>" in str(error) or "</predict>" in str(error)
        assert text.count("<predict>") != 1 or not text.endswith("</predict>") or (
            text.endswith("<predict></predict>") or text.count("</predict>") != 1
        )  # fmt: skip
    else:
        assert f"{before}<predict>{answer}</predict>" == text and answer


@settings(deadline=None)
@given(raw=st.binary(max_size=80) | st.text().map(str.encode))
def test_any_bytes_are_a_line_or_refused(raw):
    with pytest.raises(ValueError, match=".: ."):
        parse(raw)


@settings(deadline=None)
@given(value=st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists))
def test_fields_of_any_kind_are_strings_or_refused(value):
    try:
        found = parse(line(wrong=value))
    except ValueError as error:
        assert "`wrong`" in str(error)
    else:
        assert found.pair.foil == value


def test_reading_stops_at_the_first_bad_line(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_bytes(line() + b"{\n")
    lines = read(path)
    assert next(lines).number == 1
    with pytest.raises(ValueError, match="line 2"):
        next(lines)


def test_a_run_says_first_what_the_model_can_do(model, tmp_path, capsys, monkeypatch):
    path = tmp_path / "mine.jsonl"
    clean = "the cat sees the<predict> cow</predict>"
    path.write_bytes(line(clean=clean, split="train", wrong=" dog")
                     + line(split="train", corrupted="the"))  # fmt: skip
    no_test = ["--test-examples", "0"]

    def pruned_now(*_, **__):
        raise ValueError("pruning")

    monkeypatch.setattr("edgeprune_jax.cli.prune.run_pruning", pruned_now)
    arguments = ["--model", str(model), "--task", str(path), "--out", str(tmp_path / "run")]
    assert main(["prune", *arguments]) == 2
    assert "no line belongs to the test split" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert main(["prune", *arguments, *no_test]) == 2
    out, err = capsys.readouterr()
    assert "full model: logit difference -2" in out and "accuracy 0.000" in out
    notes = err.splitlines()
    assert len(notes) == 3 and notes[2] == "edgeprune: pruning"
    assert "1 of 2 train prompt pairs are left out" in notes[0] and "line 2" in notes[0]
    assert "the model prefers the right answer to the wrong one in 0% of prompts" in notes[1]
    said = json.loads((tmp_path / "run" / "run.json").read_text())["data"]
    assert (said["n_train"], said["left_out"]) == (1, 1)
