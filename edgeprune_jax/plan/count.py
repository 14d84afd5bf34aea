"""What a compiled program does: operations, bytes and messages, every loop counted as it runs.

XLA's own `cost_analysis` counts the body of a loop once. Here a computation counts as often as
it is called. What one instruction does is told by `products`, `traffic` and `messages`.
"""

from collections import Counter
from typing import NamedTuple

from edgeprune_jax.plan.hlo import Instruction, Module
from edgeprune_jax.plan.loops import arguments, bind, trip_count
from edgeprune_jax.plan.messages import message
from edgeprune_jax.plan.products import flops
from edgeprune_jax.plan.traffic import traffic

_FREE = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "opt-barrier",
    "partition-id", "replica-id", "domain", "add-dependency",
}  # fmt: skip
_RUNS = {"call", "async-start", "conditional", "command-buffer"}


class Counts(NamedTuple):
    """Of one device."""

    flops: float
    bytes_accessed: float
    collectives: Counter  # kind -> how many
    sent: Counter  # kind -> bytes

    def plus(self, other: "Counts") -> "Counts":
        """The counts of both."""
        return Counts(
            self.flops + other.flops,
            self.bytes_accessed + other.bytes_accessed,
            self.collectives + other.collectives,
            self.sent + other.sent,
        )

    def times(self, n: int) -> "Counts":
        """The counts of `n` runs."""
        many = (Counter({kind: n * x for kind, x in one.items()}) for one in self[2:])
        return Counts(n * self.flops, n * self.bytes_accessed, *many)


NOTHING = Counts(0.0, 0.0, Counter(), Counter())


def count(module: Module) -> Counts:
    """All that one run of the program does on one device."""
    return _computation(module, module.entry, ())


def _computation(module: Module, name: str, known: tuple) -> Counts:
    """Of one run, for arguments of which the scalars are `known`."""
    instructions = module.computations[name]
    given, total, begun = bind(instructions, known), NOTHING, set()
    for one in instructions.values():
        total = total.plus(_instruction(module, name, one, given))
        found = message(module, instructions, one)
        if found is None or found.channel in begun:
            continue  # a TPU's collective goes on during several fusions
        begun |= {found.channel} - {None}
        messages = Counter({found.kind: 1}), Counter({found.kind: found.bytes})
        total = total.plus(Counts(0.0, 0.0, *messages))
    return total


def _instruction(module: Module, computation: str, one: Instruction, given: dict) -> Counts:
    if one.opcode == "while":
        times, constant = trip_count(module, computation, one, given)
        body = (one.attribute("body") or "").lstrip("%")
        return _computation(module, body, (constant,)).times(times)
    if one.opcode in _RUNS:
        known = () if one.opcode == "conditional" else arguments(module, computation, one, given)
        # Of a conditional's branches one runs: the most expensive.
        runs = [_computation(module, name, known) for name in one.called]
        return max(runs, key=lambda run: (run.flops, run.bytes_accessed), default=NOTHING)
    if one.opcode in _FREE or one.opcode.endswith(("-done", "-update")):
        return NOTHING
    instructions = module.computations[computation]
    moved = traffic(module, instructions, one)
    return NOTHING._replace(flops=flops(module, instructions, one), bytes_accessed=float(moved))
