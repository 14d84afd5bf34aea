"""Compiled HLO as data: what XLA prints of a program, read line by line.

`compiled.as_text()` lists computations, each a list of instructions in schedule order. Read are
names, shapes with their memory space, opcodes, operands and attributes: enough to count with.
"""

import re
from collections.abc import Iterator, Mapping
from math import prod
from typing import NamedTuple

_HEAD = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\{$")
_LINE = re.compile(r"\s+(ROOT )?%?([\w.\-]+) = (.*)$")
_ARRAY = re.compile(r"([a-z]+\d*\w*)\[([\d,<=]*)\](?:\{([^}]*)\})?")
_NAME = re.compile(r"%([\w.\-]+)")
_SPACE = re.compile(r"S\((\d+)\)")
_CALLED = re.compile(
    r"(?:calls|to_apply|condition|body|branch_computations|(?:true|false)_computation)="
    r"(\{[^}]*\}|%[\w.\-]+)"
)
_WORDLESS = ("token", "opaque")  # types that hold no numbers


class Array(NamedTuple):
    """One array of an instruction's result."""

    dtype: str
    dims: tuple[int, ...]
    space: int  # 0: the device's main memory; others are on the chip, or the host's

    @property
    def size(self) -> int:
        return prod(self.dims)

    @property
    def bytes(self) -> int:
        if self.dtype in _WORDLESS:
            return 0
        bits = re.search(r"\d+", self.dtype)
        return -(-self.size * int(bits.group()) // 8) if bits else self.size  # pred is a byte


class Instruction(NamedTuple):
    """One line of a computation."""

    name: str
    arrays: tuple[Array, ...]  # the result; a tuple's are in order, nested ones too
    opcode: str
    operands: tuple[str, ...]
    inside: str  # what stands between the parentheses: a constant's value, a parameter's number
    attributes: str
    root: bool

    def attribute(self, name: str) -> str | None:
        """The text of an attribute, without its braces; None where there is none."""
        found = re.search(rf"(?:^|[ ,]){name}=(\{{[^}}]*\}}|[^,\s]+)", self.attributes)
        return found.group(1).strip("{}") if found else None

    def numbers(self, name: str) -> tuple[int, ...]:
        """An attribute that lists axes."""
        return tuple(map(int, re.findall(r"\d+", self.attribute(name) or "")))

    @property
    def called(self) -> tuple[str, ...]:
        """The computations that this one runs, in the order of its attributes."""
        return tuple(
            name for text in _CALLED.findall(self.attributes) for name in _NAME.findall(text)
        )


Computation = Mapping[str, Instruction]  # by name, in order


class Module(NamedTuple):
    """A program."""

    computations: Mapping[str, Computation]
    entry: str


def parse(text: str) -> Module:
    """The program that XLA printed. Raises `ValueError` where there is none."""
    computations: dict[str, dict[str, Instruction]] = {}
    entry, current = "", None
    for line in text.splitlines():
        if current is None and (head := _HEAD.match(line)):
            current = computations.setdefault(head.group(2), {})
            entry = head.group(2) if head.group(1) else entry
        elif line.startswith("}"):
            current = None
        elif current is not None and (found := _LINE.match(line)):
            instruction = _instruction(bool(found.group(1)), found.group(2), found.group(3))
            current[instruction.name] = instruction
    if not entry:
        raise ValueError("no HLO program in the text: it has no ENTRY computation")
    return Module(computations, entry)


def root(computation: Computation) -> Instruction:
    """What a computation returns."""
    return next(one for one in computation.values() if one.root)


def parameters(computation: Computation) -> dict[int, Instruction]:
    """A computation's parameters by number."""
    found = (one for one in computation.values() if one.opcode == "parameter")
    return {int(one.inside): one for one in found}


def users(computation: Computation, name: str) -> Iterator[Instruction]:
    """The instructions that take a result as an operand."""
    return (one for one in computation.values() if name in one.operands)


def _instruction(root: bool, name: str, rest: str) -> Instruction:
    cut = _closing(rest, 0) if rest.startswith("(") else rest.index(" ")
    shape, rest = rest[:cut], rest[cut:].lstrip()
    start = rest.index("(")
    end = _closing(rest, start)
    inside = rest[start + 1 : end - 1]
    return Instruction(
        name,
        tuple(_arrays(shape)),
        rest[:start],
        tuple(_NAME.findall(inside)),
        inside,
        rest[end:].lstrip(", "),
        root,
    )


def _arrays(shape: str) -> Iterator[Array]:
    for dtype, dims, layout in _ARRAY.findall(shape):
        space = _SPACE.search(layout)
        # A bounded dynamic size is printed as <=N.
        sizes = tuple(int(n) for n in re.findall(r"\d+", dims))
        yield Array(dtype, sizes, int(space.group(1)) if space else 0)


def _closing(text: str, start: int) -> int:
    """The position after the parenthesis that closes the one at `start`."""
    depth = 0
    for at in range(start, len(text)):
        depth += (text[at] == "(") - (text[at] == ")")
        if depth == 0:
            return at + 1
    raise ValueError(f"unbalanced parentheses in HLO: {text[:80]}")
