"""Operations of an instruction: those of dots, convolutions, and sums of products.

Two for a multiplication and its addition. A TPU makes a sum of products of a matrix times a
vector, and a convolution of every other product.
"""

import re
from math import prod

from edgeprune_jax.plan.hlo import Computation, Instruction, Module

_VIEWS = {"bitcast", "convert", "copy", "reshape"}


def flops(module: Module, instructions: Computation, one: Instruction) -> float:
    """Those of one instruction, and of what it fuses."""
    if one.opcode == "dot":
        left = instructions[one.operands[0]].arrays[0]
        return (
            2.0
            * one.arrays[0].size
            * prod(left.dims[axis] for axis in one.numbers("lhs_contracting_dims"))
        )
    if one.opcode == "convolution":
        return _convolution(instructions, one)
    if one.opcode == "reduce" and _source(instructions, one.operands[0]).opcode == "multiply":
        return 2.0 * instructions[one.operands[0]].arrays[0].size
    if one.opcode == "custom-call" and "$gemm" in one.attributes:
        return _gemm(instructions, one)
    if one.opcode == "fusion":
        inner = module.computations[one.called[0]]
        return sum(flops(module, inner, part) for part in inner.values())
    return 0.0


def _source(instructions: Computation, name: str) -> Instruction:
    """The instruction that made an array, past changes of its type and shape alone."""
    one = instructions[name]
    while one.opcode in _VIEWS:
        one = instructions[one.operands[0]]
    return one


def _convolution(instructions: Computation, one: Instruction) -> float:
    """Products of entries that meet; a batch of matrix products is one with holes between."""
    image, kernel, out = (text for text in re.split("_|->", one.attribute("dim_labels") or ""))
    left, right = (instructions[name].arrays[0].dims for name in one.operands)
    products = prod(one.arrays[0].dims[out.index(axis)] for axis in "bf")
    products *= right[kernel.index("i")]
    products //= int(one.attribute("batch_group_count") or 1)
    window = dict(re.findall(r"(\w+)=([\w\-]+)", one.attribute("window") or ""))
    for at in range(len(out) - 2):
        size, taps = left[image.index(str(at))], right[kernel.index(str(at))]
        places = one.arrays[0].dims[out.index(str(at))]

        def setting(name: str, default: str, at: int = at) -> str:
            return window[name].split("x")[at] if name in window else default

        stride, low = int(setting("stride", "1")), int(setting("pad", "0_0").split("_")[0])
        holes, spread = int(setting("lhs_dilate", "1")), int(setting("rhs_dilate", "1"))
        met = (
            place * stride - low + tap * spread for place in range(places) for tap in range(taps)
        )
        products *= sum(0 <= x <= (size - 1) * holes and x % holes == 0 for x in met)
    return 2.0 * products


def _gemm(instructions: Computation, one: Instruction) -> float:
    """A matrix product of a GPU's library."""
    contracted = re.search(r'"lhs_contracting_dimensions":\["?([\d",]*)\]', one.attributes)
    axes = re.findall(r"\d+", contracted.group(1)) if contracted else []
    left = instructions[one.operands[0]].arrays[0].dims
    return 2.0 * one.arrays[0].size * prod(left[int(axis)] for axis in axes)
