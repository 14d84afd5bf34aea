"""A plan: what the compiled step needs of each device, how long it takes, which batch fits."""

import math
from collections.abc import Callable
from dataclasses import asdict, replace

from edgeprune_jax.plan.process import plan_step
from edgeprune_jax.plan.request import Request
from edgeprune_jax.plan.roofline import seconds
from edgeprune_jax.plan.topology import find_topology

MOST_EXAMPLES = 4096  # on one part of the data axis, where the search for a batch stops


def make_plan(request: Request, *, steps: int) -> dict:
    """Memory, operations, traffic and time of a step and of a run of `steps`, as JSON."""
    found = plan_step(request)
    bounds = seconds(found, find_topology(request.topology))
    per_step = max(bounds.values()) if bounds else None
    flops, exact = found["flops_per_device"], found["exact_flops"]
    needed = sum(exact.values()) - exact["teacher"]
    return {
        "request": asdict(request) | {"model_parallel": request.mesh.model},
        **found,
        "flops_over_exact": None if flops is None else flops * found["devices"] / needed,
        "bytes_accessed_per_device_and_example": (
            None if flops is None else found["bytes_accessed_per_device"] / request.batch
        ),
        "seconds": bounds,
        "seconds_per_step": per_step,
        "steps": steps,
        "seconds_per_run": None if per_step is None else per_step * steps,
    }


def largest_batch(
    request: Request, *, steps: int, on_plan: Callable[[dict], None] = lambda found: None
) -> tuple[int, dict]:
    """The largest batch that fits, and its plan; 0 with the plan of the smallest if none does.

    Memory is nearly linear in the batch: every batch tried is where the line through the last two
    meets the memory, the first line being that from the weights and gates alone. Batches are
    multiples of their parts; the search begins at `request.batch` and ends between two neighbours
    that were both compiled. `on_plan` sees every plan on the way.
    """
    part = request.data * request.fsdp

    def plan(parts: int) -> dict:
        found = make_plan(replace(request, batch=parts * part), steps=steps)
        on_plan(found)
        return found

    below, above, parts = 0, MOST_EXAMPLES + 1, max(request.batch // part, 1)
    best = smallest = last = None
    while above - below > 1:
        found = plan(parts)
        if found["fits"]:
            below, best = parts, found
        else:
            above, smallest = parts, found
        last, meets = _next(parts, found, last)
        parts = (below + above) // 2 if meets is None else min(max(meets, below + 1), above - 1)
    found = best or smallest
    assert found is not None
    return below * part, found


def _next(
    parts: int, found: dict, before: tuple[int, int] | None
) -> tuple[tuple[int, int] | None, int | None]:
    """The point of a plan on the line, and the parts where the line meets the memory, if it does.

    A plan that does not fit may not say by how much, and then is no point.
    """
    needed, usable = found["bytes_per_device"], found["memory_bytes"]
    if needed is None:
        return before, None
    other, held = before or (0, found["weights_bytes"] + found["gates_bytes"])
    slope = (needed - held) / (parts - other)
    meets = parts + math.floor((usable - needed) / slope) if slope > 0 else None
    return (parts, needed), meets
