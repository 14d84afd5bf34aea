"""The report of one run: what was found, how good it is, how it was found."""

import json
from pathlib import Path

from edgeprune_jax import atomic
from edgeprune_jax.circuits import Circuit, reachable
from edgeprune_jax.report.curves import Panel, Series, plot
from edgeprune_jax.report.draw import draw
from edgeprune_jax.report.page import Drawing, Plot, write_report
from edgeprune_jax.report.tables import busiest, comparison, origin


def write_run_report(folder: Path, circuit: Circuit, table: dict, *, title: str) -> None:
    """Writes `circuit.svg`, of the edges on a path from input to output, and `report.html`."""
    connected = reachable(circuit)
    picture = draw(connected, title=title)
    atomic.write(folder / "circuit.svg", picture)
    log = (folder / "metrics.jsonl").read_text().splitlines()
    curves = training_curves([json.loads(line) for line in log])
    summary = (
        f"{len(circuit):,} of {circuit.graph.n_edges:,} edges "
        f"({100 * (1 - circuit.sparsity):.2f} %), {len(connected):,} of them on a path from the "
        "input to the output. The drawing shows those."
    )
    write_report(
        folder / "report.html",
        title=title,
        summary=summary,
        sections=[
            *([comparison("Faithfulness on unseen prompts", table)] if table else []),
            Drawing("The circuit", picture),
            Plot("Training", curves),
            busiest(connected),
            origin(circuit),
        ],
    )


def training_curves(rows: list[dict]) -> str:
    """Divergence, sparsity and, where one grows, the price of an edge against steps, as SVG."""
    steps = [row["step"] for row in rows]

    def series(name, label, dashed=False):
        return Series(label, steps, [row[name] for row in rows], dashed)

    distance = Panel("distance from the full model", [series("divergence", "divergence")])
    sampled = series("sparsity", "sampled")
    if any("price" in row for row in rows):
        price = Panel("price of an edge, nats", [series("price", "price")], log=True)
        panels = [distance, Panel("sparsity", [sampled]), price]
    else:
        panels = [distance, Panel("sparsity", [sampled, series("target", "target", True)])]
    return plot(panels, x_label="step")
