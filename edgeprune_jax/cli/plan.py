"""`edgeprune plan`: memory and time of a run on accelerators that need not be there."""

import json
from dataclasses import dataclass

from rich.console import Console

from edgeprune_jax.plan.make import largest_batch, make_plan
from edgeprune_jax.plan.named import read_shape
from edgeprune_jax.plan.request import Request
from edgeprune_jax.report.tables import Table, to_rich

FIRST_BATCH = 8  # tried for each part of the batch, where none is given


@dataclass(frozen=True)
class Plan:
    """Compile the training step for a TPU or GPU topology, without weights and without a device.

    Prints memory per device by kind, operations, traffic, messages, and the time that a step and
    a run take at least. Without --batch it looks for the largest batch that fits.
    """

    model: str = "codellama-13b"
    """A model whose shape is known by name, or a folder with its config.json."""
    topology: str = "v5e:2x4"
    """Devices: v5e, v6e (such as v5e:2x4), v5p, v4 (v5p:2x2x2), h100:8 or cpu:8, simulated."""
    batch: int | None = None
    """Prompt pairs in a step."""
    length: int = 72
    """Tokens of a prompt."""
    answers: int = 1
    """Scored positions of a prompt."""
    data: int = 1
    """Parts of the batch. What data and fsdp leave of the devices splits the residual width."""
    fsdp: int = 1
    """Parts of the weights beyond that, and of the batch."""
    layers: int | None = None
    """Plan for the first layers of the model alone."""
    segment: int | None = None
    """Layers in a block of the masked pass, which trades memory for speed."""
    dtype: str = "bfloat16"
    """Of weights and activations: bfloat16 or float32."""
    steps: int = 6000
    """Steps of the run."""
    json: bool = False
    """Print one JSON object."""


def run(options: Plan) -> int:
    if options.dtype not in ("bfloat16", "float32"):
        raise ValueError(f"--dtype must be bfloat16 or float32: got {options.dtype!r}")
    if options.steps < 1:
        raise ValueError(f"--steps must be at least 1: got {options.steps}")
    request = Request(
        options.model, options.topology,
        FIRST_BATCH * options.data * options.fsdp if options.batch is None else options.batch,
        options.length, answers=options.answers, layers=options.layers, dtype=options.dtype,
        segment=options.segment, data=options.data, fsdp=options.fsdp,
    )  # fmt: skip
    read_shape(options.model, dtype=options.dtype, layers=options.layers)
    console = Console(stderr=True, quiet=options.json)
    with console.status(f"compiling the step of {options.model} for {options.topology}"):
        if options.batch is None:
            largest, found = largest_batch(
                request, steps=options.steps, on_plan=lambda plan: console.print(tried(plan))
            )
            found["largest_batch"] = largest
        else:
            found = make_plan(request, steps=options.steps)
    if options.json:
        print(json.dumps(found))
        return 0
    output = Console()
    for table in tables(found):
        output.print(to_rich(table))
    output.print(verdict(found))
    return 0


def tried(found: dict) -> str:
    """One batch of a search, in a line."""
    needed = found["bytes_per_device"]
    size = "" if needed is None else f", {gib(needed):.2f} GiB a device"
    fits = "fits" if found["fits"] else "does not fit"
    return f"batch {found['request']['batch']} {fits}{size}"


def tables(found: dict) -> list[Table]:
    """Memory, and where the step compiled its work and its messages."""
    outbox, temporary = found["outbox_bytes"], found["temporary_bytes"]
    rows = {
        "weights": found["weights_bytes"],
        "gates and optimiser": found["gates_bytes"],
        "batch and teacher": found["batch_bytes"],
        "outbox, one copy": outbox,
        "other temporaries": None if temporary is None else temporary - outbox,
        "needed": found["bytes_per_device"],
        "usable": found["memory_bytes"],
    }
    memory = [[name, None if size is None else gib(size)] for name, size in rows.items()]
    shown = [Table("Memory of one device", ["", "GiB"], memory)]
    if found["flops_per_device"] is None:
        return shown
    work = [
        ["TFLOP", found["flops_per_device"] / 1e12],
        ["of the exact count", found["flops_over_exact"]],
        ["traffic of the memory, GB", found["bytes_accessed_per_device"] / 1e9],
        ["the same for each example, GB", found["bytes_accessed_per_device_and_example"] / 1e9],
    ]
    for name, bound in (found["seconds"] or {}).items():
        work.append([f"seconds for {name}", bound])
    shown.append(Table("A step on one device", ["", "value"], work))
    messages = [
        [kind, sent["count"], sent["bytes"] / 1e9] for kind, sent in found["collectives"].items()
    ]
    return [*shown, Table("Messages of a step", ["kind", "count", "GB sent"], messages)]


def verdict(found: dict) -> str:
    """Fits or not, how long it takes, and the largest batch if it was looked for."""
    request = found["request"]
    start = f"batch {request['batch']} of {request['length']} tokens on {request['topology']}"
    largest = found.get("largest_batch")
    if not found["fits"]:
        return f"{start}: does not fit" + ("; no batch does" if largest == 0 else "")
    words = [f"{start}: fits"]
    if largest:
        words.append("the largest batch that does")
    if found["seconds_per_step"] is not None:
        words.append(
            f"at least {found['seconds_per_step']:.3g} s a step, "
            f"{found['seconds_per_run'] / 3600:.2f} hours for {found['steps']:,} steps"
        )
    words.append(f"compiled in {found['compile_seconds']:.0f} s")
    return "; ".join(words)


def gib(size: int) -> float:
    return size / 2**30
