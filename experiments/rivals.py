"""Edge Pruning and its rivals at equal numbers of edges, on the same unseen prompts.

    python experiments/sweep.py --seeds 0 1 2 --sparsities 0.95 0.966 0.98 0.99 \\
        --results experiments/results/rivals_smollm2/pruned          (Edge Pruning's circuits)
    python experiments/better.py --recipes anytime                   (those of a better recipe)
    python experiments/rivals.py                                     (the rivals, and all measures)

Every rival scores all edges on training prompts of each seed, as many as `GIVEN` says, by the
task's own metric (logit difference, or with ordered choices probability difference), and its
circuits are those of the largest effects. Paper: at 96.6 % on IOI in GPT-2, KL 0.25 for Edge
Pruning, 0.92 for ACDC, 3.47 for EAP (table 1).

Resumable: scores stay in `runs/`, and each measured circuit is a row of the task's JSON at once.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import sweep_results
import tyro
from edge_scores import scored

from edgeprune_jax import atomic, circuit_json
from edgeprune_jax.baselines.attribution import AttributionConfig
from edgeprune_jax.circuits import Circuit, mask
from edgeprune_jax.cli.inputs import find_data, find_model, origin
from edgeprune_jax.evaluation import measure_masks, summarise
from edgeprune_jax.models.load import DEFAULT
from edgeprune_jax.models.loaded import Loaded
from edgeprune_jax.report.curves import Panel, Series, plot
from edgeprune_jax.report.tables import Table, to_markdown


class Given(NamedTuple):
    """A rival's settings, and how many prompt pairs it is given."""

    config: AttributionConfig
    examples: int


GIVEN = {
    "EAP": Given(AttributionConfig("eap"), 128),
    "EAP-IG, inputs": Given(AttributionConfig("eap-ig-inputs"), 32),
    "EAP-IG, inputs, KL": Given(AttributionConfig("eap-ig-inputs", metric="kl"), 32),
    "EAP-IG, inputs, KL, 128": Given(AttributionConfig("eap-ig-inputs", metric="kl"), 128),
    "EAP-IG, activations": Given(AttributionConfig("eap-ig-activations"), 8),
    "magnitude": Given(AttributionConfig("magnitude"), 128),
    "random": Given(AttributionConfig("random"), 8),
}
OURS = {  # Edge Pruning's circuits below the results: the plain recipe's, and one of better.py's
    "Edge Pruning": "pruned/{task}-*-seed*-*.json",
    "Edge Pruning, anytime": "../better_smollm2/{task}-anytime-seed*-*.json",
}


@dataclass(frozen=True)
class Rivals:
    """Score edges by every method, cut circuits of several sizes, and measure all."""

    tasks: tuple[str, ...] = ("ioi", "greater-than", "gendered-pronoun")
    """Tasks, one after the other."""
    methods: tuple[str, ...] = tuple(GIVEN)
    """Rivals by name."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of the training prompts."""
    sparsities: tuple[float, ...] = (0.9, 0.95, 0.966, 0.98, 0.99)
    """Sparsities of the rivals' circuits."""
    test_examples: int = 96
    """Unseen pairs to measure on."""
    model: str = DEFAULT
    """Model: a name, a file or a folder."""
    results: Path = Path("experiments/results/rivals_smollm2")
    """Folder of measures, tables and plots; in it `pruned/`, Edge Pruning's circuits."""


def circuits(options: Rivals, loaded: Loaded, task: str) -> dict[tuple[str, int, int], Circuit]:
    """All circuits by method, seed and size: Edge Pruning's first, then each rival's."""
    found = {}
    sizes = [round((1 - sparsity) * loaded.graph.n_edges) for sparsity in options.sparsities]
    for method, pattern in OURS.items():
        for path in sorted(options.results.glob(pattern.format(task=task))):
            circuit = circuit_json.load(path, loaded.graph)
            if len(circuit) not in sizes:
                continue
            found[method, circuit.provenance["data"]["seed"], len(circuit)] = circuit
    for method in options.methods:
        for seed in options.seeds:
            config, examples = GIVEN[method]
            scores = scored(loaded, task, config, examples=examples, seed=seed)
            for size in sizes:
                circuit = scores.circuit(size)
                found[method, seed, len(circuit)] = circuit
    return found


def measure(options: Rivals, loaded: Loaded, task: str) -> dict:
    """The record of a task, with a row for each circuit."""
    path = options.results / f"{task}.json"
    record = json.loads(path.read_text()) if path.exists() else {"rows": []}
    done = {(row["method"], row["seed"], row["edges"]) for row in record["rows"]}
    test = find_data(loaded, task, split="test", n=options.test_examples, seed=0).batch
    nothing = np.zeros(loaded.graph.n_edges, bool)
    ends = {
        ("full", 0, len(nothing)): Circuit(loaded.graph, ~nothing),
        ("empty", 0, 0): Circuit(loaded.graph, nothing),
    }
    for key, circuit in (ends | circuits(options, loaded, task)).items():
        if key in done:
            continue
        (found,) = measure_masks(loaded.model, loaded.params, [mask(circuit)], test)
        said = circuit.provenance
        row = dict(zip(("method", "seed", "edges"), key, strict=True)) | summarise(found)
        row |= {name: said[name] for name in ("seconds", "peak_megabytes") if name in said}
        row |= {"examples": said.get("data", {}).get("n_train")}
        record = origin(
            loaded, task=task, data={"seed": 0, "n": len(test), "split": "test"},
            ablation="interchange", command=sweep_results.command(), of=loaded.graph.n_edges,
        ) | {"rows": [*record["rows"], row]}  # fmt: skip
        head = json.dumps({key: record[key] for key in record if key != "rows"}, indent=1)
        lines = ",\n".join(json.dumps(row) for row in record["rows"])
        atomic.write(path, head.removesuffix("\n}") + f',\n "rows": [\n{lines}\n]}}\n')
    return record


def write(options: Rivals, task: str, record: dict) -> None:
    """Writes `TASK.md` and `TASK.svg`: means over seeds, with the range of KL."""
    groups: dict[tuple[str, int], list[dict]] = {}
    for row in record["rows"]:
        groups.setdefault((row["method"], row["edges"]), []).append(row)
    own = next(name for name in sweep_results.TASK_MEASURES if name in record["rows"][0])
    names = ["kl", own, "accuracy", "exact_match"]
    shown, curves = [], {name: {} for name in names[:2]}
    order = [*OURS, *GIVEN, "empty", "full"]
    for (method, edges), rows in sorted(
        groups.items(), key=lambda one: (order.index(one[0][0]), -one[0][1])
    ):
        means = {name: float(np.mean([row[name] for row in rows])) for name in names}
        kls = [row["kl"] for row in rows]
        spent = [row.get(name) for row in rows for name in ("seconds",) if row.get(name)]
        shown.append([
            method, edges, len(rows), rows[0]["examples"], means["kl"],
            f"{min(kls):.3g} to {max(kls):.3g}", *(means[name] for name in names[1:]),
            float(np.mean(spent)) if spent else None,
        ])  # fmt: skip
        if method not in ("full", "empty"):
            for name in names[:2]:
                x, y = curves[name].setdefault(method, ([], []))
                x.append(100 * edges / record["of"])
                y.append(means[name])
    headers = ["circuit", "edges", "seeds", "given", "KL", "range", own.replace("_", " "),
               "accuracy", "exact match", "seconds"]  # fmt: skip
    atomic.write(options.results / f"{task}.md", to_markdown(Table("", headers, shown)))
    panels = [
        Panel(
            sweep_results.MEASURES[name],
            [Series(one, *xy, look=order.index(one)) for one, xy in curves[name].items()],
            log=name == "kl",
        )
        for name in names[:2]
    ]
    title = f"{task} in {record['model']['name']}"
    picture = plot(panels, x_label="edges kept, %", title=title, log_x=True)
    atomic.write(options.results / f"{task}.svg", picture)


def main() -> None:
    options = tyro.cli(Rivals)
    if unknown := set(options.methods) - set(GIVEN):
        raise SystemExit(f"methods are {', '.join(GIVEN)}: got {', '.join(unknown)}")
    options.results.mkdir(parents=True, exist_ok=True)
    loaded = find_model(options.model)
    for task in options.tasks:
        write(options, task, measure(options, loaded, task))


if __name__ == "__main__":
    main()
