"""Programs by name, and what is refused as one before anything is compiled."""

import pytest

from tracr_models import entry, store
from tracr_models.programs import PROGRAMS


def source(rasp):
    return rasp.tokens


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_program_is_an_entry(name):
    assert entry.find_entry(name) == (name, entry.Program(*PROGRAMS[name]))


def test_the_list_has_the_compilers_library():
    assert PROGRAMS.keys() > {
        "make_length", "hist", "reverse", "sort", "sort_unique", "sort_freq", "count",
        "count_less_freq", "frac_prevs", "pair_balance", "shuffle_dyck", "shuffle_dyck2",
        "nary_sequencemap",
    }  # fmt: skip


@pytest.mark.parametrize(
    "program, message",
    [
        ("tokens", r"must be \(function, vocabulary, longest\[, options\]\): got 'tokens'"),
        ((source, ["a"]), "an entry must be"),
        (("source", ["a"], 2), "an entry must be"),
        ((source, "ab", 2), "vocabulary must be a list of symbols: got 'ab'"),
        ((source, [], 2), "vocabulary must be a list"),
        ((source, [None, "a"], 2), "symbols must be text or numbers"),
        ((source, ["a"], 0), "longest must be an integer of at least 1: got 0"),
        ((source, ["a"], 2.5), "longest must be an integer of at least 1: got 2.5"),
        ((source, ["a"], 2, {"casual": True}), "options must be among .* got {'casual': True}"),
        ((source, ["a"], 2, {"causal": 1}), "causal must be true or false: got 1"),
        ((source, ["a"], 2, {"mlp_exactness": 0}), "mlp_exactness must be an integer"),
        ((source, ["a"], 4, {"shortest": 5}), "shortest <= longest .* got 5 and 4"),
        ((source, ["a"], 4, {"max_seq_len": 3}), "longest <= max_seq_len = 3"),
        ((source, ["a", "b"], 10**6), "max_seq_len must be at most 128: got 1000000"),
        ((source, ["a"], 2, {"max_seq_len": 10**9}), "max_seq_len must be at most 128"),
        ((source, list("abcdefgh"), 7), "1 to 1048576 prompts: got 2396744"),
    ],
)
def test_entries_that_make_no_sense_are_refused(program, message):
    with pytest.raises(ValueError, match=f"^mine: .*{message}"):
        entry.check("mine", program)


@pytest.mark.parametrize(
    "text, name, message",
    [
        (None, "nowhere:x", "nowhere: ModuleNotFoundError"),
        ("1 / 0", "broken:x", "broken: ZeroDivisionError: division by zero"),
        ("import sys; sys.exit(3)", "leaving:x", "leaving: SystemExit: 3"),
        ("", "blank:x", "blank: AttributeError: .* 'PROGRAMS'"),
        ("PROGRAMS = [1]", "listed:x", "listed.PROGRAMS must be a dictionary"),
        ("PROGRAMS = {'y': 1}", "other:x", "programs of other are y: got 'x'"),
        ("PROGRAMS = {'../y': (abs, ['a'], 2)}", "up:../y", "name must be letters"),
    ],
)
def test_modules_without_the_program_are_refused(text, name, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", ["", *__import__("sys").path])
    if text is not None:
        (tmp_path / f"{name.split(':')[0]}.py").write_text(text)
    with pytest.raises(ValueError, match=message):
        entry.find_entry(name)


def test_unknown_programs_are_refused(capsys):
    with pytest.raises(ValueError, match="programs are reverse, xproportion, .* got 'reserve'"):
        store.compiled("reserve")
    compiler = pytest.importorskip("tracr_models.compile")
    with pytest.raises(SystemExit):
        compiler.main(["reserve"])
    assert "programs are reverse, xproportion" in capsys.readouterr().err
