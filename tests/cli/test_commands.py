"""The commands do their work, resume it, and refuse bad input in one line."""

import dataclasses
import json
import re
import shutil
import xml.etree.ElementTree as ElementTree
from importlib import resources
from pathlib import Path

import jax
import numpy as np
import pytest
import tyro

from edgeprune_jax import circuit_json
from edgeprune_jax.cli.draw import Draw
from edgeprune_jax.cli.inputs import find_data, find_model
from edgeprune_jax.cli.main import COMMANDS
from edgeprune_jax.cli.prune import Prune, with_preset
from edgeprune_jax.report.run import training_curves
from edgeprune_jax.settings import ANYTIME, PAPER, PruneConfig
from edgeprune_jax.tasks.batch import take

TRUTH = Path(str(resources.files("tracr_models"))) / "xproportion" / "truth_zero_decoded.json"


def test_prune_leaves_a_folder_that_says_everything(pruned):
    names = {path.name for path in pruned.iterdir()}
    assert names == {
        "run.json", "metrics.jsonl", "gates.safetensors", "circuit.json", "evaluation.json",
        "scores.safetensors", "circuit.svg", "report.html",
    }  # fmt: skip
    circuit = circuit_json.load(pruned / "circuit.json")
    assert len(circuit) == 9
    said = circuit.provenance
    assert said["model"]["digest"].startswith("sha256:")
    assert said["sparsity"]["hard"] == pytest.approx(1 - 9 / 32)
    assert set(said["sparsity"]) == {"target", "soft", "hard", "reachable"}
    assert said["settings"]["steps"] == 60 and said["versions"]["jax"]
    steps = [json.loads(line)["step"] for line in (pruned / "metrics.jsonl").open()]
    assert steps == [10, 20, 30, 40, 50, 60]
    assert ElementTree.parse(pruned / "circuit.svg").getroot().tag.endswith("svg")
    rows = json.loads((pruned / "evaluation.json").read_text())
    assert rows["full"]["squared_error"] < 1e-8 < rows["empty"]["squared_error"]
    assert rows["edge pruning"]["edges"] == rows["EAP"]["edges"] == rows["random"]["edges"] == 9


def test_a_finished_run_is_not_run_again(pruned, answer):
    before = (pruned / "gates.safetensors").stat().st_mtime_ns
    code, result = answer(
        "prune", "--model", "xproportion", "--task", "domain", "--out", pruned, "--steps", "60",
        "--ablation", "zero", "--divergence", "squared", "--edges", "7", "--gate-rate", "0.1",
        "--multiplier-rate", "0", "--price", "0.002", "--random-circuits", "0",
    )  # fmt: skip
    assert code == 0 and result["edges"] == 7
    assert (pruned / "gates.safetensors").stat().st_mtime_ns == before


def test_a_growing_price_is_logged_and_drawn_in_place_of_a_target(answer, tmp_path):
    code, _ = answer(
        "prune", "--model", "xproportion", "--task", "domain", "--out", tmp_path / "run",
        "--steps", "20", "--ablation", "zero", "--divergence", "squared", "--edges", "7",
        "--control", "price", "--price", "0.001", "--last-price", "0.1", "--warmup", "20",
        "--own-masks", "--random-circuits", "0",
    )  # fmt: skip
    assert code == 0
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
    expected = [0.001 + 0.099 * step / 20 for step in (9, 19)]  # of the steps before
    assert [row["price"] for row in rows] == pytest.approx(expected)
    assert "target" not in rows[0]
    assert set(re.findall(r'id="axes_(\d)"', training_curves(rows))) == {"1", "2", "3"}
    assert (tmp_path / "run" / "report.html").exists()
    circuit = circuit_json.load(tmp_path / "run" / "circuit.json")
    assert circuit.provenance["sparsity"]["target"] is None


def test_another_run_in_the_same_folder_is_refused(pruned, call):
    code, out, err = call(
        "prune", "--model", "xproportion", "--task", "domain", "--out", pruned,
        "--divergence", "squared",
    )  # fmt: skip
    assert code == 2 and out == "" and err.count("\n") == 1
    assert "holds another run" in err and "settings" in err


def test_a_run_on_other_data_of_the_same_name_is_refused(pruned, call, monkeypatch):
    def changed(*arguments, **named):
        found = find_data(*arguments, **named)
        return found._replace(batch=take(found.batch, slice(None, None, -1)))

    monkeypatch.setattr("edgeprune_jax.cli.prune.find_data", changed)
    code, _, err = call(
        "prune", "--model", "xproportion", "--task", "domain", "--out", pruned, "--steps", "60",
        "--ablation", "zero", "--divergence", "squared", "--edges", "9", "--gate-rate", "0.1",
        "--multiplier-rate", "0", "--price", "0.002",
    )  # fmt: skip
    assert code == 2 and "holds another run (it differs in data)" in err


def test_evaluate_reproduces_the_truth_of_a_program(answer):
    code, result = answer("evaluate", TRUTH, "--random-circuits", "3")
    assert code == 0 and result["ablation"] == "zero" and result["examples"] == 256
    assert result["rows"][str(TRUTH)]["squared_error"] < 1e-8
    assert result["rows"]["best random"]["squared_error"] > 1e-3
    behind = result["details"][str(TRUTH)]
    assert behind["squared_error"]["interval"][1] < 1e-8 and behind["random"]["closer"] == 0
    assert [one["value"] < 1e-8 for one in behind["squared_error"]["worst"]] == [True] * 5


def test_compare_counts_what_is_shared(pruned, answer, tmp_path):
    path = pruned / "circuit.json"
    code, rows = answer("compare", path, TRUTH, "--intersection", tmp_path / "both.json")
    ours, truth = circuit_json.load(path), circuit_json.load(TRUTH)
    assert code == 0 and rows[0]["shared"] == len(set(ours) & set(truth))
    assert set(circuit_json.load(tmp_path / "both.json")) == set(ours) & set(truth)


def test_compare_says_how_stable_circuits_are_and_writes_their_consensus(pruned, call, tmp_path):
    path = pruned / "circuit.json"
    again = shutil.copy(TRUTH, tmp_path / "again.json")
    code, out, _ = call("compare", path, TRUTH, again, "--consensus", tmp_path / "most.json")
    assert code == 0 and "mean Jaccard index" in " ".join(out.split()) and "interval" in out
    assert circuit_json.load(tmp_path / "most.json") == circuit_json.load(TRUTH)


def test_draw_writes_a_picture_of_every_edge(answer, tmp_path):
    code, result = answer("draw", TRUTH, "--out", tmp_path / "truth.svg")
    assert code == 0 and result["drawn"] == 7


def test_check_tells_a_right_circuit_from_a_wrong_one(answer, tmp_path):
    code, result = answer("tracr", "xproportion", "--check", TRUTH)
    assert code == 0 and result == {"exact": True, "missing": [], "extra": []}
    wrong = json.loads(TRUTH.read_text())
    dropped = wrong["edges"].pop()
    (tmp_path / "wrong.json").write_text(json.dumps(wrong))
    code, result = answer("tracr", "xproportion", "--check", tmp_path / "wrong.json")
    assert code == 1 and result["missing"] == [dropped] and result["extra"] == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["prune"], "--out"),
        (["prune", "--out", "x", "--steps", "0"], "steps must be at least 1"),
        (["prune", "--out", "x", "--steps", "many"], "steps"),
        (["prune", "--out", "x", "--model", "nowhere/at/all"], "nowhere/at/all"),
        (["prune", "--out", "x", "--model", "reverse", "--task", "ioi"], "no tokenizer"),
        (["prune", "--out", "x", "--model", "reverse", "--task", "domain", "--edges", "95"], "94"),
        (["prune", "--out", "x", "--preset", "fastest"], "preset"),
        (
            ["prune", "--out", "x", "--model", "xproportion", "--task", "domain"],
            "one number is 0: use 'squared'",
        ),
        (["prune", "--out", "x", "--seed", "-1"], "seed must be from 0"),
        (["prune", "--out", "x", "--seed", str(10**23)], "seed must be from 0"),
        (
            ["prune", "--out", "x", "--model", "reverse", "--task", "domain", "--data-seed", "-1"],
            "--data-seed must be from 0",
        ),
        (["evaluate", "missing.json"], "missing.json"),
        (["evaluate"], "circuit"),
        (["compare", "missing.json"], "two circuit files"),
        (["draw", "missing.json"], "missing.json"),
        (["tracr", "sorting"], "sorting"),
        (["tracr", "--seeds", "0"], "seeds"),
        (["tracr", "sorting", "--seeds", "0"], "--seeds must be at least 1"),
        (["tracr", "sorting", "sort", "--check", "a.json"], "--check needs one program"),
        (["tracr", "json.tool:x"], "json.tool: AttributeError"),
        (["tracr", "reverse", "xproportion", "--check", "a.json"], "one program"),
        (["unknown"], "unknown"),
        ([], "prune"),
    ],
)
def test_bad_input_gives_one_line_and_code_2(arguments, words, call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = call(*arguments)
    assert code == 2 and out == "", err
    assert err.count("\n") == 1 and err.startswith("edgeprune: ") and words in err
    assert list(tmp_path.iterdir()) == [], "nothing may be written"


@pytest.mark.parametrize("command", ["prune", "evaluate", "compare", "draw", "tracr"])
def test_help_documents_every_flag(command, call):
    code, out, err = call(command, "--help")
    assert code == 0 and "--json" in out


def parsed(*arguments):
    return tyro.cli(Prune, args=with_preset(["prune", "--out", "x", *arguments])[1:])


@pytest.mark.parametrize(
    ("arguments", "preset"),
    [
        ([], PruneConfig()),
        (["--preset", "paper"], PAPER),
        (["--preset=paper"], PAPER),
        (["--preset", "anytime"], ANYTIME),
        (["--preset", "default", "--preset", "paper"], PAPER),
        (["--preset=default", "--preset", "paper"], PAPER),
        (["--preset", "default", "--preset=paper"], PAPER),
        (["--preset=paper", "--preset=default"], PruneConfig()),
    ],
)
def test_the_last_preset_counts_and_gives_way_to_what_is_given_beside_it(arguments, preset):
    assert parsed(*arguments).config == preset
    asked = {"steps": 500, "gate_rate": 0.25}
    for given in (["--steps", "500", "--gate-rate", "0.25"], ["--steps=500", "--gate-rate=0.25"]):
        for line in ([*arguments, *given], [*given, *arguments]):
            assert parsed(*line).config == dataclasses.replace(preset, **asked)


def test_a_dry_run_says_what_a_step_needs_and_writes_nothing(tmp_path, answer):
    out = tmp_path / "run"
    code, found = answer(
        "prune", "--out", str(out), "--model", "reverse", "--task", "domain",
        "--divergence", "squared", "--ablation", "zero", "--dry-run",
    )  # fmt: skip
    assert code == 0 and found["fits"] and not out.exists()
    assert found["seconds_per_step"] > 0
    assert found["largest_batch"] >= 8 and found["xla_temporary_bytes"] > 0


def test_a_dry_run_that_does_not_fit_runs_nothing_and_says_which_batch_would(answer, monkeypatch):
    monkeypatch.setattr("edgeprune_jax.cost.device_memory", lambda: 2_000_000)
    monkeypatch.setattr("edgeprune_jax.cli.dry_run._seconds", lambda *_: pytest.fail("it ran"))
    code, found = answer(
        "prune", "--out", "x", "--model", "reverse", "--task", "domain", "--batch-size", "64",
        "--ablation", "mean", "--samples", "4", "--estimator", "score", "--dry-run",
    )  # fmt: skip
    assert code == 0 and not found["fits"] and found["seconds"] is None
    assert found["largest_batch"] < 64 and found["flops"]["backward"] == 0


def test_programs_come_by_name_and_from_a_module_of_the_working_directory(
    tmp_path, monkeypatch, answer
):
    monkeypatch.setenv("EDGEPRUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_programs.py").write_text(
        "def first(rasp):\n"
        "    start = rasp.Select(rasp.indices, rasp.indices, lambda key, query: key == 0)\n"
        "    return rasp.Aggregate(start, rasp.tokens).named('first')\n"
        "PROGRAMS = {'first': (first, ['a', 'b'], 3)}\n"
    )
    code, rows = answer("tracr", "count", "own_programs:first", "--ablation", "interchange")
    assert [row["program"] for row in rows] == ["count", "own_programs:first"]
    for row in rows:
        assert row["ablation"] == "interchange" and row["criterion"] == "decoded"
        assert row["certified"] and row["edges"] == 13
        assert row["exact"] == (row["precision"] == row["recall"] == 1)
    assert code == (0 if all(row["exact"] for row in rows) else 1)


def test_a_circuit_of_another_ablation_differs_from_the_truth(answer):
    code, result = answer("tracr", "xproportion", "--check", TRUTH, "--ablation", "interchange")
    assert code == 1 and not result["exact"] and result["extra"]


@pytest.mark.parametrize("name", ["reverse", "xproportion", "mine"])
def test_the_domain_of_a_folder_is_its_own_whatever_it_is_called(name, tmp_path):
    folder = tmp_path / "some folder"
    shutil.copytree(TRUTH.parents[1] / "reverse", folder)
    config = json.loads((folder / "config.json").read_text())
    config["name"], config["domain"]["shortest"] = name, 1
    (folder / "config.json").write_text(json.dumps(config))
    data = find_data(find_model(str(folder)), "domain", split="test", n=5, seed=0).batch
    assert len(data) == 3 + 9 + 27
    assert sorted(np.unique(data.valid.sum(-1))) == [2, 3, 4]


def test_the_truth_of_a_program_that_must_be_compiled_is_evaluated(answer, tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEPRUNE_CACHE", str(tmp_path))
    truth = TRUTH.parents[1] / "hist" / TRUTH.name
    code, result = answer("evaluate", truth, "--random-circuits", "2")
    assert code == 0 and result["model"] == "hist" and result["task"] == "domain"
    assert result["rows"][str(truth)]["exact_match"] == 1 > result["rows"]["empty"]["exact_match"]


@pytest.mark.parametrize(
    ("stop", "code", "words"),
    [
        (KeyboardInterrupt(), 130, "goes on from the last checkpoint"),
        (MemoryError(), 2, "--dry-run"),
        (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory"), 2, "--dry-run"),
    ],
)
def test_a_stopped_run_says_in_one_line_what_to_do(stop, code, words, call, monkeypatch):
    def fail(_):
        raise stop

    for command, options in (("prune", ["--out", "x"]), ("draw", ["a.json"])):
        kind = {"prune": Prune, "draw": Draw}[command]
        monkeypatch.setitem(COMMANDS, kind, fail)
        got, out, err = call(command, *options)
        assert (got, out, err.count("\n")) == (code, "", 1)
        assert (words in err) == (command == "prune" or code == 2)
