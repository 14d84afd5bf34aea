"""What mended the recovery of compiled programs, on a real model: IOI in SmolLM2-135M.

    python experiments/optimiser_smollm2.py          (resumable; about 40 minutes on two cores)

The default settings, changed in one place at a time, prune with the same data, seed and number of
steps; the circuits have the same number of edges and are measured together on unseen prompts.
"""

import dataclasses
from pathlib import Path

import sweep
import sweep_results
import tyro

from edgeprune_jax.cli.inputs import find_model

DEFAULT = sweep.Sweep(
    tasks=("ioi",), targets=(0.96,), sparsities=(0.96,),
    runs=Path("runs/optimiser_smollm2"), results=Path("experiments/results/optimiser_smollm2"),
)  # fmt: skip
VARIANTS = {
    "before": {},
    "hard-examples": {"hard_share": 0.5},
    "log-scale": {"floor": 0.01},
    "both": {"hard_share": 0.5, "floor": 0.01},
    "score": {"hard_share": 0.5, "floor": 0.01, "estimator": "score", "samples": 8},
}


def main() -> None:
    options = tyro.cli(sweep.Sweep, default=DEFAULT)
    options.results.mkdir(parents=True, exist_ok=True)
    loaded = find_model(options.model)
    runs = {
        f"{variant}-seed{run.config.seed}": run._replace(
            config=dataclasses.replace(run.config, **change)
        )
        for variant, change in VARIANTS.items()
        for run in sweep.planned(options, "ioi").values()
    }
    sweep.measure(options, loaded, "ioi", runs)
    sweep_results.write(options.results, "ioi")


if __name__ == "__main__":
    main()
