import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from edgeprune_jax.tasks.prompts import fill, known, single_tokens

words = st.text("abc ,.", max_size=8)


@pytest.fixture
def tokenizer() -> Tokenizer:
    vocab = {word: i for i, word in enumerate(["<unk>", "the", "cat", "dog", "cow"])}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer


@given(fixed=st.tuples(words, words, words), slots=st.tuples(words, words))
def test_pieces_alternate_between_text_and_slots(fixed, slots):
    template = f"{fixed[0]}{{x}}{fixed[1]}{{y}}{fixed[2]}"
    pieces = fill(template, x=slots[0], y=slots[1])
    assert "".join(pieces) == template.format(x=slots[0], y=slots[1])
    assert pieces[1::2] == slots


def test_single_tokens_leaves_out_the_unknown_and_the_split(tokenizer):
    found = single_tokens([" cat", " zebra", " the cow", " dog"], tokenizer)
    assert found == {" cat": 2, " dog": 3}
    assert known(["cow", "zebra", "cat"], tokenizer) == ["cow", "cat"]
