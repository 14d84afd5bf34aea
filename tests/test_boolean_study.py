"""The case study runs end to end on a random Llama over two devices; its chance is right."""

import importlib
import json
import random
import re
import runpy
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from checks import LETTERS, save_letter_llama

from edgeprune_jax import circuit_json
from edgeprune_jax.circuits import Circuit
from edgeprune_jax.graph import Graph
from edgeprune_jax.tasks.make import TASKS

ROOT = Path(__file__).parents[1]
STYLES, NAMES = ("asked.jsonl", "bare.jsonl"), ("asked", "bare")


@pytest.fixture
def checkpoint(tmp_path):
    """A small Llama that knows words of one letter."""
    folder = tmp_path / "llama"
    save_letter_llama(folder)
    return folder


@pytest.fixture
def script(monkeypatch, tmp_path, checkpoint):
    """Runs the script with the settings of CodeLlama-13B, shortened, in an empty folder.

    The prompts are words of one letter, equally many in both styles: what is compiled serves both.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT / "experiments"))
    draw = random.Random(0)
    for style, opening in zip(STYLES, "xy", strict=True):
        lines = [
            {"clean": f"{opening} {a} {b}<predict> {a}</predict>", "wrong": f" {b}",
             "corrupted": f"{opening} {c} {b}", "split": split}
            for split in ("train", "test")
            for a, b, c in (draw.sample(LETTERS, 3) for _ in range(8))
        ]  # fmt: skip
        Path(style).write_text("".join(json.dumps(line) + "\n" for line in lines))
    short = [
        "--config.steps", "3", "--config.warmup", "2", "--config.batch-size", "4", "--edges", "9",
        "--examples", "8", "--test-examples", "6", "--test-batch", "4", "--random-circuits", "2",
    ]  # fmt: skip

    def run(*more, code=0):
        case = ["codellama-13b", "--model", checkpoint, "--mesh.model", "2", *short]
        case += ["--tasks", *STYLES, *more]
        monkeypatch.setattr(sys, "argv", ["experiments/boolean_codellama.py", *map(str, case)])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(ROOT / "experiments" / "boolean_codellama.py"), run_name="__main__")
        assert end.value.code == code
        return Path("experiments", "results", "boolean_codellama-13b")

    return run


def test_two_circuits_are_pruned_and_judged_on_both_styles_once(script, capsys):
    results = script()
    first, second = (circuit_json.load(results / f"{name}.json") for name in NAMES)
    record = json.loads((results / "study.json").read_text())
    assert list(record["judged"]) == list(NAMES)
    for one in record["judged"].values():
        rows = one["rows"]
        assert list(rows) == [*NAMES, "both", "full", "empty", "random", "best random"]
        assert [rows[name]["edges"] for name in NAMES] == [9, 9]
        assert rows["both"]["edges"] == len(first & second) == record["overlap"]["shared"]
        assert rows["full"]["exact_match"] == 1 and rows["full"]["kl"] == pytest.approx(0, abs=1e-4)
        assert rows["both"]["kl"] > 0 and one["data"]["n"] == 6
        assert one["details"]["both"]["kl"]["interval"]
    assert [record["judged"][name]["example"][0] for name in NAMES] == ["x", "y"]
    assert first.provenance["settings"]["target"] == 1.2  # the paper's
    page = (results / "README.md").read_text()
    assert len(re.findall("^\\| ", page, re.MULTILINE)) == 9 and "transfer.svg" in page
    assert "exact match" in (results / "transfer.svg").read_text()

    # As if killed before the second style was judged: the rest is not done again.
    del record["judged"][NAMES[1]]
    (results / "study.json").write_text(json.dumps(record))
    done = [path for path in results.glob("*.json*") if path.name != "study.json"]
    before = {path: path.stat().st_mtime_ns for path in done}
    script()
    assert len(done) == 4 and before == {path: path.stat().st_mtime_ns for path in done}
    again = json.loads((results / "study.json").read_text())["judged"]
    assert again[NAMES[0]] == record["judged"][NAMES[0]] and list(again) == list(NAMES)

    script("--lengths", "2", "2", code=2)
    said = "boolean_codellama: asked.jsonl has prompts of 3 tokens: 2 are planned for"
    assert said in capsys.readouterr().err


def test_the_configured_tasks_exist_and_the_settings_are_the_papers(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "experiments"))
    cases = importlib.import_module("boolean_codellama").CASES
    for _, case in cases.values():
        assert set(case.tasks) <= TASKS.keys()
    config = cases["codellama-13b"][1].config
    assert (config.steps, config.batch_size, config.warmup, config.target) == (6000, 32, 5500, 1.2)
    assert (config.gate_rate, config.multiplier_rate, config.node_target) == (0.8, 0.4, None)


def test_overlap_by_chance_is_counted_over_all_draws(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "experiments"))
    overlap = importlib.import_module("boolean_results").overlap
    graph = Graph(1, 1, 1, ("tok_embeds",))  # few enough edges to draw all circuits of a size
    n = graph.n_edges
    sizes, every = (3, 4), [set(kept) for kept in combinations(range(n), 4)]

    def circuit(kept):
        return Circuit(graph, np.isin(np.arange(n), list(kept)))

    shared = np.array([len({0, 1, 2} & kept) for kept in every])
    found = overlap(circuit({0, 1, 2}), circuit({1, 2, 3, 4}))
    assert (found["edges a"], found["edges b"], found["shared"]) == (*sizes, 2)
    assert found["by chance"] == pytest.approx(shared.mean())
    assert 10 ** found["log10 p"] == pytest.approx((shared >= 2).mean())
    low, high = found["interval by chance"]
    assert (shared < low).mean() <= 0.025 and (shared > high).mean() <= 0.025


def test_readers_that_keep_all_their_edges_share_them_for_sure(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "experiments"))
    overlap = importlib.import_module("boolean_results").overlap
    graph = Graph(2, 1, 1, ("tok_embeds",))
    starts = graph.row_starts
    kept = np.zeros(graph.n_edges, bool)
    kept[starts[-2] : starts[-1]] = True  # every edge into the last reader
    one = np.zeros(graph.n_edges, bool)
    one[starts[-2]] = True
    whole, part = Circuit(graph, kept), Circuit(graph, one)
    assert overlap(whole, part)["by chance, reader by reader"] == pytest.approx(1)
    assert overlap(part, part)["by chance, reader by reader"] == pytest.approx(1 / kept.sum())
