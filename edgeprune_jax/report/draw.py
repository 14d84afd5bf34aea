"""Draws a circuit as SVG, with no other program: places from `layout`, text from here.

Colour is the kind of reader, a box is the fuller the more edges touch it, and lines grow thin and
transparent as they become many. Names, and scores if given, show when the mouse is on an edge.
"""

import re
from collections import Counter
from html import escape
from itertools import pairwise

import numpy as np

from edgeprune_jax.circuits import Circuit
from edgeprune_jax.graph import FINAL, POSITIONS, TOKENS, Edges
from edgeprune_jax.report.layout import HEIGHT, PAD, Layout, arrange
from edgeprune_jax.report.routes import Point, route

# The colours of Okabe and Ito, which the colour-blind can tell apart.
COLOURS = {
    "query": "#0072b2",
    "key": "#d55e00",
    "value": "#009e73",
    "MLP": "#b5579a",
    "output": "#4d4d4d",
}
LABELS = {TOKENS: "tokens", POSITIONS: "positions", FINAL: "output"}
MARGIN, LEFT, TOP, MIN_WIDTH = 16, 72, 82, 680.0
STYLE = (
    ".circuit .edges path:hover{stroke-opacity:1;stroke-width:3}"
    # What a page can set when the mouse is on a node, see report.html.j2.
    ".circuit.focus .edges path{opacity:.04}"
    ".circuit.focus .edges path.on{opacity:1;stroke-opacity:.8}"
)
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def draw(circuit: Circuit, *, title: str, scores: Edges | None = None) -> str:
    """The circuit as the text of an SVG file. Edges with larger `scores` are less transparent."""
    if scores is not None and scores.graph != circuit.graph:
        raise ValueError(
            f"scores must be of the circuit's graph {circuit.graph}: got {scores.graph}"
        )
    kinds = Counter(_kind(edge.reader) for edge in circuit.edges())
    n = max(1, len(circuit))
    places = arrange(circuit, gap=float(np.interp(n, [50, 3000], [48, 30])))
    routes = route(circuit, places)
    reach = max([places.width / 2, *(abs(x) for points in routes for x, _ in points)])
    heading = 2 * MARGIN + 10.5 * min(len(title), 120)  # room for the title, within reason
    width = max(2 * reach + LEFT + 2 * MARGIN, heading, MIN_WIDTH)
    height = places.height + TOP + 3 * MARGIN
    shift = (LEFT + width) / 2
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="circuit" role="img" '
        f'width="{_n(width)}" height="{_n(height)}" viewBox="0 0 {_n(width)} {_n(height)}" '
        f'font-family="DejaVu Sans, Verdana, sans-serif" font-size="12">',
        f"<title>{_text(title)}</title>",
        f"<style>{STYLE}</style>",
        f'<rect width="{_n(width)}" height="{_n(height)}" fill="#fff"/>',
        *_heading(circuit, title, kinds, scored=scores is not None),
        f'<g transform="translate({_n(shift)} {TOP + MARGIN})">',
        *_bands(places, left=MARGIN - shift, width=width - 2 * MARGIN),
        *_edges(circuit, routes, scores),
        *_boxes(circuit, places),
        "</g>",
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _heading(circuit: Circuit, title: str, kinds: Counter, *, scored: bool) -> list[str]:
    edges = f"{len(circuit):,} of {circuit.graph.n_edges:,} edges, {circuit.sparsity:.1%} cut"
    edges += "; the stronger the line, the higher the score" if scored else ""
    parts = [
        f'<text x="{MARGIN}" y="26" font-size="16" font-weight="bold">{_text(title)}</text>',
        f'<text x="{MARGIN}" y="46" fill="#555">{edges}</text>',
        '<g class="legend" fill="#333">',
    ]
    x = MARGIN
    for kind, colour in COLOURS.items():
        label = f"to {kind}: {kinds[kind]:,}"
        parts.append(f'<rect x="{x}" y="60" width="18" height="4" rx="2" fill="{colour}"/>')
        parts.append(f'<text x="{x + 24}" y="66">{label}</text>')
        x += 40 + 7 * len(label)
    return [*parts, "</g>"]


def _bands(places: Layout, *, left: float, width: float) -> list[str]:
    parts = []
    for position, band in enumerate(places.bands):
        top, height = _n(band.top), _n(band.bottom - band.top)
        fill = "#f6f6f6" if position % 2 == 0 else "#fff"
        parts.append(
            f'<rect x="{_n(left)}" y="{top}" width="{_n(width)}" height="{height}" fill="{fill}"/>'
        )
        middle = _n((band.top + band.bottom) / 2 + 4)
        parts.append(f'<text x="{_n(left + 8)}" y="{middle}" fill="#777">layer {band.layer}</text>')
        if band.skipped:
            parts.append(
                f'<path class="skipped" d="M{_n(left)} {_n(band.bottom)}h{_n(width)}" '
                f'stroke="#999" stroke-dasharray="2 4"/>'
                f'<text x="{_n(left + 8)}" y="{_n(band.bottom - 5)}" fill="#999" '
                f'font-size="11">{band.skipped} unused</text>'
            )
    for panel in places.panels:
        parts.append(
            f'<rect class="group" x="{_n(panel.left)}" y="{_n(panel.top)}" '
            f'width="{_n(panel.width)}" height="{_n(HEIGHT + 2 * PAD)}" rx="6" '
            f'fill="#e9e9e9"/>'
        )
    return parts


def _edges(circuit: Circuit, routes: list[list[Point]], scores: Edges | None) -> list[str]:
    n = max(1, len(circuit))
    width = float(np.interp(np.log(n), np.log([20, 300, 3000, 10000]), [1.8, 1.2, 0.8, 0.6]))
    opacity = float(np.interp(np.log(n), np.log([20, 300, 3000, 10000]), [0.9, 0.55, 0.22, 0.14]))
    lines: dict[str, list[str]] = {kind: [] for kind in COLOURS}
    values = None if scores is None else np.asarray(scores.values)[circuit.kept]
    strength = np.ones(n) if values is None else _strength(values)
    for position, (edge, points) in enumerate(zip(circuit.edges(), routes, strict=True)):
        label = " → ".join(edge)
        extra = ""
        if values is not None:
            label += f": {values[position]:.4g}"
            extra = f' stroke-opacity="{min(1.0, opacity * strength[position]):.2g}"'
        line = f'<path d="{_curve(points)}"{extra}><title>{label}</title></path>'
        lines[_kind(edge.reader)].append(line)
    parts = [f'<g class="edges" fill="none" stroke-width="{width:.2g}" stroke-linecap="round">']
    for kind, paths in lines.items():
        parts.append(f'<g stroke="{COLOURS[kind]}" stroke-opacity="{opacity:.2g}">')
        parts += [*paths, "</g>"]
    return [*parts, "</g>"]


def _strength(values: np.ndarray) -> np.ndarray:
    """From 0.3 for the lowest score to 1.7 for the highest, by rank: scores have any scale."""
    ranks = np.argsort(np.argsort(values, kind="stable"), kind="stable")
    return 0.3 + 1.4 * ranks / max(1, len(values) - 1)


def _curve(points: list[Point]) -> str:
    """A line through the points that runs straight up at each."""
    text = f"M{_n(points[0][0])} {_n(points[0][1])}"
    for (x0, y0), (x1, y1) in pairwise(points):
        if x0 == x1:
            text += f"V{_n(y1)}"
        else:
            middle = _n((y0 + y1) / 2)
            text += f"C{_n(x0)} {middle} {_n(x1)} {middle} {_n(x1)} {_n(y1)}"
    return text


def _boxes(circuit: Circuit, places: Layout) -> list[str]:
    touched: Counter = Counter()
    for writer, reader in circuit.edges():
        touched[writer] += 1
        touched[places.entries[reader][0].name] += 1
    readers: dict[str, list[str]] = {name: [] for name in places.boxes}
    for reader, (box, _) in places.entries.items():
        readers[box.name].append(reader)
    most = max(touched.values(), default=1)
    parts = ['<g class="nodes" text-anchor="middle">']
    for name, box in places.boxes.items():
        shared = name.endswith((".k", ".v"))
        label = LABELS.get(name, name[-1] + name.split(".")[1][1:] if shared else name)
        slots = [reader for reader in readers[name] if reader != name]
        parts += [
            f'<g class="node" data-writer="{name}" data-readers="{" ".join(readers[name])}">',
            f"<title>{name}: {touched[name]:,} edges</title>",
            f'<rect x="{_n(box.x - box.width / 2)}" y="{_n(box.y)}" width="{_n(box.width)}" '
            f'height="{_n(HEIGHT)}" rx="5" fill="{_tint(touched[name] / most)}" '
            f'stroke="{COLOURS[_kind(name)] if shared else "#333"}"/>',
            f'<text x="{_n(box.x)}" y="{_n(box.y + (15 if slots else 21))}">{label}</text>',
        ]
        for reader in slots:
            parts.append(
                f'<text x="{_n(places.entries[reader][1])}" y="{_n(box.y + HEIGHT - 4)}" '
                f'font-size="11" font-weight="bold" '
                f'fill="{COLOURS[_kind(reader)]}">{reader[-1]}</text>'
            )
        parts.append("</g>")
    return [*parts, "</g>"]


def _kind(reader: str) -> str:
    if reader == FINAL:
        return "output"
    return {"q": "query", "k": "key", "v": "value"}.get(reader[-1], "MLP")


def _tint(share: float) -> str:
    """From white to amber; the root shows differences among the many nodes of few edges."""
    full = np.array([255, 208, 110])
    red, green, blue = (255 + (full - 255) * share**0.5).astype(int)
    return f"#{red:02x}{green:02x}{blue:02x}"


def _text(text: str) -> str:
    return escape(_NOT_XML.sub("\ufffd", text))


def _n(number: float) -> str:
    """A coordinate, in as few characters as will do."""
    return f"{number:.1f}".removesuffix(".0")
