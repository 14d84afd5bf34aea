"""From tensors in files to a tree of parameters.

A family describes its parameters once, as a tree of `Stored`: where a weight is found in a
checkpoint, and which shape it has in the file and in memory. Loading, random initialisation
and abstract shapes all follow from that one tree.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key, PyTree


@dataclass(frozen=True)
class Stored:
    """One weight: its name and shape in the file, and how it becomes the weight in memory."""

    name: str
    shape: tuple[int, ...]
    target: tuple[int, ...]
    arrange: Callable[[np.ndarray], np.ndarray] | None = None  # before reshaping to `target`


def abstract(layout: PyTree, *, dtype: str = "float32") -> PyTree:
    """The shapes of the parameters, for compiling where there is no memory for them."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.target, dtype), layout)


def random(layout: PyTree, *, key: Key[Array, ""], dtype: str = "float32") -> PyTree:
    """Parameters that keep activations near one: for tests and benchmarks.

    Matrices are scaled by their width, norms lie around one and biases around zero.
    """
    leaves, tree = jax.tree.flatten(layout)

    def draw(leaf: Stored, leaf_key: Array) -> Array:
        noise = jax.random.normal(leaf_key, leaf.target)
        if leaf.name.endswith("bias"):
            weight = 0.1 * noise
        elif len(leaf.shape) == 1:
            weight = 1 + 0.1 * noise
        else:
            weight = noise / leaf.shape[-1] ** 0.5
        return weight.astype(dtype)

    keys = jax.random.split(key, len(leaves))
    return jax.tree.unflatten(tree, map(draw, leaves, keys))


def read(
    layout: PyTree,
    shapes: Mapping[str, tuple[int, ...]],
    tensor: Callable[[str], np.ndarray],
    *,
    dtype: str,
    source: str,
) -> PyTree:
    """Reads the parameters tensor by tensor, after checking every name and shape.

    `shapes` lists what the file holds. Raises `ValueError`, naming `source` and the tensor,
    for what is missing, unexpected, of another shape, or not finite.
    """
    wanted = {leaf.name: leaf.shape for leaf in jax.tree.leaves(layout)}
    problems = []
    for what, names in (
        ("missing", wanted.keys() - shapes.keys()),
        ("unexpected", shapes.keys() - wanted.keys()),
    ):
        if names:
            problems.append(f"{len(names)} {what} tensors: {_some(names)}")
    problems += [
        f"{name} has shape {tuple(shapes[name])}, expected {shape}"
        for name, shape in sorted(wanted.items())
        if name in shapes and tuple(shapes[name]) != shape
    ][:5]
    if problems:
        raise ValueError(f"{source} does not fit its config: {'; '.join(problems)}")

    def load(leaf: Stored) -> Array:
        values = tensor(leaf.name)
        if leaf.arrange is not None:
            values = leaf.arrange(values)
        with np.errstate(over="ignore", invalid="ignore"):  # reported below, with the name
            values = np.ascontiguousarray(values, jnp.dtype(dtype)).reshape(leaf.target)
        if not np.isfinite(values).all():
            raise ValueError(f"{source}: {leaf.name} has values that are not finite in {dtype}")
        return jax.device_put(values)

    return jax.tree.map(load, layout)


def digest(paths: Iterable[str | os.PathLike]) -> str:
    """`sha256:` and the hash of the files' bytes, one file after the other."""
    total = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            while chunk := file.read(1 << 24):
                total.update(chunk)
    return f"sha256:{total.hexdigest()}"


def _some(names: Iterable[str]) -> str:
    first = sorted(names)
    return ", ".join(first[:5]) + (", ..." if len(first) > 5 else "")
