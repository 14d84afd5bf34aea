"""CPR and CMD: two areas that judge a whole ordering of edges, as the MIB benchmark does.

From scores, circuits of ten sizes are cut, and each is run for its faithfulness f. Over the share
k of edges kept, by the trapezoid rule and without the part below the smallest size,

    CPR = area under f           (is the task performed? no upper bound, 0.999 for f = 1)
    CMD = area between f and 1   (does it behave as the model? 0 at best)

(Mueller et al. 2025). MIB's leaderboard takes the ten fixed shares for k, its paper the measured
sizes; it orders by the signed score for CPR and by its size for CMD. Published numbers do not
always say which, so both areas come over both axes and in both orders.

Axes: K circuits of a curve, N examples.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from edgeprune_jax.circuits import Circuit, from_scores, mask, reachable
from edgeprune_jax.evaluation import measure_masks, summarise
from edgeprune_jax.graph import Edges
from edgeprune_jax.stream import Model, Writes
from edgeprune_jax.tasks.batch import Batch

FRACTIONS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


def cpr(x: Sequence[float], faithfulness: Sequence[float]) -> float:
    """The area under the faithfulness over x."""
    return float(np.trapezoid(faithfulness, x))


def cmd(x: Sequence[float], faithfulness: Sequence[float]) -> float:
    """The area between the faithfulness and 1 over x."""
    return float(np.trapezoid(np.abs(1 - np.asarray(faithfulness)), x))


def orderings(scores: Edges) -> dict[str, list[Circuit]]:
    """The circuits of a curve by `signed` and by `absolute` score, largest first.

    Of E edges the int(k E) first, and of these the ones on a path from the input to the output:
    MIB drops nodes without incoming or outgoing edges, again and again, which is the same.
    """
    values = jnp.asarray(scores.values)
    ordered = {"signed": values, "absolute": jnp.abs(values)}
    sizes = [int(k * scores.graph.n_edges) for k in FRACTIONS]
    return {
        name: [reachable(from_scores(Edges(by, scores.graph), size)) for size in sizes]
        for name, by in ordered.items()
    }


def weighted_edges(circuit: Circuit) -> int:
    """The edges of a trimmed circuit (`reachable`) as MIB counts them, whole nodes having weight 1.

    Its graph has one input node, so that an edge from either embedding counts once, and a key
    and a value for every query head, so that an edge into a shared one counts for each head that
    is left: one that writes to nothing is trimmed there with its edges.
    """
    graph = circuit.graph
    inputs, heads, groups = len(graph.embeddings), graph.heads, graph.kv_heads
    writes = np.zeros(graph.n_writers, bool)
    writes[circuit.ends()[0]] = True
    total = 0
    for row, (start, length) in enumerate(zip(graph.row_starts, graph.row_lengths, strict=False)):
        kept = circuit.kept[start : start + length]
        layer, place = divmod(row, graph.readers_per_layer)
        served = 1
        if heads <= place < heads + 2 * groups:
            left = writes[graph.sources(layer) :][:heads].reshape(groups, -1).sum(axis=1)
            served = int(left[(place - heads) % groups])
        total += served * (int(kept[:inputs].any()) + int(kept[inputs:].sum()))
    return total


def areas(
    model: Model,
    params: PyTree,
    scores: Edges,
    data: Batch,
    *,
    measure: str = "logit_difference",
    ablation: str | Writes = "interchange",
    batch_size: int = 32,
) -> dict[str, Any]:
    """CPR and CMD of scores, for both orders and both axes, as plain JSON.

    Under `signed` and `absolute`: the ten `faithfulness` values of the mean `measure`, the
    `edges` and `weighted` edges left in each circuit, and `cpr` and `cmd` over the ten shares
    (`shares`) and over the weighted edges divided by the most of them (`weighted`).

    Raises `ValueError` where the data do not have the measure, or where the full model and the
    empty circuit measure alike.
    """
    curves = orderings(scores)
    nothing = np.zeros(scores.graph.n_edges, bool)
    ends = [Circuit(scores.graph, ~nothing), Circuit(scores.graph, nothing)]
    circuits = list(dict.fromkeys([*ends, *curves["signed"], *curves["absolute"]]))
    found = measure_masks(
        model, params, [mask(one) for one in circuits], data, ablation=ablation,
        batch_size=batch_size,
    )  # fmt: skip
    means = [summarise(one).get(measure) for one in found]
    if None in means:
        raise ValueError(f"the data have no {measure}: got {', '.join(summarise(found[0]))}")
    values = dict(zip(circuits, np.array(means, float), strict=True))
    full, empty = (values[end] for end in ends)
    if np.isclose(full, empty):
        raise ValueError(f"full model and empty circuit have the same {measure}: {full:.4g}")
    result: dict[str, Any] = {"measure": measure, "shares": list(FRACTIONS)}
    for name, curve in curves.items():
        faithfulness = [float((values[one] - empty) / (full - empty) + 0.0) for one in curve]
        counts = [weighted_edges(one) for one in curve]
        axes = {"shares": FRACTIONS, "weighted": [count / max(counts) for count in counts]}
        result[name] = {
            "faithfulness": faithfulness,
            "edges": [len(one) for one in curve],
            "weighted": counts,
            "cpr": {axis: cpr(x, faithfulness) for axis, x in axes.items()},
            "cmd": {axis: cmd(x, faithfulness) for axis, x in axes.items()},
        }
    return result
