"""A derivative that keeps a function's matrix products, and not its inputs."""

from functools import partial

import jax
from jax.tree_util import Partial


def call(function, *inputs):
    """The result, and nothing kept."""
    return function(*inputs), None


def call_keeping(function, *inputs):
    """The result, and a function (inputs, cotangent) -> cotangents that keeps only products.

    The inputs are not kept: they are many times larger than the products, and are given again.
    """
    policy = jax.checkpoint_policies.dots_saveable
    out, pull = jax.vjp(jax.checkpoint(function, policy=policy, prevent_cse=False), *inputs)
    leaves, tree = jax.tree.flatten(pull)
    place = {id(leaf): index for index, leaf in enumerate(jax.tree.leaves(inputs))}
    given = [place.get(id(leaf)) for leaf in leaves]
    kept = [leaf for leaf, index in zip(leaves, given, strict=True) if index is None]
    return out, Partial(partial(_pull, tree, given), kept)


def _pull(tree, given, kept, inputs, g):
    again, kept = jax.tree.leaves(inputs), iter(kept)
    leaves = [next(kept) if index is None else again[index] for index in given]
    return jax.tree.unflatten(tree, leaves)(g)
