"""Bytes that an instruction reads and writes in the device's main memory.

Operands and results of fusions, and of whatever stands alone. Of an operand that is only sliced
or gathered from, the slices count; an update in place counts as large as what it updates. Arrays
that XLA keeps on the chip cost nothing but the copy.
"""

from collections.abc import Iterable

from edgeprune_jax.plan.hlo import Array, Computation, Instruction, Module, parameters, root, users

_PIECES = {"slice", "dynamic-slice", "gather"}  # read of their first operand what they return
_IDLE_CALLS = ("AllocateBuffer", "Sharding", "AssumeGatherIndicesInBound")


def operands(instructions: Computation, one: Instruction) -> list[Array]:
    """The arrays that an instruction takes."""
    return [array for name in one.operands for array in instructions[name].arrays]


def results(instructions: Computation, one: Instruction) -> tuple[Array, ...]:
    """What is written. An asynchronous start also returns its operands and its state."""
    if not one.opcode.endswith("-start") or len(one.arrays) == 1:
        return one.arrays
    if one.opcode == "copy-start":
        return one.arrays[:1]
    given = len(operands(instructions, one))
    return one.arrays[given : 2 * given] or one.arrays


def _main(arrays: Iterable[Array]) -> int:
    return sum(array.bytes for array in arrays if array.space == 0)


def traffic(module: Module, instructions: Computation, one: Instruction) -> int:
    """Bytes of one instruction."""
    written = results(instructions, one)
    if one.opcode == "custom-call" and any(name in one.attributes for name in _IDLE_CALLS):
        return 0
    if one.opcode in _PIECES:
        read = written if instructions[one.operands[0]].arrays[0].space == 0 else ()
        return _main(written) + sum(array.bytes for array in read)
    if one.opcode in ("dynamic-update-slice", "scatter"):
        update = instructions[one.operands[1 if one.opcode[0] == "d" else 2]].arrays[0]
        return _main([update]) + (update.bytes if written[0].space == 0 else 0)
    if one.opcode != "fusion":
        return _main(written) + _main(operands(instructions, one))
    inner = module.computations[one.called[0]]
    read = sum(
        _read(module, inner, parameter.name, parameter.arrays[0])
        for number, parameter in parameters(inner).items()
        if instructions[one.operands[number]].arrays[0].space == 0
    )
    return read + _written(inner, root(inner), written)


def _read(module: Module, inner: Computation, name: str, whole: Array) -> int:
    """Bytes of a parameter that a fusion reads: all, or the pieces that it takes."""
    total = 0
    for user in users(inner, name):
        if user.opcode in _PIECES and user.operands[0] == name:
            total += user.arrays[0].bytes
        elif user.opcode == "dynamic-update-slice" and user.operands[0] == name:
            pass  # updated in place
        elif user.opcode == "bitcast":
            total += _read(module, inner, user.name, whole)
        elif user.opcode == "fusion":
            nested = module.computations[user.called[0]]
            inputs = parameters(nested)
            total += sum(
                _read(module, nested, inputs[at].name, whole)
                for at, operand in enumerate(user.operands)
                if operand == name
            )
        else:
            return whole.bytes
    return min(total, whole.bytes)


def _written(inner: Computation, last: Instruction, results: tuple[Array, ...]) -> int:
    leaves = last.operands if last.opcode == "tuple" else (last.name,)
    total = 0
    for name, result in zip(leaves, results, strict=False):
        source = inner[name]
        while source.opcode == "bitcast":
            source = inner[source.operands[0]]
        if source.opcode == "parameter":
            continue  # handed on, as a collective's buffers are through the fusions it spans
        if source.opcode == "dynamic-update-slice":
            result = inner[source.operands[1]].arrays[0]._replace(space=result.space)
        total += _main([result])
    return total
