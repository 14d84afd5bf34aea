"""Compilation: the same bytes every time, programs of users, and refusal of wrong weights."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tracr_models
from edgeprune_jax.models import tracr
from edgeprune_jax.stream import plain_forward
from tracr_models.domain import full_domain
from tracr_models.programs import PROGRAMS

HOME = Path(tracr_models.__file__).parent
compiler = pytest.importorskip("tracr_models.compile")


@pytest.fixture(autouse=True)
def promotion():
    """The compiler's code relies on the promotions that these tests otherwise forbid."""
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


@pytest.mark.parametrize("name", ["xproportion", "reverse"])
def test_committed_weights_are_what_the_compiler_makes(name, tmp_path, capsys):
    compiler.main([name, "--to", str(tmp_path)])
    assert capsys.readouterr().out.startswith(f"{name}: ")
    for file in ("config.json", "model.safetensors"):
        assert (tmp_path / name / file).read_bytes() == (HOME / name / file).read_bytes()


def previous_symbol():
    """A program as users write them: it imports RASP itself."""
    from tracr.rasp import rasp

    before = rasp.Select(rasp.indices, rasp.indices, lambda key, query: key == query - 1)
    return rasp.Aggregate(before, rasp.tokens).named("previous")


def test_a_users_program_compiles_and_scores_only_what_it_defines(tmp_path):
    entry = (previous_symbol, ["a", "b"], 3, {"causal": True, "max_seq_len": 4})
    compiler.compile_program("previous", entry, tmp_path)
    config, loaded, batch = (
        tracr.read_config(tmp_path), tracr.load(tmp_path), full_domain(tmp_path)
    )  # fmt: skip
    assert config.causal and len(batch) == 2 + 4 + 8
    # The first position has no predecessor, the others have where there is a token.
    np.testing.assert_array_equal(batch.scored[:, 0], 0)
    np.testing.assert_array_equal(batch.scored[:, 1:], batch.valid[:, 2:])
    tokens = jnp.array([config.encode(["b", "a", "a"])])
    logits = plain_forward(loaded.model, loaded.params, tokens)
    assert config.decode(logits[0, 2:]) == ["b", "a"]


def test_weights_that_disagree_with_the_interpreter_are_refused(tmp_path):
    def mean(rasp):  # the interpreter averages 1 and 2 to 1.5, for which there is no class
        everywhere = rasp.Select(rasp.indices, rasp.indices, rasp.Comparison.TRUE)
        return rasp.Aggregate(everywhere, rasp.tokens)

    with pytest.raises(ValueError, match=r"mean: of \[1, 2\] the interpreter makes \[1.5, 1.5\]"):
        compiler.compile_program("mean", (mean, [1, 2], 2), tmp_path / "mean")
    assert not (tmp_path / "mean").exists()


@pytest.mark.parametrize(
    "entry, message",
    [
        ((*PROGRAMS["hist"], {"casual": True}), "hist: options must be among .* got .'casual'"),
        ((*PROGRAMS["hist"], {"shortest": 5}), "shortest <= longest .* got 5 and 4"),
        ((*PROGRAMS["hist"], {"max_seq_len": 3}), "longest <= max_seq_len = 3"),
        ((PROGRAMS["hist"][0], ["a", "BOS"], 2), "must not be present in the vocab"),
        ((PROGRAMS["hist"][0], list("abcdefgh"), 7), "1 to 1048576 prompts: got 2396744"),
    ],
)
def test_entries_that_make_no_sense_are_refused(entry, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        compiler.compile_program("hist", entry, tmp_path)


def test_an_unknown_program_is_refused(capsys):
    with pytest.raises(SystemExit):
        compiler.main(["reserve"])
    assert "programs are reverse, xproportion" in capsys.readouterr().err


def test_a_source_compiles_alike_whatever_was_built_before():
    def labels():
        expression = compiler.build_expression(PROGRAMS["sort"][0])
        return [expression.label, *(child.label for child in expression.children)]

    first = labels()
    for _ in range(20):
        compiler.rasp.Map(abs, compiler.rasp.tokens).label  # noqa: B018, takes a number
    assert labels() == first
