"""Minimality: which edges of a circuit can go without the circuit leaving the model.

One by one, each edge removed from the circuit alone; and greedily, one after the other for as
long as the circuit stays near. The first says how needed each edge is while all others are there,
the second how small the circuit could be: of two edges that do the same work each can go, but
not both.

Axes: K edges of a circuit, E edges of the graph, N examples.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, PyTree

from edgeprune_jax.ablation import settle, writes_for
from edgeprune_jax.circuits import Circuit, reachable
from edgeprune_jax.engine import masked_forward
from edgeprune_jax.graph import Edges
from edgeprune_jax.objectives import DIVERGENCES
from edgeprune_jax.stream import Model, Writes, plain_forward
from edgeprune_jax.tasks.batch import Batch, parts, take

AT_ONCE = 64  # edges between two words of progress
OnEdges = Callable[[int, int], None]


def ignore(done: int, of: int) -> None:
    """Nobody asked for progress."""


class Removals(NamedTuple):
    """What is needed to remove edges: the mean divergence of a mask, and of a mask without each
    of some edges."""

    divergence: Callable  # "E" -> float
    without_each: Callable  # "E", edge indices "K" -> "K"


def removals(
    model: Model,
    params: PyTree,
    circuit: Circuit,
    data: Batch,
    *,
    ablation: str | Writes = "interchange",
    batch_size: int = 32,
) -> Removals:
    """The two functions for a circuit's graph.

    The full model's run and the corrupted run of a batch are shared by all edges.
    """
    graph = circuit.graph
    if isinstance(ablation, str):
        ablation = settle(model, params, data, ablation)

    @jax.jit
    def total(params, values, indices, batch, weight):
        teacher = plain_forward(
            model, params, batch.tokens, valid=batch.valid, positions=batch.positions
        )
        distance = DIVERGENCES["squared" if teacher.shape[-1] == 1 else "kl"]
        writes = writes_for(model, params, batch, ablation)

        def without(index):
            cut = values.at[index].set(0.0, mode="drop")
            logits = masked_forward(
                model, params, batch.tokens, Edges(cut, graph), ablation=writes,
                valid=batch.valid, positions=batch.positions,
            )  # fmt: skip
            return jnp.sum(distance(teacher, logits, batch.scored) * weight)

        return jax.lax.map(without, indices)

    def without_each(values, indices):
        values, found = jnp.asarray(values, jnp.float32), np.zeros(len(indices))
        for chosen, count in parts(len(data), batch_size):
            weight = (np.arange(len(chosen)) < count).astype(np.float32)
            found += total(params, values, jnp.asarray(indices), take(data, chosen), weight)
        return found / len(data)

    nothing = np.array([graph.n_edges])  # beyond the mask: no edge is cut
    return Removals(lambda values: float(without_each(values, nothing)[0]), without_each)


def one_by_one(
    circuit: Circuit, remove: Removals, *, ablation: str, on_edges: OnEdges = ignore
) -> Float[np.ndarray, " K"]:
    """How much the divergence rises when each kept edge alone is cut, in the graph's order.

    Under interchange ablation an edge on no path from the input to the output changes nothing,
    and is not run. `on_edges` is told how many edges of how many have been.
    """
    indices = np.flatnonzero(circuit.kept)
    rises = np.zeros(len(indices))
    run = np.ones(len(indices), bool)
    if ablation == "interchange":
        run = reachable(circuit).kept[indices]
    chosen, found = indices[run], []
    size = min(len(chosen), AT_ONCE)
    for start in range(0, len(chosen), size or 1):
        part = chosen[start : start + size]
        padded = np.pad(part, (0, size - len(part)), constant_values=circuit.graph.n_edges)
        found += remove.without_each(circuit.kept, padded)[: len(part)].tolist()
        on_edges(len(found), len(chosen))
    if found:
        rises[run] = np.array(found) - remove.divergence(circuit.kept)
    return rises


def greedily(
    circuit: Circuit, remove: Removals, order: Int[np.ndarray, " K"], *, tolerance: float
) -> Circuit:
    """The circuit after cutting edges, in the order given, as long as it stays near.

    `order` holds indices of edges of the graph. The divergence may rise by `tolerance` in all.
    Edges go in blocks that double while they are accepted and halve when refused, so that each
    edge that stays was refused alone, and a run of needless edges costs few passes.
    """
    kept = np.array(circuit.kept)
    limit = remove.divergence(kept) + tolerance
    at, block = 0, 1
    while at < len(order):
        trial = kept.copy()
        trial[order[at : at + block]] = False
        if remove.divergence(trial) <= limit:
            kept, at, block = trial, at + block, 2 * block
        elif block > 1:
            block //= 2
        else:
            at += 1
    return Circuit(circuit.graph, kept, {**circuit.provenance, "operation": "greedy removal"})


def minimality(
    model: Model,
    params: PyTree,
    circuit: Circuit,
    data: Batch,
    *,
    ablation: str = "interchange",
    tolerance: float = 0.01,
    on_edges: OnEdges = ignore,
) -> dict[str, Any]:
    """Which edges can go, as plain JSON: about one masked pass of all examples for each edge.

    `divergence` is the circuit's mean distance from the model (KL in nats, or the squared error).
    `one_by_one` counts the edges whose removal raises it by at most `tolerance` (`needless`) and
    lists all with the rise (`edges`), the least needed first. `greedy` is what is left after
    cutting in that order: `edges` kept, and its `divergence`, at most `tolerance` higher.
    """
    remove = removals(model, params, circuit, data, ablation=ablation)
    rises = one_by_one(circuit, remove, ablation=ablation, on_edges=on_edges)
    order = np.argsort(rises, kind="stable")
    indices = np.flatnonzero(circuit.kept)[order]
    left = greedily(circuit, remove, indices, tolerance=tolerance)
    names = (circuit.graph.edge(int(index)) for index in indices)
    return {
        "examples": len(data),
        "tolerance": tolerance,
        "edges": len(circuit),
        "divergence": remove.divergence(circuit.kept),
        "one_by_one": {
            "needless": int((rises <= tolerance).sum()),
            "edges": [[*name, float(rise)] for name, rise in zip(names, rises[order], strict=True)],
        },
        "greedy": {"edges": len(left), "divergence": remove.divergence(left.kept)},
    }
