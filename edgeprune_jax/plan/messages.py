"""Collectives: their kinds, and the bytes that a device sends for them.

On a ring of n devices that is (n-1)/n of the whole array to gather or to scatter it, and twice
that to add it up everywhere.
"""

import re
from math import prod

from edgeprune_jax.plan.hlo import Computation, Instruction, Module
from edgeprune_jax.plan.traffic import operands, results

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")


def kind_of(module: Module, one: Instruction) -> str | None:
    """The kind of a collective; None for anything else."""
    if one.opcode != "fusion":
        kind = one.opcode.removesuffix("-start")
        return kind if kind in KINDS else None
    # A TPU's reduce-scatter is a fusion of an all-reduce with the slice that is kept.
    opcodes = [part.opcode for part in module.computations[one.called[0]].values()]
    found = next((kind for kind in KINDS if kind in opcodes), None)
    return "reduce-scatter" if found == "all-reduce" and "dynamic-slice" in opcodes else found


def sent(module: Module, instructions: Computation, one: Instruction, kind: str) -> float:
    """Bytes that each device sends."""
    inputs = sum(array.bytes for array in operands(instructions, one))
    outputs = sum(array.bytes for array in results(instructions, one))
    if one.opcode == "fusion":
        inner = module.computations[one.called[0]]
        one = next(part for part in inner.values() if part.opcode in KINDS)
    if kind == "collective-permute":
        return float(inputs)
    n = group_size(one)
    share = (n - 1) / n
    if kind == "all-gather":
        return share * outputs
    return share * inputs * (2 if kind == "all-reduce" else 1)


def group_size(one: Instruction) -> int:
    """Devices that one collective joins, of the several ways in which XLA writes them."""
    at = one.attributes.find("replica_groups=")
    text = one.attributes[at + len("replica_groups=") :]
    if named := re.match(r"mesh\[([^\]]*)\] ?\{([^}]*)\}", text):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", named.group(1)))
        axes = re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", named.group(2))
        return prod(int(part or sizes[axis]) for axis, part in axes)
    if tiled := re.match(r"\[(\d+),(\d+)\]", text):
        return int(tiled.group(2))
    first = re.match(r"\{\{([\d,]*)\}", text)
    if first is None:
        raise ValueError(f"unknown replica groups of {one.name}: {text[:60]}")
    return len(first.group(1).split(","))
