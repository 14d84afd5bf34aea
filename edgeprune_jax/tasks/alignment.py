"""From text to tokens: prompt pairs that line up token by token, the others left out and counted.

Interchange swaps activations position by position, so a pair is only usable where both prompts
have their words at the same positions. The reference compares numbers of tokens; a name of two
tokens may then shift what follows it. Here every token is traced to the piece of text that it
ends in, and the two prompts must agree on that, token by token.

Axes: B examples, T tokens, A scored positions, C choices.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, islice
from typing import NamedTuple

import numpy as np
from jaxtyping import Int
from tokenizers import Encoding, Tokenizer

from edgeprune_jax.tasks.batch import Batch, check
from edgeprune_jax.tasks.prompts import Pair, single_tokens

AT_ONCE = 2048  # pairs tokenised together: encodings take far more memory than tokens


class Aligned(NamedTuple):
    """The pairs that a tokenizer can use, and what became of the others."""

    batch: Batch
    rows: Int[np.ndarray, " B"]  # which of the pairs given they are
    left_out: int
    example: str  # why the first that was left out was; empty where none was


class _Tokens(NamedTuple):
    ids: list[int]  # up to the answer's last token
    pieces: list[int]  # the piece of text in which each token ends
    first: int  # index of the answer's first token


class _Row(NamedTuple):
    tokens: list[int]  # of the prompt, and of the answer but its last token
    corrupted: list[int]
    targets: list[int]
    foils: list[int]


class _Unusable(Exception):
    """Why a pair cannot be used."""


def align(
    pairs: Iterable[Pair], tokenizer: Tokenizer, *, names: Sequence[str] | None = None
) -> Aligned:
    """Tokens of the pairs, right-padded with 0 to the longest; special tokens are the tokenizer's.

    Answers of several tokens are scored at each of them, after the right ones before it. A foil
    counts where it parts from the answer. Raises `ValueError` where no pair can be used, naming
    the first and its reason. `names` are what messages call the pairs, by default their numbers.
    """
    if tokenizer.padding or tokenizer.truncation:
        raise ValueError(
            "the tokenizer must neither pad nor truncate: call `no_padding()` and "
            f"`no_truncation()` first; got {tokenizer.padding=} and {tokenizer.truncation=}."
        )
    found: list[_Row] = []
    kept, pivots, total, example, choices = [], [], 0, "", None
    for chunk in _chunks(pairs):
        for pair, result in zip(chunk, _rows(chunk, tokenizer), strict=True):
            if isinstance(result, _Row):
                found.append(result)
                kept.append(total)
                pivots.append(pair.pivot)
                if choices is None and pair.choices:
                    choices = _choices(pair.choices, tokenizer)
            elif not example:
                name = f"pair {total + 1}" if names is None else names[total]
                example = f"{result}, as in {name}, {''.join(pair.clean)[-80:]!r}"
            total += 1
    if not found:
        raise ValueError(f"none of {total} prompt pairs can be used: {example or 'there is none'}")
    batch = _batch(found)
    if choices is not None:
        if not np.isin(batch.targets, choices).all():
            raise ValueError("an answer is none of its choices: a task must draw it from them")
        wide = np.broadcast_to(choices, (len(found), len(choices)))
        batch = Batch(**{**vars(batch), "choices": wide, "pivots": np.array(pivots, np.int32)})
    return Aligned(check(batch), np.array(kept), total - len(found), example)


def _chunks(pairs: Iterable[Pair]) -> Iterator[list[Pair]]:
    source = iter(pairs)
    while chunk := list(islice(source, AT_ONCE)):
        yield chunk


def _rows(pairs: Sequence[Pair], tokenizer: Tokenizer) -> Iterator[_Row | _Unusable]:
    clean, corrupted, foil = (
        tokenizer.encode_batch(["".join(prompt) + (answer or "") for prompt, answer in texts])
        for texts in (
            [(pair.clean, pair.answer) for pair in pairs],
            [(pair.corrupted, pair.answer) for pair in pairs],
            [(pair.clean, pair.foil) for pair in pairs],
        )
    )
    unknown = getattr(tokenizer.model, "unk_token", None)
    unknown = None if unknown is None else tokenizer.token_to_id(unknown)
    for pair, ours, twin, wrong in zip(pairs, clean, corrupted, foil, strict=True):
        try:
            yield _row(pair, ours, twin, wrong, unknown)
        except _Unusable as reason:
            yield reason


def _row(
    pair: Pair, clean: Encoding, corrupted: Encoding, foil: Encoding, unknown: int | None
) -> _Row:
    ours = _trace(clean, (*pair.clean, pair.answer))
    twin = _trace(corrupted, (*pair.corrupted, pair.answer))
    if len(ours.ids) != len(twin.ids):
        raise _Unusable(
            f"the prompt has {ours.first} tokens, its corrupted twin {twin.first}; "
            "they need equally many"
        )
    if ours.pieces != twin.pieces or ours.first != twin.first:
        raise _Unusable("the words of a prompt and its corrupted twin stand at other tokens")
    if ours.ids[: ours.first] == twin.ids[: twin.first]:
        raise _Unusable("the corrupted prompt is the prompt")
    answer, foils = ours.ids[ours.first :], [-1] * (len(ours.ids) - ours.first)
    if twin.ids[twin.first :] != answer:
        raise _Unusable("the answer has other tokens after the corrupted prompt")
    if pair.foil is not None:
        other = _trace(foil, (*pair.clean, pair.foil))
        wrong = other.ids[other.first :]
        if other.ids[: other.first] != ours.ids[: ours.first]:
            raise _Unusable("the wrong answer changes the tokens of the prompt")
        place = next(
            (i for i, (a, b) in enumerate(zip(answer, wrong, strict=False)) if a != b), None
        )
        if place is None:
            raise _Unusable("the wrong answer starts like the answer, or the other way round")
        foils[place] = wrong[place]
    if unknown is not None and unknown in (*answer, *foils):
        raise _Unusable("the tokenizer does not know the answer")
    return _Row(ours.ids[:-1], twin.ids[:-1], answer, foils)


def _trace(encoding: Encoding, pieces: tuple[str, ...]) -> _Tokens:
    """Tokens with the piece that each ends in; the last piece is the answer."""
    ends, answer = list(accumulate(map(len, pieces))), len(pieces) - 1
    where = [bisect_left(ends, end) for _, end in encoding.offsets]
    # What the tokenizer itself adds behind the text has offsets (0, 0), and is no part of it.
    if answer not in where:
        raise _Unusable("the answer has no tokens of its own")
    first, last = where.index(answer), len(where) - where[::-1].index(answer)
    if encoding.offsets[first][0] < ends[answer - 1]:
        raise _Unusable("the answer's first token begins inside the prompt")
    if first == 0:
        raise _Unusable("the answer needs a token before it")
    return _Tokens(encoding.ids[:last], where[:last], first)


def _choices(choices: Sequence[str], tokenizer: Tokenizer) -> Int[np.ndarray, " C"]:
    tokens = single_tokens(choices, tokenizer)
    if missing := [choice for choice in choices if choice not in tokens]:
        raise ValueError(f"choices must be one token each in this tokenizer: {missing[0]!r} is not")
    return np.array([tokens[choice] for choice in choices], np.int32)


def _batch(rows: Sequence[_Row]) -> Batch:
    lengths = np.array([len(row.tokens) for row in rows])
    scores = np.array([len(row.targets) for row in rows])

    def table(lists: Iterable[list[int]], lengths, padding: int) -> Int[np.ndarray, "B width"]:
        out = np.full((len(rows), lengths.max()), padding, np.int32)
        for row, entries in zip(out, lists, strict=True):
            row[: len(entries)] = entries
        return out

    order = np.arange(scores.max())
    scored = order < scores[:, None]
    positions = np.where(scored, (lengths - scores)[:, None] + order, 0).astype(np.int32)
    return Batch(
        tokens=table((row.tokens for row in rows), lengths, 0),
        corrupted=table((row.corrupted for row in rows), lengths, 0),
        valid=np.arange(lengths.max()) < lengths[:, None],
        positions=positions,
        scored=scored.astype(np.float32),
        targets=table((row.targets for row in rows), scores, -1),
        foils=table((row.foils for row in rows), scores, -1),
    )
