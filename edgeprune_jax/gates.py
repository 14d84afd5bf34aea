"""Hard-concrete gates: a distribution over masks, and the one mask it settles on.

A gate with parameter log_alpha draws, for u uniform on (eps, 1 - eps),

    s = sigmoid((log u - log(1 - u) + log_alpha) / T)
    z = clip(s (r - l) + l, 0, 1),

with temperature T = 2/3 and stretch from l = -0.1 to r = 1.1 (Louizos et al. 2018; Edge Pruning
section 3). It is exactly 0 with probability sigmoid(T log(-l / r) - log_alpha), and passes no
gradient where it is clipped. One draw serves a whole batch, or with `own_masks` one example.

Rounded to 0 or 1 the draw is 1 with probability sigmoid(log_alpha), whatever T: these are the
*binary* masks of the same gates, which the score-function estimator draws.

Axes: E edges. Log-alphas and masks are `Edges`, or plain arrays for the masks of nodes.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from edgeprune_jax.graph import Edges

LOWER, UPPER, TEMPERATURE, EPSILON = -0.1, 1.1, 2 / 3, 1e-6
SOFT_SLOPE = 0.8 / TEMPERATURE  # the reference's "magical number" 0.8 over its temperature
BISECTION_WIDTH = 1e-5
HALVINGS = 40  # of the bracket of a shift: to float32's precision


def sample_gates(log_alpha: Edges, *, key: Array) -> Edges:
    """One mask drawn from the gates, between 0 and 1 and often exactly either."""
    return Edges(sample(log_alpha.values, key=key), log_alpha.graph)


def sample(log_alpha: Float[Array, "..."], *, key: Array) -> Float[Array, "..."]:
    """One draw per entry."""
    u = jax.random.uniform(key, log_alpha.shape, minval=EPSILON, maxval=1 - EPSILON)
    s = jax.nn.sigmoid((jnp.log(u) - jnp.log1p(-u) + log_alpha) / TEMPERATURE)
    return jnp.clip(s * (UPPER - LOWER) + LOWER, 0, 1)


def sample_binary(log_alpha: Float[Array, "..."], *, key: Array) -> Float[Array, "..."]:
    """One draw of zeros and ones per entry: 1 with probability sigmoid(log_alpha)."""
    return jax.random.bernoulli(key, jax.nn.sigmoid(log_alpha)).astype(jnp.float32)


def log_probability(mask: Float[Array, "..."], log_alpha: Float[Array, "..."]) -> Float[Array, ""]:
    """The log of the probability that `sample_binary` draws this mask, in nats."""
    return jnp.sum(jax.nn.log_sigmoid(jnp.where(mask > 0, log_alpha, -log_alpha)))


def most_likely(log_alpha: Edges) -> Edges:
    """The binary mask with the highest probability: the gates above one half."""
    return Edges((log_alpha.values > 0).astype(jnp.float32), log_alpha.graph)


def probability_zero(log_alpha: Float[Array, "..."]) -> Float[Array, "..."]:
    """The probability that a gate is exactly 0, clamped to [eps, 1 - eps] as in the reference."""
    closed = jax.nn.sigmoid(TEMPERATURE * jnp.log(-LOWER / UPPER) - log_alpha)
    return jnp.clip(closed, EPSILON, 1 - EPSILON)


def expected_l0(log_alpha: Float[Array, "..."]) -> Float[Array, ""]:
    """The expected number of gates that are not 0."""
    return jnp.sum(1 - probability_zero(log_alpha))


def shifted(log_alpha: Float[Array, " E"], sparsity: float) -> Float[Array, " E"]:
    """The log-alphas plus the one number that gives their binary masks a sparsity, in expectation.

    `sparsity` lies strictly between 0 and 1.
    """
    share = 1 - jnp.float32(sparsity)

    def halve(_, bracket):
        low, high = bracket
        middle = (low + high) / 2
        above = jnp.mean(jax.nn.sigmoid(log_alpha + middle)) > share
        return jnp.where(above, low, middle), jnp.where(above, middle, high)

    odds = jnp.log(share) - jnp.log1p(-share)  # the shift, were all log-alphas 0
    bracket = (odds - jnp.max(log_alpha), odds - jnp.min(log_alpha))
    low, high = jax.lax.fori_loop(0, HALVINGS, halve, bracket)
    return log_alpha + (low + high) / 2


def sparsity(mask: Float[Array, "..."]) -> Float[Array, ""]:
    """One minus the mean of a mask: what the training objective controls."""
    return 1 - jnp.mean(mask)


def soft_mask(log_alpha: Float[Array, " E"]) -> Float[Array, " E"]:
    """The deterministic mask sigmoid(1.2 log_alpha), with the expected number of zeros.

    The k smallest entries are 0, where k is the expected number of closed gates. The reference
    counts k tensor by tensor and over rows of edges that cannot exist; here it is counted over
    the edges that exist, all together.
    """
    soft = jax.nn.sigmoid(SOFT_SLOPE * log_alpha)
    zeros = jnp.round(jnp.sum(probability_zero(log_alpha))).astype(int)
    rank = jnp.argsort(jnp.argsort(log_alpha))
    return jnp.where(rank < zeros, 0, soft)


def discretise(log_alpha: Edges, *, edges: int | None = None) -> Edges:
    """The final mask of zeros and ones, with a given number of edges or as many as the gates say.

    Without `edges`, a threshold on the soft mask is bisected until the sparsity of the result
    meets one minus the soft mask's mean (reference, final discretisation). With it, the `edges`
    largest log-alphas are kept, the earlier edge first among equals. Raises `ValueError` for a
    number that the graph does not have, or gates that are not finite.
    """
    values = np.asarray(log_alpha.values, np.float64)
    if not np.isfinite(values).all():
        bad = int(np.argmin(np.isfinite(values)))
        raise ValueError(f"gates must be finite: got {values[bad]} at edge {bad}")
    if edges is None:
        soft = np.asarray(soft_mask(jnp.asarray(values, jnp.float32)), np.float64)
        kept = soft > bisect_threshold(soft)
    else:
        if not 0 <= edges <= values.size:
            raise ValueError(f"edges must be between 0 and {values.size}: got {edges}")
        kept = np.zeros(values.size, bool)
        kept[np.argsort(-values, kind="stable")[:edges]] = True
    return Edges(jnp.asarray(kept, jnp.float32), log_alpha.graph)


def bisect_threshold(soft: Float[np.ndarray, " E"]) -> float:
    """The threshold in [0, 1] above which about `sum(soft)` entries lie, within 1e-5.

    The bisection closes in on one entry. The reference stops on either side of it, so that its
    circuit has an edge too many or too few; here the side with the nearer number is taken.
    """
    target = 1 - soft.mean()
    low, high = 0.0, 1.0
    while high - low > BISECTION_WIDTH:
        middle = (low + high) / 2
        if (soft <= middle).mean() > target:
            high = middle
        else:
            low = middle
    return min(low, high, key=lambda threshold: abs((soft > threshold).sum() - soft.sum()))
