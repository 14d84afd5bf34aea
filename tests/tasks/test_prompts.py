import warnings

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from edgeprune_jax.tasks.prompts import Prompts, encode, single_tokens

VOCAB = ["<pad>", "<unk>", "<s>", "the", "cat", "dog", "cow", "sees", "and"]


@pytest.fixture
def words() -> Tokenizer:
    model = models.WordLevel({word: i for i, word in enumerate(VOCAB)}, unk_token="<unk>")
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer


def prompts(*pairs: tuple[str, str]) -> Prompts:
    """Pairs in which the cat is replaced, and the answer is a dog and no cow."""
    texts, corrupted = zip(*pairs, strict=True)
    n = len(pairs)
    return Prompts(list(texts), list(corrupted), [" dog"] * n, [" cow"] * n, [(" cat",)] * n)


GOOD = ("the cat sees the", "the cow sees the")


def test_encode_aligns_pads_and_scores_the_last_token(words):
    batch = encode(prompts(GOOD, ("cat sees", "cow sees")), words)
    np.testing.assert_array_equal(batch.tokens, [[3, 4, 7, 3], [4, 7, 0, 0]])
    np.testing.assert_array_equal(batch.corrupted, [[3, 6, 7, 3], [6, 7, 0, 0]])
    np.testing.assert_array_equal(batch.valid, [[1, 1, 1, 1], [1, 1, 0, 0]])
    np.testing.assert_array_equal(batch.positions, [[3], [1]])
    np.testing.assert_array_equal(batch.scored, [[1], [1]])
    np.testing.assert_array_equal(batch.targets, [[5], [5]])
    np.testing.assert_array_equal(batch.foils, [[6], [6]])
    assert batch.tokens.dtype == batch.positions.dtype == batch.targets.dtype == np.int32
    assert batch.scored.dtype == np.float32 and batch.valid.dtype == bool


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(("the cat sees", "the cow sees the and the"), id="other length"),
        pytest.param(("the cat sees the", "the cow and the"), id="another word differs"),
        pytest.param(("the cat sees the", "the cat sees the"), id="nothing differs"),
        pytest.param(("the cat sees the", "cow the sees the"), id="same words, other places"),
        pytest.param(("the cat and cat", "the cow and cat"), id="one of two is left"),
    ],
)
def test_misaligned_pairs_are_dropped_and_counted(words, bad):
    with pytest.warns(UserWarning, match="1 of 3 prompt pairs do not align") as caught:
        batch = encode(prompts(GOOD, bad, GOOD), words)
    assert repr(bad[0]) in str(caught[0].message)
    np.testing.assert_array_equal(batch.tokens, [[3, 4, 7, 3]] * 2)
    with pytest.raises(ValueError, match="2 of 2 .* none is left"):
        encode(prompts(bad, bad), words)


def test_padding_is_trimmed_to_the_longest_pair_that_is_kept(words):
    long = "the cat and the cat sees the"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        batch = encode(prompts(GOOD, (long, long)), words)
    assert batch.tokens.shape == (1, 4)


def test_special_tokens_are_the_tokenizers_own(words):
    words.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 2)]
    )
    batch = encode(prompts(GOOD), words)
    np.testing.assert_array_equal(batch.tokens, [[2, 3, 4, 7, 3]])
    np.testing.assert_array_equal(batch.positions, [[4]])
    np.testing.assert_array_equal(batch.targets, [[5]])


def test_single_tokens_leaves_out_the_unknown_and_the_split(words):
    found = single_tokens([" cat", " zebra", " the cow", " dog"], words)
    assert found == {" cat": 4, " dog": 5}


def test_encode_refuses_words_of_several_tokens(words):
    pair = prompts(GOOD)._replace(answers=[" the dog"])
    with pytest.raises(ValueError, match="' the dog'"):
        encode(pair, words)


@pytest.mark.parametrize("enable", ["enable_padding", "enable_truncation"])
def test_encode_refuses_a_tokenizer_that_pads_or_truncates(words, enable):
    getattr(words, enable)(**({"max_length": 2} if enable == "enable_truncation" else {}))
    with pytest.raises(ValueError, match="neither pad nor truncate"):
        encode(prompts(GOOD), words)
