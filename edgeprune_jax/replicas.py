"""Many circuits from the same steps: sets of gates side by side, each on its own.

A replica has gates, multipliers and random masks of its own. Batches, weights and whatever does not
depend on the gates, such as the full model's logits and the corrupted run, are everybody's, and
computed once. So the S circuits of S seeds cost less than S runs; how much they differ says how far
to trust each (`measures.stability`), and their mean is less noisy than any.

Axes: S replicas, N examples, E edges.
"""

from collections.abc import Sequence
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from edgeprune_jax.graph import Edges, Graph

T = TypeVar("T")


def stack(replicas: Sequence[T]) -> T:
    """One tree of all, with a leading axis S."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *replicas)


def mean(gates: Edges) -> Edges:
    """The log-alphas that stand for all replicas: their mean, where they have an axis S."""
    return Edges(gates.values.mean(axis=0), gates.graph) if gates.values.ndim > 1 else gates


def separate(values: Float[Array, "S E"] | Float[np.ndarray, "S E"], graph: Graph) -> list[Edges]:
    """The log-alphas of each replica."""
    return [Edges(jnp.asarray(row), graph) for row in values]


def resampled(examples: int, replicas: int, *, seed: int) -> Float[np.ndarray, "S N"]:
    """How often each replica draws each example, of N draws with replacement. Means are 1."""
    drawn = np.random.default_rng(seed).multinomial(
        examples, np.full(examples, 1 / examples), size=replicas
    )
    return drawn.astype(np.float32)
