"""Curves as SVG: training against steps, faithfulness against sparsity. Needs matplotlib."""

from collections.abc import Sequence
from io import StringIO
from typing import Any, NamedTuple

import matplotlib
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

COLOURS = (
    "#0072b2", "#d55e00", "#009e73", "#b5579a", "#4d4d4d", "#e69f00", "#56b4e9", "#8c564b",
    "#b8b800", "#000000",
)  # fmt: skip
MARKERS = "osD^vPX*<>"
DASHES = ("--", ":", "-.")
STYLE: Any = {
    "svg.hashsalt": "edgeprune",  # equal plots are equal files
    "font.size": 10,
    "axes.formatter.min_exponent": 4,  # 0.2 on a logarithmic axis, and no power of ten
}
INSIDE = 4  # lines, at most, that a legend among them can name


class Series(NamedTuple):
    """A line, or with `dashed` one that it should follow, such as a target."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    dashed: bool = False
    look: int | None = None  # its colour and marker; by default the next of the panel


class Panel(NamedTuple):
    """Lines that share an axis."""

    label: str
    series: Sequence[Series]
    log: bool = False
    zero: bool = False  # whether the axis begins there


def plot(panels: Sequence[Panel], *, x_label: str, title: str = "", log_x: bool = False) -> str:
    """The text of an SVG with the panels side by side, all against the same quantity.

    Where a panel has more than four lines, one legend below all panels names them.
    """
    # Without pyplot, which would keep the figure.
    with matplotlib.rc_context(STYLE):
        below = any(len(panel.series) > INSIDE for panel in panels)
        height = 3.9 if below else 3.2
        figure = Figure(figsize=(4.6 * max(1, len(panels)), height), layout="constrained")
        FigureCanvasSVG(figure)
        named = {}
        if title:
            figure.suptitle(_plain(title), fontsize=11)
        for position, panel in enumerate(panels):
            axes = figure.add_subplot(1, len(panels), position + 1)
            _draw(axes, panel)
            named |= {line.get_label(): line for line in axes.get_lines()}
            if len(panel.series) > 1 and not below:
                axes.legend(frameon=False, fontsize=9)
            axes.set_xlabel(_plain(x_label))
            if log_x:
                axes.set_xscale("log")
        if below:
            figure.legend(
                handles=list(named.values()), loc="outside lower center", ncols=2 * len(panels),
                frameon=False, fontsize=9,
            )  # fmt: skip
        text = StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return text.getvalue()


def _draw(axes, panel: Panel) -> None:
    solid = dashed = 0
    for line in panel.series:
        # A name that starts with an underscore would be left out of the legend.
        label = _plain(line.name.removeprefix("_"))
        if line.dashed:
            style = DASHES[dashed % len(DASHES)]
            axes.plot(line.x, line.y, color="#888888", linestyle=style, linewidth=1, label=label)
            dashed += 1
            continue
        look = (solid if line.look is None else line.look) % len(COLOURS)
        style = {"color": COLOURS[look], "linewidth": 1.6, "label": label}
        if len(line.x) <= 25:  # measured points rather than a log of steps
            style |= {"marker": MARKERS[look], "markersize": 4}
        axes.plot(line.x, line.y, **style)
        solid += 1
    if panel.log:
        axes.set_yscale("log")
    axes.set_ylabel(_plain(panel.label))
    whole = all(float(x).is_integer() for line in panel.series for x in line.x)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=whole))
    if panel.zero:
        axes.set_ylim(0, 1.05 * axes.get_ylim()[1])
    axes.grid(color="#e5e5e5", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _plain(text: str) -> str:
    """Text in which matplotlib finds no mathematics."""
    return text.replace("$", r"\$")
