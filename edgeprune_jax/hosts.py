"""Several processes, one program: how they find each other, and what only one of them does.

Every process, one for each host or each GPU, runs the same command. Where there are several, the
environment says so, in one of three ways:

* `JAX_COORDINATOR_ADDRESS` (host:port of process 0, which listens there), `JAX_NUM_PROCESSES` and
  `JAX_PROCESS_ID`, in any cluster and by hand;
* `srun` with more than one task;
* a Cloud TPU, whose hosts know each other.

Process 0 is the writer: it alone touches the folders of runs and results, which the others need not
see. What follows from their contents goes to all by `from_writer`.
"""

import importlib.util
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import PyTree

ADDRESS, COUNT, NUMBER = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
TASKS, TASK = "SLURM_STEP_NUM_TASKS", "SLURM_PROCID"
TPU_DEVICES = ("accel[0-9]*", "vfio/[0-9]*")
MEETING = 300  # seconds to wait until all processes are there
SILENCE = 30  # seconds without a sign of life after which a process counts as lost
STATUSES = ("ABORTED", "CANCELLED", "DEADLINE_EXCEEDED", "INTERNAL", "UNAVAILABLE", "UNKNOWN")


class Meeting(NamedTuple):
    """What `jax.distributed.initialize` is told; None is for JAX to find out."""

    coordinator_address: str | None = None
    num_processes: int | None = None
    process_id: int | None = None


def meeting(environment: Mapping[str, str] = os.environ) -> Meeting | None:
    """Where this process meets the others, None where it is alone.

    Raises `ValueError`, naming the variable, for what cannot be meant.
    """
    if ADDRESS in environment or COUNT in environment or NUMBER in environment:
        address = environment.get(ADDRESS, "")
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal():
            raise ValueError(f"{ADDRESS} must be host:port of process 0: got {address!r}")
        return _numbered(environment, COUNT, NUMBER, address)
    if TASKS in environment:
        found = _numbered(environment, TASKS, TASK, None)
        return found and Meeting()
    return Meeting() if _on_a_tpu(environment) else None


def _numbered(
    environment: Mapping[str, str], count: str, number: str, address: str | None
) -> Meeting | None:
    values = []
    for name in (count, number):
        text = environment.get(name, "")
        if not (text.isascii() and text.isdecimal()):
            raise ValueError(f"{name} must be a whole number: got {text!r}")
        values.append(int(text))
    of, this = values
    if this >= of:
        raise ValueError(f"{number} must be below {count}, {of}: got {this}")
    return Meeting(address, of, this) if of > 1 else None


def _on_a_tpu(environment: Mapping[str, str]) -> bool:
    wanted = environment.get("JAX_PLATFORMS", "")
    if (wanted and "tpu" not in wanted) or importlib.util.find_spec("libtpu") is None:
        return False
    return any(next(Path("/dev").glob(pattern), None) for pattern in TPU_DEVICES)


def join() -> None:
    """Meets the other processes, where there are any. To be called before JAX computes anything.

    Raises `ValueError` as `meeting` does, and `ConnectionError` where the others do not come.
    """
    found = meeting()
    if found is None or jax.distributed.is_initialized():
        return
    try:
        jax.distributed.initialize(
            **found._asdict(), initialization_timeout=MEETING, heartbeat_timeout_seconds=SILENCE
        )
        jax.devices()  # where all learn of the devices of all
    except ValueError:  # JAX knows of no cluster: a TPU of one host may have none
        if found.coordinator_address is not None or TASKS in os.environ:
            raise
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise ConnectionError(f"the processes did not find each other: {reason}") from error


def is_writer() -> bool:
    """Whether this process is the one that writes."""
    return jax.process_index() == 0


def fetch(tree: PyTree) -> PyTree:
    """Arrays in host memory, whole on every process, wherever their parts are."""

    def one(leaf: Any) -> np.ndarray:
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            leaf = multihost_utils.process_allgather(leaf, tiled=True)
        return np.asarray(leaf)

    return jax.tree.map(one, tree)


def from_writer(make: Callable[[], bytes]) -> bytes:
    """What `make` gives on the writer, on every process. The others do not call it.

    Raises the writer's `ValueError` and `OSError`, on the others as a `ValueError` of its text.
    """
    if jax.process_count() == 1:
        return make()
    told, error = b"", None
    if is_writer():
        try:
            told = make()
        except (ValueError, OSError) as raised:
            told, error = str(raised).encode(), raised
    sizes = np.array([len(told), error is not None], np.int32)
    size, failed = multihost_utils.broadcast_one_to_all(sizes)
    content = np.frombuffer(told if is_writer() else bytes(size), np.uint8)
    told = multihost_utils.broadcast_one_to_all(content).tobytes()
    if failed:
        raise error or ValueError(told.decode())
    return told


def is_loss(error: Exception) -> bool:
    """Whether an error is XLA's, on not reaching another process.

    It is a `ValueError` or a `RuntimeError`, depending on where it is noticed: both begin with a
    status.
    """
    several = jax.distributed.is_initialized() and jax.process_count() > 1
    return several and str(error).startswith(tuple(f"{status}:" for status in STATUSES))
