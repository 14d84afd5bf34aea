"""A plan: what the compiled step needs of each device, how long it takes, which batch fits."""

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

    By bisection over compiled steps, in multiples of the parts of a batch, first `request.batch`
    doubled until it does not fit. `on_plan` sees every plan on the way.
    """
    part = request.data * request.fsdp

    def plan(parts: int) -> dict:
        found = make_plan(replace(request, batch=parts * part), steps=steps)
        on_plan(found)
        return found

    below, above, parts = 0, None, max(request.batch // part, 1)
    best = smallest = None
    while above is None or above - below > 1:
        found = plan(parts)
        if found["fits"]:
            below, best = parts, found
            if parts >= MOST_EXAMPLES:
                break
        else:
            above = parts
            smallest = found
        parts = 2 * below if above is None else (below + above) // 2
    found = best or smallest
    assert found is not None
    return below * part, found
