import hashlib

import pytest

from edgeprune_jax.models import stored
from edgeprune_jax.models.load import load_model


def test_the_digest_is_that_of_the_files_in_order(tmp_path):
    paths = [tmp_path / "a", tmp_path / "b"]
    for path, text in zip(paths, (b"left", b"right"), strict=True):
        path.write_bytes(text)
    assert stored.digest(paths) == "sha256:" + hashlib.sha256(b"leftright").hexdigest()


def test_a_folder_is_named_after_itself_and_digested(recorded):
    loaded = load_model(str(recorded / "gpt2"))
    weights = (recorded / "gpt2" / "model.safetensors").read_bytes()
    assert loaded.name == "gpt2"
    assert loaded.digest == "sha256:" + hashlib.sha256(weights).hexdigest()


@pytest.mark.parametrize("name", ["./absent", "/no/such/folder", "a/b/c", "~/absent-model"])
def test_an_absent_path_is_not_looked_for_on_the_hub(monkeypatch, name):
    monkeypatch.setattr("huggingface_hub.snapshot_download", None)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        load_model(name)


def test_an_absent_gguf_file_is_named():
    with pytest.raises(FileNotFoundError, match="absent.gguf does not exist"):
        load_model("absent.gguf")


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"a folder or a .gguf file: got .*model.onnx"):
        load_model(tmp_path / "model.onnx")


def test_a_folder_without_config_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="config.json does not exist"):
        load_model(tmp_path)


def test_an_unknown_dtype_is_refused(recorded):
    with pytest.raises(ValueError, match="dtype must be among float32, bfloat16, float16: got"):
        load_model(recorded / "gpt2", dtype="int8")


def test_a_name_is_fetched_from_the_hub_without_pickles(monkeypatch, recorded):
    asked = {}

    def fetch(name, *, allow_patterns):
        asked[name] = allow_patterns
        return str(recorded / "gpt2")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    loaded = load_model("someone/small")
    assert loaded.name == "someone/small"
    (patterns,) = asked.values()
    assert all(pattern.endswith((".json", ".safetensors")) for pattern in patterns)


def test_an_unreachable_hub_is_one_clear_error(monkeypatch):
    def fail(name, *, allow_patterns):
        raise ConnectionError("no network\nand a long story")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with pytest.raises(FileNotFoundError, match=r"gpt2-nowhere is no file.*\(no network\)"):
        load_model("gpt2-nowhere")
