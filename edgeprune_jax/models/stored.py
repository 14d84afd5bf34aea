"""From tensors in files to a tree of parameters.

A family describes its parameters once, as a tree of `Stored`: where a weight is found in a
checkpoint, and which shape it has in the file and in memory. Loading, random initialisation
and abstract shapes all follow from that one tree.
"""

import hashlib
import mmap
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key, PyTree

STRIP = 2**22  # numbers read at a time
Index = tuple[slice, ...]


@dataclass(frozen=True)
class Stored:
    """One weight: its name and shape in the file, and how it becomes the weight in memory.

    In memory, an axis of the file may be two: heads and what is inside them.
    """

    name: str
    shape: tuple[int, ...]
    target: tuple[int, ...]
    transposed: bool = False
    first: int = 0  # where the weight's own part of the file's last axis begins


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
    part: Callable[[str, Index], np.ndarray],
    *,
    dtype: str,
    source: str,
    shardings: PyTree | None = None,
) -> PyTree:
    """Reads the parameters part by part, after checking every name and shape.

    `shapes` lists what the file holds, `part` reads a box of a tensor. With `shardings`, a tree
    like `layout`, each device of this process gets its own part, and no other part is read.
    Beyond what the devices hold, the host holds one part and a strip of it at a time.

    Raises `ValueError`, naming `source` and the tensor, for what is missing, unexpected, of
    another shape, or not finite.
    """
    _check(layout, shapes, source)
    leaves, tree = jax.tree.flatten(layout)
    places = [None] * len(leaves) if shardings is None else jax.tree.leaves(shardings)

    def load(leaf: Stored, index: Index, devices: list) -> list[Array]:
        bounds = [own.indices(size)[:2] for own, size in zip(index, leaf.target, strict=True)]
        shape, kind = [stop - start for start, stop in bounds], jnp.dtype(dtype)
        # Pages of its own, which a CPU takes over as they are, and which are free once let go of;
        # JAX lets go of them in its next call.
        jax.device_put(0)
        found = np.ndarray(shape, kind, mmap.mmap(-1, prod(shape) * kind.itemsize))
        for inside, strip in _strips(leaf, bounds, found):
            with np.errstate(over="ignore", invalid="ignore"):  # reported below, with the name
                strip[...] = part(leaf.name, inside)
            if not np.isfinite(strip).all():
                raise ValueError(f"{source}: {leaf.name} has values that are not finite in {dtype}")
        return jax.block_until_ready([jax.device_put(found, device) for device in devices])

    def place(leaf: Stored, sharding: jax.sharding.Sharding | None) -> Array:
        if sharding is None:
            return load(leaf, (slice(None),) * len(leaf.target), [None])[0]
        parts: dict[str, tuple[Any, list]] = {}  # each distinct one, and the devices that hold it
        for device, index in sharding.addressable_devices_indices_map(leaf.target).items():
            parts.setdefault(str(index), (index, []))[1].append(device)
        arrays = []
        for index, devices in parts.values():
            arrays += load(leaf, index, devices)
        return jax.make_array_from_single_device_arrays(leaf.target, sharding, arrays)

    return jax.tree.unflatten(tree, map(place, leaves, places))


def _check(layout: PyTree, shapes: Mapping[str, tuple[int, ...]], source: str) -> None:
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


def _strips(
    leaf: Stored, bounds: list[tuple[int, int]], found: np.ndarray
) -> Iterator[tuple[Index, np.ndarray]]:
    """Boxes of the file that together hold a part of a weight, and where in `found` each goes."""
    rows = len(bounds) - (len(leaf.shape) - 1)  # axes in memory that are one axis in the file
    (first, last), inner = bounds[0], bounds[1:rows]
    size = prod(leaf.target[1:rows])
    if prod(stop - start for start, stop in inner) == size:  # one piece
        pieces = [(first * size, last * size)]
    else:
        ((start, stop),) = inner
        pieces = [(head * size + start, head * size + stop) for head in range(first, last)]
    flat = found.reshape(-1, *found.shape[rows:])  # a view
    done = 0
    for start, stop in pieces:
        box = [(start, stop), *bounds[rows:]]
        place = flat[done : done + stop - start]
        done += stop - start
        if leaf.transposed:
            box, place = box[::-1], place.T
        box[-1] = (box[-1][0] + leaf.first, box[-1][1] + leaf.first)
        step = max(1, STRIP // prod(place.shape[1:]))
        for at in range(0, len(place), step):
            strip = place[at : at + step]
            begin = box[0][0] + at
            yield (slice(begin, begin + len(strip)), *(slice(*b) for b in box[1:])), strip


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
