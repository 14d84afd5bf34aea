"""The graph of a transformer: its nodes, its edges, and one number for each edge.

A *writer* adds its output to the residual stream: an embedding, an attention head, an MLP.
A *reader* takes its input from the stream: the query, key or value of a head, an MLP, or the
final norm before the unembedding. An *edge* joins a writer to a reader that comes after it.

Axes: L layers, H query heads, G key/value heads, W writers before a reader, R readers, E edges.

Writers are ordered as they write: the embeddings, then for each layer its heads and its MLP.
Readers are ordered as they read: for each layer q (H), k (G), v (G), then the MLP; the final
reader is last. Edges are ordered by reader, then by writer. An edge that cannot exist has no
entry, so counting entries is counting edges.
"""

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.tree_util import register_dataclass

TOKENS, POSITIONS, FINAL = "tok_embeds", "pos_embeds", "resid_post"
ALIASES = {"embeds": TOKENS, "token_embeds": TOKENS}
_NODE = re.compile(r"a(\d+)\.h(\d+)(?:\.([qkv]))?|m(\d+)", re.ASCII)


class Edge(NamedTuple):
    """An edge by the published names of its ends, such as `("a0.h3", "a5.h1.q")`."""

    writer: str
    reader: str


class LayerRows(NamedTuple):
    """The part of an `Edges` that belongs to one layer's readers."""

    attention: Array  # H+2G, W: rows q, k, v
    mlp: Array  # W+H: the MLP also reads the heads of its own layer


@dataclass(frozen=True)
class Graph:
    """The nodes and edges of a transformer, which its shape determines.

    `embeddings` names the embedding writers. Where there are none, the clean embedding
    reaches every reader unmasked. With fewer key/value heads than query heads, `a3.h1.k` is
    the key of the second *group* of layer 3.

    Raises `ValueError` for a shape that no transformer has.
    """

    layers: int
    heads: int
    kv_heads: int
    embeddings: tuple[str, ...] = ()

    def __post_init__(self):
        sizes = (self.layers, self.heads, self.kv_heads)
        if not all(isinstance(size, int) and size >= 1 for size in sizes):
            raise ValueError(f"layers, heads and kv_heads must be integers >= 1: got {sizes}")
        if self.heads % self.kv_heads:
            raise ValueError(
                f"heads must be a multiple of kv_heads: got {self.heads} and {self.kv_heads}"
            )
        allowed = (TOKENS, POSITIONS)
        if any(name not in allowed for name in self.embeddings):
            raise ValueError(f"embeddings must be among {allowed}: got {self.embeddings}")
        if len(set(self.embeddings)) != len(self.embeddings):
            raise ValueError(f"embeddings must differ: got {self.embeddings}")

    def sources(self, layer: int) -> int:
        """The number of writers before a layer: what its attention can read."""
        return len(self.embeddings) + layer * (self.heads + 1)

    @property
    def readers_per_layer(self) -> int:
        return self.heads + 2 * self.kv_heads + 1

    @property
    def n_writers(self) -> int:
        return self.sources(self.layers)

    @property
    def n_readers(self) -> int:
        return self.layers * self.readers_per_layer + 1

    @cached_property
    def n_edges(self) -> int:
        return self.row_starts[-1]

    @cached_property
    def writers(self) -> tuple[str, ...]:
        """Names of the writers, in order."""
        names = list(self.embeddings)
        for layer in range(self.layers):
            names += [f"a{layer}.h{head}" for head in range(self.heads)] + [f"m{layer}"]
        return tuple(names)

    @cached_property
    def readers(self) -> tuple[str, ...]:
        """Names of the readers, in order."""
        names = []
        for layer in range(self.layers):
            names += [f"a{layer}.h{head}.q" for head in range(self.heads)]
            names += [f"a{layer}.h{group}.{s}" for s in "kv" for group in range(self.kv_heads)]
            names.append(f"m{layer}")
        return (*names, FINAL)

    @cached_property
    def row_lengths(self) -> tuple[int, ...]:
        """For each reader, the number of writers it can read: always a prefix of them."""
        lengths = []
        for layer in range(self.layers):
            before = self.sources(layer)
            lengths += [before] * (self.readers_per_layer - 1) + [before + self.heads]
        return (*lengths, self.n_writers)

    @cached_property
    def row_starts(self) -> tuple[int, ...]:
        """For each reader, the index of its first edge; then the number of edges."""
        starts = [0]
        for length in self.row_lengths:
            starts.append(starts[-1] + length)
        return tuple(starts)

    @cached_property
    def _writer_index(self) -> dict[str, int]:
        return {name: index for index, name in enumerate(self.writers)}

    @cached_property
    def _reader_index(self) -> dict[str, int]:
        return {name: index for index, name in enumerate(self.readers)}

    def writer_index(self, name: str) -> int:
        """The position of a writer. Raises `ValueError` for a name that does not exist."""
        index = self._writer_index.get(ALIASES.get(name, name))
        if index is None:
            raise ValueError(self._unknown("writer", name))
        return index

    def reader_index(self, name: str) -> int:
        """The position of a reader. Raises `ValueError` for a name that does not exist."""
        index = self._reader_index.get(name)
        if index is None:
            raise ValueError(self._unknown("reader", name))
        return index

    def index(self, writer: str, reader: str) -> int:
        """The position of an edge among the E. Raises `ValueError` where there is none."""
        column, row = self.writer_index(writer), self.reader_index(reader)
        if column >= self.row_lengths[row]:
            raise ValueError(f"there is no edge {writer} -> {reader}: {writer} writes later")
        return self.row_starts[row] + column

    def edge(self, index: int) -> Edge:
        """The names of the edge at a position, the inverse of `index`."""
        if not 0 <= index < self.n_edges:
            raise ValueError(f"edge index must be in [0, {self.n_edges}): got {index}")
        row = bisect_right(self.row_starts, index) - 1
        return Edge(self.writers[index - self.row_starts[row]], self.readers[row])

    def edges(self) -> Iterator[Edge]:
        """All edges by name, in order."""
        for reader, length in zip(self.readers, self.row_lengths, strict=True):
            for writer in self.writers[:length]:
                yield Edge(writer, reader)

    def _unknown(self, kind: str, name: str) -> str:
        shape = f"{self.layers} layers, {self.heads} heads, {self.kv_heads} key/value heads"
        match = _NODE.fullmatch(str(name))
        if match is None:
            known = (
                (*self.embeddings, "a0.h0", "m0") if kind == "writer" else ("a0.h0.q", "m0", FINAL)
            )
            return f"{name!r} is not the name of a {kind}: expected one like {', '.join(known)}"
        return f"{kind} {name!r} does not exist in a graph of {shape}"


@register_dataclass
@dataclass(frozen=True)
class Edges:
    """One number per edge of a graph: a log-alpha, a mask, a score or a gradient.

    `values` has the edges on its only axis, in the graph's order (module docstring).
    """

    values: Any  # E, an array; jax rebuilds trees with labels and shapes in its place
    graph: Graph = field(metadata={"static": True})

    def rows(self) -> tuple[tuple[LayerRows, ...], Array]:
        """Each layer's rows, and the row of the final reader (shape W)."""
        graph = self.graph
        sizes = []
        for layer in range(graph.layers):
            before = graph.sources(layer)
            sizes += [(graph.readers_per_layer - 1) * before, before + graph.heads]
        cuts = [sum(sizes[: i + 1]) for i in range(len(sizes))]
        *pieces, final = jnp.split(self.values, cuts)
        layers = tuple(
            LayerRows(attention.reshape(graph.readers_per_layer - 1, graph.sources(layer)), mlp)
            for layer, (attention, mlp) in enumerate(zip(pieces[::2], pieces[1::2], strict=True))
        )
        return layers, final


def full(graph: Graph, value: float) -> Edges:
    """The same float32 number on every edge."""
    return Edges(jnp.full(graph.n_edges, value, jnp.float32), graph)


def by_writer(nodes: Array, graph: Graph) -> Edges:
    """On every edge the number of the writer it comes from, of `nodes` with shape W.

    Layer by layer: a slice for each reader would be thousands of operations to compile.
    """
    parts = []
    for layer in range(graph.layers):
        before = graph.sources(layer)
        rows = jnp.broadcast_to(nodes[:before], (graph.readers_per_layer - 1, before))
        parts += [rows.reshape(-1), nodes[: before + graph.heads]]
    return Edges(jnp.concatenate([*parts, nodes]), graph)


def scale_writers(edges: Edges, nodes: Array) -> Edges:
    """Multiplies every edge by the mask of the node that writes it, `nodes` of shape W.

    `z_n` on a writer and `z_e` on its edge act as their product: a node mask is a scaled
    column, and the forward pass never sees it (reference: `m_rw z_w`).
    """
    return Edges(edges.values * by_writer(nodes, edges.graph).values, edges.graph)
