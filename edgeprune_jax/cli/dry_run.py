"""`edgeprune prune --dry-run`: what the run would need, before it starts.

Counted from shapes (`cost`), beside what XLA allocates for the step when it compiles it.
"""

import time
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from rich.console import Group
from rich.table import Table

from edgeprune_jax import cost
from edgeprune_jax.ablation import settle
from edgeprune_jax.models.loaded import Loaded
from edgeprune_jax.pruning import PruneState, init, make_step
from edgeprune_jax.run import worth_storing
from edgeprune_jax.settings import PruneConfig
from edgeprune_jax.stream import plain_forward
from edgeprune_jax.tasks.batch import Batch, rows, take


def estimate(loaded: Loaded, data: Batch, config: PruneConfig) -> dict:
    """Bytes by kind, operations and seconds of a step, as JSON.

    Where the step fits, two are run on gates that are thrown away: `seconds_per_step` is the
    second's time. Where it does not, that is None, and nothing is run.
    """
    model, params, graph = loaded.model, loaded.params, loaded.graph
    batch = take(data, rows(len(data), config.batch_size, seed=config.seed, step=0))
    (B, T), A = batch.tokens.shape, batch.positions.shape[1]
    shapes = cost.Shapes(B, T, A)
    held = cost.step_bytes(model, params, graph, shapes, outbox_dtype=config.outbox_dtype)
    operations = cost.step_flops(
        model, params, graph, shapes, ablation=config.ablation,
        masks=config.samples * config.replicas,
        differentiated=config.estimator == "pathwise",
    )  # fmt: skip
    logits = jax.eval_shape(
        lambda params, batch: plain_forward(
            model, params, batch.tokens, valid=batch.valid, positions=batch.positions
        ),
        params, batch,
    )  # fmt: skip
    # Stored logits stay on the host, which is the device only where that is a CPU.
    stored = worth_storing(loaded, data, config)
    teacher = len(data) * (logits.size // len(batch)) * 4 if stored else 0
    beside = teacher if jax.default_backend() == "cpu" else 0
    state = init(graph, config, examples=len(data))
    means = None
    if config.ablation == "mean":
        means = settle(model, params, batch, "mean")
    inputs = (state, params, batch, logits, means)
    start = time.perf_counter()
    step = make_step(model, config)
    program = step.func.lower(*step.args, *inputs).compile()
    compiling = time.perf_counter() - start
    device = cost.device_memory()
    allocated = program.memory_analysis().temp_size_in_bytes
    temporary = max(held.temporary, allocated)
    fixed = beside + held.weights + held.gates
    fits = fixed + temporary <= device
    seconds = None
    if fits:
        teacher_of_batch = jnp.zeros(logits.shape, logits.dtype)
        rest = (params, batch, teacher_of_batch, means)
        seconds = _seconds(partial(program, *step.args), state, rest)
    return {
        "bytes": held._asdict(),
        "teacher_bytes": teacher,
        "temporary_bytes": held.temporary,
        "xla_temporary_bytes": allocated,
        "device_bytes": device,
        "fits": fits,
        "largest_batch": cost.largest_batch(device, fixed, temporary, len(batch)),
        "flops": operations._asdict(),
        "compile_seconds": compiling,
        "seconds_per_step": seconds,
        "seconds": None if seconds is None else seconds * config.steps,
    }


def _seconds(step: Callable, state: PruneState, rest: tuple) -> float:
    """The time of the second of two steps."""
    start = 0.0
    for _ in range(2):
        start = time.perf_counter()
        state, metrics = step(state, *rest)
        jax.block_until_ready(metrics)
    return time.perf_counter() - start


def to_rich(found: dict, config: PruneConfig) -> Group:
    """Two tables and a verdict for the terminal."""
    memory = Table("memory at the peak of a step", "MB")
    for name, size in found["bytes"].items():
        memory.add_row(name, f"{size / 1e6:,.1f}")
    memory.add_row("teacher's logits, stored", f"{found['teacher_bytes'] / 1e6:,.1f}")
    memory.add_row("temporaries, counted", f"{found['temporary_bytes'] / 1e6:,.1f}", style="bold")
    memory.add_row("temporaries, as XLA allocates", f"{found['xla_temporary_bytes'] / 1e6:,.1f}")
    memory.add_row("the device has", f"{found['device_bytes'] / 1e6:,.1f}")
    work = Table("operations of a step", "GFLOP")
    for name, count in found["flops"].items():
        work.add_row(name.replace("_", " "), f"{count / 1e9:,.1f}")
    return Group(memory, work, verdict(found, config))


def verdict(found: dict, config: PruneConfig) -> str:
    """One sentence: fits or not, how long it takes, and the largest batch."""
    batch = f"the largest batch that fits is about {found['largest_batch']}"
    if not found["fits"]:
        return f"does not fit: {batch}, batch_size is {config.batch_size}"
    return (
        f"fits: {found['seconds_per_step']:.2f} s a step, {config.steps} steps in "
        f"{found['seconds'] / 60:.1f} minutes; {batch}"
    )
