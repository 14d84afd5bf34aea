"""Two estimators of how the expected loss of a random mask changes with its gates.

*Pathwise*: the hard-concrete mask is a differentiable function of the gates and of noise, so the
gradient goes through the model (Louizos et al. 2018; Edge Pruning section 3). It sees how a loss
changes when an edge fades a little, and nothing of gates that are clipped.

*Score function*: masks are binary and the model is only evaluated. For masks m_1 .. m_S with
losses L_s, drawn with the probabilities that the log-alphas a say,

    d/da E[L] = E[ 1/(S - 1)  sum_s (L_s - mean L) d/da log p(m_s) ],

unbiased because the baseline of one mask is the mean loss of the others (REINFORCE with a
leave-one-out baseline; Kool et al. 2019). It sees what happens when an edge is gone, alone and
together with others, for any loss, differentiable or not.

Both map (loss, penalty, trainable, gates, keys) to the gradient and the means over the masks of
what `loss` and `penalty` report. `gates` picks from the trainable a tree of log-alphas; masks are
trees of that shape.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from edgeprune_jax import gates as distribution

AT_ONCE = 4  # masks evaluated side by side: enough to be fast, and little memory

Loss = Callable[[PyTree], tuple[Array, PyTree]]  # masks -> scalar and report
Penalty = Callable[[PyTree, PyTree], tuple[Array, PyTree]]  # trainable, masks -> scalar and report
Gates = Callable[[PyTree], PyTree]


def pathwise(
    loss: Loss, penalty: Penalty, trainable: PyTree, gates: Gates, *, keys: Array
) -> tuple[PyTree, PyTree]:
    """Through hard-concrete masks, one after the other, so that nothing waits for the others."""

    def lagrangian(trainable, key):
        masks = _draw(distribution.sample, gates(trainable), key)
        (value, report), (cost, costs) = loss(masks), penalty(trainable, masks)
        return value + cost, (report, costs)

    gradient = jax.grad(lagrangian, has_aux=True)
    return _mean(jax.lax.map(lambda key: gradient(trainable, key), keys))


def score(
    loss: Loss, penalty: Penalty, trainable: PyTree, gates: Gates, *, keys: Array
) -> tuple[PyTree, PyTree]:
    """From the losses of binary masks. The penalty, at the probabilities, is differentiated."""
    masks = jax.vmap(lambda key: _draw(distribution.sample_binary, gates(trainable), key))(keys)
    losses, reports = jax.lax.map(loss, masks, batch_size=min(AT_ONCE, len(keys)))
    advantage = (losses - losses.mean()) / (len(keys) - 1)

    def surrogate(trainable):
        log_alphas = gates(trainable)
        logs = jax.vmap(lambda masks: _log_probability(masks, log_alphas))(masks)
        cost, costs = penalty(trainable, jax.tree.map(jax.nn.sigmoid, log_alphas))
        return jnp.sum(advantage * logs) + cost, costs

    gradient, costs = jax.grad(surrogate, has_aux=True)(trainable)
    return gradient, (_mean(reports), costs)


ESTIMATORS = {"pathwise": pathwise, "score": score}


def _draw(sample: Callable, log_alphas: PyTree, key: Array) -> PyTree:
    leaves, tree = jax.tree.flatten(log_alphas)
    keys = jax.random.split(key, len(leaves))
    return tree.unflatten([sample(leaf, key=one) for leaf, one in zip(leaves, keys, strict=True)])


def _log_probability(masks: PyTree, log_alphas: PyTree) -> Array:
    terms = jax.tree.map(distribution.log_probability, masks, log_alphas)
    return sum(jax.tree.leaves(terms), start=jnp.zeros(()))


def _mean(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), tree)
