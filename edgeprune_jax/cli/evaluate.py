"""`edgeprune evaluate`: run circuits on unseen prompts, beside the controls."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from edgeprune_jax import scores_file
from edgeprune_jax.baselines.eap import eap, eap_circuit
from edgeprune_jax.cli.inputs import DOMAIN, find_data, read_circuit
from edgeprune_jax.cli.prune import EAP_EXAMPLES
from edgeprune_jax.evaluation import distance, measure_circuits, table
from edgeprune_jax.measures.details import details, overview
from edgeprune_jax.measures.judge import judge, summary
from edgeprune_jax.models.loaded import Loaded
from edgeprune_jax.report.tables import comparison, to_rich, turned
from edgeprune_jax.tasks.batch import Batch
from edgeprune_jax.tasks.splits import Split


@dataclass(frozen=True)
class Evaluate:
    """Score a circuit file on unseen prompts, beside the full model, EAP and random circuits."""

    circuits: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Circuit files or .safetensors of scores, all of one model. The first sets the size of the
    controls."""
    edges: int | None = None
    """Edges to keep of scores. Of ACDC's, by default its own."""
    model: str | None = None
    """Model. By default the one that the first circuit names."""
    task: str | None = None
    """Task. By default the first circuit's."""
    split: Split = "test"
    """Which templates: train, validation or test."""
    examples: int = 320
    """Prompt pairs."""
    data_seed: int = 0
    """Seed of the prompts."""
    ablation: str | None = None
    """What a cut edge carries. By default as when the first circuit was found."""
    random_circuits: int = 20
    """Random circuits of equal size."""
    eap: bool = True
    """Whether to score EAP's circuit of equal size, found on 64 training prompts."""
    full: bool = False
    """Judge the first circuit further: completeness, minimality, which takes a masked pass of 32
    prompts for each of its edges, and CPR and CMD of its scores, of EAP's where it has none."""
    json: bool = False
    """Print one JSON object."""


def run(options: Evaluate) -> int:
    if not options.circuits:
        raise ValueError("evaluate needs a circuit file: got none")
    first, loaded = read_circuit(options.circuits[0], options.model, options.edges)
    circuits = {str(options.circuits[0]): first}
    for path in options.circuits[1:]:
        circuits[str(path)] = read_circuit(path, options.model or loaded.name, options.edges)[0]
    task = options.task or first.provenance.get("task") or "ioi"
    if first.provenance.get("model", {}).get("name") == task:
        task = DOMAIN  # the stored truth of a compiled program
    ablation = options.ablation or first.provenance.get("ablation", "interchange")

    def data(split, n):
        return find_data(loaded, task, split=split, n=n, seed=options.data_seed)

    made = data(options.split, options.examples)
    test = made.batch
    with Console(quiet=options.json).status(f"{len(test)} prompts through {loaded.name}") as status:
        scores = None
        if options.eap or options.full:
            train = data("train", EAP_EXAMPLES).batch
            scores = eap(loaded.model, loaded.params, loaded.graph, train, ablation=ablation)
        if options.eap and scores is not None:
            circuits["EAP"] = eap_circuit(scores, len(first))
        measured = measure_circuits(
            loaded.model, loaded.params, circuits, test, ablation=ablation,
            n_random=options.random_circuits, seed=options.data_seed,
        )  # fmt: skip
        rows, behind = table(measured), details(measured, seed=options.data_seed)
        add_prompts(behind, test, loaded)
        judged = None
        if options.full and scores is not None:
            if options.circuits[0].suffix == ".safetensors":
                scores = scores_file.load(options.circuits[0]).edges
            judged = judge(
                loaded.model, loaded.params, first, scores, test, ablation=ablation,
                seed=options.data_seed,
                on_edges=lambda done, of: status.update(f"{done} of {of} edges cut alone"),
            )  # fmt: skip
    if options.json:
        found = {
            "model": loaded.name, "task": task, "split": options.split, "examples": len(test),
            "left_out": made.left_out, "ablation": ablation, "rows": rows, "details": behind,
        }  # fmt: skip
        further = {} if judged is None else {"judged": judged}
        print(json.dumps(found | further, allow_nan=False))
    else:
        title = f"{len(test)} {options.split} prompts of {task}, {ablation} ablation"
        tables = [
            comparison(title, shortened(rows)),
            turned(comparison("Behind the means", shortened(overview(behind)))),
        ]
        if judged is not None:
            lines = {str(options.circuits[0]): summary(judged)}
            tables.append(turned(comparison("By further runs", shortened(lines))))
        for one in tables:
            Console().print(to_rich(one))
    return 0


def shortened(rows: dict[str, dict]) -> dict[str, dict]:
    """Rows by the ends of their paths, as long as these differ."""
    ends = [Path(name).name for name in rows]
    return dict(zip(ends, rows.values(), strict=True)) if len({*ends}) == len(ends) else rows


def add_prompts(behind: dict, data: Batch, loaded: Loaded) -> None:
    """Puts the text of the worst examples beside their row numbers."""
    if loaded.tokenizer is None:
        return
    for entry in behind.values():
        for example in entry[distance(entry)]["worst"]:
            tokens = data.tokens[example["row"]][data.valid[example["row"]]]
            example["prompt"] = loaded.tokenizer.decode(tokens.tolist())
