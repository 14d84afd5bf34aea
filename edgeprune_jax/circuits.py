"""A circuit: the edges of a graph that are kept, all others being ablated.

Every way to find a circuit ends in an `Edges` of scores; `from_scores` makes it discrete. From
here on nothing is differentiable, and circuits are sets: they can be joined, met, subtracted
and compared, whatever found them.

Axes: E edges, W writers, H query heads, G key/value heads.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from operator import index as as_integer
from typing import SupportsIndex

import jax.numpy as jnp
import numpy as np

from edgeprune_jax.graph import Edge, Edges, Graph

SIGNS = ("absolute", "signed")


@dataclass(frozen=True, eq=False)
class Circuit:
    """The edges of a graph that are kept, and where the choice comes from.

    `kept` follows the graph's order and is read-only. `provenance` is free-form JSON, see
    `edgeprune_jax.provenance`. Circuits that keep the same edges of the same graph are equal,
    whatever their provenance.

    Raises `ValueError` where `kept` is not one boolean per edge.
    """

    graph: Graph
    kept: np.ndarray  # E, bool
    provenance: dict = field(default_factory=dict)

    def __post_init__(self):
        kept = np.array(self.kept)  # a copy: nobody else can write to it
        if kept.shape != (self.graph.n_edges,) or kept.dtype != np.bool_:
            raise ValueError(
                f"kept must be {self.graph.n_edges} booleans, one per edge of {self.graph}: "
                f"got shape {kept.shape} of {kept.dtype}"
            )
        kept.setflags(write=False)
        object.__setattr__(self, "kept", kept)

    def __len__(self) -> int:
        return int(np.count_nonzero(self.kept))

    def __iter__(self) -> Iterator[Edge]:
        return self.edges()

    def __contains__(self, pair: tuple[str, str]) -> bool:
        return bool(self.kept[self.graph.index(*pair)])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Circuit):
            return NotImplemented
        return self.graph == other.graph and np.array_equal(self.kept, other.kept)

    def __hash__(self) -> int:
        return hash((self.graph, self.kept.tobytes()))

    def __or__(self, other: "Circuit") -> "Circuit":
        return _combine("union", self, other, self.kept | _same_graph(self, other).kept)

    def __and__(self, other: "Circuit") -> "Circuit":
        return _combine("intersection", self, other, self.kept & _same_graph(self, other).kept)

    def __sub__(self, other: "Circuit") -> "Circuit":
        return _combine("difference", self, other, self.kept & ~_same_graph(self, other).kept)

    @property
    def sparsity(self) -> float:
        """The share of the graph's edges that is not kept."""
        return 1.0 - len(self) / self.graph.n_edges

    def ends(self) -> tuple[np.ndarray, np.ndarray]:
        """For each kept edge, in order, the positions of its writer and of its reader."""
        indices = np.flatnonzero(self.kept)
        starts = np.asarray(self.graph.row_starts)
        # A reader that nothing can reach has an empty row, hence the last of equal starts.
        readers = np.searchsorted(starts, indices, side="right") - 1
        return indices - starts[readers], readers

    def edges(self) -> Iterator[Edge]:
        """The kept edges by name, in the graph's order."""
        writers, readers = self.graph.writers, self.graph.readers
        for writer, reader in zip(*self.ends(), strict=True):
            yield Edge(writers[writer], readers[reader])


def from_scores(edges: Edges, keep: SupportsIndex, *, provenance: dict | None = None) -> Circuit:
    """The circuit of the `keep` highest scores; of equal scores, the first edges win.

    Raises `ValueError` where a score is not finite or the graph has fewer edges than `keep`.
    """
    values, count = _values(edges, "scores"), as_integer(keep)
    if not 0 <= count <= values.size:
        raise ValueError(f"keep must be in [0, {values.size}], the graph's edges: got {count}")
    kept = np.zeros(values.size, bool)
    kept[np.argsort(-values, kind="stable")[:count]] = True
    return Circuit(edges.graph, kept, provenance or {})


def ranked(scores: Edges, sign: str) -> Edges:
    """The numbers of which the highest are kept first: the scores, or by `absolute` their sizes.

    Raises `ValueError` for another sign convention than `signed` and `absolute`.
    """
    if sign not in SIGNS:
        raise ValueError(f"sign must be one of {', '.join(SIGNS)}: got {sign!r}")
    return Edges(jnp.abs(scores.values), scores.graph) if sign == "absolute" else scores


def from_mask(edges: Edges, *, provenance: dict | None = None) -> Circuit:
    """The circuit of a mask whose entries are all 0 or 1. Raises `ValueError` for others."""
    values = _values(edges, "mask entries")
    wrong = np.flatnonzero((values != 0) & (values != 1))
    if wrong.size:
        raise ValueError(
            f"mask entries must be 0 or 1: got {values[wrong[0]]} at edge {wrong[0]} "
            f"({' -> '.join(edges.graph.edge(int(wrong[0])))}); from_scores makes a mask discrete"
        )
    return Circuit(edges.graph, values == 1, provenance or {})


def from_names(
    graph: Graph, pairs: Iterable[tuple[str, str]], *, provenance: dict | None = None
) -> Circuit:
    """The circuit of the edges named, each a writer and a reader.

    Raises `ValueError`, with the entry's position, for an edge that does not exist or is
    named twice.
    """
    kept = np.zeros(graph.n_edges, bool)
    for position, (writer, reader) in enumerate(pairs):
        try:
            edge = graph.index(writer, reader)
        except ValueError as error:
            raise ValueError(f"edges[{position}]: {error}") from None
        if kept[edge]:
            raise ValueError(f"edges[{position}]: {writer} -> {reader} is listed twice")
        kept[edge] = True
    return Circuit(graph, kept, provenance or {})


def mask(circuit: Circuit) -> Edges:
    """The circuit as a float32 mask: 1 where an edge is kept, 0 elsewhere."""
    return Edges(jnp.asarray(circuit.kept, jnp.float32), circuit.graph)


def jaccard(a: Circuit, b: Circuit) -> float:
    """The share of the edges of either circuit that both keep; 1 for two empty circuits."""
    either = np.count_nonzero(a.kept | _same_graph(a, b).kept)
    return float(np.count_nonzero(a.kept & b.kept) / either) if either else 1.0


def reachable(circuit: Circuit) -> Circuit:
    """The circuit without the edges that lie on no path from the input to the output.

    A path starts at an embedding, follows kept edges, enters a head by its query, key or value
    and leaves it by its output (a group's key or value serves every head of the group), and
    ends at the final reader. In a graph without embedding writers the clean embedding reaches
    every reader, so a path may start at any head or MLP.

    Dropping an edge whose reader does not lead to the output never changes the output. Dropping
    an edge whose writer the input does not reach is exact under interchange ablation: such a
    writer reads the corrupted stream alone, repeats what it wrote there, and so its kept edges
    carry no difference. Under zero or mean ablation it is not: a node that reads nothing still
    writes a constant, such as an MLP's bias, and that constant can matter.
    """
    graph = circuit.graph
    fed, heard = _fed_writers(circuit), heard_readers(circuit)
    writers, readers = circuit.ends()
    kept = np.zeros(graph.n_edges, bool)
    kept[np.flatnonzero(circuit.kept)] = fed[writers] & heard[readers]
    return replace(circuit, kept=kept, provenance={**circuit.provenance, "operation": "reachable"})


def _fed_writers(circuit: Circuit) -> np.ndarray:
    """Whether each writer depends on the input: it is an embedding, or reads one that does."""
    graph = circuit.graph
    fed = np.zeros(graph.n_writers, bool)
    if not graph.embeddings:
        return ~fed
    fed[: len(graph.embeddings)] = True
    for layer in range(graph.layers):
        before = graph.sources(layer)
        attention, mlp = _layer_rows(circuit, layer)
        hears = (attention & fed[:before]).any(axis=1)  # H+2G
        query, key, value = np.split(hears, [graph.heads, graph.heads + graph.kv_heads])
        mlp_writer = before + graph.heads
        fed[before:mlp_writer] = query | np.repeat(key | value, graph.heads // graph.kv_heads)
        fed[mlp_writer] = (mlp & fed[:mlp_writer]).any()
    return fed


def heard_readers(circuit: Circuit) -> np.ndarray:
    """Whether each reader leads to the output: it is the last, or its node writes to one."""
    graph = circuit.graph
    heard = np.zeros(graph.n_readers, bool)
    heard[-1] = True
    writes_on = circuit.kept[graph.row_starts[-2] :].copy()  # W
    for layer in reversed(range(graph.layers)):
        before = graph.sources(layer)
        attention, mlp = _layer_rows(circuit, layer)
        mlp_writer = before + graph.heads
        if writes_on[mlp_writer]:
            writes_on[:mlp_writer] |= mlp
        query = writes_on[before:mlp_writer]
        group = query.reshape(graph.kv_heads, -1).any(axis=1)
        readers = np.concatenate([query, group, group, writes_on[mlp_writer : mlp_writer + 1]])
        first = layer * graph.readers_per_layer
        heard[first : first + graph.readers_per_layer] = readers
        writes_on[:before] |= attention[readers[:-1]].any(axis=0)
    return heard


def _layer_rows(circuit: Circuit, layer: int) -> tuple[np.ndarray, np.ndarray]:
    """The kept edges into a layer: attention (H+2G, W) and MLP (W+H)."""
    graph = circuit.graph
    first = layer * graph.readers_per_layer
    mlp = first + graph.readers_per_layer - 1
    start, middle, end = (graph.row_starts[row] for row in (first, mlp, mlp + 1))
    attention = circuit.kept[start:middle].reshape(mlp - first, graph.sources(layer))
    return attention, circuit.kept[middle:end]


def _values(edges: Edges, what: str) -> np.ndarray:
    values = np.asarray(edges.values, float)
    if values.shape != (edges.graph.n_edges,):
        raise ValueError(f"{what} must have shape ({edges.graph.n_edges},): got {values.shape}")
    wrong = np.flatnonzero(~np.isfinite(values))
    if wrong.size:
        name = " -> ".join(edges.graph.edge(int(wrong[0])))
        raise ValueError(f"{what} must be finite: got {values[wrong[0]]} at {name}")
    return values


def _same_graph(a: Circuit, b: Circuit) -> Circuit:
    """The second circuit, if both are of one graph."""
    if a.graph != b.graph:
        raise ValueError(f"circuits must be of the same graph: got {a.graph} and {b.graph}")
    return b


def _combine(operation: str, a: Circuit, b: Circuit, kept: np.ndarray) -> Circuit:
    return Circuit(
        a.graph, kept, {"operation": operation, "operands": [a.provenance, b.provenance]}
    )
