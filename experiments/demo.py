"""The demonstration: two compiled programs recovered, and a circuit of a real language model.

    make demo            or    python experiments/demo.py --seed 1 --out demo

1. `reverse` and `xproportion` (paper section 6): Edge Pruning under zero ablation, compared edge
   by edge with the truth computed by exhaustive ablation.
2. IOI in SmolLM2-135M: a circuit of at most 10 % of the edges, compared with EAP's circuit of the
   same size and with random ones on prompts whose templates were not pruned on.

Nothing is read from a cache. Under 10 minutes on two cores.
"""

import json
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console

from edgeprune_jax import atomic, circuit_json
from edgeprune_jax.report.draw import draw
from edgeprune_jax.report.tables import Table, to_rich
from tracr_models.recovery import recover

EDGES = 7_065  # 10 % of SmolLM2-135M's


@dataclass(frozen=True)
class Demo:
    """Recover two compiled programs, then find a circuit of SmolLM2-135M."""

    seed: int = 0
    """Seed of gates and prompts. Another seed gives another circuit."""
    out: Path = Path("demo")
    """Folder of the results."""
    steps: int = 120
    """Optimiser steps of the IOI circuit."""


def compiled_programs(options: Demo, console: Console) -> None:
    """Recovers the paper's two programs and draws what was found."""
    root = Path(__file__).parents[1] / "tracr_models"
    rows = []
    for name in ("reverse", "xproportion"):
        with console.status(f"recovering {name}"):
            result = recover(root / name, seed=options.seed)
        folder = options.out / name
        folder.mkdir(parents=True, exist_ok=True)
        circuit_json.save(result.found, folder / "circuit.json")
        atomic.write(
            folder / "circuit.svg", draw(result.found, title=f"{name}, seed {options.seed}")
        )
        truth, found = result.truth, result.found
        rows.append([
            name, truth.graph.n_edges, len(truth), len(found), len(truth - found),
            len(found - truth), "yes" if result.exact else "no", round(result.seconds, 1),
        ])  # fmt: skip
    headers = ["program", "edges", "true", "found", "missing", "not true", "exact", "seconds"]
    console.print(to_rich(Table("Compiled programs against their true circuits", headers, rows)))


def language_model(options: Demo) -> int:
    """Prunes SmolLM2-135M on IOI through the command, afresh."""
    return subprocess.call([
        sys.executable, "-m", "edgeprune_jax", "prune", "--out", str(options.out / "ioi"),
        "--edges", str(EDGES),
        "--data-seed", str(options.seed), "--seed", str(options.seed),
        "--steps", str(options.steps), "--warmup", str(options.steps // 2), "--target", "0.92",
        "--test-examples", "96",
    ])  # fmt: skip


def main() -> int:
    options = tyro.cli(Demo)
    started, console = time.monotonic(), Console()
    folder = options.out / "ioi"
    shutil.rmtree(folder, ignore_errors=True)  # what an earlier demo found is not reused
    compiled_programs(options, console)
    code = language_model(options)
    if code == 0:
        table = json.loads((folder / "evaluation.json").read_text())
        ours, eap = table["edge pruning"], table["EAP"]
        console.print(
            f"KL to the model on unseen prompts: {ours['kl']:.3f} for the pruned circuit, "
            f"{eap['kl']:.3f} for EAP's, with {ours['edges']:,} edges each."
        )
    console.print(f"{time.monotonic() - started:.0f} s. Look at {folder}/report.html")
    return code


if __name__ == "__main__":
    sys.exit(main())
