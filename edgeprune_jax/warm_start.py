"""Gates that start from what another method says of the edges.

Scores are read by rank alone, so that their scale and their tails do not matter: with the edge of
rank r, counted from 0, begins the log-alpha

    -2 log(r + E / 200),

shifted so that the expected number of open gates is the one asked for. By this law the gates that
are neither open nor closed have ranks within one factor of that number, whatever it is; and the
first half percent begin nearly alike, since what is wrongly put first has to be closed again.
"""

import jax.numpy as jnp
import numpy as np

from edgeprune_jax.circuits import from_scores
from edgeprune_jax.gates import shifted
from edgeprune_jax.graph import Edges

STEEPNESS = 2.0
ALIKE = 1 / 200  # share of the edges that begin nearly alike


def warm_start(scores: Edges, *, sparsity: float) -> Edges:
    """Log-alphas to start from, for scores of which the highest come first (`circuits.ranked`).

    `sparsity`, between 0 and 1, is that of a binary mask drawn from them, in expectation. Of equal
    scores the first edge comes first. Raises `ValueError` for scores that are not finite, and for
    another sparsity.
    """
    if not 0 < sparsity < 1:
        raise ValueError(f"sparsity must be between 0 and 1: got {sparsity}")
    from_scores(scores, 0)  # refuses what is not finite
    values = np.asarray(scores.values)
    rank = np.empty(values.size)
    rank[np.argsort(-values, kind="stable")] = np.arange(values.size)
    log_alpha = -STEEPNESS * np.log(rank + ALIKE * values.size)
    return Edges(shifted(jnp.asarray(log_alpha, jnp.float32), sparsity), scores.graph)
