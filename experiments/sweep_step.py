"""The cost of a step over batch, length, depth, width and segment length, with figures.

    python experiments/sweep_step.py           about 15 minutes on two cores

Every point is a run of bench_step.py in a process of its own. Points that the results hold are
not measured again; the figures are drawn anew.
"""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

sys.path.insert(0, str(Path(__file__).resolve().parent))

from bench.figures import draw

from edgeprune_jax import atomic

BENCH = Path(__file__).resolve().parent / "bench_step.py"
POINTS = (
    "--shape gpt2",
    "--shape smollm2",
    *(f"--shape gpt2 --batch {n}" for n in (1, 2, 32)),
    *(f"--shape gpt2 --tokens {n}" for n in (10, 64)),
    *(f"--shape gpt2 --layers {n}" for n in (8, 16, 24, 40)),
    *(f"--shape gpt2 --heads {n}" for n in (4, 8, 16)),
    *(f"--shape gpt2 --segment {n}" for n in (1, 2, 6, 12)),
    "--shape gpt2 --outbox-dtype bfloat16",
)


@dataclass(frozen=True)
class Sweep:
    """Measure the points that are missing, and draw."""

    results: Path = Path("experiments/results/step_cost")
    """Folder of the table and the figures."""


def main() -> None:
    folder = tyro.cli(Sweep).results
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "points.json"
    rows = json.loads(path.read_text()) if path.exists() else {}
    for point in POINTS:
        if point in rows:
            continue
        command = [sys.executable, str(BENCH), *point.split(), "--json"]
        printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        rows[point] = json.loads(printed)
        atomic.write(path, json.dumps(rows, indent=1) + "\n")
    draw(rows, folder)


if __name__ == "__main__":
    main()
