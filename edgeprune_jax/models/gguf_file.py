"""The GGUF container: a header of metadata and tensor descriptions, then the tensors' bytes.

    magic, version, counts | key, type, value ... | name, shape, type, offset ... | data

Read by hand and not by `gguf.GGUFReader`, which takes seconds for a vocabulary, and loops for
as long as a damaged count tells it to. Every length is checked against the file's size first.
"""

import math
import struct
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, dequantize

_NUMBERS = dict(enumerate("BbHhIif?", start=0)) | {10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_ALIGNMENT = 32  # where general.alignment says nothing else


class Tensor(NamedTuple):
    """Where a tensor lies in the file."""

    shape: tuple[int, ...]  # rows first, as in torch; GGUF writes it the other way round
    kind: GGMLQuantizationType
    offset: int
    size: int  # bytes


class GgufFile(NamedTuple):
    path: Path
    fields: dict[str, Any]
    tensors: dict[str, Tensor]


def read(path: Path) -> GgufFile:
    """Reads the header. Raises `ValueError` naming the file if it is damaged or cut short."""
    try:
        with open(path, "rb") as file:
            return _read(path, file)
    except (ValueError, struct.error) as error:
        raise ValueError(f"{path} is not a readable GGUF file: {error}") from error


def values(file: GgufFile, name: str) -> np.ndarray:
    """One tensor, dequantised."""
    tensor = file.tensors[name]
    stored = np.fromfile(file.path, np.uint8, tensor.size, offset=tensor.offset)
    try:
        rows = stored.reshape(*tensor.shape[:-1], -1)
        return dequantize(rows, tensor.kind).reshape(tensor.shape)
    except (NotImplementedError, ValueError) as error:
        raise ValueError(f"{file.path}: {name} ({tensor.kind.name}): {error}") from error


def _read(path: Path, file: BinaryIO) -> GgufFile:
    end = path.stat().st_size

    def take(count: int) -> bytes:
        left = end - file.tell()
        if count > left:
            raise ValueError(f"it ends {count - left} bytes too early")
        return file.read(count)

    def number(code: str) -> Any:
        return struct.unpack("<" + code, take(struct.calcsize("<" + code)))[0]

    def text() -> str:
        return take(number("Q")).decode()

    def value(kind: int) -> Any:
        if kind == _STRING:
            return text()
        if kind == _ARRAY:
            item, count = number("I"), number("Q")
            if item == _STRING:
                if 8 * count > end:  # every string has a length of eight bytes
                    raise ValueError(f"it claims a list of {count} strings")
                return [text() for _ in range(count)]
            if item in _NUMBERS:
                code = _NUMBERS[item]
                return list(struct.unpack(f"<{count}{code}", take(count * struct.calcsize(code))))
            raise ValueError(f"it has a list of unknown type {item}")
        if kind in _NUMBERS:
            return number(_NUMBERS[kind])
        raise ValueError(f"it has a value of unknown type {kind}")

    if take(4) != b"GGUF":
        raise ValueError("it does not start with GGUF")
    version, n_tensors, n_fields = number("I"), number("Q"), number("Q")
    if version not in (2, 3):
        raise ValueError(f"its version must be 2 or 3, little-endian: got {version}")

    fields: dict[str, Any] = {}
    for _ in range(n_fields):
        key = text()
        if key in fields:
            raise ValueError(f"it has the field {key} twice")
        fields[key] = value(number("I"))

    found: dict[str, tuple] = {}
    for _ in range(n_tensors):
        name = text()
        if name in found:
            raise ValueError(f"it has the tensor {name} twice")
        shape = tuple(number("Q") for _ in range(number("I")))[::-1]
        found[name] = (shape, GGMLQuantizationType(number("I")), number("Q"))

    alignment = fields.get("general.alignment", _ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 1:
        raise ValueError(f"general.alignment must be at least 1: got {alignment}")
    start = -(-file.tell() // alignment) * alignment
    tensors = {}
    for name, (shape, kind, offset) in found.items():
        items, size = GGML_QUANT_SIZES[kind]
        if not shape or shape[-1] % items:
            raise ValueError(f"{name} has shape {shape}, not rows of {items} for {kind.name}")
        tensors[name] = Tensor(shape, kind, start + offset, math.prod(shape) // items * size)
        if start + offset + tensors[name].size > end:
            raise ValueError(f"it ends before the data of {name}")
    return GgufFile(path, fields, tensors)
