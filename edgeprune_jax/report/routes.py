"""How the edges of a drawing run: from the top of the writer's box to the reader's, from below.

An edge that passes other rows does so on a lane: a vertical line that no box and no other edge
of those rows is on. Where edges are too many for lanes they bend instead, and cross what they
must.
"""

from collections import defaultdict

import numpy as np

from edgeprune_jax.circuits import Circuit
from edgeprune_jax.report.layout import HEIGHT, Box, Layout

MAX_ON_LANES = 400
LANE = 7  # pixels between lanes
CLEARANCE = 6  # pixels between a box and a lane

Point = tuple[float, float]
Ends = tuple[Box, Box, float]  # of an edge: writer, reader, and the x at which it comes in


def route(circuit: Circuit, places: Layout) -> list[list[Point]]:
    """For each kept edge, the points it passes; at each it runs straight up."""
    names = list(circuit.edges())
    ends = [(places.boxes[edge.writer], *places.entries[edge.reader]) for edge in names]
    if len(ends) <= MAX_ON_LANES:
        between = _lanes(ends, places)
    else:
        between = [_bend(*end) for end in ends]
    outward, inward = defaultdict(list), defaultdict(list)
    for position, (edge, (box, _, x), points) in enumerate(zip(names, ends, between, strict=True)):
        outward[edge.writer].append((points[0][0] if points else x, position))
        inward[edge.reader].append((points[-1][0] if points else box.x, position))
    starts, stops = [0.0] * len(ends), [0.0] * len(ends)
    for fan in outward.values():
        box = ends[fan[0][1]][0]
        _fan_out(fan, starts, middle=box.x, width=box.width - 16.0)
    for name, fan in inward.items():
        _, box, x = ends[fan[0][1]]
        _fan_out(fan, stops, middle=x, width=box.width - 16.0 if name in places.boxes else 12.0)
    return [
        [(start, writer.y), *points, (stop, reader.y + HEIGHT)]
        for start, points, stop, (writer, reader, _) in zip(
            starts, between, stops, ends, strict=True
        )
    ]


def _lanes(ends: list[Ends], places: Layout) -> list[list[Point]]:
    """For each edge the free lane that leads it least astray, short edges choosing first."""
    half = int(places.width / 2 / LANE) + len(ends) + 2
    lanes = LANE * np.arange(-half, half + 1)
    taken = np.zeros((len(places.tops), len(lanes)), bool)
    for box in places.boxes.values():
        taken[box.row] |= np.abs(lanes - box.x) < box.width / 2 + CLEARANCE
    between: list[list[Point]] = [[] for _ in ends]
    for position in sorted(range(len(ends)), key=lambda i: ends[i][1].row - ends[i][0].row):
        writer, reader, x = ends[position]
        passed = slice(writer.row + 1, reader.row)
        if passed.start == passed.stop:
            continue
        astray = np.abs(lanes - writer.x) + np.abs(lanes - x)
        lane = int(np.argmin(np.where(taken[passed].any(axis=0), np.inf, astray)))
        taken[passed, lane] = True
        first, last = places.tops[passed.start] + HEIGHT, places.tops[passed.stop - 1]
        between[position] = [(float(lanes[lane]), first), (float(lanes[lane]), last)]
    return between


def _bend(writer: Box, reader: Box, x: float) -> list[Point]:
    """A point beside the straight line, where that is long and steep enough to hide others."""
    rise = writer.y - reader.y - HEIGHT
    steep = max(0.0, 1 - abs(x - writer.x) / (rise / 2))
    if reader.row == writer.row + 1 or not steep:
        return []
    # Outward, so that the middle stays clear; from the middle itself to both sides.
    side = np.sign(writer.x + x) or (-1) ** (writer.row + reader.row)
    bend = float(side * steep * min(0.15 * rise, 90))
    return [((writer.x + x) / 2 + bend, (writer.y + reader.y + HEIGHT) / 2)]


def _fan_out(
    fan: list[tuple[float, int]], places: list[float], *, middle: float, width: float
) -> None:
    """Sets the edges of one end side by side, in the order of where they go."""
    step = min(LANE, width / max(1, len(fan) - 1))
    for rank, (_, position) in enumerate(sorted(fan)):
        places[position] = middle + step * (rank - (len(fan) - 1) / 2)
