"""Seconds and memory of making a large data set, each task in a process of its own.

    python experiments/bench_data.py            (ioi, 100,000 pairs; half a minute on two cores)

A process draws, aligns and tokenises the pairs into an empty cache, reads them from there once
more, and makes one epoch of batches. Its peak memory includes Python and the libraries.
"""

import json
import multiprocessing
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import sweep_results
import tyro
from bench.timing import peak_resident_bytes
from tokenizers import Tokenizer

from edgeprune_jax import atomic
from edgeprune_jax.cli.inputs import find_model, origin
from edgeprune_jax.models.load import DEFAULT
from edgeprune_jax.tasks.batch import take
from edgeprune_jax.tasks.buckets import bucket, bucketed_rows, fit
from edgeprune_jax.tasks.cache import VARIABLE, load_task

BATCH = 32


@dataclass(frozen=True)
class Options:
    """Make data sets and say what they cost."""

    tasks: tuple[str, ...] = ("ioi",)
    """Tasks, or .jsonl files."""
    pairs: int = 100_000
    """Prompt pairs of each task."""
    model: str = DEFAULT
    """Model whose tokenizer is used."""
    out: Path | None = None
    """JSON file to write."""


def make(tokenizer: str, task: str, pairs: int) -> dict[str, float | int]:
    """Makes one data set in this process."""

    def load():
        return load_task(task, Tokenizer.from_str(tokenizer), split="train", n=pairs, seed=0)

    with tempfile.TemporaryDirectory() as folder:
        os.environ[VARIABLE] = folder
        times = [time.perf_counter()]
        for _ in range(2):
            made = load()
            times.append(time.perf_counter())
        data = made.batch
        buckets = bucket(data)
        for step in range(len(data) // BATCH):
            chosen = bucketed_rows(buckets, BATCH, seed=0, step=step)
            take(fit(data, chosen, buckets), chosen)
        times.append(time.perf_counter())
        both = np.concatenate([np.asarray(data.tokens), np.asarray(data.corrupted)], axis=1)
        seconds = np.diff(times).round(2).tolist()
        return {
            "pairs": len(data), "distinct": len(np.unique(both, axis=0)),
            "left_out": made.left_out, "widths": list(buckets.widths),
            "make_seconds": seconds[0], "read_seconds": seconds[1], "epoch_seconds": seconds[2],
            "peak_bytes": peak_resident_bytes(),
        }  # fmt: skip


def main() -> None:
    options = tyro.cli(Options)
    loaded = find_model(options.model)
    rows = {}
    for task in options.tasks:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            rows[task] = pool.apply(make, (loaded.tokenizer.to_str(), task, options.pairs))
        print(task, json.dumps(rows[task]), flush=True)
    if options.out:
        record = origin(loaded, command=sweep_results.command()) | {"rows": rows}
        atomic.write(options.out, json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
