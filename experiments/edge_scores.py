"""A rival's scores of all edges, kept in `runs/` so that no script computes them twice."""

import resource
import time
from dataclasses import asdict
from pathlib import Path

import sweep_results

from edgeprune_jax import scores_file
from edgeprune_jax.baselines.attribution import AttributionConfig, attribute
from edgeprune_jax.cli.inputs import find_data, origin
from edgeprune_jax.models.loaded import Loaded

RUNS = Path("runs/scores")


def scored(
    loaded: Loaded, task: str, config: AttributionConfig, *, examples: int, seed: int
) -> scores_file.Scores:
    """The scores from so many training pairs: those that are there, or new ones."""
    settings = f"{config.method}-{config.metric or 'answer'}-{examples}-seed{seed}"
    path = RUNS / f"{Path(loaded.name).name}-{task}-{settings}.safetensors"
    if path.exists():
        return scores_file.load(path)
    data = find_data(loaded, task, split="train", n=examples, seed=seed).batch
    start, spent = time.monotonic(), time.process_time()
    edges = attribute(loaded.model, loaded.params, loaded.graph, data, config)
    edges.values.block_until_ready()
    said = origin(
        loaded, task=task, method=config.method, settings=asdict(config),
        data={"seed": seed, "n_train": len(data), "split": "train"}, ablation=config.ablation,
        command=sweep_results.command(), seconds=round(time.monotonic() - start, 1),
        cpu_seconds=round(time.process_time() - spent),
        peak_megabytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    )  # fmt: skip
    found = scores_file.Scores(edges, config.sign, None, said)
    RUNS.mkdir(parents=True, exist_ok=True)
    scores_file.save(found, path)
    return found
