"""What SmolLM2-135M-Instruct can do: the full model's scores on every task.

    python experiments/model_scores.py

300 prompts of each test split, seed 0; about 4 minutes on two cores. Writes
experiments/results/model_scores.json.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import sweep_results
import tyro

from edgeprune_jax import atomic
from edgeprune_jax.cli.inputs import find_data, find_model, origin
from edgeprune_jax.full_model import score_model
from edgeprune_jax.models.load import DEFAULT
from edgeprune_jax.tasks.make import TASKS

RESULTS = Path("experiments/results/model_scores.json")


@dataclass(frozen=True)
class Options:
    model: str = DEFAULT
    """Model."""
    examples: int = 300
    """Prompt pairs of each test split."""
    out: Path = RESULTS
    """File to write."""


def main(options: Options) -> None:
    loaded = find_model(options.model)
    rows = {}
    for name in TASKS:
        data = find_data(loaded, name, split="test", n=options.examples, seed=0).batch
        means, doubt = score_model(loaded.model, loaded.params, data)
        rows[name] = {"prompts": len(data), "doubt": doubt, **means}
        print(name, json.dumps(rows[name]), flush=True)
    record = origin(loaded, data={"seed": 0, "split": "test"}, command=sweep_results.command())
    options.out.parent.mkdir(parents=True, exist_ok=True)
    atomic.write(options.out, json.dumps(record | {"tasks": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Options))
