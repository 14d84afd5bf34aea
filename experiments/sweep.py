"""Faithfulness against sparsity: Edge Pruning, EAP and random circuits on several tasks.

    python experiments/sweep.py --tasks ioi greater-than gendered-pronoun      (from the root)

For each task, target, number of pairs and seed one pruning run; from each run a circuit at every
sparsity asked for, cut from the same gates, or with `--sparsities` left empty the one that its
gates decide. All circuits of one size are measured together, beside EAP's and 20 random ones of
that size, on the same unseen prompts. Paper: KL 0.25 on IOI at 96.6 %, 0.05 on greater-than and
0.08 on gendered pronoun at 98.3 %, for GPT-2 small and its own prompts (section 4, figures 2, 3).

Everything is resumable: finished runs and measured sizes are not repeated. Results go to one
folder: circuits, training curves, a JSON for each size, a table and a plot for each task.
"""

import dataclasses
import itertools
import json
import shutil
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import sweep_results
import tyro

from edgeprune_jax import atomic, circuit_json
from edgeprune_jax.baselines.eap import eap, eap_circuit
from edgeprune_jax.circuits import Circuit
from edgeprune_jax.cli.inputs import find_data, find_model, origin
from edgeprune_jax.evaluation import measure_circuits, table
from edgeprune_jax.graph import Edges
from edgeprune_jax.measures.details import details
from edgeprune_jax.models.load import DEFAULT
from edgeprune_jax.models.loaded import Loaded
from edgeprune_jax.run import claim, discrete, run_pruning
from edgeprune_jax.settings import PruneConfig
from edgeprune_jax.tasks.batch import digest

STEPS = PruneConfig(steps=200, warmup=100)


@dataclass(frozen=True)
class Sweep:
    """Prune and measure over tasks, targets, sizes of data, seeds and sparsities."""

    tasks: tuple[str, ...] = ("ioi", "greater-than", "gendered-pronoun")
    """Tasks, one after the other."""
    model: str = DEFAULT
    """Model: a name, a file or a folder."""
    targets: tuple[float, ...] = (0.97,)
    """Sparsities to train towards, a run for each."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of gates and training prompts, a run for each."""
    examples: tuple[int, ...] = (400,)
    """Numbers of training pairs, a run for each."""
    sparsities: tuple[float, ...] = (0.95, 0.97, 0.985)
    """Sparsities of the circuits of each run; without any, what its gates decide."""
    test_examples: int = 320
    """Unseen pairs to measure on."""
    eap_examples: int = 64
    """Training pairs of EAP, those of the first seed."""
    random_circuits: int = 20
    """Random circuits of each size."""
    runs: Path = Path("runs/sweep")
    """Folder of the runs."""
    results: Path = Path("experiments/results/sweep_smollm2")
    """Folder of circuits, measures, tables and plots."""
    config: PruneConfig = field(default_factory=lambda: STEPS)
    """Settings of the method; target and seed are the sweep's."""


class Run(NamedTuple):
    """One pruning run."""

    config: PruneConfig
    examples: int  # training pairs


def planned(options: Sweep, task: str) -> dict[str, Run]:
    """Names and settings of a task's runs."""
    return {
        f"{label(task)}-{target}-{examples}-seed{seed}": Run(
            dataclasses.replace(options.config, target=target, seed=seed), examples
        )
        for target, examples, seed in itertools.product(
            options.targets, options.examples, options.seeds
        )
    }


def find_circuits(
    options: Sweep, loaded: Loaded, task: str, runs: dict[str, Run]
) -> dict[int, dict[str, Circuit]]:
    """The circuits of all runs by size and name."""
    found: dict[int, dict[str, Circuit]] = defaultdict(dict)
    sizes = [round((1 - s) * loaded.graph.n_edges) for s in options.sparsities] or [None]
    for name, (config, examples) in runs.items():
        train = find_data(loaded, task, split="train", n=examples, seed=config.seed).batch
        said = {
            "task": task,
            "data": {"seed": config.seed, "n_train": len(train), "split": "train"},
            "settings": dataclasses.asdict(config),
        }
        model = {"name": loaded.name, "digest": loaded.digest}
        claim(options.runs / name, {"model": model, "examples": digest(train), **said})
        gates = run_pruning(loaded, train, config, options.runs / name)
        shutil.copy(options.runs / name / "metrics.jsonl", options.results / f"{name}.jsonl")
        for edges in sizes:
            circuit = discrete(
                gates, config, edges=edges,
                provenance=origin(
                    loaded, **said, method="edge pruning", ablation=config.ablation,
                    command=sweep_results.command(),
                ),
            )  # fmt: skip
            found[len(circuit)][name] = circuit
    return found


def eap_scores(options: Sweep, loaded: Loaded, task: str) -> Edges:
    n, seed = options.eap_examples, options.seeds[0]
    data = find_data(loaded, task, split="train", n=n, seed=seed).batch
    return eap(loaded.model, loaded.params, loaded.graph, data, ablation=options.config.ablation)


def measure(options: Sweep, loaded: Loaded, task: str, runs: dict[str, Run]) -> None:
    """Writes the circuits of a task's runs and a JSON for each size that has no such one."""
    circuits, scores = find_circuits(options, loaded, task, runs), None
    n, seed = options.test_examples, options.seeds[0]
    how = {
        "task": task, "data": {"seed": seed, "n": n, "split": "test"},
        "ablation": options.config.ablation, "random_circuits": options.random_circuits,
        "eap_examples": options.eap_examples,
    }  # fmt: skip
    for edges, named in sorted(circuits.items()):
        path = options.results / f"{label(task)}-{edges}.json"
        if path.exists() and measured_so(json.loads(path.read_text()), how, named):
            continue
        scores = scores or eap_scores(options, loaded, task)
        test = find_data(loaded, task, split="test", n=n, seed=seed).batch
        measured = measure_circuits(
            loaded.model, loaded.params, {**named, "EAP": eap_circuit(scores, edges)}, test,
            ablation=options.config.ablation, n_random=options.random_circuits, seed=seed,
        )  # fmt: skip
        for name, circuit in named.items():
            circuit_json.save(circuit, options.results / f"{name}-{edges}.json")
        record = origin(loaded, command=sweep_results.command(), **how) | {
            "edges": edges, "of": loaded.graph.n_edges, "prompts": len(test),
            "rows": table(measured), "details": details(measured, seed=seed),
        }  # fmt: skip
        atomic.write(path, json.dumps(record, indent=1) + "\n")


def measured_so(record: dict, how: dict, named: dict[str, Circuit]) -> bool:
    """Whether a record holds these circuits, measured as asked."""
    same = all(record.get(key) == value for key, value in how.items())
    return same and record["rows"].keys() >= named.keys()


def label(task: str) -> str:
    """A task in names of files: a file of one's own by its stem."""
    return Path(task).stem if task.endswith(".jsonl") else task


def run(options: Sweep, published: sweep_results.Published | None = None) -> None:
    """Measures every task and writes its table and plot, with published figures beside ours."""
    options.results.mkdir(parents=True, exist_ok=True)
    loaded = find_model(options.model)
    for task in options.tasks:
        measure(options, loaded, task, planned(options, task))
        sweep_results.write(options.results, label(task), published)


if __name__ == "__main__":
    run(tyro.cli(Sweep))
