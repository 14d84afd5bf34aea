"""Completeness: cut the circuit out of the model, and see what is left.

A circuit that holds all of a behaviour leaves a model that has lost it, about the empty circuit's
measures; one that found half of two parallel mechanisms leaves the other half at work. Random
circuits of the same size, cut out likewise, tell a loss that is this circuit's from that of so
many edges.
"""

from dataclasses import replace
from typing import Any

from jaxtyping import PyTree

from edgeprune_jax.circuits import Circuit
from edgeprune_jax.evaluation import mean_of_rows, measure_circuits, random_circuits, summarise
from edgeprune_jax.measures.details import TASK_MEASURES, faithfulness
from edgeprune_jax.stream import Model, Writes
from edgeprune_jax.tasks.batch import Batch


def knockout(circuit: Circuit) -> Circuit:
    """All edges but the circuit's."""
    operation = {**circuit.provenance, "operation": "knockout"}
    return replace(circuit, kept=~circuit.kept, provenance=operation)


def completeness(
    model: Model,
    params: PyTree,
    circuit: Circuit,
    data: Batch,
    *,
    ablation: str | Writes = "interchange",
    n_random: int = 5,
    seed: int = 0,
    batch_size: int = 32,
) -> dict[str, Any]:
    """The measures of the model without the circuit, and without random ones, as plain JSON.

    `without circuit` and `without random` (the mean over `n_random` circuits) hold mean measures;
    `left` the faithfulness of what remains with a bootstrap interval, for each task measure: 0
    where nothing of the behaviour is left, 1 where all is.
    """
    others = random_circuits(circuit.graph, len(circuit), n_random, seed=seed)
    named = {"circuit": circuit} | {f"random {i}": one for i, one in enumerate(others)}
    measured = measure_circuits(
        model, params, {name: knockout(one) for name, one in named.items()}, data,
        ablation=ablation, batch_size=batch_size,
    )  # fmt: skip
    rows = measured.rows
    full, empty, cut = rows["full"].found, rows["empty"].found, rows["circuit"].found
    result: dict[str, Any] = {
        "without circuit": summarise(cut),
        "left": {
            measure: faithfulness(cut[measure], full[measure], empty[measure], seed=seed)
            for measure in TASK_MEASURES
            if measure in cut
        },
    }
    if others:
        result["without random"] = mean_of_rows(
            [summarise(rows[f"random {i}"].found) for i in range(n_random)]
        )
    return result
