"""The real training step, lowered for devices that need not be there, from shapes alone."""

import dataclasses
import re
import time
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jaxtyping import PyTree

from edgeprune_jax import sharding
from edgeprune_jax.plan import count, hlo
from edgeprune_jax.plan.exact import exact_flops
from edgeprune_jax.plan.named import Shape, read_shape
from edgeprune_jax.plan.request import Request
from edgeprune_jax.plan.topology import find_topology
from edgeprune_jax.pruning import init, make_step
from edgeprune_jax.settings import PAPER, PruneConfig
from edgeprune_jax.tasks.batch import Batch

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def lower(shape: Shape, request: Request, mesh: Mesh) -> tuple[Any, tuple[Any, ...]]:
    """The step before it is compiled, and its inputs as placed shapes."""
    config = dataclasses.replace(PAPER, batch_size=request.batch, outbox_dtype=request.dtype)
    step = make_step(shape.model, config, segment=request.segment)
    given = inputs(shape, config, request, mesh)
    with jax.set_mesh(mesh):
        return step.func.lower(*step.args, *given, None), given


def inputs(shape: Shape, config: PruneConfig, request: Request, mesh: Mesh) -> tuple[Any, ...]:
    """State, weights, batch and the teacher's logits as shapes with their places on the mesh."""
    examples, tokens, answers = request.batch, request.length, request.answers

    def array(*dims: int, dtype: Any = jnp.int32) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(dims, dtype)

    batch = Batch(
        array(examples, tokens), array(examples, tokens), array(examples, tokens, dtype=bool),
        array(examples, answers), array(examples, answers, dtype=jnp.float32),
        array(examples, answers), array(examples, answers),
    )  # fmt: skip
    state = jax.eval_shape(lambda: init(shape.graph, config))
    teacher = array(examples, answers, shape.vocab, dtype=jnp.float32)
    places = sharding.batch_shardings(batch, mesh)
    return (
        _placed(state, sharding.replicated(state, mesh)),
        _placed(shape.params, sharding.weight_shardings(shape.params, mesh)),
        _placed(batch, places),
        _placed(teacher, places.scored),  # by example, as all of a batch
    )


def compile_step(request: Request, devices: Any) -> dict:
    """What the compiled step needs and does on one device, as JSON.

    Out of memory is an answer: `fits` is then False, and what was not learnt is None.
    """
    topology = find_topology(request.topology)
    shape = read_shape(request.model, dtype=request.dtype, layers=request.layers)
    mesh = sharding.make_mesh(request.mesh, devices)
    lowered, (state, params, batch, teacher) = lower(shape, request, mesh)
    exact = exact_flops(shape, request)
    found: dict = {
        "devices": topology.devices,
        "memory_bytes": topology.memory,
        "weights_bytes": device_bytes(params),
        "gates_bytes": device_bytes(state),
        "batch_bytes": device_bytes((batch, teacher)),
        "outbox_bytes": _outbox(shape, request),
        "exact_flops": exact._asdict(),
    }
    start = time.perf_counter()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        inputs_bytes = sum(found[f"{kind}_bytes"] for kind in ("weights", "gates", "batch"))
        needed = _needed(str(error), inputs_bytes)
        seconds = time.perf_counter() - start
        return found | {
            "fits": False, "bytes_per_device": needed, "temporary_bytes": None,
            "flops_per_device": None, "bytes_accessed_per_device": None, "collectives": None,
            "compile_seconds": seconds, "message": " ".join(str(error).split())[:400],
        }  # fmt: skip
    seconds = time.perf_counter() - start
    needed = bytes_needed(compiled, request, shape)
    counts = count.count(hlo.parse(compiled.as_text()))
    return found | {
        "fits": needed <= topology.memory,
        "bytes_per_device": needed,
        "temporary_bytes": needed - compiled.memory_analysis().argument_size_in_bytes,
        "flops_per_device": counts.flops,
        "bytes_accessed_per_device": counts.bytes_accessed,
        "collectives": {
            kind: {"count": number, "bytes": counts.sent[kind]}
            for kind, number in sorted(counts.collectives.items())
        },
        "compile_seconds": seconds,
        "message": None,
    }


def bytes_needed(compiled: Any, request: Request, shape: Shape) -> int:
    """Bytes of one device that a compiled step takes, its inputs and its code included."""
    memory = compiled.memory_analysis()
    new = memory.output_size_in_bytes - memory.alias_size_in_bytes
    held = memory.argument_size_in_bytes + memory.generated_code_size_in_bytes
    # A CPU's library of matrix products copies the outbox for the mask's gradient, a product over
    # its long axis, without telling XLA (134 MB were measured for one of 130).
    scratch = _outbox(shape, request) if request.topology.startswith("cpu") else 0
    return held + memory.temp_size_in_bytes + new + scratch


def device_bytes(tree: PyTree) -> int:
    """Bytes of a tree of placed shapes on one device."""

    def one(leaf: jax.ShapeDtypeStruct) -> int:
        part = jax.ShapeDtypeStruct(leaf.sharding.shard_shape(leaf.shape), leaf.dtype)
        return part.size * part.dtype.itemsize

    return sum(map(one, jax.tree.leaves(tree)))


def _placed(tree: PyTree, places: PyTree) -> PyTree:
    def one(leaf: jax.ShapeDtypeStruct, place: NamedSharding) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)

    if isinstance(places, NamedSharding):
        return jax.tree.map(lambda leaf: one(leaf, places), tree)
    return jax.tree.map(one, tree, places)


def _outbox(shape: Shape, request: Request) -> int:
    """Bytes of one outbox, of what every writer wrote, on one device."""
    width = shape.params.embedding.shape[-1]
    whole = shape.graph.n_writers * request.batch * request.length * width
    return whole * jnp.dtype(request.dtype).itemsize // request.mesh.devices


def _needed(message: str, inputs_bytes: int) -> int | None:
    """The bytes that XLA says a program would need, its inputs included."""
    whole = re.search(r"Used ([\d.]+)([KMGT]?) of", message)
    temporary = re.search(r"HLO temporaries \(([\d.]+)([KMGT]?)\)", message)
    found = whole or temporary
    if found is None:
        return None
    return int(float(found.group(1)) * _UNITS[found.group(2)]) + (0 if whole else inputs_bytes)
