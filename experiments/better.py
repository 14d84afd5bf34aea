"""Better Edge Pruning beside the plain recipe: IOI and other tasks in SmolLM2-135M.

    python experiments/better.py                                    (the table, from the root)
    python experiments/better.py --recipes anytime --split validation --seeds 0     (for choices)

A recipe is a config and, for a warm start, so many training pairs for EAP-IG on inputs by KL (5
steps). All are cut at the same sizes, or at the one they are for, and measured on the same prompts;
a ranking of all edges has CPR and CMD too (`measures.curve`), and several seeds have a Jaccard
index at 97.5 %. The plain recipe's circuits are those of `results/rivals_smollm2/pruned` (200 steps
towards 97 %), not found anew; nor are a recipe's own, where they are among the results and their
run is not in `runs/` (they say nothing of CPR and CMD, which need the whole ranking).

Settings were chosen on the validation split; the committed table is of the test split. Resumable:
runs stay in `runs/`, and each measured run is written at once. `cpu_seconds` are of all threads of
this process, compiling and the warm start's scores included, and count from the last resumption.
"""

import json
import time
from collections import defaultdict
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import sweep_results
import tyro
from edge_scores import scored

from edgeprune_jax import atomic, circuit_json
from edgeprune_jax.baselines.attribution import AttributionConfig
from edgeprune_jax.circuits import Circuit, from_scores, mask, ranked
from edgeprune_jax.cli.inputs import find_data, find_model, origin
from edgeprune_jax.evaluation import measure_masks, summarise
from edgeprune_jax.graph import Edges
from edgeprune_jax.measures.curve import areas
from edgeprune_jax.measures.stability import stability
from edgeprune_jax.models.load import DEFAULT
from edgeprune_jax.models.loaded import Loaded
from edgeprune_jax.report.tables import Table, to_markdown
from edgeprune_jax.run import claim, ranking, run_pruning
from edgeprune_jax.settings import ANYTIME, PruneConfig
from edgeprune_jax.tasks.splits import Split
from edgeprune_jax.warm_start import warm_start

SCORES = AttributionConfig("eap-ig-inputs", metric="kl")
STABLE = 0.975  # sparsity of the circuits that are held against each other
PLAIN = Path("experiments/results/rivals_smollm2/pruned")


class Recipe(NamedTuple):
    """One way to prune."""

    config: PruneConfig
    scored: int = 0  # training pairs of the warm start's scores; 0 for none
    ranks: bool = False  # whether its ranking is of use at all sizes, and has CPR and CMD
    only: float | None = None  # the one sparsity it is for
    examples: int = 2000  # training pairs


QUICK = PruneConfig(
    target=0.968, start=0.93, steps=90, warmup=30, batch_size=4, gate_rate=0.3,
    multiplier_rate=2.0, own_masks=True,
)  # fmt: skip


def alone(target: float, **changes) -> PruneConfig:
    """A run for one size."""
    usual = replace(
        QUICK, target=target, start=0.9, steps=200, warmup=60, gate_rate=0.2, price=9e-4
    )
    return replace(usual, **changes)


RECIPES = {
    "anytime": Recipe(ANYTIME, scored=128, ranks=True),
    "mean": Recipe(replace(ANYTIME, replicas=3), scored=128, ranks=True),
    "quick": Recipe(QUICK, scored=32),
    "longer": Recipe(PruneConfig(), examples=400),
    **{
        f"at-{100 * one.target:g}": Recipe(one, scored=128, only=one.target)
        for one in (
            alone(0.9, start=0.5, warmup=120, price=1e-4), alone(0.95), alone(0.98),
            alone(0.99, price=2e-3, steps=400), alone(0.995, price=5e-3, steps=400),
        )
    },
}  # fmt: skip


@dataclass(frozen=True)
class Better:
    """Prune by every recipe and seed, and measure all circuits on the same prompts."""

    recipes: tuple[str, ...] = ("plain", *RECIPES)
    """Recipes by name."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of gates and training prompts."""
    sparsities: tuple[float, ...] = (0.9, 0.95, 0.966, STABLE, 0.98, 0.99, 0.995)
    """Sparsities of the circuits."""
    split: Split = "test"
    """Prompts to measure on: 'validation' for choices, 'test' for the table."""
    test_examples: int = 96
    """Pairs to measure on, which the names of the measures have too."""
    task: str = "ioi"
    """Task."""
    model: str = DEFAULT
    """Model: a name, a file or a folder."""
    runs: Path = Path("runs/better_smollm2")
    """Folder of the runs."""
    results: Path = Path("experiments/results/better_smollm2")
    """Folder of measures, circuits and the table."""


def pruned(options: Better, loaded: Loaded, name: str, seed: int) -> tuple[Edges, dict]:
    """A run's ranking of all edges, and its provenance."""
    recipe = RECIPES[name]
    config = replace(recipe.config, seed=seed * recipe.config.replicas)  # no two share a replica
    first, spent = None, 0
    if recipe.scored:
        scores = scored(loaded, options.task, SCORES, examples=recipe.scored, seed=seed)
        first = warm_start(ranked(scores.edges, scores.sign), sparsity=config.start)
        spent = scores.provenance["cpu_seconds"]
    data = find_data(loaded, options.task, split="train", n=recipe.examples, seed=seed).batch
    folder, start = run_folder(options, name, seed), time.process_time()
    claim(folder, {"scored": recipe.scored, "settings": asdict(config), "n_train": len(data)})
    done = (folder / "gates.safetensors").exists()
    gates = run_pruning(loaded, data, config, folder, first=first)
    path = folder / "cpu_seconds.json"
    if not done:
        atomic.write(path, json.dumps(spent + round(time.process_time() - start)) + "\n")
    return ranking(gates), origin(
        loaded, task=options.task, method="edge pruning", recipe=name, settings=asdict(config),
        data={"seed": seed, "n_train": len(data), "split": "train"}, ablation=config.ablation,
        command=sweep_results.command(), cpu_seconds=json.loads(path.read_text()),
        warm_start=asdict(SCORES) | {"examples": recipe.scored} if recipe.scored else None,
    )  # fmt: skip


def found(
    options: Better, loaded: Loaded, name: str, seed: int
) -> tuple[list[Circuit], Edges | None]:
    """The circuits of a recipe and seed, and its ranking, which circuits found before lack."""
    recipe = RECIPES.get(name)
    sparsities = options.sparsities if recipe is None or recipe.only is None else (recipe.only,)
    sizes = [round((1 - sparsity) * loaded.graph.n_edges) for sparsity in sparsities]
    paths = [circuit_path(options, name, seed, size) for size in sizes]
    known = name == "plain" or all(path.exists() for path in paths)
    if not known or run_folder(options, name, seed).exists():
        edges, said = pruned(options, loaded, name, seed)
        return [from_scores(edges, size, provenance=said) for size in sizes], edges
    return [circuit_json.load(path, loaded.graph) for path in paths if path.exists()], None


def measure(options: Better, loaded: Loaded) -> dict:
    """The record of all runs, with an entry for each recipe and seed; what it holds is kept."""
    path = measures(options).with_suffix(".json")
    record = json.loads(path.read_text()) if path.exists() else {"runs": []}
    done = {(run["recipe"], run["seed"]) for run in record["runs"]}
    data = find_data(
        loaded, options.task, split=options.split, n=options.test_examples, seed=0
    ).batch
    for name in options.recipes:
        for seed in options.seeds:
            if (name, seed) in done:
                continue
            circuits, edges = found(options, loaded, name, seed)
            if not circuits:
                continue
            masks = [mask(circuit) for circuit in circuits]
            rows = [
                {"edges": len(circuit)} | summarise(one)
                for circuit, one in zip(
                    circuits, measure_masks(loaded.model, loaded.params, masks, data), strict=True
                )
            ]
            said = circuits[0].provenance
            run = {"recipe": name, "seed": seed, "rows": rows, "settings": said["settings"]}
            run["cpu_seconds"] = said.get("cpu_seconds")
            if edges is not None and RECIPES[name].ranks:
                own = next(one for one in sweep_results.TASK_MEASURES if one in rows[0])
                run["areas"] = areas(loaded.model, loaded.params, edges, data, measure=own)
            for circuit in circuits if edges is not None else ():
                circuit_json.save(circuit, circuit_path(options, name, seed, len(circuit)))
            record = origin(
                loaded, task=options.task, ablation="interchange", of=loaded.graph.n_edges,
                data={"seed": 0, "n": len(data), "split": options.split},
                command=sweep_results.command(),
            ) | {"runs": [*record["runs"], run]}  # fmt: skip
            atomic.write(path, json.dumps(record, indent=1) + "\n")
    return record


def run_folder(options: Better, name: str, seed: int) -> Path:
    return options.runs / f"{options.task}-{name}-seed{seed}"


def circuit_path(options: Better, name: str, seed: int | str, size: int) -> Path:
    if name == "plain":
        return PLAIN / f"{options.task}-0.97-400-seed{seed}-{size}.json"
    return options.results / f"{options.task}-{name}-seed{seed}-{size}.json"


def measures(options: Better) -> Path:
    """Where the measures are, without a suffix: those of other prompts do not mix."""
    return options.results / f"{options.task}-{options.split}-{options.test_examples}"


def stable(options: Better, loaded: Loaded, name: str) -> dict | None:
    """How alike a recipe's circuits of the one size are, over the seeds that have been run."""
    size = round((1 - STABLE) * loaded.graph.n_edges)
    any_seed = circuit_path(options, name, "*", size)
    paths = sorted(any_seed.parent.glob(any_seed.name))
    circuits = [circuit_json.load(path, loaded.graph) for path in paths]
    return stability(circuits) if len(circuits) > 1 else None


def write(options: Better, loaded: Loaded, record: dict) -> None:
    """Writes the table of means over seeds, and the stability of each recipe."""
    groups: dict[str, list[dict]] = defaultdict(list)
    for run in record["runs"]:
        groups[run["recipe"]].append(run)
    sizes = sorted({row["edges"] for run in record["runs"] for row in run["rows"]}, reverse=True)
    table = []
    alike = {name: stable(options, loaded, name) for name in ("plain", *RECIPES)}
    for name, runs in groups.items():
        kls: dict[int, list[float]] = defaultdict(list)
        for run in runs:
            for row in run["rows"]:
                kls[row["edges"]].append(row["kl"])
        config, spent = runs[0]["settings"], [run["cpu_seconds"] for run in runs]
        whole = [run["areas"] for run in runs if "areas" in run]
        table.append([
            name, len(runs), config["steps"], config["batch_size"],
            *(float(np.mean(kls[size])) if kls[size] else None for size in sizes),
            *(mean([one[order][area]["shares"] for one in whole])
              for order, area in (("absolute", "cmd"), ("signed", "cpr"))),
            (alike[name] or {}).get("jaccard"), mean(spent),
        ])  # fmt: skip
    headers = [
        "recipe", "seeds", "steps", "batch", *(f"KL at {size:,}" for size in sizes), "CMD", "CPR",
        f"Jaccard at {STABLE:.1%}", "CPU seconds",
    ]  # fmt: skip
    atomic.write(measures(options).with_suffix(".md"), to_markdown(Table("", headers, table)))
    known = {name: one for name, one in alike.items() if one}
    atomic.write(options.results / f"{options.task}-stability.json", json.dumps(known, indent=1))


def mean(values: list) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def main() -> None:
    options = tyro.cli(Better)
    if unknown := set(options.recipes) - {"plain", *RECIPES}:
        raise SystemExit(f"recipes are plain, {', '.join(RECIPES)}: got {', '.join(unknown)}")
    options.results.mkdir(parents=True, exist_ok=True)
    loaded = find_model(options.model)
    write(options, loaded, measure(options, loaded))


if __name__ == "__main__":
    main()
