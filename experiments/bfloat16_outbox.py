"""What a bfloat16 outbox costs in KL, on SmolLM2-135M and IOI.

    python experiments/bfloat16_outbox.py

The same masks are run with the outbox in float32 and in bfloat16: the full model, the committed
circuit, and masks of random numbers between 0 and 1 as in training. The KL between the two is
printed in nats beside each mask's KL to the full model, and written to `experiments/results/`.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from edgeprune_jax import atomic, circuit_json, provenance
from edgeprune_jax.circuits import mask
from edgeprune_jax.cli.inputs import find_data, find_model
from edgeprune_jax.engine import masked_forward
from edgeprune_jax.evaluation import teacher_logits
from edgeprune_jax.graph import Edges, full
from edgeprune_jax.objectives import kl
from edgeprune_jax.tasks.batch import take


@dataclass(frozen=True)
class Experiment:
    """Run masks with two outboxes, and compare."""

    examples: int = 64
    """Test prompts."""
    circuit: Path = Path("experiments/results/ioi_smollm2/seed0.json")
    """A circuit of the default model."""
    out: Path = Path("experiments/results/bfloat16_outbox.json")
    """The table."""


def main() -> None:
    options = tyro.cli(Experiment)
    loaded = find_model("smollm2-135m")
    data = find_data(loaded, "ioi", split="test", n=options.examples, seed=0).batch
    teacher = teacher_logits(loaded.model, loaded.params, data)
    graph = loaded.graph
    masks = {
        "full model": full(graph, 1.0),
        "circuit": mask(circuit_json.load(options.circuit)),
        "random numbers": Edges(jax.random.uniform(jax.random.key(0), (graph.n_edges,)), graph),
    }

    @jax.jit
    def run(params, values, batch, teacher):
        def logits(dtype):
            return masked_forward(
                loaded.model, params, batch.tokens, Edges(values, graph),
                corrupted_tokens=batch.corrupted, valid=batch.valid, positions=batch.positions,
                outbox_dtype=dtype,
            )  # fmt: skip

        single, half = logits("float32"), logits("bfloat16")
        scored = batch.scored
        return kl(single, half, scored), kl(teacher, single, scored), kl(teacher, half, scored)

    table = {}
    for name, one in masks.items():
        parts = [
            run(loaded.params, one.values, take(data, rows), jnp.asarray(teacher[rows]))
            for rows in np.array_split(np.arange(len(data)), max(len(data) // 8, 1))
        ]
        between, single, half = (np.concatenate(column) for column in zip(*parts, strict=True))
        table[name] = {
            "kl_float32_bfloat16": float(between.mean()),
            "kl_float32_bfloat16_largest": float(between.max()),
            "kl_to_model_float32": float(single.mean()),
            "kl_to_model_bfloat16": float(half.mean()),
        }
    record = provenance.collect(command="python experiments/bfloat16_outbox.py") | {"masks": table}
    atomic.write(options.out, json.dumps(record, indent=1) + "\n")
    print(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
