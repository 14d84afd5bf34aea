"""The paper's experiments run: two steps each, on a random GPT-2 in the format of the hub."""

import importlib
import json
import re
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

from edgeprune_jax import circuit_json
from edgeprune_jax.circuits import Circuit
from edgeprune_jax.cli.main import main
from edgeprune_jax.models.load import load_model
from edgeprune_jax.tasks import gendered_pronoun, greater_than, words

ROOT = Path(__file__).parents[1]
MEASURES = {
    "ioi": ["kl", "logit_difference", "accuracy", "exact_match"],
    "greater_than": [
        "kl", "choice_kl", "probability_difference", "within_10_years", "kendall_tau", "accuracy",
        "exact_match",
    ],
    "gendered_pronoun": ["kl", "logit_difference", "accuracy", "exact_match"],
}  # fmt: skip


def texts(module):
    """All strings in a module's tuples."""
    for value in vars(module).values():
        if isinstance(value, tuple):
            yield from (text for text in value if isinstance(text, str))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A small GPT-2 that knows the tasks' words, years cut in two as GPT-2 cuts them."""
    folder = tmp_path_factory.mktemp("models") / "gpt2"
    shutil.copytree(ROOT / "tests" / "fixtures" / "models" / "gpt2", folder)
    split = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.Split(Regex(r"\d\d"), "isolated")]
    )
    known = [text for module in (words, greater_than, gendered_pronoun) for text in texts(module)]
    known += ["the year", "he she", *(f"{year:02}" for year in range(100))]
    found = dict.fromkeys(word for text in known for word, _ in split.pre_tokenize_str(text))
    tokenizer = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(["<unk>", *found])}, unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = split
    tokenizer.save(str(folder / "tokenizer.json"))

    config = json.loads((folder / "config.json").read_text())
    size, width = tokenizer.get_vocab_size(), config["n_embd"]
    config |= {"vocab_size": size, "n_positions": 64, "n_layer": 1}  # one compiles faster
    (folder / "config.json").write_text(json.dumps(config))
    weights = load_file(folder / "model.safetensors")
    weights = {name: weight for name, weight in weights.items() if ".h.1." not in name}
    rng = np.random.default_rng(0)
    weights["transformer.wte.weight"] = rng.normal(size=(size, width)).astype(np.float32)
    weights["transformer.wpe.weight"] = rng.normal(size=(64, width)).astype(np.float32)
    save_file(weights, folder / "model.safetensors")
    return folder


@pytest.fixture
def script(monkeypatch, tmp_path):
    """Runs a script of `experiments/` in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT / "experiments"))

    def run(name, *arguments):
        monkeypatch.setattr(sys, "argv", [f"experiments/{name}.py", *map(str, arguments)])
        runpy.run_path(str(ROOT / "experiments" / f"{name}.py"), run_name="__main__")

    return run


def run(script, name, checkpoint, *more):
    script(
        f"{name}_gpt2", "--model", checkpoint, "--targets", "0.9", "--config.steps", "2",
        "--config.warmup", "1", "--config.batch-size", "4", "--examples", "8",
        "--test-examples", "6", "--eap-examples", "4", "--random-circuits", "2", *more,
    )  # fmt: skip
    results = Path("experiments", "results", f"{name}_gpt2")
    records = {
        found["edges"]: found
        for path in results.glob("*.json")
        if "rows" in (found := json.loads(path.read_text()))
    }
    return results, records


@pytest.mark.parametrize("name", ["ioi", "greater_than"])
def test_a_paper_experiment_runs_with_the_papers_settings(name, checkpoint, script):
    results, records = run(script, name, checkpoint)
    ((edges, found),) = records.items()
    task = name.replace("_", "-")
    circuit = f"{task}-0.9-8-seed42"
    assert list(found["rows"]) == [circuit, "EAP", "full", "empty", "random", "best random"]
    assert list(found["rows"]["full"]) == ["edges", *MEASURES[name]]
    assert found["command"].startswith(f"python experiments/{name}_gpt2.py --model")
    assert found["hardware"]["cpus"] and found["date"] and found["task"] == task
    settings = circuit_json.load(results / f"{circuit}-{edges}.json").provenance["settings"]
    assert settings["gate_rate"] == 0.8 and settings["node_gates"] and settings["steps"] == 2
    assert "paper, GPT-2" in (results / f"{task}.svg").read_text()
    assert len(re.findall("^\\|", (results / f"{task}.md").read_text(), re.MULTILINE)) == 8


def test_one_run_gives_circuits_of_several_sizes_and_is_not_repeated(checkpoint, script):
    name, sizes = "gendered_pronoun", ("--sparsities", "0.5", "0.8")
    results, records = run(script, name, checkpoint, *sizes)
    assert len(records) == 2
    for edges, found in records.items():
        rows = found["rows"]
        assert list(rows["full"]) == ["edges", *MEASURES[name]]
        assert {rows[one]["edges"] for one in rows.keys() - {"full", "empty"}} == {edges}
        assert (results / f"gendered-pronoun-0.9-8-seed42-{edges}.json").is_file()
    before = {path: path.stat().st_mtime_ns for path in results.glob("*.json")}
    run(script, name, checkpoint, *sizes)
    assert before == {path: path.stat().st_mtime_ns for path in results.glob("*.json")}
    run(script, name, checkpoint, *sizes, "--random-circuits", "3")  # asked otherwise: again
    for edges in records:
        found = json.loads((results / f"gendered-pronoun-{edges}.json").read_text())
        assert found["random_circuits"] == 3


def test_runs_towards_several_targets_are_one_line_of_the_plot(script):
    sweep_results = importlib.import_module("sweep_results")
    runs = [f"ioi-{target}-8-seed{seed}" for target in (0.5, 0.95) for seed in (0, 1)]
    one_size = [{"rows": {name: {}}} for name in runs]
    assert sweep_results.lines(one_size, runs) == {
        f"ioi-8-seed{seed}": [f"ioi-{target}-8-seed{seed}" for target in (0.5, 0.95)]
        for seed in (0, 1)
    }
    several_sizes = [{"rows": dict.fromkeys(runs)}] * 3
    assert sweep_results.lines(several_sizes, runs) == {name: [name] for name in runs}


def no_constant(name):
    raise AssertionError(f"{name} is no JSON")


@pytest.mark.parametrize("task", ["gendered-pronoun", "greater-than"])
def test_a_circuit_of_a_language_model_is_judged_in_one_call(task, checkpoint, tmp_path, capsys):
    graph = load_model(str(checkpoint)).graph
    kept = np.zeros(graph.n_edges, bool)
    kept[:: graph.n_edges // 9] = True
    circuit_json.save(Circuit(graph, kept), tmp_path / "circuit.json")
    command = ["evaluate", str(tmp_path / "circuit.json"), "--model", str(checkpoint)]
    sizes = ["--task", task, "--examples", "6", "--random-circuits", "2", "--full", "--json"]
    assert main([*command, *sizes]) == 0
    found = json.loads(capsys.readouterr().out, parse_constant=no_constant)
    assert {"EAP", "full", "empty", "random"} < found["rows"].keys()
    judged = found["judged"]
    assert judged["minimality"]["edges"] == kept.sum()
    assert len(judged["minimality"]["one_by_one"]["edges"]) == kept.sum()
    assert judged["minimality"]["greedy"]["edges"] <= kept.sum()
    assert judged["completeness"]["without circuit"].keys() == found["rows"]["full"].keys() - {
        "edges"
    }
    for ordering in ("signed", "absolute"):
        assert judged["areas"][ordering]["faithfulness"][-1] == pytest.approx(1, abs=1e-4)
    assert judged["areas"]["signed"]["edges"] != judged["areas"]["absolute"]["edges"]
