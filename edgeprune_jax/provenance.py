"""Where a circuit comes from: what one must know to find it again, as plain JSON.

All entries are optional and others may be added; these have a fixed meaning and type.

    model      name, and the digest of its weights
    task       the task's name
    data       seed, n_train and whatever else selects the examples
    ablation   what a cut edge carries: interchange, zero, mean
    method     how the circuit was found
    settings   the method's parameters
    sparsity   target, soft (the mean mask), hard (the circuit's), reachable (of its paths)
    command    the command line
    versions, hardware, date, git_commit    collected by `collect`
    operation, operands    for a circuit made from others, their provenances
"""

import math
import os
import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

TYPES: dict[str, tuple[type, ...]] = {
    "model": (dict,),
    "task": (str,),
    "data": (dict,),
    "ablation": (str,),
    "method": (str,),
    "settings": (dict,),
    "sparsity": (dict,),
    "command": (str,),
    "versions": (dict,),
    "hardware": (dict,),
    "date": (str,),
    "git_commit": (str, type(None)),
    "operation": (str,),
    "operands": (list,),
}
LIBRARIES = ("edgeprune_jax", "jax", "jaxlib", "optax", "numpy")
MAX_DEPTH = 50  # far below the recursion limit, far above any sum of circuits


def collect(*, devices: Sequence[str] = (), **entries) -> dict:
    """The entries, then versions, hardware, date and commit; `devices` are the kinds used."""
    here = {
        "versions": {name: _version(name) for name in LIBRARIES},
        "hardware": {
            "processor": platform.processor() or platform.machine(),
            "cpus": os.cpu_count(),
            "devices": list(devices),
        },
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "git_commit": _git_commit(Path(__file__).resolve().parents[1]),
    }
    # The caller's entries come first, and win.
    return check({**entries, **here, **entries})


def check(provenance: object) -> dict:
    """A copy in plain JSON types. Raises `ValueError` naming the entry that has no such form."""
    if not isinstance(provenance, dict):
        raise ValueError(f"provenance must be an object: got {type(provenance).__name__}")
    plain = _plain(provenance, "provenance", MAX_DEPTH)
    _check_types(plain, "provenance")
    return plain


def _check_types(provenance: dict, where: str) -> None:
    for name, types in TYPES.items():
        value = provenance.get(name, types[0]())
        if not isinstance(value, types):
            expected = " or ".join(_JSON_NAMES[kind] for kind in types)
            raise ValueError(
                f"{where}.{name} must be {expected}: got {_JSON_NAMES.get(type(value))}"
            )
    for name, value in provenance.get("sparsity", {}).items():
        if isinstance(value, bool) or not isinstance(value, int | float | None):
            raise ValueError(
                f"{where}.sparsity.{_short(name)} must be a number or null: "
                f"got {_JSON_NAMES.get(type(value))}"
            )
    for position, operand in enumerate(provenance.get("operands", ())):
        if not isinstance(operand, dict):
            raise ValueError(f"{where}.operands[{position}] must be an object")
        _check_types(operand, f"{where}.operands[{position}]")


def _plain(value: object, where: str, depth: int) -> Any:
    if depth == 0:
        raise ValueError(f"provenance is nested deeper than {MAX_DEPTH}")
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise ValueError(f"{where} must have text keys: got {_short(key)}")
            _plain(key, where, depth)
        return {
            str(key): _plain(entry, f"{where}.{_short(key)}", depth - 1)
            for key, entry in value.items()
        }
    if isinstance(value, list | tuple):
        return [_plain(v, f"{where}[{i}]", depth - 1) for i, v in enumerate(value)]
    if isinstance(value, str):
        try:
            value.encode()  # half of a surrogate pair is JSON, but no file can hold it
        except UnicodeEncodeError:
            raise ValueError(f"{where} must be valid Unicode: got {_short(value)}") from None
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where} must be finite: got {value}")
    elif not isinstance(value, bool | int | float | None):
        raise ValueError(f"{where} must be plain JSON: got a {type(value).__name__}")
    return value


_JSON_NAMES = {
    dict: "an object", list: "an array", str: "text", type(None): "null",
    bool: "a boolean", int: "a number", float: "a number",
}  # fmt: skip


def _short(value: object) -> str:
    """A key as it may stand in a message of one line."""
    if isinstance(value, str) and value.isidentifier() and len(value) <= 40:
        return value
    text = ascii(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _git_commit(root: Path) -> str | None:
    """The commit of this library's checkout, with `-dirty` if it was edited since."""
    try:
        top, commit = (
            subprocess.run(
                ["git", "-C", root, *arguments],
                capture_output=True, text=True, timeout=10, check=True,
                env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
            ).stdout.strip()
            for arguments in (
                ["rev-parse", "--show-toplevel"],
                ["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            )
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    # An installed copy may lie in a virtual environment inside someone else's repository.
    return commit if Path(top).resolve() == root else None
