"""Rivals on compiled programs: does the truth come first in their scores?

    python experiments/rivals_programs.py                          (all programs, zero ablation)
    python experiments/rivals_programs.py --programs reverse xproportion --ablation interchange

Every method scores all edges on the same prompts, at most 256 of the domain, and its circuit has as
many edges as the truth (ACDC's also its own number). A row says how many of them are true, and
whether all are. Edge Pruning is not told that number; its table is `recovery.md`. Random scores are
drawn with three seeds.

Every row is written when it is done: a killed command goes on where it was.
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import sweep_results
import tyro

from edgeprune_jax import atomic, provenance
from edgeprune_jax.baselines.attribution import AttributionConfig, attribute, natural_size
from edgeprune_jax.circuits import from_scores, ranked
from edgeprune_jax.models import tracr
from edgeprune_jax.report.tables import Table, to_markdown
from edgeprune_jax.tasks.batch import take
from tracr_models import ground_truth
from tracr_models.domain import every_pair, full_domain
from tracr_models.programs import PROGRAMS
from tracr_models.store import compiled

RESULTS = Path("experiments/results/rivals_programs")
EXAMPLES = 256
METHODS = {
    "EAP": AttributionConfig("eap", batch_size=64),
    "EAP-IG, inputs": AttributionConfig("eap-ig-inputs", batch_size=64),
    "EAP-IG, activations": AttributionConfig("eap-ig-activations", batch_size=64),
    "exact patching": AttributionConfig("exact", batch_size=64),
    "ACDC": AttributionConfig("acdc", batch_size=64),
    "magnitude": AttributionConfig("magnitude", batch_size=64),
    **{f"random {seed}": AttributionConfig("random", seed=seed) for seed in range(3)},
}


@dataclass(frozen=True)
class Programs:
    """Score the edges of compiled programs by every method, and hold them against the truth."""

    programs: tuple[str, ...] = tuple(PROGRAMS)
    """Names of the programs."""
    ablation: Literal["zero", "interchange"] = "zero"
    """What a cut edge carries."""


def rows(program: str, ablation: str):
    """A row for each method."""
    folder = compiled(program)
    truth = ground_truth.obtain(folder, ablation=ablation, criterion="decoded")
    loaded, data = tracr.load(folder), full_domain(folder)
    if ablation == "interchange":
        data = every_pair(data)
    drawn = np.sort(np.random.default_rng(0).permutation(len(data))[:EXAMPLES])
    data = take(data, drawn)
    number = tracr.read_config(folder).outputs is None
    for name, config in METHODS.items():
        # A number has no logits: then the metric that is 0 at the model is the squared error.
        flat = "squared" if number else "kl"
        metric = flat if name in ("ACDC", "exact patching") else None
        config = AttributionConfig(**{**vars(config), "ablation": ablation, "metric": metric})
        start = time.monotonic()
        scores = attribute(loaded.model, loaded.params, loaded.graph, data, config)
        found = from_scores(ranked(scores, config.sign), len(truth))
        nearest = ground_truth.nearest(found, truth)
        yield {
            "program": program, "method": name, "edges": truth.graph.n_edges, "true": len(truth),
            "hit": len(found & nearest), "exact": found == nearest,
            "own": natural_size(scores, config), "metric": metric or "answer",
            "examples": len(data), "seconds": round(time.monotonic() - start, 1),
        }  # fmt: skip


def write(path: Path, record: dict) -> None:
    """The rows as JSON, one a line, and a table of true edges among as many."""
    head = json.dumps({key: record[key] for key in record if key != "rows"}, indent=1)
    lines = ",\n".join(json.dumps(row) for row in record["rows"])
    atomic.write(path, head.removesuffix("\n}") + f',\n "rows": [\n{lines}\n]}}\n')
    programs = list(dict.fromkeys(row["program"] for row in record["rows"]))
    hits = {(row["program"], row["method"]): row for row in record["rows"]}
    table = [
        [name, hits[name, "EAP"]["edges"], hits[name, "EAP"]["true"],
         *(hits[name, method]["hit"] for method in METHODS), hits[name, "ACDC"]["own"]]
        for name in programs if all((name, method) in hits for method in METHODS)
    ]  # fmt: skip
    headers = ["program", "edges", "true", *METHODS, "ACDC's own number"]
    atomic.write(path.with_suffix(".md"), to_markdown(Table("", headers, table)))


def main() -> None:
    options = tyro.cli(Programs)
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{options.ablation}.json"
    record = json.loads(path.read_text()) if path.exists() else {"rows": []}
    done = {row["program"] for row in record["rows"]}
    for program in options.programs:
        if program in done:
            continue
        found = list(rows(program, options.ablation))
        said = provenance.collect(command=sweep_results.command(), ablation=options.ablation)
        record = said | {"rows": [*record["rows"], *found]}
        write(path, record)


if __name__ == "__main__":
    main()
