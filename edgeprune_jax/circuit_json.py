"""Circuits on disk: JSON that a person can read and another program can check.

    {
      "schema": "edgeprune.circuit/1",
      "graph": {"layers": 12, "heads": 12, "kv_heads": 12, "embeddings": ["tok_embeds"]},
      "provenance": {"task": "ioi", ...},
      "edges": [
        ["a0.h3", "a5.h1.q"],
        ...
      ]
    }

`schema/circuit-1.json` says the same as a JSON Schema. The reference's format, the list of
edges alone, is read too. Files come from strangers: whatever is wrong with one is a
`ValueError` of one line that names the file and the entry.
"""

import json
import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from edgeprune_jax import atomic, provenance
from edgeprune_jax.circuits import Circuit, from_names
from edgeprune_jax.graph import Graph

SCHEMA = "edgeprune.circuit/1"
MAX_BYTES = 2**30
MAX_EDGES = 50_000_000  # of the graph: its circuits are arrays of this length
MAX_SIDE = 4096  # layers or heads
MAX_NAME = 40


def save(circuit: Circuit, path: str | os.PathLike) -> None:
    """Writes a circuit, one edge per line. Raises `ValueError` if its provenance is not JSON."""
    head = {
        "schema": SCHEMA,
        "graph": asdict(circuit.graph),
        "provenance": provenance.check(circuit.provenance),
    }
    text = json.dumps(head, indent=2, allow_nan=False, ensure_ascii=False)
    lines = ",\n    ".join(json.dumps(edge) for edge in circuit.edges())
    edges = f"[\n    {lines}\n  ]" if lines else "[]"
    atomic.write(path, text.removesuffix("\n}") + f',\n  "edges": {edges}\n}}\n')


def load(path: str | os.PathLike, graph: Graph | None = None) -> Circuit:
    """Reads a circuit; a file that does not name its graph needs `graph`.

    Raises `ValueError` for a file that is not a circuit, or a circuit of another graph.
    """
    try:
        return _circuit(parse(read_bytes(Path(path))), graph)
    except RecursionError:
        raise ValueError(f"{path}: nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def read_bytes(path: Path) -> bytes:
    """A file's content. Raises `ValueError` where it is larger than any that is meant here."""
    with open(path, "rb") as file:
        # A pipe has no size, hence the bound on what is read.
        size = os.fstat(file.fileno()).st_size
        data = b"" if size > MAX_BYTES else file.read(MAX_BYTES + 1)
    if max(size, len(data)) > MAX_BYTES:
        raise ValueError(f"larger than {MAX_BYTES} bytes")
    return data


def parse(data: bytes) -> object:
    """JSON without NaN and repeated entries. Raises `ValueError` for anything else."""
    try:
        return json.loads(data.decode(), parse_constant=_refuse_constant, object_pairs_hook=_object)
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 text: byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error}") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"not JSON: {name} is not a number")


def _object(pairs: list[tuple[str, object]]) -> dict:
    """A JSON object, refused if it says the same thing twice."""
    entries = {}
    for name, value in pairs:
        if name in entries:
            raise ValueError(f"the entry {show(name)} is given twice")
        entries[name] = value
    return entries


def _circuit(content: object, expected: Graph | None) -> Circuit:
    if isinstance(content, list):
        if expected is None:
            raise ValueError("a plain list of edges does not say of which graph: pass `graph`")
        return from_names(expected, _pairs(content))
    if not isinstance(content, dict):
        raise ValueError(f"must hold an object or a list of edges: got {show(content)}")
    if content.get("schema") != SCHEMA:
        raise ValueError(f'schema must be "{SCHEMA}": got {show(content.get("schema"))}')
    names = {"schema", "graph", "provenance", "edges"}
    if content.keys() != names:
        odd = sorted(content.keys() ^ names)[0]
        raise ValueError(f"entry {show(odd)} is {'missing' if odd in names else 'not known'}")
    graph = read_graph(content["graph"])
    if expected not in (None, graph):
        raise ValueError(f"must be a circuit of {expected}: got one of {graph}")
    origin = provenance.check(content["provenance"])
    return from_names(graph, _pairs(content["edges"]), provenance=origin)


def read_graph(content: object) -> Graph:
    """A graph from its JSON object. Raises `ValueError` for one that is none, or too large."""
    names = ["layers", "heads", "kv_heads", "embeddings"]
    if not isinstance(content, dict) or sorted(content) != sorted(names):
        raise ValueError(f"graph must be an object of {', '.join(names)}: got {show(content)}")
    layers, heads, kv_heads, embeddings = (content[name] for name in names)
    for name in names[:3]:
        size = content[name]
        if type(size) is not int or not 1 <= size <= MAX_SIDE:  # a bool is an int
            raise ValueError(
                f"graph.{name} must be an integer from 1 to {MAX_SIDE}: got {show(size)}"
            )
    if not isinstance(embeddings, list) or not all(isinstance(e, str) for e in embeddings):
        raise ValueError(f"graph.embeddings must be a list of names: got {show(embeddings)}")
    # Counted by hand, because counting makes a graph list its readers.
    sources = len(embeddings) * layers + (heads + 1) * layers * (layers - 1) // 2
    edges = (heads + 2 * kv_heads + 1) * sources
    if edges > MAX_EDGES:
        raise ValueError(f"graph must have at most {MAX_EDGES} edges: got more than {edges}")
    try:
        return Graph(layers, heads, kv_heads, tuple(embeddings))
    except ValueError as error:
        raise ValueError(f"graph: {_shorten(str(error), 200)}") from None


def _pairs(edges: object) -> Iterable[tuple[str, str]]:
    if not isinstance(edges, list):
        raise ValueError(f"edges must be a list: got {show(edges)}")
    for position, edge in enumerate(edges):
        if not isinstance(edge, list) or [type(name) for name in edge] != [str, str]:
            raise ValueError(f"edges[{position}] must be [writer, reader]: got {show(edge)}")
        if max(map(len, edge)) > MAX_NAME:
            raise ValueError(f"edges[{position}] is not of two names: got {show(edge)}")
        yield edge[0], edge[1]


def show(value: object) -> str:
    """What was found, short enough for one line of a message."""
    return _shorten(ascii(value), 80)


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."
