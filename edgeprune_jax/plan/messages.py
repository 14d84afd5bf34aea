"""Collectives: their kinds, and the bytes that a device sends for them.

On a ring of n devices that is (n-1)/n of the whole array to gather or to scatter it, and twice
that to add it up everywhere.
"""

import re
from math import prod
from typing import NamedTuple

from edgeprune_jax.plan.hlo import Computation, Instruction, Module
from edgeprune_jax.plan.traffic import operands, results

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")


class Message(NamedTuple):
    """One collective."""

    kind: str
    bytes: float  # that each device sends
    channel: str | None  # the same in all the instructions that XLA spreads one collective over


def message(module: Module, instructions: Computation, one: Instruction) -> Message | None:
    """The collective that an instruction is, or is a fusion of; None for anything else."""
    fused = one.opcode == "fusion"
    if fused:
        instructions = module.computations[one.called[0]]
        one = next((part for part in instructions.values() if part.opcode in KINDS), one)
    kind = one.opcode.removesuffix("-start")
    if kind not in KINDS:
        return None
    # A TPU's reduce-scatter is a fusion of an all-reduce with the slice that is kept.
    if kind == "all-reduce" and fused:
        sliced = any(part.opcode == "dynamic-slice" for part in instructions.values())
        kind = "reduce-scatter" if sliced else kind
    inputs = sum(array.bytes for array in operands(instructions, one))
    outputs = sum(array.bytes for array in results(instructions, one))
    return Message(kind, _sent(kind, inputs, outputs, one), one.attribute("channel_id"))


def _sent(kind: str, inputs: int, outputs: int, one: Instruction) -> float:
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
