"""`edgeprune attribute`: score every edge by EAP, EAP-IG, patching, ACDC or a control."""

import dataclasses
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from rich.console import Console

from edgeprune_jax import circuit_json, scores_file
from edgeprune_jax.baselines.attribution import AttributionConfig, attribute, natural_size
from edgeprune_jax.circuits import ranked
from edgeprune_jax.cli.inputs import find_data, find_model, origin
from edgeprune_jax.graph import Edges
from edgeprune_jax.models.load import DEFAULT
from edgeprune_jax.report.tables import Table, to_rich
from edgeprune_jax.scores_file import Scores

SHOWN = 10  # edges in the table


@dataclass(frozen=True)
class Attribute:
    """Score every edge by a rival of Edge Pruning.

    Writes scores.safetensors and, where a size is given or the method has its own, circuit.json.
    """

    out: Path
    """Folder of the scores."""
    model: str = DEFAULT
    """Model: a name, a .gguf file, a folder in Hugging Face format, or a compiled program."""
    task: str = "ioi"
    """Task: a name, a .jsonl file of your own, or 'domain' for a compiled program's inputs."""
    examples: int = 64
    """Prompt pairs to attribute on."""
    data_seed: int = 0
    """Seed of the prompts."""
    edges: int | None = None
    """Edges of the circuit. Without it ACDC keeps its own, and for others none is written."""
    json: bool = False
    """Print one JSON object, and no progress."""
    config: Annotated[AttributionConfig, tyro.conf.arg(name="")] = field(
        default_factory=AttributionConfig
    )
    """Settings of the method."""


def run(options: Attribute) -> int:
    config, loaded = options.config, find_model(options.model)
    if options.edges is not None and not 0 <= options.edges <= loaded.graph.n_edges:
        raise ValueError(
            f"--edges must be between 0 and {loaded.graph.n_edges}, those of {loaded.name}: "
            f"got {options.edges}"
        )
    made = find_data(
        loaded, options.task, split="train", n=options.examples, seed=options.data_seed
    )
    data, start = made.batch, time.monotonic()
    with Console(quiet=options.json).status(f"{config.method} in {loaded.name}") as status:
        edges = attribute(
            loaded.model, loaded.params, loaded.graph, data, config,
            on_run=lambda share: status.update(f"{config.method} in {loaded.name}: {share:.1%}"),
        )  # fmt: skip
        edges.values.block_until_ready()
    said = origin(
        loaded, task=options.task, method=config.method, settings=dataclasses.asdict(config),
        data={"seed": options.data_seed, "n_train": len(data), "split": "train"},
        ablation=config.ablation, seconds=round(time.monotonic() - start, 1),
    )  # fmt: skip
    scores = Scores(edges, config.sign, natural_size(edges, config), said)
    options.out.mkdir(parents=True, exist_ok=True)
    scores_file.save(scores, options.out / "scores.safetensors")
    written, size = ["scores.safetensors"], None
    if options.edges is not None or scores.keep is not None:
        circuit = scores.circuit(options.edges)
        circuit_json.save(circuit, options.out / "circuit.json")
        written, size = [*written, "circuit.json"], len(circuit)
    if options.json:
        print(json.dumps({
            "out": str(options.out), "written": written, "edges": size,
            "seconds": said["seconds"], "top": top(edges, config.sign),
        }))  # fmt: skip
    else:
        rows = [list(row.values()) for row in top(edges, config.sign)]
        title = f"{config.method} on {len(data)} prompts of {options.task}"
        Console().print(to_rich(Table(title, ["writer", "reader", "effect"], rows)))
        Console().print(f"written: {options.out}/{', '.join(written)}", highlight=False)
    return 0


def top(edges: Edges, sign: str) -> list[dict]:
    """The first edges, with their effects."""
    first = np.argsort(-np.asarray(ranked(edges, sign).values), kind="stable")[:SHOWN]
    return [{**edges.graph.edge(int(i))._asdict(), "effect": float(edges.values[i])} for i in first]
