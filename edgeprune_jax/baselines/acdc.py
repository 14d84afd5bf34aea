"""ACDC: edges are cut one after the other, each for good where that costs less than a threshold.

From the output to the input, reader by reader, and of a reader's edges the latest writer first:
with H the circuit so far, edge e is cut if D(H without e) - D(H) < threshold, where D is minus the
metric, KL as published (Conmy et al. 2023, algorithm 1). The order is that of their code, but that
of two embeddings theirs takes the tokens first.

Most edges are cut. So the next ones of a reader are tried together, each with all before it cut:
the masked runs are those of the plain loop as far as the first edge that stays, and what lies
beyond is tried again. An edge into a node that no longer reaches the output changes nothing, is
therefore cut, and is not run.

Axes: E edges.
"""

from collections.abc import Callable, Iterator

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, PyTree

from edgeprune_jax.baselines.eap import n_outputs
from edgeprune_jax.baselines.metrics import check_metric
from edgeprune_jax.baselines.patching import AT_ONCE, mean_metric
from edgeprune_jax.circuits import Circuit, heard_readers
from edgeprune_jax.graph import Edges, Graph
from edgeprune_jax.stream import Model
from edgeprune_jax.tasks.batch import Batch


def acdc(
    model: Model,
    params: PyTree,
    graph: Graph,
    data: Batch,
    *,
    threshold: float,
    metric: str = "kl",
    ablation: str = "interchange",
    batch_size: int = 8,
    start: Circuit | None = None,
    on_run: Callable[[float], None] = lambda share: None,
) -> Edges:
    """What cutting each edge cost at its turn; ACDC's circuit is those of at least `threshold`.

    `start` is the circuit to begin with, by default all edges; others cost 0. Takes about a masked
    pass of all examples for each edge. `on_run` hears the share that is done. Raises `ValueError`
    for a threshold that is not positive, and a metric that the data lack.
    """
    if not 0 < threshold < np.inf:
        raise ValueError(f"threshold must be above 0, and finite: got {threshold}")
    check_metric(metric, data, n_outputs(model, params, data))
    metric_of = mean_metric(model, params, graph, data, metric, ablation, batch_size)
    kept = np.ones(graph.n_edges, bool) if start is None else start.kept.copy()
    costs, done, total = np.zeros(graph.n_edges), 0, np.count_nonzero(kept)
    (current,) = metric_of(kept[None])
    for row, edges in order(graph):
        left = edges[kept[edges]]
        done += len(left)
        if not heard_readers(Circuit(graph, kept))[row]:
            kept[left] = False
            left = left[:0]
        while len(left):
            tried = left[:AT_ONCE]
            found = metric_of(_without(kept, tried))
            cost = -np.diff(found, prepend=current)
            stays = np.flatnonzero(cost >= threshold)
            cut = stays[0] if len(stays) else len(tried)
            costs[tried[: cut + 1]] = cost[: cut + 1]
            kept[tried[:cut]] = False
            current = found[cut - 1] if cut else current
            left = left[cut + 1 :]
        on_run(done / total)
    return Edges(jnp.asarray(costs, jnp.float32), graph)


def order(graph: Graph) -> Iterator[tuple[int, np.ndarray]]:
    """Readers in the order of their turns, and their edges: all from the last to the first.

    Within a layer the MLP, then the queries, keys and values, heads from the last.
    """
    per_layer, heads, groups = graph.readers_per_layer, graph.heads, graph.kv_heads
    slots = np.split(np.arange(per_layer), [heads, heads + groups, heads + 2 * groups])
    turns = np.concatenate([slots[3], *(slot[::-1] for slot in slots[:3])])
    rows = [graph.n_readers - 1]
    for layer in reversed(range(graph.layers)):
        rows += [layer * per_layer + int(turn) for turn in turns]
    for row in rows:
        yield row, np.arange(graph.row_starts[row], graph.row_starts[row + 1])[::-1]


def _without(kept: Bool[np.ndarray, " E"], edges: np.ndarray) -> Bool[np.ndarray, "M E"]:
    """The circuit without the first of the edges, without the first two, and so on."""
    masks = np.repeat(kept[None], len(edges), axis=0)
    for number, edge in enumerate(edges):
        masks[number:, edge] = False
    return masks
