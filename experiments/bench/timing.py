"""Clocks: interleaved repeats, their medians and spread, and the machine's own rate."""

import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import jax.numpy as jnp

SHORTEST = 0.2  # seconds that one reading lasts at least, so that small work is timed too


def interleaved(functions: Mapping[str, Callable], *, repeats: int) -> dict[str, list[float]]:
    """Seconds of each function, one reading of each in turn, after one call to warm up."""
    calls = {}
    for name, function in functions.items():
        jax.block_until_ready(function())
        calls[name] = max(1, round(SHORTEST / _seconds(function, 1)))
    readings = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            readings[name].append(_seconds(function, calls[name]))
    return readings


def _seconds(function: Callable, calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        jax.block_until_ready(function())
    return (time.perf_counter() - start) / calls


def spread(readings: list[float]) -> dict[str, float]:
    return {
        "median": statistics.median(readings), "min": min(readings), "max": max(readings),
    }  # fmt: skip


def product_rate(size: int = 2048, *, repeats: int = 5) -> float:
    """Operations a second of the best of some float32 products of square matrices."""
    x = jax.random.normal(jax.random.key(0), (size, size))
    product = jax.jit(jnp.matmul)
    (readings,) = interleaved({"product": lambda: product(x, x)}, repeats=repeats).values()
    return 2 * size**3 / min(readings)


def peak_resident_bytes() -> int:
    """The most memory that this process has held.

    Linux's getrusage begins with the peak of the process that started this one, its status at 0.
    """
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return 1024 * int(lines["VmHWM"].split()[0])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
