"""IOI in SmolLM2-135M on 200, 400 and 100,000 pairs: is more data better, and is a step slower?

    python experiments/data_size.py                  (resumable; about 25 minutes on two cores)

Prunes on each number of pairs and measures all circuits of a size together, as `sweep.py` does.
Then the data sets take turns with one step each in one process, so that their times share the
machine's moods. A step runs the full model too, unless its logits are stored, which pays for the
small sets only. Paper, GPT-2 small at 96.6 %: KL 0.25 in 2,756 s on 200 pairs, 0.22 in 2,931 s on
400, 0.20 in 3,042 s on 100,000.
"""

import dataclasses
import json
import time
from pathlib import Path

import jax
import sweep
import sweep_results
import tyro
from bench.timing import spread

from edgeprune_jax import atomic
from edgeprune_jax.cli.inputs import find_data, find_model, origin
from edgeprune_jax.evaluation import teacher_logits
from edgeprune_jax.models.loaded import Loaded
from edgeprune_jax.pruning import init, prune

DEFAULT = sweep.Sweep(
    tasks=("ioi",), examples=(200, 400, 100_000), sparsities=(0.966,),
    runs=Path("runs/data_size"), results=Path("experiments/results/data_size"),
)  # fmt: skip
WARM, TIMED = 5, 20  # steps of each data set


def step_seconds(options: sweep.Sweep, loaded: Loaded) -> dict[str, dict[str, float]]:
    """Median and range of a step's time on each data set."""
    config = dataclasses.replace(options.config, steps=WARM + TIMED)
    model, params, running = loaded.model, loaded.params, {}
    for n in options.examples:
        data = find_data(loaded, options.tasks[0], split="train", n=n, seed=options.seeds[0]).batch

        def start(teacher, data=data):
            first = init(loaded.graph, config, examples=len(data))
            return prune(model, params, data, teacher, config, first)

        running[f"{n} pairs"] = start(None)
        if n == options.examples[0]:
            running[f"{n} pairs, logits stored"] = start(teacher_logits(model, params, data))
    seconds = {name: [] for name in running}
    for _ in range(WARM + TIMED):
        for name, steps in running.items():
            begun = time.perf_counter()
            jax.block_until_ready(next(steps))
            seconds[name].append(time.perf_counter() - begun)
    return {name: spread(readings[WARM:]) for name, readings in seconds.items()}


def main() -> None:
    options = tyro.cli(sweep.Sweep, default=DEFAULT)
    sweep.run(options)
    path = options.results / "step_seconds.json"
    if not path.exists():
        loaded = find_model(options.model)
        record = origin(loaded, command=sweep_results.command())
        record |= {"seconds": step_seconds(options, loaded)}
        atomic.write(path, json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
