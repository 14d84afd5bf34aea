"""`edgeprune export-mib` and `edgeprune import-mib`: to and from MIB's circuit track."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import jax
import numpy as np
import tyro
from rich.console import Console

from edgeprune_jax import circuit_json, mib, mib_submission, scores_file
from edgeprune_jax.circuits import Circuit, mask, ranked
from edgeprune_jax.cli.inputs import find_model, model_of, origin
from edgeprune_jax.graph import Edges
from edgeprune_jax.models.loaded import Loaded
from edgeprune_jax.report.tables import comparison, to_rich
from edgeprune_jax.run import read_gates


@dataclass(frozen=True)
class ExportMib:
    """Write scores or a circuit as a file of the MIB benchmark's circuit track, or check some."""

    source: Annotated[Path | None, tyro.conf.Positional] = None
    """A .safetensors of scores, a circuit file, or the folder of a pruning run, whose gates are
    the scores. The highest are kept first."""
    out: Path | None = None
    """The JSON file."""
    edges: int | None = None
    """Edges of scores that are in the graph. Without it all of them, of ACDC's its own."""
    model: str | None = None
    """Model. By default the one that the source names."""
    check: Path | None = None
    """A file, or a submission's folder, to check instead of writing one."""
    json: bool = False
    """Print one JSON object."""


@dataclass(frozen=True)
class ImportMib:
    """Read a file of MIB's circuit track: its scores, and the circuit that is in it."""

    source: Annotated[Path, tyro.conf.Positional]
    """The JSON file."""
    model: str
    """Model that it is of."""
    out: Path
    """Folder for scores.safetensors and circuit.json."""
    task: str = "ioi"
    """Task that it is for."""
    json: bool = False
    """Print one JSON object."""


def run_export(options: ExportMib) -> int:
    if options.check is not None:
        rows = mib_submission.check(options.check)
        if options.json:
            print(json.dumps(rows))
        else:
            shown = {row["file"]: {k: v for k, v in row.items() if k != "file"} for row in rows}
            Console().print(to_rich(comparison("can be submitted", shown)))
        return 0
    if options.source is None or options.out is None:
        raise ValueError("export-mib needs a source and --out, or --check")
    scores, circuit = read_source(options.source, options.edges)
    loaded = find_model(options.model or model_of(circuit, options.source))
    if circuit.graph != loaded.graph:
        raise ValueError(f"{options.source} is of {circuit.graph}, {loaded.name} of {loaded.graph}")
    mib.write(scores, circuit.kept, options.out, width=width(loaded))
    (row,) = mib_submission.check(options.out)
    print(json.dumps(row) if options.json else
          f"{options.out}: {row['edges']:,} edges, {row['in_graph']:,} in the graph")  # fmt: skip
    return 0


def run_import(options: ImportMib) -> int:
    loaded = find_model(options.model)
    edges, circuit = mib.read(options.source, loaded.graph)
    said = origin(loaded, task=options.task, method="imported", ablation="interchange")
    options.out.mkdir(parents=True, exist_ok=True)
    scores = scores_file.Scores(edges, "signed", None, said)
    scores_file.save(scores, options.out / "scores.safetensors")
    circuit = Circuit(circuit.graph, circuit.kept, said)
    circuit_json.save(circuit, options.out / "circuit.json")
    print(json.dumps({"out": str(options.out), "edges": len(circuit)}) if options.json else
          f"{options.out}: scores.safetensors, circuit.json of {len(circuit):,} edges")  # fmt: skip
    return 0


def read_source(path: Path, edges: int | None) -> tuple[Edges, Circuit]:
    """Scores, the highest kept first, and the circuit that is in the graph."""
    if path.is_dir():
        circuit = circuit_json.load(path / "circuit.json")
        return read_gates(path, circuit.graph), circuit
    if path.suffix != ".safetensors":
        circuit = circuit_json.load(path)
        return mask(circuit), circuit
    scores = scores_file.load(path)
    size = scores.keep if edges is None else edges
    circuit = scores.circuit(scores.edges.graph.n_edges if size is None else size)
    return ranked(scores.edges, scores.sign), circuit


def width(loaded: Loaded) -> int:
    """d_model."""
    tokens = np.zeros((1, 1), np.int32)
    return jax.eval_shape(loaded.model.embed, loaded.params, tokens).shape[-1]
