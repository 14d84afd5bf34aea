"""Recovery of compiled programs: the table, and what each part of the preset is worth.

    python experiments/recovery.py                               (all programs, 5 seeds, zero)
    python experiments/recovery.py --ablation interchange
    python experiments/recovery.py --variants all --programs ... (the preset, changed in one place)

Every run is one row of `results/recovery/<ablation>.json` or `variants.json`, written when it is
done: a killed command goes on where it was. The last field of a row is its time, compilation
included where the process met the program for the first time. About 20 s a run on two cores.
"""

import json
import shlex
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import tyro

from edgeprune_jax import atomic, provenance
from tracr_models.programs import PROGRAMS
from tracr_models.recovery import RECOVERY, recover
from tracr_models.store import compiled

RESULTS = Path("experiments/results/recovery")
VARIANTS = {
    "preset": {},
    "no hard examples": {"hard_share": 0.0},
    "failures on a linear scale, price 0.01": {"floor": 0.0, "price": 0.01},
    "failures on a linear scale, price 0.1": {"floor": 0.0, "price": 0.1},
    "8 masks": {"samples": 8},
    "price 0.7": {"price": 0.7},
    "gates start half open": {"gate_init": 0.0},
    "pathwise, squared error": {
        "estimator": "pathwise", "divergence": "squared", "floor": 0.0, "price": 0.002,
        "samples": 4, "batch_size": 32, "steps": 600, "gate_init": 3.0, "gate_rate": 0.1,
        "hard_share": 0.0,
    },
    "pathwise, squared error on the log scale": {
        "estimator": "pathwise", "divergence": "squared", "samples": 4, "steps": 600,
    },
}  # fmt: skip


@dataclass(frozen=True)
class Experiment:
    """Recover compiled programs, and hold the circuits against the truth."""

    programs: tuple[str, ...] = tuple(PROGRAMS)
    """Names of the programs."""
    seeds: int = 5
    """Runs of each program."""
    ablation: Literal["zero", "interchange"] = "zero"
    """What a cut edge carries."""
    variants: tuple[str, ...] = ()
    """Changes to the preset by name, or 'all'. Without them the preset itself."""


def main() -> None:
    options = tyro.cli(Experiment)
    names = tuple(VARIANTS) if options.variants == ("all",) else options.variants or ("preset",)
    path = RESULTS / f"{'variants' if options.variants else options.ablation}.json"
    record = json.loads(path.read_text()) if path.exists() else {"rows": []}
    done = {(row["variant"], row["program"], row["seed"]) for row in record["rows"]}
    command = shlex.join(["python", "experiments/recovery.py", *sys.argv[1:]])
    for program in options.programs:
        for variant in names:
            for seed in range(options.seeds):
                if (variant, program, seed) in done:
                    continue
                result = recover(
                    compiled(program), seed=seed, ablation=options.ablation,
                    config=replace(RECOVERY, **VARIANTS[variant]),
                )  # fmt: skip
                row = {"variant": variant, **result.row(), "true": len(result.truth)}
                rows = [*record["rows"], row]
                record = provenance.collect(command=command) | {"rows": rows}
                lines = ",\n".join(json.dumps(row) for row in rows)
                head = json.dumps({key: record[key] for key in record if key != "rows"}, indent=1)
                path.parent.mkdir(parents=True, exist_ok=True)
                atomic.write(path, f'{head[:-2]},\n "rows": [\n{lines}\n]}}\n')
                exact = "exact" if result.exact else "NOT exact"
                print(f"{variant}: {program}, seed {seed}: {exact}, {result.seconds:.0f} s",
                      flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
