"""Several processes are one: they find each other, share the work, and one writes; none waits
for one that is gone."""

import json
import os
import random
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from checks import LETTERS, save_letter_llama
from safetensors.numpy import load_file

from edgeprune_jax import hosts, sharding
from edgeprune_jax.cli.main import main
from edgeprune_jax.sharding import MeshShape, make_mesh

DIES_AT_STEP_10 = """
import os, signal, sys
from edgeprune_jax.cli import main, progress
def show(self, row):
    if row["step"] == 10:
        os.kill(os.getpid(), signal.SIGKILL)
progress.Progress.show = show
sys.exit(main.main())
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a Llama of one layer and a task, both of words of one letter."""
    folder = tmp_path_factory.mktemp("hosts")
    save_letter_llama(folder / "llama")
    draw = random.Random(0)
    triples = [draw.sample(LETTERS, 3) for _ in range(16)]
    lines = [
        {"clean": f"{a} {b}<predict> {a}</predict>", "wrong": f" {b}", "corrupted": f"{c} {b}",
         "split": "train"}
        for a, b, c in triples
    ]  # fmt: skip
    (folder / "task.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


class Ended:
    """A process that ended: its exit code, and what it printed and complained of."""

    def __init__(self, process: subprocess.Popen):
        self.out, self.err = process.communicate(timeout=300)
        self.code = process.returncode


@pytest.fixture(scope="module")
def prune(place):
    """Runs `edgeprune prune` as several processes on this machine; returns how each ended."""

    def run(count: int, out: str, *more: str, dies: int | None = None) -> list[Ended]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        command = [
            "prune", "--model", "llama", "--task", "task.jsonl", "--out", out, "--examples", "16",
            "--test-examples", "0", "--steps", "20", "--warmup", "40", "--rate-warmup", "5",
            "--gate-init", "1", "--batch-size", "8", "--mesh.data", str(count),
            "--checkpoint.every", "4", *more,
        ]  # fmt: skip
        started = []
        for number in range(count):
            program = ["-c", DIES_AT_STEP_10] if number == dies else ["-m", "edgeprune_jax"]
            several = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": str(count),
                       "JAX_PROCESS_ID": str(number)}  # fmt: skip
            started.append(
                subprocess.Popen(
                    [sys.executable, *program, *command], cwd=place, text=True,
                    stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                    env=os.environ | several | {
                        "EDGEPRUNE_CACHE": str(place / "cache"), "JAX_PLATFORMS": "cpu",
                        "XLA_FLAGS": "--xla_backend_optimization_level=0",
                        "JAX_NUM_CPU_DEVICES": "1", "PYTHONPATH": str(Path(__file__).parents[1]),
                    },
                )
            )  # fmt: skip
        return [Ended(process) for process in started]

    return run


def gates(folder):
    return load_file(folder / "gates.safetensors")["edges"]


def metrics(folder):
    rows = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [list(row.values()) for row in rows]


def lost(ended, dies):
    """Checks that the one process was killed and that the other says so and stops."""
    gone, left = ended[dies], ended[1 - dies]
    assert gone.code == 128 + 9 and "SIGKILL" in gone.err
    assert left.code == 75
    assert left.err.splitlines()[-1].endswith(
        "another process was lost; the same command goes on from the last checkpoint"
    )


@pytest.fixture(scope="module")
def alone(prune, place):
    """The folder of a run by one process."""
    (one,) = prune(1, "alone")
    assert one.code == 0 and "process" not in one.err
    return place / "alone"


def test_where_one_is_lost_the_other_stops_and_four_go_on_as_one(prune, place, alone):
    lost(prune(2, "run", dies=1), 1)
    out = place / "run"
    assert not (out / "gates.safetensors").exists()
    assert {one.name for one in (out / "checkpoints").iterdir() if one.name.isdecimal()} >= {"4"}

    again = prune(4, "run")
    assert [one.code for one in again] == [0] * 4, [one.err for one in again]
    assert "written: run/report.html" in again[0].out
    assert not any(one.out + one.err for one in again[1:])
    np.testing.assert_allclose(metrics(out), metrics(alone), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(gates(out), gates(alone), rtol=0, atol=1e-5)


def test_the_others_stop_where_the_writer_is_lost(prune):
    lost(prune(2, "headless", dies=0), 0)


def test_what_the_writer_refuses_all_refuse(prune, alone):
    for number, one in enumerate(prune(2, alone.name, "--seed", "1")):
        assert (one.code, one.out) == (2, "")
        assert one.err.startswith(f"edgeprune: process {number} of 2: alone holds another run")
        assert one.err.count("\n") == 1


class Watched:
    """An array that remembers which rows were read."""

    def __init__(self, array):
        self.array, self.read = array, []
        self.shape, self.dtype = array.shape, array.dtype

    def __getitem__(self, rows):
        self.read.append(rows.tolist())
        return self.array[rows]


def test_a_device_reads_its_own_rows_and_no_other():
    mesh = make_mesh(MeshShape(data=4, model=2))
    data, rows = Watched(np.arange(40.0).reshape(20, 2)), np.array([7, 3, 19, 0, 5, 11, 2, 2])
    placed = sharding.place_rows(data, rows, sharding.by_example, mesh)
    assert {tuple(read) for read in data.read} == {(7, 3), (19, 0), (5, 11), (2, 2)}
    np.testing.assert_array_equal(placed, data.array[rows])
    here = sharding.place_rows(data.array, rows, sharding.by_example, None)
    np.testing.assert_array_equal(here, placed)


HERE = {"JAX_COORDINATOR_ADDRESS": "node7:1234", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "1"}
SRUN = {"SLURM_STEP_NUM_TASKS": "16", "SLURM_PROCID": "3"}


def test_processes_meet_where_the_environment_says():
    assert hosts.meeting({}) is None
    assert hosts.meeting(HERE) == hosts.Meeting("node7:1234", 2, 1)
    assert hosts.meeting(HERE | {"JAX_NUM_PROCESSES": "1", "JAX_PROCESS_ID": "0"}) is None
    assert hosts.meeting(SRUN) == hosts.Meeting(None, None, None)
    assert hosts.meeting(SRUN | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}) is None
    assert hosts.meeting(SRUN | HERE) == hosts.meeting(HERE)  # what is said by hand wins


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"JAX_PROCESS_ID": "1"}, "COORDINATOR_ADDRESS must be host:port of process 0: got ''"),
        (HERE | {"JAX_COORDINATOR_ADDRESS": "node7"}, "COORDINATOR_ADDRESS must be host:port"),
        (HERE | {"JAX_NUM_PROCESSES": "two"}, "NUM_PROCESSES must be a whole number: got 'two'"),
        (HERE | {"JAX_PROCESS_ID": "2"}, "PROCESS_ID must be below JAX_NUM_PROCESSES, 2: got 2"),
        ({"SLURM_STEP_NUM_TASKS": "4"}, "PROCID must be a whole number: got ''"),
    ],
)
def test_an_environment_that_cannot_be_meant_is_refused(wrong, named, monkeypatch, capsys):
    for name in HERE | SRUN:
        monkeypatch.delenv(name, raising=False)
    for name, value in wrong.items():
        monkeypatch.setenv(name, value)
    assert main(["prune", "--out", "nowhere"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and named in err and err.count("\n") == 1


def test_an_error_of_the_program_itself_is_no_loss():
    assert not hosts.is_loss(ValueError("UNKNOWN: of one process"))


def test_a_tpu_of_which_no_cluster_knows_is_alone(monkeypatch):
    def refuse(**_):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(hosts.jax.distributed, "initialize", refuse)
    monkeypatch.setattr(hosts, "meeting", lambda: hosts.Meeting())
    assert hosts.join() is None
    monkeypatch.setattr(hosts, "meeting", lambda: hosts.Meeting("node7:1234", 2, 1))
    with pytest.raises(ValueError, match="coordinator_address"):
        hosts.join()
