"""A run is a folder: killed and started again, it ends as if nothing had happened."""

import dataclasses
import json
import signal
import subprocess
import sys
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from edgeprune_jax import run
from edgeprune_jax.circuits import reachable
from edgeprune_jax.gates import discretise, soft_mask
from edgeprune_jax.models import tracr
from edgeprune_jax.run import claim, discrete, run_pruning, worth_storing
from edgeprune_jax.settings import PruneConfig
from tracr_models.domain import full_domain

CONFIG = PruneConfig(
    steps=75, batch_size=4, warmup=40, node_gates=True, hard_share=0.5, seed=4
)  # remembers all that a run can
CHILD = """
import json, pathlib, sys, time
from edgeprune_jax.models import tracr
from edgeprune_jax.settings import PruneConfig
from edgeprune_jax.run import run_pruning
from tracr_models.domain import full_domain

def wait_for_the_end(row):
    if row["step"] == 70:
        while not (pathlib.Path(folder) / "checkpoints" / "50").exists():
            time.sleep(0.01)  # it is written while the run goes on
        print("now", flush=True)
        time.sleep(600)

program, folder, settings = sys.argv[1:]
config = PruneConfig(**json.loads(settings))
run_pruning(
    tracr.load(program), full_domain(program), config, pathlib.Path(folder),
    on_log=wait_for_the_end,
)
"""


PROGRAM = Path(str(resources.files("tracr_models"))) / "reverse"


@pytest.fixture(scope="module")
def inputs():
    """A model and data that another process can load too."""
    return tracr.load(PROGRAM), full_domain(PROGRAM)


def started(folder):
    claim(folder, {"model": "tiny"})
    return folder


@pytest.fixture(scope="module")
def uninterrupted(inputs, tmp_path_factory):
    """The folder and the gates of a run that nothing disturbed, and the rows that it logged."""
    folder, rows = started(tmp_path_factory.mktemp("run") / "whole"), []
    gates = run_pruning(*inputs, CONFIG, folder, on_log=rows.append)
    return folder, gates, rows


def logged(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def assert_same(folder, gates, uninterrupted):
    whole, expected, _ = uninterrupted
    np.testing.assert_array_equal(gates.values, expected.values)
    for name in ("metrics.jsonl", "gates.safetensors", "run.json"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes(), name
    assert not (folder / "checkpoints").exists()


def test_a_run_logs_every_tenth_step_and_the_last(uninterrupted, inputs):
    folder, gates, rows = uninterrupted
    assert [row["step"] for row in rows] == [10, 20, 30, 40, 50, 60, 70, 75]
    assert logged(folder) == rows
    assert {"divergence", "sparsity", "target"} <= rows[0].keys()
    assert rows[-1]["sparsity"] > rows[0]["sparsity"]
    assert sorted(path.name for path in folder.iterdir()) == [
        "gates.safetensors", "metrics.jsonl", "run.json",
    ]  # fmt: skip
    assert gates.graph == inputs[0].graph


def test_a_killed_run_ends_as_an_uninterrupted_one(inputs, uninterrupted, tmp_path):
    folder = started(tmp_path / "run")
    settings = json.dumps(dataclasses.asdict(CONFIG))
    # What a run leaves that was killed before its first checkpoint: this one starts anew.
    (folder / "metrics.jsonl").write_text('{"step": 10}\n{"step": 20}\n{"st')
    command = [sys.executable, "-c", CHILD, str(PROGRAM), str(folder), settings]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        line = child.stdout.readline()
        child.send_signal(signal.SIGKILL)
    assert (line, child.returncode) == ("now\n", -signal.SIGKILL)
    assert [row["step"] for row in logged(folder)] == [10, 20, 30, 40, 50, 60, 70]
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["50"]
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 7')  # as if the kill had cut a line short

    rows = []
    gates = run_pruning(*inputs, CONFIG, folder, on_log=rows.append)
    assert [row["step"] for row in rows] == [60, 70, 75]  # it went on from the checkpoint
    assert_same(folder, gates, uninterrupted)


def test_a_finished_run_is_only_read(inputs, uninterrupted, monkeypatch):
    folder, expected, _ = uninterrupted
    monkeypatch.setattr(run, "teacher_logits", None)  # any work would fail
    gates = run_pruning(*inputs, CONFIG, folder)
    np.testing.assert_array_equal(gates.values, expected.values)
    assert gates.graph == expected.graph


def test_a_folder_of_another_run_is_refused(tmp_path):
    mine = {"model": {"name": "a"}, "settings": {"steps": 3}, "task": "ioi"}
    claim(tmp_path / "new" / "run", mine)
    claim(tmp_path / "new" / "run", dict(reversed(mine.items())))  # the same in any order
    other = mine | {"settings": {"steps": 4}, "seed": 1}
    with pytest.raises(ValueError, match=r"run holds another run \(it differs in seed, settings\)"):
        claim(tmp_path / "new" / "run", other)
    assert json.loads((tmp_path / "new" / "run" / "run.json").read_text()) == mine


def test_the_circuit_says_how_sparse_it_is(uninterrupted):
    _, gates, _ = uninterrupted
    circuit = discrete(gates, CONFIG, edges=9, provenance={"task": "none"})
    assert len(circuit) == 9
    assert (np.flatnonzero(circuit.kept) == np.flatnonzero(discretise(gates, edges=9).values)).all()
    assert circuit.provenance == {
        "task": "none",
        "sparsity": {
            "target": 0.97,
            "soft": pytest.approx(1 - np.mean(soft_mask(gates.values))),
            "hard": pytest.approx(1 - 9 / gates.graph.n_edges),
            "reachable": reachable(circuit).sparsity,
        },
    }


def test_logits_are_stored_where_they_fit_and_are_all_used(inputs, monkeypatch):
    loaded, data = inputs
    used = dataclasses.replace(CONFIG, steps=len(data), batch_size=1)
    assert worth_storing(loaded, data, used)
    assert not worth_storing(loaded, data, dataclasses.replace(used, steps=len(data) - 1))
    monkeypatch.setattr("edgeprune_jax.run.TEACHER_BYTES", 4 * len(data))
    assert not worth_storing(loaded, data, used)
