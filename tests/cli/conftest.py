"""The command line, run in this process on compiled programs, which are small."""

import json

import pytest

from edgeprune_jax.cli.main import main


@pytest.fixture
def call(capsys):
    """Runs the command; returns its exit code, what it printed and what it complained about."""

    def run(*arguments):
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = stop.code or 0
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def answer(call):
    """The JSON object that a command prints with --json."""

    def run(*arguments):
        code, out, err = call(*arguments, "--json")
        assert err == ""
        return code, json.loads(out)

    return run


@pytest.fixture(scope="session")
def pruned(tmp_path_factory):
    """A finished run on the compiled program xproportion."""
    folder = tmp_path_factory.mktemp("runs") / "xproportion"
    code = main([
        "prune", "--model", "xproportion", "--task", "domain", "--out", str(folder), "--json",
        "--steps", "60", "--ablation", "zero", "--divergence", "squared", "--edges", "9",
        "--gate-rate", "0.1", "--multiplier-rate", "0", "--price", "0.002",
        "--random-circuits", "2",
    ])  # fmt: skip
    assert code == 0
    return folder
