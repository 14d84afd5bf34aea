"""Accelerators by name: what one device has, and how XLA is asked to compile for it.

A topology is a kind and its extent: `v5e:2x4`, `v4:2x2x1` or `v5p:2x2x2` are slices of TPUs, in
chips; `h100:8` is one node of GPUs; `cpu:8` are simulated devices of this machine.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from types import MappingProxyType

LARGEST = 64  # chips
_GIB = 2**30


@dataclass(frozen=True)
class Device:
    """What one device has. A TPU v4 chip is two devices, and each has half of it."""

    platform: str  # of XLA's compiler
    memory: int  # bytes that a program may use
    flops: float  # per second, of bfloat16 products
    bandwidth: float  # bytes per second of its main memory
    link: float  # bytes per second that it sends to its neighbours on a ring
    axes: int = 1  # of the grid that its chips form
    per_chip: int = 1
    source: str = ""


_CLOUD = "https://cloud.google.com/tpu/docs/"

# Memory of TPUs is what the compiler itself lets a program use (it names the number when a
# program needs more; libtpu 0.0.52). A ring lies along one axis of the torus and uses both of its
# links, so `link` is the one-way bandwidth of all links (half of what is called bidirectional)
# divided by the number of axes.
DEVICES: Mapping[str, Device] = MappingProxyType(
    {
        "v5e": Device("tpu", int(15.75 * _GIB), 197e12, 819e9, 200e9 / 2, 2, 1, _CLOUD + "v5e"),
        "v6e": Device("tpu", int(31.24 * _GIB), 918e12, 1638e9, 400e9 / 2, 2, 1, _CLOUD + "v6e"),
        "v5p": Device("tpu", int(95.73 * _GIB), 459e12, 2765e9, 600e9 / 3, 3, 1, _CLOUD + "v5p"),
        "v4": Device(
            "tpu", int(15.25 * _GIB), 275e12 / 2, 1200e9 / 2, 300e9 / 3 / 2, 3, 2, _CLOUD + "v4"
        ),
        "h100": Device(
            "cuda", 80_000_000_000, 989e12, 3352e9, 450e9,
            source="https://www.nvidia.com/en-us/data-center/h100/ (SXM, NVLink one way)",
        ),
        "cpu": Device("cpu", 0, 0.0, 0.0, 0.0, source="simulated: no roofline"),
    }
)  # fmt: skip


@dataclass(frozen=True)
class Topology:
    """A number of devices of one kind."""

    name: str
    kind: str
    extent: tuple[int, ...]

    @property
    def device(self) -> Device:
        return DEVICES[self.kind]

    @property
    def devices(self) -> int:
        """How many XLA sees."""
        return prod(self.extent) * self.device.per_chip

    @property
    def memory(self) -> int:
        """Bytes that a program may use on one device."""
        if self.kind == "cpu":
            return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // self.devices
        return self.device.memory


def find_topology(name: str) -> Topology:
    """A topology by name. Raises `ValueError` for one that does not exist."""
    kind, _, text = name.partition(":")
    if kind not in DEVICES:
        raise ValueError(f"a topology is one of {', '.join(DEVICES)} and its extent: got {name!r}")
    axes = DEVICES[kind].axes
    form = "x".join("N" * axes)
    if not re.fullmatch(r"[1-9]\d{0,2}(x[1-9]\d{0,2})*", text) or text.count("x") != axes - 1:
        raise ValueError(f"the extent of {kind} is {form}, such as {_example(kind)}: got {name!r}")
    extent = tuple(map(int, text.split("x")))
    most = 8 if kind == "h100" else LARGEST
    if prod(extent) > most:
        raise ValueError(f"{kind} is planned up to {most} chips: got {name!r}")
    return Topology(name, kind, extent)


def _example(kind: str) -> str:
    return f"{kind}:{ {1: '8', 2: '2x4', 3: '2x2x2'}[DEVICES[kind].axes] }"
