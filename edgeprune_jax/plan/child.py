"""The process that compiles: a request in, one JSON object out.

The environment decides which compilers XLA has, and is read once when JAX starts. So it is a
process of its own (`process`), and the caller's JAX stays as it is.
"""

import json
import sys

import jax
from jax.experimental import topologies

from edgeprune_jax.plan.h100 import TARGET
from edgeprune_jax.plan.program import compile_step
from edgeprune_jax.plan.request import Request
from edgeprune_jax.plan.topology import Topology, find_topology


def devices(topology: Topology) -> list:
    """Descriptions of the devices, or simulated ones."""
    if topology.kind == "cpu":
        return jax.devices()
    if topology.kind == "h100":
        found = topologies.get_topology_desc(
            platform="cuda", topology_name=topology.name,
            topology=f"1x1x{topology.devices}", target_config=TARGET,
        )  # fmt: skip
    else:
        found = topologies.get_topology_desc(platform="tpu", topology_name=topology.name)
    return list(found.devices)


def main() -> None:
    request = Request(**json.load(sys.stdin))
    try:
        found = compile_step(request, devices(find_topology(request.topology)))
    except (ValueError, OSError) as error:  # of the model and the mesh, for the caller to raise
        found = {"error": str(error)}
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
