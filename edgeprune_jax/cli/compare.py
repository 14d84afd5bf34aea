"""`edgeprune compare`: what two or more circuits share."""

import itertools
import json
from dataclasses import dataclass
from functools import reduce
from operator import and_, or_
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from edgeprune_jax import circuit_json
from edgeprune_jax.circuits import Circuit, jaccard
from edgeprune_jax.measures.stability import consensus, sentence, stability
from edgeprune_jax.report.tables import Table, to_rich


@dataclass(frozen=True)
class Compare:
    """Overlap of circuit files: edges shared, Jaccard index, and overlap against chance."""

    circuits: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Two or more circuit files of one graph."""
    intersection: Path | None = None
    """Write the edges that all of them have to this file."""
    union: Path | None = None
    """Write the edges that any of them has to this file."""
    consensus: Path | None = None
    """Write the edges that more than half of them have to this file."""
    json: bool = False
    """Print one JSON object."""


def run(options: Compare) -> int:
    if len(options.circuits) < 2:
        raise ValueError(f"compare needs two circuit files or more: got {len(options.circuits)}")
    first = circuit_json.load(options.circuits[0])
    rest = [circuit_json.load(path, first.graph) for path in options.circuits[1:]]
    circuits = dict(zip(map(str, options.circuits), [first, *rest], strict=True))
    rows = [
        {"a": a, "b": b, **overlap(circuits[a], circuits[b])}
        for a, b in itertools.combinations(circuits, 2)
    ]
    if options.intersection:
        circuit_json.save(reduce(and_, circuits.values()), options.intersection)
    if options.union:
        circuit_json.save(reduce(or_, circuits.values()), options.union)
    if options.consensus:
        circuit_json.save(consensus(list(circuits.values())), options.consensus)
    if options.json:
        print(json.dumps(rows))
    else:
        title = f"Overlap: {sentence(stability(list(circuits.values())))}"
        table = Table(title, list(rows[0]), [list(row.values()) for row in rows])
        Console().print(to_rich(table))
    return 0


def overlap(a: Circuit, b: Circuit) -> dict[str, float | int | None]:
    """Sizes, shared edges, and how many times more are shared than by chance."""
    shared, chance = len(a & b), len(a) * len(b) / a.graph.n_edges
    return {
        "edges a": len(a), "edges b": len(b), "shared": shared, "jaccard": jaccard(a, b),
        "by chance": chance, "times chance": shared / chance if chance else None,
    }  # fmt: skip
