"""How a model, its batch and its outbox are split over devices: one table, for every array.

A mesh has three axes: `data` splits the examples; `model` the residual width, of the outbox and
of the weights that read and write it; `fsdp`, if any, the examples too and the weights once more.

* Masked sums contract over writers, so that they stay on a device.
* Norms are sums over the split width. Queries, keys and values contract over it: the parts are
  added and scattered over heads. Outputs of heads are gathered (they are narrow), and each device
  writes its own columns of the stream.
* An MLP reads its one input whole and splits its hidden units, which moves fewer bytes than to
  split its input would: the width twice instead of the hidden width three times.
* Logits at the answers, gates and the optimiser's state are small and stay whole: at the 3.9
  million edges of a 13B model, five float32 numbers each are 78 MB.

Arrays in the program are split by `constrain`, which asks for the mesh that `jax.set_mesh` has
set; without a mesh it does nothing, and a program for one device is as if it were not there.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Int, PyTree

MESH_AXES = ("data", "fsdp", "model")
WHOLE = "-"  # an axis that is never split
# For LIBTPU_INIT_ARGS. XLA would turn products of split arrays into rings of small ones, to hide
# messages: for CodeLlama-13B on eight v5e chips that sends a fifth more and moves a sixth more.
TPU_ARGUMENTS = "--xla_jf_spmd_threshold_for_windowed_einsum_mib=1000000"

# Logical axes, and the axes of the mesh that split them.
RULES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "B": ("data", "fsdp"),  # examples
        "D": ("model",),  # residual width
        "H": ("model",),  # heads, inside attention; those of weights are whole
        "F": ("model",),  # hidden units of an MLP
        "K": ("fsdp",),  # head width, of weights
        "I": ("fsdp",),  # residual width of an MLP's weights, whose hidden units are split
        WHOLE: (),
    }
)
WEIGHTS: Mapping[str, str] = MappingProxyType(
    {
        "embedding": "- D",
        "positions": "- D",
        "norm": "D",
        "norm_bias": "D",
        "unembedding": "- D",
        "attention_norm": "D",
        "attention_norm_bias": "D",
        "q": "- K D",
        "k": "- K D",
        "v": "- K D",
        "o": "- K D",
        "q_bias": "- -",
        "k_bias": "- -",
        "v_bias": "- -",
        "o_bias": "D",
        "mlp_norm": "D",
        "mlp_norm_bias": "D",
        "gate": "F I",
        "up": "F I",
        "up_bias": "F",
        "down": "F I",
        "down_bias": "D",
    }
)
BATCH: Mapping[str, str] = MappingProxyType(
    {
        "tokens": "B -",
        "corrupted": "B -",
        "valid": "B -",
        "positions": "B -",
        "scored": "B -",
        "targets": "B -",
        "foils": "B -",
        "choices": "B -",
        "pivots": "B",
    }
)


@dataclass(frozen=True)
class MeshShape:
    """Devices along each axis of the mesh. Raises `ValueError` for a number below 1."""

    data: int = 1
    """Parts of a batch."""
    model: int = 1
    """Parts of the residual width, of weights and of what writers wrote."""
    fsdp: int = 1
    """Parts of the weights beyond that, and of a batch."""

    def __post_init__(self):
        for name in MESH_AXES:
            if getattr(self, name) < 1:
                raise ValueError(f"mesh.{name} must be at least 1: got {getattr(self, name)}")

    @property
    def devices(self) -> int:
        return self.data * self.fsdp * self.model


def make_mesh(shape: MeshShape, devices: Sequence[Any] | None = None) -> Mesh:
    """The mesh on the first of `devices`, by default those of all hosts.

    Raises `ValueError` where they are too few.
    """
    devices = jax.devices() if devices is None else devices
    if len(devices) < shape.devices:
        raise ValueError(
            f"a mesh of data {shape.data} x fsdp {shape.fsdp} x model {shape.model} needs "
            f"{shape.devices} devices: got {len(devices)}"
        )
    sizes = tuple(getattr(shape, name) for name in MESH_AXES)
    kinds = (AxisType.Auto,) * len(sizes)
    return jax.make_mesh(sizes, MESH_AXES, axis_types=kinds, devices=devices[: shape.devices])


def whole_mesh(shape: MeshShape) -> Mesh | None:
    """The mesh of a program's run, None for one device.

    Raises `ValueError` where there are too few devices, and where of several processes some device
    would have nothing to do.
    """
    n, processes = jax.device_count(), jax.process_count()
    if processes > 1 and shape.devices != n:
        raise ValueError(
            f"mesh.data x mesh.model x mesh.fsdp must be {n}, all devices of the {processes} "
            f"processes: got {shape.devices}"
        )
    return None if shape.devices == 1 else make_mesh(shape)


def weight_shardings(params: PyTree, mesh: Mesh | AbstractMesh) -> PyTree:
    """Where each weight goes. Shapes are enough, and are all that compiling needs.

    Raises `ValueError`, naming the weight, for one that the table lacks or the mesh cannot split.
    """
    return _shardings(params, mesh, WEIGHTS, "weight")


def batch_shardings(batch: PyTree, mesh: Mesh | AbstractMesh) -> PyTree:
    """Where each array of a `Batch` goes, by examples. Raises `ValueError` as above."""
    return _shardings(batch, mesh, BATCH, "batch")


def by_example(tree: PyTree, mesh: Mesh | AbstractMesh) -> PyTree:
    """Where arrays go whose first axis are the examples of a batch."""
    return jax.tree.map(lambda _: NamedSharding(mesh, _spec((RULES["B"],))), tree)


def replicated(tree: PyTree, mesh: Mesh | AbstractMesh) -> PyTree:
    """Every array whole on every device: a `PruneState`, a mask, settled means."""
    return jax.tree.map(lambda _: NamedSharding(mesh, PartitionSpec()), tree)


def using(mesh: Mesh | None) -> AbstractContextManager:
    """The context in which programs are split over a mesh; without one nothing changes."""
    return nullcontext() if mesh is None else jax.set_mesh(mesh)


def place(tree: PyTree, where: Callable[[PyTree, Mesh], PyTree], mesh: Mesh | None) -> PyTree:
    """A tree on its devices, `where` one of the functions above; without a mesh as it is.

    Where the devices are those of several processes, each has the whole tree and places its own
    parts; an array that all hold together already stays as it is.
    """

    def one(leaf, sharding: NamedSharding) -> Array:
        if sharding.is_fully_addressable:
            return jax.device_put(leaf, sharding)
        if isinstance(leaf, Array) and not leaf.is_fully_addressable:
            return leaf
        whole = np.asarray(leaf)
        return jax.make_array_from_callback(whole.shape, sharding, lambda part: whole[part])

    return tree if mesh is None else jax.tree.map(one, tree, where(tree, mesh))


def place_rows(
    tree: PyTree,
    rows: Int[np.ndarray, " B"],
    where: Callable[[PyTree, Mesh], PyTree],
    mesh: Mesh | None,
) -> PyTree:
    """The rows of a tree in host memory, on their devices; each process reads those of its own."""
    if mesh is None:
        return jax.tree.map(lambda leaf: leaf[rows], tree)

    def one(leaf, shape: jax.ShapeDtypeStruct, sharding: NamedSharding) -> Array:
        def read(part: Any) -> np.ndarray:
            return leaf[rows[part[0]]][:, *part[1:]]

        return jax.make_array_from_callback(shape.shape, sharding, read)

    shapes = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((len(rows), *leaf.shape[1:]), leaf.dtype), tree
    )
    return jax.tree.map(one, tree, shapes, where(shapes, mesh))


def constrain(x: Array, axes: str) -> Array:
    """`x`, split along its logical axes where a mesh is set.

    An axis that its part of the mesh does not divide stays whole: heads, say, or means.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return x
    names = [RULES[axis] for axis in axes.split()]
    parts = [math.prod(mesh.shape[name] for name in axis) for axis in names]
    split = [
        name if n > 1 and size % n == 0 else ()
        for name, size, n in zip(names, x.shape, parts, strict=True)
    ]
    return jax.lax.with_sharding_constraint(x, _spec(split))


def gathered(block: PyTree) -> PyTree:
    """A block's weights, whole along `fsdp`, as a layer needs them; its own part goes on with them.

    Asked for here, for XLA, left to itself, gives wrong numbers where an axis of a weight and the
    examples are split along the same axis of the mesh.
    """

    def one(path, leaf):
        axes = WEIGHTS[path[-1].name].replace("K", WHOLE).replace("I", WHOLE)
        return constrain(leaf, axes)

    return jax.tree_util.tree_map_with_path(one, block)


def _shardings(
    tree: PyTree, mesh: Mesh | AbstractMesh, table: Mapping[str, str], kind: str
) -> PyTree:
    def one(path, leaf) -> NamedSharding:
        name, where = path[-1].name, jax.tree_util.keystr(path)
        if name not in table:
            raise ValueError(f"{kind} {where} of shape {leaf.shape} is not in the table of axes")
        axes = table[name].split()
        if len(axes) != len(leaf.shape):
            raise ValueError(f"{kind} {where} must have axes {table[name]}: got shape {leaf.shape}")
        for axis, size in zip(axes, leaf.shape, strict=True):
            parts = math.prod(mesh.shape[name] for name in RULES[axis])
            if size % parts:
                raise ValueError(
                    f"{kind} {where}: axis {axis} of {table[name]} must be a multiple of {parts}, "
                    f"the devices along {' x '.join(RULES[axis])}: got shape {leaf.shape}"
                )
        return NamedSharding(mesh, _spec([RULES[axis] for axis in axes]))

    return jax.tree_util.tree_map_with_path(one, tree)


def _spec(axes: Sequence[tuple[str, ...]]) -> PartitionSpec:
    return PartitionSpec(*(axis or None for axis in axes))
