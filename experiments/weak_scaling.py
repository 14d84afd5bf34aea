"""Weak scaling of a step over simulated devices: the work of a device as devices are added.

    python experiments/weak_scaling.py              (2 cores, about 5 minutes)

Four layers of GPT-2, 4 examples of 24 tokens for each device, over 1, 2, 4 and 8 simulated
devices: once they split the batch, once the residual width. Perfect scaling is a level line.
Writes `experiments/results/weak_scaling/`: plans.json and scaling.svg.
"""

import json
from pathlib import Path

import sweep_results

from edgeprune_jax import atomic, provenance
from edgeprune_jax.plan.make import make_plan
from edgeprune_jax.plan.request import Request
from edgeprune_jax.report.curves import Panel, Series, plot

DEVICES, EXAMPLES = (1, 2, 4, 8), 4
SPLITS = {"batch": "data", "residual width": "model"}
RESULTS = Path("experiments/results/weak_scaling")


def measure(devices: int, axis: str) -> dict:
    """Operations, traffic, messages and memory of one device."""
    request = Request(
        "gpt2", f"cpu:{devices}", EXAMPLES * devices, 24, layers=4, dtype="float32",
        data=devices if axis == "data" else 1,
    )  # fmt: skip
    found = make_plan(request, steps=1)
    return {
        "devices": devices,
        "flops": found["flops_per_device"],
        "bytes_accessed": found["bytes_accessed_per_device"],
        "bytes_sent": sum(kind["bytes"] for kind in found["collectives"].values()),
        "bytes": found["bytes_per_device"],
        "collectives": found["collectives"],
    }


def main() -> None:
    rows = {split: [measure(n, axis) for n in DEVICES] for split, axis in SPLITS.items()}
    record = provenance.collect(command=sweep_results.command()) | {"rows": rows}
    RESULTS.mkdir(parents=True, exist_ok=True)
    atomic.write(RESULTS / "plans.json", json.dumps(record, indent=1) + "\n")
    quantities = {"GFLOP": "flops", "GB of traffic": "bytes_accessed", "GB sent": "bytes_sent"}
    panels = [
        Panel(
            f"{label} of a device",
            [
                Series(f"split by {split}", DEVICES, [row[key] / 1e9 for row in found])
                for split, found in rows.items()
            ],
            zero=True,
        )
        for label, key in quantities.items()
    ]
    atomic.write(RESULTS / "scaling.svg", plot(panels, x_label="devices"))


if __name__ == "__main__":
    main()
