"""A planned step carried to 1,000 chips on paper: copies of its slice, each with its own examples.

    python experiments/plan_thousand.py experiments/results/plan_13b/v5e-2x4-64-32.json

Prints Markdown. A copy needs nothing of the others but their gradients of the gates, so a step
of n copies is the planned step, and one sum of E + W + a few float32 numbers over all copies.
Within a pod it goes over the chips' links, between pods over the data-centre network, both as
rings; nothing of it is taken to overlap with the step, so the times are upper bounds of the sum.
Source of the pods' size and network: https://cloud.google.com/tpu/docs/v5e
"""

import json
import sys
from pathlib import Path

from edgeprune_jax.plan.named import read_shape
from edgeprune_jax.plan.topology import find_topology
from edgeprune_jax.report.tables import Table, to_markdown

COPIES = (1, 2, 8, 32, 128)
POD, POD_NETWORK = 256, 6.4e12 / 8  # chips, bytes per second
EXAMPLES = 6000 * 32  # of the paper's run


def gradient_sum(size: int, copies: int, chips: int, link: float) -> tuple[float, float]:
    """Seconds to add up `size` bytes over copies of a slice: within pods, and between them.

    The chips of a slice share the sum: each adds up its part.
    """
    pods = -(-copies * chips // POD)
    within = copies // pods
    local = 2 * (within - 1) / within * size / chips / link
    between = 2 * (pods - 1) / pods * size / POD_NETWORK
    return local, between


def table(found: dict) -> Table:
    """A row for each number of copies."""
    request = found["request"]
    topology = find_topology(request["topology"])
    graph = read_shape(request["model"], dtype=request["dtype"]).graph
    size = 4 * (graph.n_edges + graph.n_writers)
    rows = []
    for copies in COPIES:
        chips, batch = copies * topology.devices, copies * request["batch"]
        local, between = gradient_sum(size, copies, topology.devices, topology.device.link)
        step = found["seconds_per_step"] + local + between
        rows.append([
            chips, batch, found["seconds_per_step"], 1e3 * local, 1e3 * between, batch / step,
            found["seconds_per_step"] / step, EXAMPLES / batch, EXAMPLES / batch * step / 60,
        ])  # fmt: skip
    headers = [
        "chips", "examples a step", "step of a slice, s", "sum in a pod, ms", "between pods, ms",
        "examples/s", "efficiency", f"steps for {EXAMPLES:,} examples", "minutes for them",
    ]  # fmt: skip
    return Table("Copies of a slice", headers, rows)


def main() -> None:
    found = json.loads(Path(sys.argv[1]).read_text())
    if not found.get("seconds_per_step"):
        raise SystemExit(f"{sys.argv[1]} has no time of a step: it did not compile")
    print(to_markdown(table(found)), end="")


if __name__ == "__main__":
    main()
