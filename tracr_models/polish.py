"""Mending a found circuit by measured effect, within bounds that keep it from being a search.

It sees the found circuit and the best-ranked edges outside, at most a tenth as many, and at most
256 examples: it runs through the edges from the lowest rank up and drops each that can go
without a further example going wrong. That is one circuit per edge seen. Over all edges of the
graph and all examples it would be the search for the truth itself.

Axes: E edges, N examples, A scored positions, V outputs.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from edgeprune_jax.circuits import Circuit
from edgeprune_jax.engine import masked_forward
from edgeprune_jax.graph import Edges, Graph
from edgeprune_jax.models.loaded import Loaded
from edgeprune_jax.objectives import DIVERGENCES
from edgeprune_jax.stream import Model
from edgeprune_jax.tasks.batch import Batch, take

EXAMPLES = 256
MORE = 0.1  # edges looked at beside those of the circuit, as a share of them
Wrong = Callable[[np.ndarray], int]  # kept edges "E" -> examples gone wrong


def polish(found: Circuit, ranking: Float[np.ndarray, " E"], wrong: Wrong) -> tuple[Circuit, int]:
    """The polished circuit, and the number of circuits it took."""
    outside = np.flatnonzero(~found.kept)
    best = outside[np.argsort(-ranking[outside], kind="stable")]
    kept = found.kept.copy()
    kept[best[: int(MORE * len(found))]] = True
    seen = np.flatnonzero(kept)
    bar, tried = wrong(kept), 1
    for edge in seen[np.argsort(ranking[seen], kind="stable")]:
        kept[edge] = False
        now, tried = wrong(kept), tried + 1
        if now <= bar:
            bar = now
        else:
            kept[edge] = True
    return Circuit(found.graph, kept, {"operation": "polish"}), tried


def make_wrong(
    loaded: Loaded,
    data: Batch,
    teacher: Float[np.ndarray, "N A V"],
    failures: Float[np.ndarray, " N"],
    *,
    ablation: str,
    failure: str,
    seed: int,
) -> Wrong:
    """Counts the examples on which a circuit fails by a 0-1 divergence, `failure`.

    `failures` says how often sampled circuits failed on each, as `hard_examples` remembers it.
    """
    chosen = examples_to_see(failures, seed=seed)
    batch, expected = take(data, chosen), teacher[chosen]

    def wrong(kept: Bool[np.ndarray, " E"]) -> int:
        failed = _failed(
            loaded.model, loaded.graph, ablation, failure, loaded.params,
            kept, batch, expected,
        )  # fmt: skip
        return int(failed.sum())

    return wrong


def examples_to_see(failures: Float[np.ndarray, " N"], *, seed: int) -> Int[np.ndarray, " _"]:
    """All examples if they are no more than 256, else the 128 hardest and 128 of the others."""
    hardest_first = np.argsort(-failures, kind="stable")
    hard, others = np.split(hardest_first, [EXAMPLES // 2])
    drawn = np.random.default_rng(seed).permutation(others)
    return np.concatenate([hard, drawn[: EXAMPLES - len(hard)]])


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _failed(
    model: Model, graph: Graph, ablation: str, failure: str, params: PyTree,
    kept: Bool[Array, " E"], batch: Batch, teacher: Float[Array, "N A V"],
) -> Float[Array, " N"]:  # fmt: skip
    logits = masked_forward(
        model, params, batch.tokens, Edges(kept.astype(jnp.float32), graph),
        corrupted_tokens=batch.corrupted, ablation=ablation, valid=batch.valid,
        positions=batch.positions,
    )  # fmt: skip
    return DIVERGENCES[failure](teacher, logits, batch.scored)
