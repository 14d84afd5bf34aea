"""A user's own task: a file with one JSON object a line.

    {"clean": "Paris is in<predict> France</predict>", "corrupted": "Rome is in", "wrong": " Italy"}

`clean` ends in its answer, between marks. `corrupted` is the prompt that the answer is exchanged
against; it may carry a marked answer of its own, which is not read. Optional are `wrong`, a wrong
answer, and `split`: train, validation or test, on every line or on none. Without it the clean
prompts are divided by a fixed draw, so that none is both pruned on and tested on (in the
reference's loader, the whole file is both).

A file is hostile until it has been read: every complaint names the file, the line and the remedy.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tokenizers import Tokenizer

from edgeprune_jax.tasks.alignment import Aligned, align
from edgeprune_jax.tasks.prompts import Pair
from edgeprune_jax.tasks.splits import SPLITS, Split, generator, portion

OPEN, CLOSE = "<predict>", "</predict>"
NEEDED, OPTIONAL = ("clean", "corrupted"), ("wrong", "split")
KINDS = {dict: "an object", list: "a list", str: "a string", float: "a number", bool: "a boolean",
         type(None): "null"}  # fmt: skip
LONGEST = 1_000_000  # bytes of a line
LARGEST = 2_000_000_000  # bytes of a file


class Line(NamedTuple):
    number: int
    pair: Pair
    split: str | None


def make_jsonl(path: Path, tokenizer: Tokenizer, *, split: Split, n: int, seed: int) -> Aligned:
    """Up to `n` pairs of a split, drawn by the seed where there are more.

    Raises `ValueError` naming the file and the line for whatever cannot be used; pairs that do
    not line up in this tokenizer are left out and counted, while any is left.
    """
    lines = choose(path, list(read(path)), split=split, n=n, seed=seed)
    numbers = [line.number for line in lines]
    try:
        return align((line.pair for line in lines), tokenizer, names=[f"line {i}" for i in numbers])
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def choose(path: Path, lines: list[Line], *, split: Split, n: int, seed: int) -> list[Line]:
    """The lines of a split, at most `n`, in the order of the file."""
    if n < 1:
        raise ValueError(f"ask for at least 1 example: got {n}")
    if lines[0].split is None:
        prompts = list(dict.fromkeys(_prompt(line) for line in lines))
        drawn = set(portion(prompts, split, at_least=0))
        chosen = [line for line in lines if _prompt(line) in drawn]
    else:
        chosen = [line for line in lines if line.split == split]
    if not chosen:
        has = sorted({line.split or "" for line in lines} - {""})
        raise ValueError(
            f"{path}: no line belongs to the {split} split: "
            + (f"the lines are of {', '.join(has)}" if has else "add lines, or a `split` to each")
        )
    if len(chosen) > n:
        kept = sorted(generator(seed, split).choice(len(chosen), n, replace=False).tolist())
        chosen = [chosen[i] for i in kept]
    return chosen


def _prompt(line: Line) -> str:
    return line.pair.clean[0]


def read(path: Path) -> Iterator[Line]:
    """The lines of a file, checked; empty ones are passed over."""
    require_readable(path)
    first: Line | None = None
    with path.open("rb") as file:
        number = 0
        while raw := file.readline(LONGEST + 1):
            number += 1
            where = f"{path}, line {number}"
            if len(raw) > LONGEST:
                raise ValueError(f"{where}: longer than {LONGEST} bytes: shorten or split the line")
            if not raw.strip():
                continue
            try:
                line = parse(raw)
            except ValueError as error:
                raise ValueError(f"{where}: {error}") from None
            line = line._replace(number=number)
            if first is not None and (line.split is None) != (first.split is None):
                has, lacks = sorted((line, first), key=lambda one: one.split is None)
                raise ValueError(
                    f"{where}: line {has.number} has a `split`, line {lacks.number} has none: "
                    "give one to every line or to none"
                )
            first = first or line
            yield line
    if first is None:
        raise ValueError(f"{path}, line 1: the file is empty: write one JSON object a line")


def require_readable(path: Path) -> None:
    """Raises `ValueError` for what is no file, or too large a one, before it is opened."""
    if not path.is_file():
        raise ValueError(f"{path} is no file: give a .jsonl file of prompt pairs")
    if (size := path.stat().st_size) > LARGEST:
        raise ValueError(f"{path} has {size} bytes, the most is {LARGEST}: split it")


def parse(raw: bytes) -> Line:
    """One line of a file, without its number. Raises `ValueError` saying what to mend."""
    if raw.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        raise ValueError("begins with a byte order mark: save the file as UTF-8 without one")
    if b"\0" in raw:
        raise ValueError("holds a zero byte, so is no text: save the file as UTF-8")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start + 1} is not UTF-8: save the file as UTF-8") from None
    try:
        found = json.loads(text, object_pairs_hook=_no_repeats, parse_int=float)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"column {error.colno} is not JSON ({error.msg}): write one object on one line"
        ) from None
    except RecursionError:
        raise ValueError("nested too deeply: write one flat object") from None
    if not isinstance(found, dict):
        raise ValueError(f"{KINDS[type(found)]} is no object: write {{...}}")
    for name in NEEDED:
        if name not in found:
            raise ValueError(f"the field `{name}` is missing: add it")
    if unknown := sorted(found.keys() - {*NEEDED, *OPTIONAL}):
        raise ValueError(
            f"the field {unknown[0][:80]!r} is unknown: the fields are "
            f"{', '.join((*NEEDED, *OPTIONAL))}"
        )
    for name, value in found.items():
        if not isinstance(value, str):
            raise ValueError(f"`{name}` is {KINDS[type(value)]}: write a string")
        if not value:
            raise ValueError(f"`{name}` is empty: write text, or leave out an optional field")
        if any("\ud800" <= c <= "\udfff" for c in value):
            raise ValueError(f"`{name}` holds half of a surrogate pair: write the whole character")
    split = found.get("split")
    if split is not None and split not in SPLITS:
        raise ValueError(f"`split` is {split[:80]!r}: write {', '.join(SPLITS)}")
    clean, answer = _field("clean", found["clean"])
    corrupted = found["corrupted"]
    if OPEN in corrupted or CLOSE in corrupted:
        corrupted, _ = _field("corrupted", corrupted)
    wrong = found.get("wrong")
    if wrong is not None and (OPEN in wrong or CLOSE in wrong):
        raise ValueError("`wrong` holds a mark: write the wrong answer alone")
    if wrong == answer:
        raise ValueError("`wrong` is the right answer: write another, or leave it out")
    if clean == corrupted:
        raise ValueError("`corrupted` is the clean prompt: change it")
    return Line(0, Pair((clean,), (corrupted,), answer, wrong), split)


def span(text: str) -> tuple[str, str]:
    """What stands before the marked answer, and the answer.

    Raises `ValueError` where there is not exactly one answer, at the end.
    """
    counts = text.count(OPEN), text.count(CLOSE)
    if counts != (1, 1):
        raise ValueError(
            f"has {counts[0]} {OPEN} and {counts[1]} {CLOSE}: mark one answer with one of each"
        )
    before, _, rest = text.partition(OPEN)
    answer, close, after = rest.partition(CLOSE)
    if not close:
        raise ValueError(f"has {CLOSE} ahead of {OPEN}: put the answer between them")
    if after:
        raise ValueError(f"goes on after {CLOSE}, which no causal model reads: end it there")
    if not answer:
        raise ValueError(f"marks an empty answer: write it between {OPEN} and {CLOSE}")
    return before, answer


def _field(name: str, text: str) -> tuple[str, str]:
    try:
        return span(text)
    except ValueError as error:
        raise ValueError(f"`{name}` {error}") from None


def _no_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the field {twice[:80]!r} comes twice: keep one")
    return found
