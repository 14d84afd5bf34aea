"""Which of many circuits do what the intact program does, everywhere.

By the criterion `decoded`, a circuit is *faithful* if on every prompt, at every scored position,
it outputs the intact program's class (the largest output, the first of equals), or a number at
most 0.05 off. By `activations`, every output, each class's too, is at most 0.01 off.

Almost all circuits fail, and on most prompts. So the first prompts that a circuit meets are a few
on which, together, every single edge that matters is missed.

Axes: E edges, L live edges, M circuits, N prompts or pairs, A scored positions, V outputs.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from edgeprune_jax.engine import masked_forward
from edgeprune_jax.graph import Edges, Graph
from edgeprune_jax.models.loaded import Loaded
from edgeprune_jax.stream import Model
from edgeprune_jax.tasks.batch import Batch, take
from tracr_models.domain import logits

TOLERANCES = {"decoded": 0.05, "activations": 0.01}  # of a number; 0.05 as in the paper
_FEW, _MANY = (256, 16), (16, 128)  # circuits x rows of a call: two shapes to compile
Judge = Callable[[np.ndarray], np.ndarray]  # which live edges are kept, "M L" -> faithful, "M"


def make_judge(
    loaded: Loaded, batch: Batch, *, ablation: str, criterion: str, live: Bool[np.ndarray, " E"]
) -> tuple[Judge, Bool[np.ndarray, " L"]]:
    """A function that says which circuits are faithful on the whole batch; the necessary edges.

    An edge is *necessary* if the full model without it is not faithful. Circuits are told by
    their live edges, see `live`. Raises `ValueError` for an unknown criterion.
    """
    if criterion not in TOLERANCES:
        raise ValueError(f"criterion must be among {', '.join(TOLERANCES)}: got {criterion!r}")
    expected = logits(loaded, batch.tokens, batch.valid, batch.positions)

    def right(circuits, rows, shape):
        """Whether each of M circuits is right on each of the rows, M N, M and N at most `shape`."""
        step, size = shape
        chosen = np.resize(rows, size)  # repeats some, so that one shape is compiled
        kept = np.zeros((step, len(live)), bool)
        kept[: len(circuits), live] = circuits
        found = _right(
            loaded.model, loaded.graph, ablation, criterion, loaded.params,
            kept, take(batch, chosen), expected[chosen],
        )  # fmt: skip
        return np.asarray(found)[: len(circuits), : len(rows)]

    without = ~np.eye(int(live.sum()), dtype=bool)
    parts = _parts(np.arange(len(batch)), _MANY[1])
    misses = np.zeros((len(without), len(batch)), bool)
    for some in _parts(np.arange(len(without)), _MANY[0]):
        misses[some] = ~np.hstack([right(without[some], rows, _MANY) for rows in parts])
    first = _telling_rows(misses, _FEW[1])
    rest = np.random.default_rng(0).permutation(np.setdiff1d(np.arange(len(batch)), first))

    def judge(circuits: Bool[np.ndarray, "M L"]) -> Bool[np.ndarray, " M"]:
        faithful = np.ones(len(circuits), bool)
        for shape, rows in ((_FEW, first), *((_MANY, rows) for rows in _parts(rest, _MANY[1]))):
            for some in _parts(np.flatnonzero(faithful), shape[0]):
                faithful[some] = right(circuits[some], rows, shape).all(1)
        return faithful

    return judge, np.asarray(misses.any(1))


def _parts(indices: np.ndarray, size: int) -> list[np.ndarray]:
    return [indices[at : at + size] for at in range(0, len(indices), size)]


def _telling_rows(misses: Bool[np.ndarray, "L N"], count: int) -> np.ndarray:
    """At most `count` prompts on which the most edges are missed, greedily, each edge in turn."""
    chosen, left = [], misses
    for _ in range(min(count, misses.shape[1])):
        if not left.any():
            left = misses  # every edge has its prompt: once more, with others
        weights = left.sum(0)
        weights[chosen] = -1
        chosen.append(int(weights.argmax()))
        left = left[~left[:, chosen[-1]]]
    return np.array(chosen)


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _right(
    model: Model, graph: Graph, ablation: str, criterion: str, params: PyTree,
    circuits: Bool[Array, "M E"], batch: Batch, expected: Float[Array, "N A V"],
) -> Bool[Array, "M N"]:  # fmt: skip
    def one(kept: Bool[Array, " E"]) -> Bool[Array, " N"]:
        outputs = masked_forward(
            model, params, batch.tokens, Edges(kept.astype(jnp.float32), graph),
            corrupted_tokens=batch.corrupted if ablation == "interchange" else None,
            ablation=ablation, valid=batch.valid, positions=batch.positions,
        )  # fmt: skip
        if criterion == "decoded" and outputs.shape[-1] > 1:
            same = outputs.argmax(-1) == expected.argmax(-1)
        else:
            same = (jnp.abs(outputs - expected) <= TOLERANCES[criterion]).all(-1)
        return jnp.all(same | (batch.scored == 0), axis=-1)

    return jax.lax.map(one, circuits, batch_size=16)
