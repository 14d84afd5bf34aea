"""How often the loops of a compiled program run.

XLA writes a loop's trip count beside it on some devices and leaves it out on others, so the
loop's scalars are run: from their first values, through the body, until the condition fails.
"""

import operator
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from edgeprune_jax.plan.hlo import Computation, Instruction, Module, parameters, root

LONGEST = 100_000  # iterations that are tried before a loop counts as unknown
_KNOWN = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_SAME = ("copy", "bitcast", "convert", "reshape", "broadcast", "opt-barrier")
_ARITHMETIC: Mapping[str, Callable] = MappingProxyType(
    {
        "add": operator.add, "subtract": operator.sub, "multiply": operator.mul,
        "and": operator.and_, "or": operator.or_, "minimum": min, "maximum": max,
    }
)  # fmt: skip
_COMPARE: Mapping[str, Callable] = MappingProxyType(
    {
        "LT": operator.lt, "LE": operator.le, "GT": operator.gt, "GE": operator.ge,
        "EQ": operator.eq, "NE": operator.ne,
    }
)  # fmt: skip
Value = Any  # an int, a tuple of values, or None for what is not a known scalar


def trip_count(
    module: Module, computation: str, loop: Instruction, given: Mapping[str, Value]
) -> tuple[int, Value]:
    """Iterations of a `while`, and what its scalars are in all of them (None where they vary).

    `given` are the scalars that the parameters of its computation are known to hold. Raises
    `ValueError` where the count depends on data.
    """
    condition, body = ((loop.attribute(name) or "").lstrip("%") for name in ("condition", "body"))
    (first,) = arguments(module, computation, loop, given)
    after = _run(module, body, (first,))
    constant = None
    if isinstance(first, tuple) and isinstance(after, tuple):
        constant = tuple(a if a == b else None for a, b in zip(first, after, strict=True))
    if known := _KNOWN.search(loop.attributes):
        return int(known.group(1)), constant
    state = first
    for count in range(LONGEST):
        goes_on = _run(module, condition, (state,))
        if goes_on is None:
            break
        if not goes_on:
            return count, constant
        state = _run(module, body, (state,))
    raise ValueError(f"the trip count of the loop {loop.name} is not known from its program")


def arguments(
    module: Module, computation: str, one: Instruction, given: Mapping[str, Value]
) -> tuple[Value, ...]:
    """What is known of an instruction's operands."""
    known: dict[str, Value] = {}
    return tuple(_value(module, computation, name, given, known) for name in one.operands)


def _run(module: Module, computation: str, given: tuple[Value, ...]) -> Value:
    """What a computation returns for these arguments, as far as it is made of scalars."""
    instructions = module.computations[computation]
    return _value(module, computation, root(instructions).name, bind(instructions, given), {})


def bind(computation: Computation, given: tuple[Value, ...]) -> dict[str, Value]:
    """Arguments by the names of the parameters that they are given to."""
    numbered = parameters(computation).items()
    return {one.name: given[number] for number, one in numbered if number < len(given)}


def _value(module: Module, computation: str, name: str, given: Mapping, known: dict) -> Value:
    if name in given:
        return given[name]
    if name not in known:
        known[name] = None  # of what is not a scalar
        one = module.computations[computation][name]

        def operand(at: int) -> Value:
            return _value(module, computation, one.operands[at], given, known)

        known[name] = _evaluate(module, one, operand)
    return known[name]


def _evaluate(module: Module, one: Instruction, operand: Callable[[int], Value]) -> Value:
    if one.opcode == "tuple":
        return tuple(operand(at) for at in range(len(one.operands)))
    if one.opcode == "get-tuple-element":
        whole, at = operand(0), one.numbers("index")[0]
        return whole[at] if isinstance(whole, tuple) else None
    if len(one.arrays) != 1 or one.arrays[0].dims or one.arrays[0].dtype[0] not in "sup":
        return None  # whole numbers and truth values alone decide how long a loop runs
    if one.opcode == "constant":
        return {"true": 1, "false": 0}.get(one.inside) if one.inside.isalpha() else int(one.inside)
    if one.opcode in _SAME:
        return operand(0)
    if one.opcode in ("fusion", "call"):
        given = tuple(operand(at) for at in range(len(one.operands)))
        return _run(module, one.called[0], given)
    function = _ARITHMETIC.get(one.opcode)
    if one.opcode == "compare":
        function = _COMPARE[one.attribute("direction") or ""]
    values = [operand(at) for at in range(len(one.operands))]
    if function is None or len(values) != 2 or None in values:
        return None
    return int(function(*values))
