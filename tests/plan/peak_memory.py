"""Runs one training step of the request on standard input; prints bytes planned and measured."""

import json
import re
import sys
from pathlib import Path

import jax
import jax.numpy as jnp

from edgeprune_jax import sharding
from edgeprune_jax.plan.named import read_shape
from edgeprune_jax.plan.program import bytes_needed, lower
from edgeprune_jax.plan.request import Request


def memory(kind: str) -> int:
    """Bytes of this process that are in memory now (VmRSS) or were at most (VmHWM)."""
    text = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(rf"{kind}:\s+(\d+) kB", text).group(1))


def main() -> None:
    request = Request(**json.load(sys.stdin))
    shape = read_shape(request.model, dtype=request.dtype, layers=request.layers)
    mesh = sharding.make_mesh(request.mesh, jax.devices())
    lowered, inputs = lower(shape, request, mesh)
    compiled = lowered.compile()

    def fill(leaf):
        value = 0.01 if jnp.issubdtype(leaf.dtype, jnp.floating) else 1
        return jnp.full(leaf.shape, value, leaf.dtype)

    places = jax.tree.map(lambda leaf: leaf.sharding, inputs)
    make = jax.jit(lambda: jax.tree.map(fill, inputs), out_shardings=places).lower().compile()
    before = memory("VmRSS")
    state, params, batch, teacher = jax.block_until_ready(make())
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    out = compiled(jax.random.key(1), state, params, batch, teacher, None)
    jax.block_until_ready(out)
    planned = bytes_needed(compiled, request, shape) * request.mesh.devices
    print(json.dumps([planned, memory("VmHWM") - before]))


if __name__ == "__main__":
    main()
