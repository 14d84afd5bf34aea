"""The masked sums: products of masks with what lies along the residual stream, and their gradient.

Axes: R readers, W writers, B batch, T tokens, D residual width. Where a product runs backward,
from readers to writers, R and W change places.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.layout import Layout, with_layout_constraint
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from edgeprune_jax.sharding import constrain

STREAMS = "- B - D"  # how the outbox, readers' inputs and cotangents are split (`sharding`)


def mix(
    m: Float[Array, "R W"],
    d: Float[Array, "W B T D"],
    dtype: DTypeLike,
    onto: Float[Array, "R B T D"] | None = None,
) -> Float[Array, "R B T D"]:
    """Masked sums over writers, added `onto` others: accumulated in float32, cast to `dtype`."""
    total = _product(m.astype(d.dtype), d, 1)
    if onto is not None:
        total = total + onto.astype(total.dtype)
    return constrain(total.astype(dtype), STREAMS)


def correlate(gx: Float[Array, "R B T D"], d: Float[Array, "W B T D"]) -> Float[Array, "R W"]:
    """The mask's gradient: each reader's cotangent against each writer, in float32."""
    gx = gx.astype(d.dtype)
    if jax.sharding.get_abstract_mesh().empty:
        # XLA for CPUs holds less for one flat product; flattened, a split width would be gathered.
        gx, d = (x.reshape(x.shape[0], math.prod(x.shape[1:])) for x in (gx, d))
    axes = tuple(range(1, d.ndim))
    return _product(gx, d, (axes, axes))


def laid_out(x: Float[Array, "N B T D"]) -> Float[Array, "N B T D"]:
    """`x`, on a TPU with its first axis next to the width in memory, as its products leave it.

    There XLA contracts or makes the axis of readers or writers in the place next to the last; a
    buffer that lies otherwise is copied whole whenever a product's result is written into it.
    """

    def tpu(x):
        return with_layout_constraint(x, Layout((1, 2, 0, 3)))

    return jax.lax.platform_dependent(constrain(x, STREAMS), tpu=tpu, default=lambda x: x)


def _product(a: Array, b: Array, axes: Any) -> Array:
    """A product of full precision: accelerators would round float32 operands to bfloat16."""
    wide = jnp.promote_types(a.dtype, jnp.float32)
    return jnp.tensordot(a, b, axes, precision="highest", preferred_element_type=wide)
