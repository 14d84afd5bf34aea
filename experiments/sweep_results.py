"""The table and the plot of a sweep, from the JSON files that it wrote.

python experiments/sweep_results.py experiments/results/sweep_smollm2 ioi
"""

import json
import re
import shlex
import sys
from pathlib import Path
from typing import NamedTuple

from edgeprune_jax import atomic
from edgeprune_jax.report.curves import Panel, Series, plot
from edgeprune_jax.report.tables import Table, to_markdown

CONTROLS = ("EAP", "best random", "random", "empty", "full")
MEASURES = {
    "kl": "KL",
    "choice_kl": "KL of the choices",
    "logit_difference": "logit difference",
    "probability_difference": "probability difference",
    "within_10_years": "within 10 years",
    "kendall_tau": "Kendall tau",
    "accuracy": "accuracy",
    "exact_match": "exact match",
}
TASK_MEASURES = ("probability_difference", "logit_difference", "accuracy")


class Published(NamedTuple):
    """A curve from the paper: pairs of edge sparsity in percent and KL."""

    measure: str  # the name of that KL here
    points: tuple[tuple[float, float], ...]


def command() -> str:
    """The command line of the script that runs, as typed from the project's root."""
    return shlex.join(["python", f"experiments/{Path(sys.argv[0]).name}", *sys.argv[1:]])


def read(folder: Path, task: str) -> list[dict]:
    """The records of a task, from the sparsest to the densest."""
    found = [json.loads(path.read_text()) for path in folder.glob(f"{task}-[0-9]*.json")]
    return sorted((one for one in found if "rows" in one), key=lambda one: one["edges"])


def compared(records: list[dict]) -> Table:
    """A row for each circuit and control, by size; the controls of no size come last."""
    names = [name for name in MEASURES if name in records[0]["rows"]["full"]]
    rows = []
    for record in reversed(records):
        sparsity = f"{100 * (1 - record['edges'] / record['of']):.1f} %"
        for name, row in record["rows"].items():
            if name in ("full", "empty"):
                continue
            interval = record["details"].get(name, {}).get("kl", {}).get("interval")
            shown = f"{interval[0]:.3g} to {interval[1]:.3g}" if interval else None
            rows.append([name, sparsity, row["edges"], row["kl"], shown, *map(row.get, names[1:])])
    for name in ("empty", "full"):
        row = records[0]["rows"][name]
        rows.append([name, None, row["edges"], row["kl"], None, *map(row.get, names[1:])])
    headers = ["circuit", "sparsity", "edges", "KL", "95 % interval"]
    return Table("", [*headers, *(MEASURES[name] for name in names[1:])], rows)


def curves(records: list[dict], *, title: str, published: Published | None = None) -> str:
    """KL and the task's own measure against the share of edges kept, as SVG."""
    measure = next(name for name in TASK_MEASURES if name in records[0]["rows"]["full"])
    kept = [100 * one["edges"] / one["of"] for one in records]
    ours = sorted({name for one in records for name in one["rows"]} - set(CONTROLS))
    whose = lines(records, ours) | {one: [one] for one in ("EAP", "best random")}

    def panel(name, *, log, levels):
        drawn = []
        for line, circuits in whose.items():
            points = [
                (x, one["rows"][circuit][name])
                for x, one in zip(kept, records, strict=True)
                for circuit in circuits
                if circuit in one["rows"]
            ]
            drawn.append(Series(line, *zip(*points, strict=True)))
        if published and name == published.measure:
            sparsities, kls = zip(*published.points, strict=True)
            drawn.append(Series("paper, GPT-2", [100 - x for x in sparsities], kls))
        for level in levels:
            drawn.append(Series(level, kept, [records[0]["rows"][level][name]] * len(kept), True))
        return Panel(MEASURES[name], drawn, log=log)

    return plot(
        [
            panel(published.measure if published else "kl", log=True, levels=["empty"]),
            panel(measure, log=False, levels=["full", "empty"]),
        ],
        x_label="edges kept, %", title=title, log_x=True,
    )  # fmt: skip


def lines(records: list[dict], circuits: list[str]) -> dict[str, list[str]]:
    """The circuits of each line: those of one run, or of runs that differ in their target alone.

    A run that gave one size only is one point; its line is that of the same settings.
    """
    found: dict[str, list[str]] = {}
    for name in circuits:
        several = sum(name in one["rows"] for one in records) > 1
        line = name if several else re.sub(r"-0\.\d+-", "-", name, count=1)
        found.setdefault(line, []).append(name)
    return found


def write(folder: Path, task: str, published: Published | None = None) -> None:
    """Writes `TASK.md` and `TASK.svg` beside the JSON files of a task."""
    records = read(folder, task)
    atomic.write(folder / f"{task}.md", to_markdown(compared(records)))
    title = f"{task} in {records[0]['model']['name']}"
    atomic.write(folder / f"{task}.svg", curves(records, title=title, published=published))


if __name__ == "__main__":
    write(Path(sys.argv[1]), sys.argv[2])
