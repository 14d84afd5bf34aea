"""Everything that takes runs beyond a row of measures, in one call and one JSON.

Axes: N examples.
"""

from typing import Any

from jaxtyping import PyTree

from edgeprune_jax.circuits import Circuit
from edgeprune_jax.graph import Edges
from edgeprune_jax.measures.completeness import completeness
from edgeprune_jax.measures.curve import areas
from edgeprune_jax.measures.minimality import OnEdges, ignore, minimality
from edgeprune_jax.stream import Model
from edgeprune_jax.tasks.batch import Batch, take

MINIMALITY_EXAMPLES = 32


def judge(
    model: Model,
    params: PyTree,
    circuit: Circuit,
    scores: Edges,
    data: Batch,
    *,
    ablation: str = "interchange",
    seed: int = 0,
    on_edges: OnEdges = ignore,
) -> dict[str, Any]:
    """`minimality` and `completeness` of a circuit, and `areas`, CPR and CMD of edge scores.

    `areas` takes the first task measure in which the full model and the empty circuit differ; it
    is None where there is none. Minimality, which takes a masked pass for each edge of the circuit
    (`on_edges` is told of it), is judged on the first 32 examples; the rest takes 30 passes of all.
    """
    few = take(data, slice(0, MINIMALITY_EXAMPLES))
    found: dict[str, Any] = {
        "minimality": minimality(model, params, circuit, few, ablation=ablation, on_edges=on_edges),
        "completeness": completeness(model, params, circuit, data, ablation=ablation, seed=seed),
        "areas": None,
    }
    left = found["completeness"]["left"]
    if measure := next((name for name, one in left.items() if one["value"] is not None), None):
        found["areas"] = areas(model, params, scores, data, measure=measure, ablation=ablation)
    return found


def summary(found: dict[str, Any]) -> dict[str, Any]:
    """What of it fits into a line."""
    small, rest = found["minimality"], found["completeness"]
    line = {
        "edges that can go alone": small["one_by_one"]["needless"],
        "edges left when removed greedily": small["greedy"]["edges"],
    }
    line |= {f"left without it, {name}": one["value"] for name, one in rest["left"].items()}
    if areas_found := found["areas"]:
        line["CPR of the scores"] = areas_found["signed"]["cpr"]["shares"]
        line["CMD of the scores"] = areas_found["absolute"]["cmd"]["shares"]
    return line
