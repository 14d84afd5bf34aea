import json
import shutil

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from edgeprune_jax.models import huggingface
from edgeprune_jax.models.huggingface_config import gpt2_config, llama_config
from edgeprune_jax.models.load import load_model


def same(a, b):
    return jax.tree.all(jax.tree.map(lambda x, y: bool((x == y).all()), a, b))


@pytest.fixture
def sharded(recorded, tmp_path):
    """A checkpoint in two files and an index."""
    folder = tmp_path / "sharded"
    shutil.copytree(recorded / "llama_mha", folder)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    where = {}
    for number, part in enumerate((names[:7], names[7:]), start=1):
        file = f"model-{number:05}-of-00002.safetensors"
        save_file({name: weights[name] for name in part}, folder / file)
        where |= dict.fromkeys(part, file)
    (folder / huggingface.INDEX).write_text(json.dumps({"weight_map": where}))
    return folder


def reindex(folder, **changes):
    path = folder / huggingface.INDEX
    where = json.loads(path.read_text())["weight_map"]
    path.write_text(json.dumps({"weight_map": where | changes}))


def test_a_sharded_checkpoint_equals_the_single_file(recorded, sharded):
    single, split = load_model(recorded / "llama_mha"), load_model(sharded)
    assert same(single.params, split.params)
    assert single.digest != split.digest
    assert split.digest == load_model(sharded).digest


@pytest.mark.parametrize(
    "file",
    ["../llama_mha/model.safetensors", "/etc/passwd", "sub/x", "..", "..\\x", "", 3, None],
)
def test_an_index_cannot_point_out_of_its_folder(sharded, file):
    reindex(sharded, **{"lm_head.weight": file})
    with pytest.raises(ValueError, match=r"index.json: weight_map must hold file names"):
        load_model(sharded)


def test_an_index_of_absent_files_is_refused(sharded):
    reindex(sharded, **{"lm_head.weight": "absent.safetensors"})
    with pytest.raises(FileNotFoundError, match="named in model.safetensors.index.json"):
        load_model(sharded)


def test_an_index_without_files_is_refused(sharded):
    (sharded / huggingface.INDEX).write_text('{"weight_map": []}')
    with pytest.raises(ValueError, match="index.json: weight_map must be an object"):
        load_model(sharded)


def test_a_tensor_in_two_files_is_refused(recorded, sharded):
    reindex(sharded, extra="other.safetensors")
    save_file({"lm_head.weight": np.zeros((48, 24), np.float32)}, sharded / "other.safetensors")
    with pytest.raises(ValueError, match="other.safetensors: lm_head.weight is also in another"):
        load_model(sharded)


Q = "model.layers.1.self_attn.q_proj.weight"


@pytest.mark.parametrize(
    "tensors, message",
    [
        ({Q: None}, f"1 missing tensors: {Q}"),
        ({"model.layers.0.extra": np.ones(3)}, "1 unexpected tensors: model.layers.0.extra"),
        ({Q: np.ones((24, 23))}, rf"{Q} has shape \(24, 23\), expected \(24, 24\)"),
        ({Q: np.full((24, 24), np.nan)}, f"{Q} has values that are not finite in float32"),
        ({Q: np.full((24, 24), 1e39)}, f"{Q} has values that are not finite in float32"),
        ({Q: np.ones((24, 24), np.int8)}, f"{Q} must be of type .*: got I8"),
    ],
)
def test_weights_that_do_not_fit_are_refused(edit, tensors, message):
    folder = edit("llama_mha", tensors=tensors)
    with pytest.raises(ValueError, match=f"llama_mha.*{message}"):
        load_model(folder)


def test_all_problems_of_the_weights_are_reported_at_once(edit):
    tensors = {Q: None, "model.norm.weight": np.ones(5), "surplus": np.ones(1)}
    with pytest.raises(ValueError, match="1 missing.*1 unexpected.*model.norm.weight has shape"):
        load_model(edit("llama_mha", tensors=tensors))


def test_weights_too_large_for_the_chosen_dtype_are_refused(edit):
    folder = edit("llama_mha", tensors={Q: np.full((24, 24), 1e6, np.float32)})
    load_model(folder)
    with pytest.raises(ValueError, match="not finite in float16"):
        load_model(folder, dtype="float16")


def test_bfloat16_files_are_read(recorded, edit):
    weights = load_file(recorded / "gpt2" / "model.safetensors")
    half = {name: weight.astype(ml_dtypes.bfloat16) for name, weight in weights.items()}
    rounded = {name: weight.astype(np.float32) for name, weight in half.items()}
    from_half = load_model(edit("gpt2", tensors=half)).params
    assert same(from_half, load_model(edit("gpt2", tensors=rounded)).params)


@pytest.mark.parametrize("name, prefix", [("gpt2", "transformer."), ("llama_gqa_tied", "model.")])
def test_names_may_lack_the_prefix_and_files_may_hold_constants(recorded, edit, name, prefix):
    weights = load_file(recorded / name / "model.safetensors")
    bare = {full.removeprefix(prefix): weight for full, weight in weights.items()}
    bare |= dict.fromkeys(weights)
    bare |= {"h.0.attn.bias": np.ones((1, 1, 16, 16)), "lm_head.weight": np.ones((48, 24))}
    assert same(load_model(recorded / name).params, load_model(edit(name, tensors=bare)).params)


def test_damaged_weights_are_refused(edit):
    folder = edit("llama_mha")
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    for damaged in (whole[:-9], whole[:100], b"", b"\xff" * 64):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="model.safetensors is not a readable safetensors"):
            load_model(folder)


@pytest.mark.parametrize("pickle", ["pytorch_model.bin", "model.pt"])
def test_pickles_are_never_opened(edit, pickle):
    folder = edit("llama_mha")
    (folder / "model.safetensors").rename(folder / pickle)
    with pytest.raises(ValueError, match=rf"{pickle} is a pickle.*save_pretrained"):
        load_model(folder)


def test_a_folder_without_weights_is_refused(edit):
    folder = edit("llama_mha")
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="has neither model.safetensors nor"):
        load_model(folder)


@pytest.mark.parametrize(
    "text, message",
    [
        ("{", "is not JSON"),
        ("[1]", "must hold a JSON object: got list"),
        ("[" * 100_000, "is not JSON"),
        ("{}", "model_type must be among llama, .*: got None"),
        ('{"model_type": ["llama"]}', r"got \['llama'\]"),
        ('{"model_type": "mixtral"}', "got 'mixtral'"),
        ('{"model_type": "llama"}', "num_attention_heads must be an integer in .*: got None"),
    ],
)
def test_a_config_that_is_none_is_refused(tmp_path, text, message):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=f"config.json:? .*{message}"):
        load_model(tmp_path)


def test_a_file_that_is_not_text_is_refused(tmp_path):
    (tmp_path / "config.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="config.json is not JSON"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    "name, settings, message",
    [
        ("llama_mha", {"hidden_act": "gelu"}, "hidden_act must be 'silu': got 'gelu'"),
        ("llama_mha", {"mlp_bias": True}, "not supported: mlp_bias = True"),
        ("llama_mha", {"num_local_experts": 8}, "not supported: num_local_experts = 8"),
        ("llama_mha", {"quantization_config": {"bits": 4}}, "not supported: quantization_config"),
        ("llama_mha", {"num_attention_heads": "4"}, "num_attention_heads must be an integer"),
        ("llama_mha", {"num_key_value_heads": 3}, "heads must be a multiple of kv_heads"),
        ("llama_mha", {"num_hidden_layers": 10**7}, "layers, but only 21 tensors"),
        ("llama_mha", {"head_dim": 10**12}, "head_dim must be an integer in"),
        ("llama_mha", {"rms_norm_eps": float("nan")}, "rms_norm_eps must be a positive number"),
        ("llama_mha", {"tie_word_embeddings": 1}, "tie_word_embeddings must be true or false"),
        ("llama_mha", {"rope_parameters": [1]}, "rope_parameters must be an object"),
        (
            "llama_mha",
            {"rope_parameters": {"rope_type": "yarn", "factor": 2.0}},
            "rope_type must be default, linear or llama3: got 'yarn'",
        ),
        (
            "llama_mha",
            {"rope_parameters": {"partial_rotary_factor": 0.5}},
            "partial_rotary_factor other than 1",
        ),
        ("mistral_wide_heads", {"attention_bias": True}, "not supported: attention_bias"),
        ("mistral_wide_heads", {"layer_types": ["chunked_attention"]}, "'chunked_attention'"),
        ("qwen2", {"layer_types": 7}, "layer_types must be a list: got 7"),
        ("gpt2", {"activation_function": "relu"}, "activation_function must be 'gelu_new'"),
        ("gpt2", {"scale_attn_weights": False}, "scale_attn_weights must be True: got False"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
        ("gpt2", {"n_head": 5}, "width must be a multiple of heads: got 24 and 5"),
    ],
)
def test_a_config_that_is_not_supported_is_refused_by_name(edit, name, settings, message):
    with pytest.raises(ValueError, match=rf"{name}.*{message}"):
        load_model(edit(name, settings=settings))


SMALL = {
    "model_type": "llama",
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "hidden_size": 32,
    "intermediate_size": 40,
    "vocab_size": 10,
}


def test_rope_settings_of_older_files_mean_the_same():
    new = {"rope_type": "linear", "factor": 2, "rope_theta": 500.0}
    old = {"rope_theta": 500.0, "rope_scaling": {"type": "linear", "factor": 2.0}}
    configs = [llama_config(SMALL | {"rope_parameters": new}), llama_config(SMALL | old)]
    assert configs[0] == configs[1]
    assert configs[0].rope_scaling == (2.0,) * 4
    assert llama_config(SMALL | {"rope_scaling": None}).rope_theta == 10_000


def test_a_window_counts_only_where_it_is_used():
    qwen = SMALL | {"model_type": "qwen2", "num_key_value_heads": 4, "sliding_window": 32}
    assert llama_config(qwen).window is None
    assert llama_config(qwen | {"use_sliding_window": True}).window == 32
    assert llama_config(qwen | {"layer_types": ["sliding_attention"]}).window == 32
    mistral = SMALL | {"model_type": "mistral", "num_key_value_heads": 4}
    assert llama_config(mistral).window == 4096
    assert llama_config(mistral | {"sliding_window": None}).window is None


def test_gpt2_small_as_published_is_understood():
    published = {
        "activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"],
        "attn_pdrop": 0.1, "bos_token_id": 50256, "embd_pdrop": 0.1, "eos_token_id": 50256,
        "initializer_range": 0.02, "layer_norm_epsilon": 1e-05, "model_type": "gpt2",
        "n_ctx": 1024, "n_embd": 768, "n_head": 12, "n_layer": 12, "n_positions": 1024,
        "resid_pdrop": 0.1, "summary_activation": None, "summary_first_dropout": 0.1,
        "summary_proj_to_labels": True, "summary_type": "cls_index", "summary_use_proj": True,
        "task_specific_params": {"text-generation": {"do_sample": True}}, "vocab_size": 50257,
    }  # fmt: skip
    config = gpt2_config(published)
    assert (config.layers, config.heads, config.width, config.hidden) == (12, 12, 768, 3072)


def test_a_tokenizer_is_optional_but_never_broken(edit):
    folder = edit("gpt2")
    assert load_model(folder).tokenizer is None
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match="tokenizer.json is not a tokenizer"):
        load_model(folder)
