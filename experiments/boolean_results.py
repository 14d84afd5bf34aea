"""What two circuits share against chance, and the page of a case study: table, figure, overlap."""

import math
from io import StringIO
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from scipy.stats import hypergeom

from edgeprune_jax import atomic
from edgeprune_jax.circuits import Circuit
from edgeprune_jax.cli import compare
from edgeprune_jax.report.tables import Table, to_markdown

CUT = {
    "interchange": "what they carry on the corrupted prompt",
    "mean": "their mean",
    "zero": "nothing",
}
MEASURES = {"accuracy": "accuracy", "exact_match": "exact match", "kl": "KL"}


def overlap(a: Circuit, b: Circuit) -> dict:
    """What two circuits share, beside two kinds of chance.

    `by chance` is the mean of the hypergeometric distribution, of two uniform draws of their sizes
    from all edges; `interval by chance` are its 2.5 and 97.5 % quantiles, `log10 p` the logarithm
    of the probability to share as many or more. `by chance, reader by reader` is the mean where
    every reader keeps as many edges as it does, but any of them.
    """
    found = compare.overlap(a, b)
    null = hypergeom(a.graph.n_edges, len(a), len(b))
    counts = [np.bincount(one.ends()[1], minlength=a.graph.n_readers) for one in (a, b)]
    edges = np.diff(a.graph.row_starts)
    by_reader = (np.prod(counts, axis=0) / np.maximum(edges, 1)).sum()
    return found | {
        "interval by chance": [int(null.ppf(q)) for q in (0.025, 0.975)],
        "log10 p": float(null.logsf(found["shared"] - 1)) / math.log(10),
        "by chance, reader by reader": float(by_reader),
    }


def write(folder: Path, record: dict, both: str) -> None:
    """Writes `README.md` and `transfer.svg`."""
    atomic.write(folder / "transfer.svg", figure(record))
    atomic.write(folder / "README.md", page(record, both))


def transfer(record: dict) -> Table:
    """A row for each circuit and control, a column for each measure on each style of prompts."""
    judged = record["judged"]
    of = next(iter(judged.values()))["rows"]["full"]["edges"]
    rows = [
        [name, row["edges"], f"{100 * (1 - row['edges'] / of):.2f} %",
         *(judged[task]["rows"][name][one] for one in MEASURES for task in judged)]
        for name, row in next(iter(judged.values()))["rows"].items()
    ]  # fmt: skip
    columns = [f"{shown}, `{task}`" for shown in MEASURES.values() for task in judged]
    return Table("", ["circuit", "edges", "sparsity", *columns], rows)


def page(record: dict, both: str) -> str:
    """The README of the results."""
    shared, judged = record["overlap"], record["judged"]
    prompts = "\n".join(
        f"`{task}`, {one['data']['n']} unseen prompts like\n\n```\n{one['example']}\n```\n"
        for task, one in judged.items()
    )
    low, high = shared["interval by chance"]
    by_reader = shared["by chance, reader by reader"]
    return f"""# One task asked in two ways, in {record["model"]["name"]}

Written by `{record["command"]}` ([the script](../../boolean_codellama.py)). Each circuit was pruned
on the prompts of the style that it is named after; `{both}` is the intersection of the two. KL is
that to the full model in nats, exact match the share of prompts on which a circuit's most likely
token is the full model's; cut edges carry {CUT[record["ablation"]]}. `study.json` has intervals.

{prompts}
{to_markdown(transfer(record))}
![The table as a matrix](transfer.svg)

The circuits share {shared["shared"]:,} edges of {shared["edges a"]:,} and {shared["edges b"]:,}
(Jaccard index {shared["jaccard"]:.3f}). Two random circuits of these sizes share
{shared["by chance"]:.4g} on average, between {low:,} and {high:,} in 95 % of draws: the overlap is
{shared["times chance"]:.4g} times chance, with a probability of 10^{shared["log10 p"]:.0f}. Random
circuits of which every reader keeps as many edges as here would share {by_reader:.4g}.
"""


def figure(record: dict) -> str:
    """The measures of every circuit on every style as matrices, as SVG."""
    judged = record["judged"]
    names = list(next(iter(judged.values()))["rows"])
    with matplotlib.rc_context({"svg.hashsalt": "edgeprune", "font.size": 9}):
        drawn = Figure(figsize=(9, 0.5 * len(names) + 1.2), layout="constrained")
        FigureCanvasSVG(drawn)
        for axes, (measure, shown) in zip(
            np.ravel(drawn.subplots(1, len(MEASURES), sharey=True)), MEASURES.items(), strict=True
        ):
            values = np.array([[judged[t]["rows"][n][measure] for t in judged] for n in names])
            top = 1 if measure != "kl" else values.max()
            axes.imshow(values, cmap="Blues", vmin=0, vmax=max(1.6 * top, 1e-9), aspect="auto")
            for (row, column), value in np.ndenumerate(values):
                axes.text(column, row, f"{value:.3f}", ha="center", va="center")
            axes.set_xticks(range(len(judged)), judged)
            axes.set_yticks(range(len(names)), names)
            axes.set_title(shown)
            axes.tick_params(length=0)
            axes.spines[:].set_visible(False)
        text = StringIO()
        drawn.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return text.getvalue()
