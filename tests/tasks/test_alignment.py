"""Pairs line up for the tokenizer in use, or are left out and counted."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from edgeprune_jax.tasks.alignment import AT_ONCE, align
from edgeprune_jax.tasks.batch import check
from edgeprune_jax.tasks.prompts import Pair

VOCAB = ["<pad>", "<unk>", "<s>", "the", "cat", "dog", "cow", "sees", "and", "</s>"]


@pytest.fixture
def words() -> Tokenizer:
    model = models.WordLevel({word: i for i, word in enumerate(VOCAB)}, unk_token="<unk>")
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer


def pair(clean: str, corrupted: str, answer=" dog", foil: str | None = " cow") -> Pair:
    """Pieces are separated by bars."""
    return Pair(tuple(clean.split("|")), tuple(corrupted.split("|")), answer, foil)


GOOD = pair("the| cat| sees the", "the| cow| sees the")


def test_a_batch_is_padded_and_scores_the_answer(words):
    batch = align([GOOD, pair("cat| sees", "cow| sees")], words).batch
    np.testing.assert_array_equal(batch.tokens, [[3, 4, 7, 3], [4, 7, 0, 0]])
    np.testing.assert_array_equal(batch.corrupted, [[3, 6, 7, 3], [6, 7, 0, 0]])
    np.testing.assert_array_equal(batch.valid, [[1, 1, 1, 1], [1, 1, 0, 0]])
    np.testing.assert_array_equal(batch.positions, [[3], [1]])
    np.testing.assert_array_equal(batch.scored, [[1], [1]])
    np.testing.assert_array_equal(batch.targets, [[5], [5]])
    np.testing.assert_array_equal(batch.foils, [[6], [6]])
    assert batch.tokens.dtype == batch.positions.dtype == batch.targets.dtype == np.int32
    assert batch.scored.dtype == np.float32 and batch.valid.dtype == bool


def test_answers_of_several_tokens_are_scored_at_each(words):
    long = pair("the| cat| sees", "the| cow| sees", " the dog and", " the cow and")
    batch = align([GOOD, long], words).batch
    np.testing.assert_array_equal(batch.tokens, [[3, 4, 7, 3, 0], [3, 4, 7, 3, 5]])
    np.testing.assert_array_equal(batch.corrupted, [[3, 6, 7, 3, 0], [3, 6, 7, 3, 5]])
    np.testing.assert_array_equal(batch.positions[1], [2, 3, 4])
    np.testing.assert_array_equal(batch.scored, [[1, 0, 0], [1, 1, 1]])
    np.testing.assert_array_equal(batch.targets[1], [3, 5, 8])
    np.testing.assert_array_equal(batch.foils[1], [-1, 6, -1])  # where the answers part


@pytest.mark.parametrize(
    "bad, reason",
    [
        (pair("the| cat| sees", "the| cow| sees the and"), "3 tokens, its corrupted twin 5"),
        (pair("the| cat and| cat", "the| cow| and cow"), "stand at other tokens"),
        (pair("the| cat| sees", "the| cat| sees"), "the corrupted prompt is the prompt"),
        (pair("", "", " dog"), "needs a token before it"),
        (pair("the| cat", "the| cow", "dog"), "no tokens of its own|begins inside"),
        (pair("the| cat", "the| cow", ""), "no tokens of its own"),
        (pair("the| cat", "the| cow", " zebra"), "does not know the answer"),
        (pair("the| cat", "the| cow", " dog", " zebra"), "does not know the answer"),
        (pair("the| cat", "the| cow", " dog", " dog"), "starts like the answer"),
        (pair("the| cat", "the| cow", " dog", " dog and"), "starts like the answer"),
    ],
)
def test_what_does_not_line_up_is_left_out_and_counted(words, bad, reason):
    found = align([GOOD, bad, GOOD, bad], words)
    assert found.left_out == 2 and found.rows.tolist() == [0, 2]
    np.testing.assert_array_equal(found.batch.tokens, [[3, 4, 7, 3]] * 2)
    assert "as in pair 2" in found.example
    with pytest.raises(ValueError, match=f"none of 2 .*({reason}).* pair 1"):
        align([bad, bad], words)


def test_an_empty_task_is_refused(words):
    with pytest.raises(ValueError, match="none of 0 prompt pairs"):
        align([], words)


def test_padding_is_no_wider_than_the_longest_pair_that_is_kept(words):
    long = pair("the cat| and the cat sees the", "the cow|s and the cow sees the")
    assert align([GOOD, long], words).batch.tokens.shape == (1, 4)


def test_special_tokens_are_the_tokenizers_own(words):
    words.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 2), ("</s>", 9)]
    )
    batch = align([GOOD, pair("", "", " dog")], words).batch
    np.testing.assert_array_equal(batch.tokens, [[2, 3, 4, 7, 3]])  # the end is after the answer
    np.testing.assert_array_equal(batch.positions, [[4]])
    np.testing.assert_array_equal(batch.targets, [[5]])


def test_choices_are_tokens_in_the_place_of_the_answer(words):
    pairs = [GOOD._replace(choices=(" cow", " dog", " cat"), pivot=1)] * 2
    batch = align(pairs, words).batch
    np.testing.assert_array_equal(batch.choices, [[6, 5, 4]] * 2)
    np.testing.assert_array_equal(batch.pivots, [1, 1])
    with pytest.raises(ValueError, match="' the dog' is not"):
        align([GOOD._replace(choices=(" cow", " the dog"), pivot=1)], words)


def test_pairs_are_tokenised_in_pieces_and_keep_their_order(words):
    pairs = [GOOD, pair("cat| sees", "cow| sees")] * AT_ONCE
    batch = align(iter(pairs), words).batch
    assert len(batch) == 2 * AT_ONCE
    np.testing.assert_array_equal(batch.valid.sum(1), [4, 2] * AT_ONCE)


@pytest.mark.parametrize("enable", ["enable_padding", "enable_truncation"])
def test_a_tokenizer_that_pads_or_truncates_is_refused(words, enable):
    getattr(words, enable)(**({"max_length": 2} if enable == "enable_truncation" else {}))
    with pytest.raises(ValueError, match="neither pad nor truncate"):
        align([GOOD], words)


letters = st.text("ab c", min_size=0, max_size=6)


@st.composite
def tokenizers(draw) -> Tokenizer:
    """A tokenizer of a few letters with random merges, some of them across spaces."""
    vocab = {letter: i for i, letter in enumerate("ab c<")}
    merges = []
    for _ in range(draw(st.integers(0, 8))):
        tokens = sorted(token for token in vocab if token != "<")
        merge = draw(st.sampled_from(tokens)), draw(st.sampled_from(tokens))
        if "".join(merge) not in vocab:
            vocab["".join(merge)] = len(vocab)
            merges.append(merge)
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    if draw(st.booleans()):
        tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_next")
    if draw(st.booleans()):
        tokenizer.post_processor = processors.TemplateProcessing(
            single="< $A", special_tokens=[("<", vocab["<"])]
        )
    return tokenizer


@st.composite
def pairs(draw) -> Pair:
    count = draw(st.integers(1, 4))
    clean, corrupted = (tuple(draw(letters) for _ in range(count)) for _ in range(2))
    return Pair(clean, corrupted, draw(letters), draw(st.none() | letters))


@settings(deadline=None, max_examples=150)
@given(tokenizer=tokenizers(), drawn=st.lists(pairs(), min_size=1, max_size=12))
def test_whatever_the_tokenizer_kept_pairs_are_aligned_and_none_is_lost(tokenizer, drawn):
    try:
        found = align(drawn, tokenizer)
    except ValueError as error:
        assert "none of" in str(error)
        return
    batch = check(found.batch)
    assert len(batch) + found.left_out == len(drawn)
    assert bool(found.example) == bool(found.left_out)
    for row, index in enumerate(found.rows):
        clean, corrupted, answer, foil, *_ = drawn[index]
        length, answers = int(batch.valid[row].sum()), int(batch.scored[row].sum())
        start = length + 1 - answers
        ours, twin = batch.tokens[row][:length], batch.corrupted[row][:length]
        targets = batch.targets[row][:answers]
        # The tokens are those of the text, and decode to it; the answer is what follows.
        whole = tokenizer.encode("".join(clean) + answer)
        assert [*ours, targets[-1]] == whole.ids
        assert ours[start:].tolist() == twin[start:].tolist() == targets[:-1].tolist()
        assert "".join(whole.tokens[start:]) == answer
        assert "".join(tokenizer.encode("".join(corrupted) + answer).tokens[start:]) == answer
        assert ours.tolist() != twin.tolist()
        # Piece by piece both prompts have equally many tokens.
        assert ends(tokenizer, clean, answer) == ends(tokenizer, corrupted, answer)
        if foil is not None:
            parted = np.flatnonzero(batch.foils[row] >= 0)
            assert len(parted) == 1
            wrong = tokenizer.encode("".join(clean) + foil).ids[start:]
            assert batch.foils[row][parted[0]] == wrong[parted[0]] != targets[parted[0]]
            assert wrong[: parted[0]] == targets[: parted[0]].tolist()


def ends(tokenizer: Tokenizer, pieces: tuple[str, ...], answer: str) -> list[int]:
    """How many tokens end in each piece, counted character by character."""
    owner = [i for i, piece in enumerate((*pieces, answer)) for _ in piece]
    counts = [0] * (len(pieces) + 1)
    for token, (_, end) in zip(*_tokens(tokenizer, "".join(pieces) + answer), strict=True):
        if token != "<":
            counts[owner[end - 1]] += 1
    return counts


def _tokens(tokenizer, text):
    encoding = tokenizer.encode(text)
    return encoding.tokens, encoding.offsets
