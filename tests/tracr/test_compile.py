"""Compilation: the same bytes every time, programs of users, and refusal of wrong weights."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tracr_models
from edgeprune_jax.models import tracr
from edgeprune_jax.stream import plain_forward
from tracr_models import entry, store
from tracr_models.domain import full_domain
from tracr_models.programs import PROGRAMS

HOME = Path(tracr_models.__file__).parent
compiler = pytest.importorskip("tracr_models.compile")


@pytest.fixture(autouse=True)
def promotion():
    """The compiler's code relies on the promotions that these tests otherwise forbid."""
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


def compile_entry(name, program, folder):
    compiler.compile_program(name, entry.check(name, program), folder)


def test_committed_weights_are_what_the_compiler_makes(tmp_path, capsys):
    compiler.main(["--to", str(tmp_path)])
    assert capsys.readouterr().out.startswith("reverse: ")
    for name in compiler.PAPER:
        for file in store.FILES:
            assert (tmp_path / name / file).read_bytes() == (HOME / name / file).read_bytes()


def previous_symbol():
    """A program as users write them: it imports RASP itself."""
    from tracr.rasp import rasp

    before = rasp.Select(rasp.indices, rasp.indices, lambda key, query: key == query - 1)
    return rasp.Aggregate(before, rasp.tokens).named("previous")


def test_a_users_program_compiles_and_scores_only_what_it_defines(tmp_path):
    program = (previous_symbol, ["a", "b"], 3, {"causal": True, "max_seq_len": 4})
    compile_entry("previous", program, tmp_path)
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


def mean(rasp):  # the interpreter averages 1 and 2 to 1.5, for which there is no class
    everywhere = rasp.Select(rasp.indices, rasp.indices, rasp.Comparison.TRUE)
    return rasp.Aggregate(everywhere, rasp.tokens)


def both_selectors(rasp):
    same = rasp.Select(rasp.tokens, rasp.tokens, rasp.Comparison.EQ)
    before = rasp.Select(rasp.indices, rasp.indices, rasp.Comparison.LT)
    return rasp.SelectorWidth(same & before)


def after_none(rasp):  # the first position has no symbol before it to compare with
    before = rasp.Select(rasp.indices, rasp.indices, lambda key, query: key == query - 1)
    symbol = rasp.Aggregate(before, rasp.tokens)
    return rasp.SelectorWidth(rasp.Select(symbol, rasp.tokens, rasp.Comparison.EQ))


@pytest.mark.parametrize(
    "source, message",
    [
        (mean, r"odd: of \[1, 2\] the interpreter makes \[1.5, 1.5\]"),
        (both_selectors, "odd does not compile: "),
        (after_none, "odd has no value for .1.: ValueError: key is None!"),
        (lambda rasp: rasp.tokens, "odd does not compile: "),
        (lambda: "tokens", "odd does not compile: TypeError: .* a RASP sequence: got 'tokens'"),
        (lambda: sys.exit("gone"), "odd does not compile: SystemExit: gone"),
        (lambda model: model, "odd does not compile: KeyError: 'model'"),
    ],
)
def test_programs_that_cannot_be_compiled_faithfully_are_refused(source, message, tmp_path):
    with pytest.raises(ValueError, match=message) as caught:
        compile_entry("odd", (source, [1, 2], 2), tmp_path / "odd")
    assert "\n" not in str(caught.value) and not (tmp_path / "odd").exists()


def test_weights_that_are_loaded_wrongly_are_refused(tmp_path, monkeypatch):
    def load(folder, load=tracr.load):
        loaded = load(folder)
        return loaded._replace(params=loaded.params._replace(positions=0 * loaded.params.positions))

    monkeypatch.setattr(tracr, "load", load)
    with pytest.raises(ValueError, match="mixture: loaded, its outputs are .* off the compiler's"):
        compile_entry("mixture", PROGRAMS["mixture"], tmp_path)


def test_a_source_compiles_alike_whatever_was_built_before():
    def labels():
        expression = compiler.build_expression(PROGRAMS["sort"][0])
        return [expression.label, *(child.label for child in expression.children)]

    first = labels()
    for _ in range(20):
        compiler.rasp.Map(abs, compiler.rasp.tokens).label  # noqa: B018, takes a number
    assert labels() == first


def test_a_users_module_is_found_compiled_and_kept_apart(tmp_path, monkeypatch):
    (tmp_path / "my_rasp.py").write_text(
        "from tracr.rasp import rasp\n\n"
        "def program():\n"
        "    return rasp.SequenceMap(lambda x, i: (x + i) % 2, rasp.tokens, rasp.indices)\n\n"
        "PROGRAMS = {'clock': (program, [0, 1], 2)}\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGEPRUNE_CACHE", str(tmp_path / "cache"))
    folder = store.compiled("my_rasp:clock")
    assert folder.parent == tmp_path / "cache" / "tracr"
    assert tracr.read_config(folder).name == "clock" and len(full_domain(folder)) == 2 + 4
    assert store.compiled("my_rasp:clock") == folder and store.compiled(str(folder)) == folder
    assert store.compiled("clock") != folder
    assert len(list(folder.parent.iterdir())) == 2, "a draft was left behind"
