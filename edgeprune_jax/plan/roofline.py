"""The least time that a device can take for what a compiled step does.

Products, traffic of the main memory and messages overlap at best, so the slowest of the three
decides. Real steps are slower: this is a bound to compare with, and to choose a slice by.
"""

from edgeprune_jax.plan.topology import Topology


def seconds(found: dict, topology: Topology) -> dict[str, float] | None:
    """Seconds of each of the three; None where the step did not compile or has no real device."""
    device = topology.device
    if found["flops_per_device"] is None or not device.flops:
        return None
    sent = sum(kind["bytes"] for kind in found["collectives"].values())
    return {
        "products": found["flops_per_device"] / device.flops,
        "memory": found["bytes_accessed_per_device"] / device.bandwidth,
        "messages": sent / device.link,
    }
