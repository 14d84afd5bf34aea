"""`edgeprune draw`: a circuit file as a picture."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from edgeprune_jax import atomic, circuit_json
from edgeprune_jax.circuits import reachable
from edgeprune_jax.cli.inputs import find_model
from edgeprune_jax.report.draw import draw


@dataclass(frozen=True)
class Draw:
    """Draw a circuit file as SVG."""

    circuit: Annotated[Path, tyro.conf.Positional]
    """Circuit file, or a plain list of edges together with --model."""
    out: Path | None = None
    """The SVG file. By default beside the circuit."""
    title: str | None = None
    """Heading. By default the task and the model."""
    model: str | None = None
    """Model whose graph a plain list of edges belongs to."""
    everything: bool = False
    """Draw edges on no path from the input to the output too."""
    json: bool = False
    """Print one JSON object."""


def run(options: Draw) -> int:
    graph = find_model(options.model).graph if options.model else None
    circuit = circuit_json.load(options.circuit, graph)
    shown = circuit if options.everything else reachable(circuit)
    out = options.out or options.circuit.with_suffix(".svg")
    origin = circuit.provenance
    title = options.title or " in ".join(
        str(part) for part in (origin.get("task"), origin.get("model", {}).get("name")) if part
    )
    atomic.write(out, draw(shown, title=title or options.circuit.stem))
    answer = {"out": str(out), "edges": len(circuit), "drawn": len(shown)}
    print(json.dumps(answer) if options.json else
          f"{out}: {len(shown):,} of {len(circuit):,} edges drawn")  # fmt: skip
    return 0
