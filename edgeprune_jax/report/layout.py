"""Where the nodes of a circuit go in a drawing.

Layers go upward as the stream flows: the embeddings at the bottom, for each layer a row of heads
under a row for its MLP, the output on top. Only nodes that a kept edge touches have a place, and
layers without any are left out.

Where heads share keys and values, those of a group are boxes of their own, beside the group's
heads and on one panel with them. Otherwise a head's own box is entered at three points.
"""

from collections.abc import Iterator
from typing import NamedTuple

from edgeprune_jax.circuits import Circuit
from edgeprune_jax.graph import FINAL, Graph

HEAD_WIDTH, SHARED_WIDTH, WIDE = 58.0, 30.0, 80.0
HEIGHT = 34.0
SPACE, PAD = 12.0, 5.0  # between boxes, and around those that share a panel


class Box(NamedTuple):
    """A node, or a key or value that heads share; `x` is its centre and `y` its top."""

    name: str
    row: int  # counted from below
    x: float
    y: float
    width: float


class Panel(NamedTuple):
    """What lies behind the boxes of a group of heads."""

    left: float
    top: float
    width: float


class Band(NamedTuple):
    """The rows of a layer, and how many unused layers lie between it and the used one below."""

    layer: int
    top: float
    bottom: float
    skipped: int


class Layout(NamedTuple):
    """The places of a drawing, around x = 0 and downward from y = 0."""

    boxes: dict[str, Box]
    entries: dict[str, tuple[Box, float]]  # of the readers: where an edge comes in, and its x
    panels: list[Panel]
    bands: list[Band]
    tops: list[float]  # of the rows
    width: float
    height: float


def arrange(circuit: Circuit, *, gap: float) -> Layout:
    """Finds a place for every node that an edge of the circuit touches, rows `gap` apart."""
    graph = circuit.graph
    used = {name for edge in circuit.edges() for name in edge}
    rows = [[[name] for name in graph.embeddings if name in used]]  # of groups of boxes
    rows = [row for row in rows if row]
    layers: dict[int, tuple[int, int]] = {}
    for layer in range(graph.layers):
        first = len(rows)
        heads = [group for group in _groups(graph, layer, used) if group]
        mlp = [[f"m{layer}"]] if f"m{layer}" in used else []
        rows += [row for row in (heads, mlp) if row]
        if len(rows) > first:
            layers[layer] = first, len(rows) - 1
    rows += [[[FINAL]]] if FINAL in used else []

    height = max(0.0, len(rows) * (HEIGHT + gap) - gap)
    tops = [height - HEIGHT - row * (HEIGHT + gap) for row in range(len(rows))]
    boxes, panels = {}, []
    for row, groups in enumerate(rows):
        for group in _spread(groups, row, tops[row]):
            boxes.update((box.name, box) for box in group)
            if len(group) > 1:
                left = group[0].x - group[0].width / 2 - PAD
                right = group[-1].x + group[-1].width / 2 + PAD
                panels.append(Panel(left, tops[row] - PAD, right - left))
    bands, below = [], -1
    for layer, (first, last) in layers.items():
        bottom = tops[first] + HEIGHT + gap / 2
        bands.append(Band(layer, tops[last] - gap / 2, bottom, layer - below - 1))
        below = layer
    width = 2 * max((abs(box.x) + box.width / 2 for box in boxes.values()), default=0.0)
    readers = {reader: _entry(boxes, reader, graph) for _, reader in circuit.edges()}
    return Layout(boxes, readers, panels, bands, tops, width, height)


def _groups(graph: Graph, layer: int, used: set[str]) -> Iterator[list[str]]:
    """The boxes of a layer's attention, those that share keys and values together."""
    size = graph.heads // graph.kv_heads
    for group in range(graph.kv_heads):
        names = [f"a{layer}.h{head}" for head in range(group * size, (group + 1) * size)]
        slots = [f"a{layer}.h{group}.{letter}" for letter in "kv"]
        if size == 1:
            yield names if used & {*names, f"{names[0]}.q", *slots} else []
        else:
            heads = [name for name in names if used & {name, f"{name}.q"}]
            yield heads + [name for name in slots if name in used]


def _entry(boxes: dict[str, Box], reader: str, graph: Graph) -> tuple[Box, float]:
    if reader in boxes:
        return boxes[reader], boxes[reader].x
    head, letter = reader.rsplit(".", 1)
    box = boxes[head]
    shift = {"q": -0.3, "k": 0.0, "v": 0.3}[letter] if graph.kv_heads == graph.heads else 0.0
    return box, box.x + shift * box.width


def _spread(groups: list[list[str]], row: int, top: float) -> Iterator[list[Box]]:
    """The boxes of a row from left to right, centred."""
    widths = [
        [SHARED_WIDTH if n.endswith((".k", ".v")) else HEAD_WIDTH if "." in n else WIDE for n in g]
        for g in groups
    ]
    # A group's boxes stand PAD apart and have PAD around them.
    spans = [sum(w) + PAD * (len(w) + 1) * (len(w) > 1) for w in widths]
    left = -(sum(spans) + SPACE * (len(spans) - 1)) / 2
    for group, sizes, span in zip(groups, widths, spans, strict=True):
        boxes, x = [], left + (PAD if len(group) > 1 else 0.0)
        for name, width in zip(group, sizes, strict=True):
            boxes.append(Box(name, row, x + width / 2, top, width))
            x += width + PAD
        yield boxes
        left += span + SPACE
