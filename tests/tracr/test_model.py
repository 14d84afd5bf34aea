"""The Tracr family against the compiler's own model, and against files that do not fit."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import tracr_models
from edgeprune_jax.models import tracr
from edgeprune_jax.stream import plain_forward
from tracr_models.domain import full_domain
from tracr_models.entry import find_entry

HOME = Path(tracr_models.__file__).parent
COMMITTED = ("reverse", "xproportion")


@pytest.mark.parametrize("name", COMMITTED)
def test_the_stream_is_that_of_the_compilers_model(name):
    compile_module = pytest.importorskip("tracr_models.compile")
    program = find_entry(name)[1]
    loaded, batch = tracr.load(HOME / name), full_domain(HOME / name)
    # The compiler's code relies on the promotions that these tests otherwise forbid.
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        compiled = compile_module.compile_rasp_to_model(
            compile_module.build_expression(program.source), set(program.vocabulary),
            program.settings["max_seq_len"], compiler_bos="BOS",
        )  # fmt: skip
        theirs = compiled.forward(compiled.params, jnp.asarray(batch.tokens))
    stream = loaded.params._replace(unembedding=jnp.eye(loaded.params.tokens.shape[1]))
    ours = plain_forward(loaded.model, stream, jnp.asarray(batch.tokens))
    np.testing.assert_allclose(ours, theirs.transformer_output.output, atol=1e-5)
    logits = plain_forward(loaded.model, loaded.params, jnp.asarray(batch.tokens))
    answers = logits.argmax(-1) if name == "reverse" else logits[..., 0]
    np.testing.assert_allclose(answers, theirs.unembedded_output, atol=1e-5)


@pytest.mark.parametrize("name, edges", [("reverse", 94), ("xproportion", 32)])
def test_edges_are_those_of_the_paper(name, edges):
    assert tracr.load(HOME / name).graph.n_edges == edges


@pytest.mark.parametrize("name", COMMITTED)
def test_padding_never_changes_a_result(name):
    config, loaded = tracr.read_config(HOME / name), tracr.load(HOME / name)
    tokens = jnp.asarray(full_domain(HOME / name).tokens)
    wide = jnp.pad(
        tokens, ((0, 0), (0, config.max_seq_len + 1 - tokens.shape[1])),
        constant_values=config.pad,
    )  # fmt: skip
    assert wide.shape[1] > tokens.shape[1]
    short = plain_forward(loaded.model, loaded.params, tokens)
    long = plain_forward(loaded.model, loaded.params, wide, valid=wide != config.pad)
    np.testing.assert_allclose(long[:, : tokens.shape[1]], short, atol=1e-6)


def test_separate_inputs_are_those_of_a_shared_one():
    loaded = tracr.load(HOME / "reverse")
    block = loaded.params.blocks[3]
    x = jax.random.normal(jax.random.key(0), (2, 4, loaded.params.tokens.shape[1]))
    valid = jnp.array([[True] * 4, [True, True, True, False]])
    # A second head, to tell one input per head from one for all.
    twice = jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf]), block)
    twice = twice._replace(o_bias=block.o_bias + 1)
    shared = loaded.model.attend(twice, x[None], x[None], x[None], valid)
    each = loaded.model.attend(twice, *[jnp.stack([x, x])] * 3, valid)
    np.testing.assert_allclose(shared, each, atol=1e-6)
    alone = loaded.model.attend(block, x[None], x[None], x[None], valid)
    np.testing.assert_allclose(shared, jnp.concatenate([alone, alone]) + 0.5, atol=1e-5)


def test_a_causal_model_does_not_see_later_tokens():
    params = tracr.load(HOME / "reverse").params
    tokens = jnp.array([[3, 0, 1, 2], [3, 0, 1, 1]])
    for causal, same in ((True, True), (False, False)):
        logits = plain_forward(tracr.build(causal=causal), params, tokens)[:, :3]
        assert bool(jnp.allclose(logits[0], logits[1])) == same


def test_a_prompt_is_encoded_and_its_output_decoded():
    config, loaded = tracr.read_config(HOME / "reverse"), tracr.load(HOME / "reverse")
    tokens = jnp.array([config.encode([3, 1, 2])])
    logits = plain_forward(loaded.model, loaded.params, tokens)
    assert config.decode(logits[0, 1:]) == [2, 1, 3]
    number = tracr.read_config(HOME / "xproportion")
    assert number.decode(np.array([[0.5], [0.25]], np.float32)) == [0.5, 0.25]


@pytest.mark.parametrize(
    "symbols, message",
    [([1, 4], r"among \[1, 2, 3\]: got 4"), (["BOS"], "got 'BOS'"), ([1] * 6, "at most 5.*got 6")],
)
def test_what_a_program_cannot_read_is_refused(symbols, message):
    with pytest.raises(ValueError, match=message):
        tracr.read_config(HOME / "reverse").encode(symbols)


def test_a_prompt_longer_than_the_positions_is_refused():
    loaded = tracr.load(HOME / "reverse")
    with pytest.raises(ValueError, match="at most 6 tokens, BOS included: got 7"):
        plain_forward(loaded.model, loaded.params, jnp.zeros((1, 7), int))


def test_committed_folders_need_no_compiler():
    code = (
        "import sys; sys.modules['tracr'] = None\n"
        "from edgeprune_jax.models import tracr\n"
        "from tracr_models import domain, ground_truth, programs\n"
        f"for name in {COMMITTED}:\n"
        f"    folder = {str(HOME)!r} + '/' + name\n"
        "    print(len(domain.full_domain(folder)), len(ground_truth.load(folder)))\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.stdout.split() == ["27", "11", "256", "7"], run.stderr


@pytest.fixture
def broken(tmp_path):
    """A copy of `xproportion`, and functions that spoil its config and its weights."""
    folder = tmp_path / "xproportion"
    shutil.copytree(HOME / "xproportion", folder)

    def spoil(entries=None, tensors=None):
        if entries is not None:
            config = json.loads((folder / "config.json").read_text())
            (folder / "config.json").write_text(json.dumps({**config, **entries}))
        if tensors is not None:
            weights = {**load_file(folder / "model.safetensors"), **tensors}
            kept = {name: value for name, value in weights.items() if value is not None}
            save_file(kept, folder / "model.safetensors")
        return folder

    return spoil


@pytest.mark.parametrize(
    "entries, message",
    [
        ({"model_type": "llama"}, 'model_type must be "tracr"'),
        ({"layers": 0}, "layers must be an integer from 1 to .*: got 0"),
        ({"layers": True}, "layers must be .*: got True"),
        ({"layers": 10**12}, "layers must be .*: got 1000000000000"),
        ({"layers": 3}, "12 missing tensors: blocks.2"),
        ({"width": 15}, r"blocks.0.k has shape \(1, 7, 14\), expected \(1, 7, 15\)"),
        ({"causal": 1}, "causal must be true or false: got 1"),
        ({"vocabulary": "abc"}, "vocabulary must be a list of different symbols: got 'abc'"),
        ({"vocabulary": ["a", "a"]}, "vocabulary must be a list of different symbols"),
        ({"vocabulary": [{}, "a"]}, "must be no objects"),
        ({"bos": 6}, "bos must be a token id below 6: got 6"),
        ({"pad": 0}, "pad must be another token id below 6: got 0"),
        ({"outputs": []}, "outputs must be null or a list of different values"),
        ({"outputs": [0, 1]}, r"unembedding has shape \(14, 1\), expected \(14, 2\)"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(broken, entries, message):
    with pytest.raises(ValueError, match=message):
        tracr.load(broken(entries))


def test_weights_that_do_not_fit_are_refused(broken):
    missing = broken(tensors={"blocks.1.up": None})
    with pytest.raises(ValueError, match="1 missing tensors: blocks.1.up"):
        tracr.load(missing)
    wrong = broken(tensors={"blocks.1.up": np.zeros((14, 1), np.float32)})
    with pytest.raises(ValueError, match=r"blocks.1.up has shape \(14, 1\), expected \(1, 14\)"):
        tracr.load(wrong)
    infinite = broken(tensors={"blocks.1.up": np.full((1, 14), np.inf, np.float32)})
    with pytest.raises(ValueError, match="blocks.1.up has values that are not finite"):
        tracr.load(infinite)


@pytest.mark.parametrize("content", [b"", b"\xff" * 100, b"\x08" + bytes(7) + b"{}      "])
def test_files_that_are_no_weights_are_refused(broken, content):
    folder = broken()
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.safetensors"):
        tracr.load(folder)


@pytest.mark.parametrize("content", [b"", b"\xff", b"[]", b"{}", b"[" * 100_000])
def test_files_that_are_no_config_are_refused(broken, content):
    folder = broken()
    (folder / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"config\.json"):
        tracr.load(folder)
