"""IOI in SmolLM2-135M with 4 % of the edges (2,826 of 70,651), three seeds.

    python experiments/ioi_smollm2.py          (from the project's root)

Prunes on 400 prompt pairs of 14 templates and evaluates on 320 pairs of 4 others, beside EAP's
circuit of the same size (the first seed's data, 64 pairs), 20 random circuits, the full model and
the empty circuit. The paper has KL 0.25 at 96.6 % sparsity, for GPT-2 small and its own prompts.

About 13 minutes a seed and 7 for the evaluation on two cores. A killed run goes on where it was; a
finished one is not repeated. Circuits, metrics and the table go to `experiments/results/`.
"""

import json
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from edgeprune_jax import atomic, provenance

RESULTS = Path("experiments/results/ioi_smollm2")


@dataclass(frozen=True)
class Experiment:
    """Prune SmolLM2-135M on IOI for several seeds, and evaluate the circuits together."""

    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of gates and training prompts."""
    edges: int = 2826
    """Edges of each circuit."""
    target: float = 0.96
    """Sparsity that the gates are trained towards."""
    examples: int = 320
    """Test prompts."""
    random_circuits: int = 20
    """Random circuits of the same size."""
    runs: Path = Path("runs/ioi_smollm2")
    """Folder of the unfinished and finished runs."""
    results: Path = RESULTS
    """Folder of the circuits and the table."""


def edgeprune(*arguments: object) -> str:
    """Runs the command and returns what it printed."""
    command = [sys.executable, "-m", "edgeprune_jax", *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def main() -> None:
    options = tyro.cli(Experiment)
    options.results.mkdir(parents=True, exist_ok=True)
    circuits = []
    for seed in options.seeds:
        run = options.runs / f"seed{seed}"
        edgeprune(
            "prune", "--out", run, "--edges", options.edges, "--target", options.target,
            "--seed", seed, "--data-seed", seed, "--test-examples", 0, "--json",
        )  # fmt: skip
        circuits.append(options.results / f"seed{seed}.json")
        shutil.copy(run / "circuit.json", circuits[-1])
        shutil.copy(run / "metrics.jsonl", options.results / f"seed{seed}.metrics.jsonl")
    evaluate = [
        "evaluate", *circuits, "--examples", options.examples,
        "--random-circuits", options.random_circuits, "--json",
    ]  # fmt: skip
    table = json.loads(edgeprune(*evaluate))
    command = shlex.join(["edgeprune", *map(str, evaluate)])
    record = provenance.collect(command=command) | table
    atomic.write(options.results / "evaluation.json", json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
