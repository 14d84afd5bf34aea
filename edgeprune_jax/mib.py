"""The graph of the MIB benchmark's circuit track, and its JSON files.

MIB's graph has one `input` writer, and a key and a value for every query head. An edge is named
`a0.h1->a3.h2<q>`, `input->m0` or `m11->logits`. So on the way out both embedding writers are
merged, to the score of larger size (an edge is in the graph if either is), and a group's key or
value is repeated to its heads; on the way in the same rules turn back. A file gives every edge a
finite `score`, of which the highest are kept first, and says of every node and edge whether it is
`in_graph` (Mueller et al. 2025; files of the EAP-IG library).

Axes: E edges.
"""

import json
import os
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool

from edgeprune_jax import atomic
from edgeprune_jax.circuit_json import MAX_EDGES, MAX_SIDE, parse, read_bytes, show
from edgeprune_jax.circuits import Circuit, from_scores
from edgeprune_jax.graph import FINAL, Edges, Graph

LARGEST = 1e38  # of a float32
SHAPE = ("n_layers", "n_heads", "parallel_attn_mlp", "d_model")


def nodes(layers: int, heads: int) -> list[str]:
    """MIB's nodes in its order."""
    names = ["input"]
    for layer in range(layers):
        names += [f"a{layer}.h{head}" for head in range(heads)] + [f"m{layer}"]
    return [*names, "logits"]


def edge_names(layers: int, heads: int) -> list[str]:
    """MIB's edges in its order: layer by layer, by writer, then by reader."""
    names, stream = [], ["input"]
    for layer in range(layers):
        own = [f"a{layer}.h{head}" for head in range(heads)]
        names += [f"{one}->{head}<{slot}>" for one in stream for head in own for slot in "qkv"]
        stream += own
        names += [f"{one}->m{layer}" for one in stream]
        stream.append(f"m{layer}")
    return names + [f"{one}->logits" for one in stream]


def places(graph: Graph) -> dict[str, list[int]]:
    """Of every MIB edge the edges that it stands for: several where embeddings are merged."""
    shared = graph.heads // graph.kv_heads
    found = {}
    for name in edge_names(graph.layers, graph.heads):
        writer, reader = name.split("->")
        node, _, slot = reader.rstrip(">").partition("<")
        if slot:
            layer, head = node.split(".h")
            node = f"{layer}.h{head if slot == 'q' else int(head) // shared}.{slot}"
        node = FINAL if node == "logits" else node
        writers = graph.embeddings if writer == "input" else (writer,)
        found[name] = [graph.index(one, node) for one in writers]
    return found


def write(
    scores: Edges, kept: Bool[np.ndarray, " E"], path: str | os.PathLike, *, width: int
) -> None:
    """Writes scores, and which edges are in the circuit, as MIB's JSON. `width` is d_model.

    Raises `ValueError` for scores that are not finite, and a graph without embedding writers.
    """
    graph = scores.graph
    if not graph.embeddings:
        raise ValueError("MIB's circuits begin at the input: the graph has no embedding writers")
    from_scores(scores, 0)  # refuses what is not finite
    values = np.asarray(scores.values, float)
    edges, used = {}, set()
    for name, found in places(graph).items():
        largest = max(found, key=lambda index: abs(values[index]))
        inside = bool(kept[found].any())
        edges[name] = {"score": float(values[largest]), "in_graph": inside}
        if inside:
            writer, reader = name.split("->")
            used |= {writer, reader.partition("<")[0]}
    shape = (graph.layers, graph.heads, False, width)
    content = {
        "cfg": dict(zip(SHAPE, shape, strict=True)),
        "nodes": {name: {"in_graph": name in used} for name in nodes(graph.layers, graph.heads)},
        "edges": edges,
    }
    atomic.write(path, json.dumps(content, allow_nan=False) + "\n")


def read(path: str | os.PathLike, graph: Graph) -> tuple[Edges, Circuit]:
    """The scores of a MIB file, and the circuit that is in it, for a model's own graph.

    Every embedding writer has the input's edge; of the heads that share a key or a value the
    score of largest size counts. Raises `ValueError` for a file that is not of this graph.
    """
    edges = check(path, graph.layers, graph.heads)
    values, kept = np.zeros(graph.n_edges), np.zeros(graph.n_edges, bool)
    for name, found in places(graph).items():
        score = edges[name]["score"]
        for index in found:
            values[index] = score if abs(score) > abs(values[index]) else values[index]
            kept[index] |= edges[name]["in_graph"]
    return Edges(jnp.asarray(values, jnp.float32), graph), Circuit(graph, kept)


def check(path: str | os.PathLike, layers: int | None = None, heads: int | None = None) -> dict:
    """The edges of a MIB file that its loader would read as they are meant.

    Raises `ValueError`, naming the file and the entry, for anything else: an edge that is
    missing, unknown or without a finite score, or another shape than the one given.
    """
    try:
        return _check(parse(read_bytes(Path(path))), layers, heads)
    except RecursionError:
        raise ValueError(f"{path}: nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _check(content: object, layers: int | None, heads: int | None) -> dict:
    entries = content if isinstance(content, dict) else {}
    parts = [entries.get(name) for name in ("cfg", "nodes", "edges")]
    if not all(isinstance(part, dict) for part in parts):
        raise ValueError("must be an object of cfg, nodes and edges, each an object")
    shape, said, edges = (dict(part) for part in parts if isinstance(part, dict))
    for name, given in (("n_layers", layers), ("n_heads", heads)):
        found = shape.get(name)
        if type(found) is not int or not 1 <= found <= MAX_SIDE:
            raise ValueError(f"cfg.{name} must be an integer from 1 to {MAX_SIDE}: got "
                             f"{show(found)}")  # fmt: skip
        if given not in (None, found):
            raise ValueError(f"cfg.{name} must be {given}, the model's: got {found}")
    if shape.get("parallel_attn_mlp"):
        raise ValueError("cfg.parallel_attn_mlp must be false: no model here is parallel")
    layers, heads = int(shape["n_layers"]), int(shape["n_heads"])
    if 3 * heads * (heads + 1) * layers * (layers - 1) // 2 > MAX_EDGES:
        raise ValueError(f"must have at most {MAX_EDGES} edges")
    _same("nodes", said, nodes(layers, heads))
    _same("edges", edges, edge_names(layers, heads))
    for kind, entries in (("nodes", said), ("edges", edges)):
        for name, entry in entries.items():
            if not isinstance(entry, dict) or not isinstance(entry.get("in_graph"), bool):
                raise ValueError(f"{kind}.{name} must say in_graph, true or false: got "
                                 f"{show(entry)}")  # fmt: skip
            score = entry.get("score")
            if kind == "edges" and (
                isinstance(score, bool) or not isinstance(score, int | float)
                or not abs(score) <= LARGEST
            ):  # fmt: skip
                raise ValueError(f"edges.{name} must have a finite score: got {show(score)}")
    return edges


def _same(kind: str, found: dict, expected: list[str]) -> None:
    odd = sorted(found.keys() ^ set(expected))
    if odd:
        what = "is missing" if odd[0] not in found else "is not of this model"
        raise ValueError(f"{kind}.{show(odd[0])[1:-1]} {what} ({len(odd)} are wrong)")
