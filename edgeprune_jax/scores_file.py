"""Scores on disk: a safetensors file of one number per edge, and what they are in its header.

The tensor `scores` is float32 of length E, in the graph's order. The header's one entry,
`edgeprune`, is JSON text:

    {
      "schema": "edgeprune.scores/1",
      "graph": {"layers": 12, "heads": 12, "kv_heads": 12, "embeddings": ["tok_embeds"]},
      "sign": "absolute",
      "keep": null,
      "provenance": {"method": "eap", "settings": {"metric": "answer", ...}, ...}
    }

`sign` says by what edges are kept first, their scores (`signed`) or the sizes of these; `keep` how
many the method itself keeps, or null. Files come from strangers: whatever is wrong with one is a
`ValueError` of one line that names the file.
"""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_bytes

from edgeprune_jax import atomic, provenance
from edgeprune_jax.circuit_json import MAX_BYTES, parse, read_graph, show
from edgeprune_jax.circuits import SIGNS, Circuit, from_scores, ranked
from edgeprune_jax.graph import Edges

SCHEMA = "edgeprune.scores/1"
ENTRIES = {"schema", "graph", "sign", "keep", "provenance"}


class Scores(NamedTuple):
    """One number per edge, how edges are kept by it, and where it comes from."""

    edges: Edges
    sign: str
    keep: int | None
    provenance: dict

    def circuit(self, keep: int | None = None) -> Circuit:
        """The circuit of the first `keep` edges, by default as many as the method keeps.

        Raises `ValueError` where neither is given.
        """
        size = self.keep if keep is None else keep
        if size is None:
            raise ValueError("scores are of all edges: say how many to keep, with --edges")
        provenance = self.provenance | {"sign": self.sign}
        return from_scores(ranked(self.edges, self.sign), size, provenance=provenance)


def save(scores: Scores, path: str | os.PathLike) -> None:
    """Writes scores. Raises `ValueError` if they are not finite, or the provenance not JSON."""
    from_scores(scores.edges, 0)  # refuses what is not finite
    head = {
        "schema": SCHEMA, "graph": asdict(scores.edges.graph), "sign": scores.sign,
        "keep": scores.keep, "provenance": provenance.check(scores.provenance),
    }  # fmt: skip
    text = json.dumps(head, allow_nan=False, ensure_ascii=False)
    values = np.asarray(scores.edges.values, np.float32)
    atomic.write(path, to_bytes({"scores": values}, {"edgeprune": text}))


def load(path: str | os.PathLike) -> Scores:
    """Reads scores. Raises `ValueError` for a file that holds none."""
    try:
        if Path(path).stat().st_size > MAX_BYTES:
            raise ValueError(f"larger than {MAX_BYTES} bytes")
        with safe_open(path, "numpy") as file:
            return _scores(file)
    except SafetensorError as error:
        raise ValueError(f"{path}: not a safetensors file: {show(str(error))}") from None
    except RecursionError:
        raise ValueError(f"{path}: nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _scores(file) -> Scores:
    text = (file.metadata() or {}).get("edgeprune")
    if text is None:
        raise ValueError("the header has no entry 'edgeprune': not a file of scores")
    head = parse(text.encode())
    if not isinstance(head, dict) or head.get("schema") != SCHEMA:
        found = head.get("schema") if isinstance(head, dict) else head
        raise ValueError(f'schema must be "{SCHEMA}": got {show(found)}')
    if head.keys() != ENTRIES:
        odd = sorted(head.keys() ^ ENTRIES)[0]
        raise ValueError(f"entry {show(odd)} is {'missing' if odd in ENTRIES else 'not known'}")
    graph = read_graph(head["graph"])
    if head["sign"] not in SIGNS:
        raise ValueError(f"sign must be one of {', '.join(SIGNS)}: got {show(head['sign'])}")
    keep = head["keep"]
    if keep is not None and (type(keep) is not int or not 0 <= keep <= graph.n_edges):
        raise ValueError(f"keep must be null, or from 0 to {graph.n_edges}: got {show(keep)}")
    if list(file.keys()) != ["scores"]:
        raise ValueError(f"must hold one tensor, 'scores': got {show(sorted(file.keys()))}")
    tensor = file.get_slice("scores")
    shape, dtype = tensor.get_shape(), tensor.get_dtype()
    if shape != [graph.n_edges] or dtype != "F32":
        raise ValueError(
            f"scores must be {graph.n_edges} numbers in F32, one per edge: got {shape} in {dtype}"
        )
    scores = Edges(jnp.asarray(file.get_tensor("scores")), graph)
    from_scores(scores, 0)  # refuses what is not finite
    return Scores(scores, head["sign"], keep, provenance.check(head["provenance"]))
