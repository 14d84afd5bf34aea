"""A command that may be one of several processes: they meet, and none waits for one that is gone.

JAX ends a process, with a page of messages, when another is lost, and Python is not asked. So the
command runs in a process of its own, and this one says what became of it.
"""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Callable

import jax

from edgeprune_jax import hosts
from edgeprune_jax.cli.explain import LOST, explained
from edgeprune_jax.sharding import TPU_ARGUMENTS

SPOKEN = "EDGEPRUNE_SPOKEN"  # where a supervised process prints: two file descriptors
GOES_ON = "; the same command goes on from the last checkpoint"
FATAL = b"the JAX distributed service detected fatal errors"
UNDERSTOOD = (0, 1, 2, LOST, 130)
TAIL = 4000  # bytes


def together(name: str, run: Callable[[], int]) -> int:
    """Runs a command that goes on where it was stopped, beside the others if it is one of several.

    Returns the exit code of `explained`.
    """
    supervised = SPOKEN in os.environ

    def start() -> int:
        if not supervised:
            return run() if hosts.meeting() is None else _supervise(name)
        hosts.join()
        if jax.process_count() == 1:
            return run()
        if not hosts.is_writer():
            warnings.simplefilter("ignore")  # the writer's notes are those of all
        here = f"{name}: process {jax.process_index()} of {jax.process_count()}"
        return explained(here, run, hope=GOES_ON)

    if not supervised:
        return explained(name, start, hope=GOES_ON)
    _listen()
    try:
        code = explained(name, start, hope=GOES_ON)
    except Exception:
        traceback.print_exc()
        code = 1
    if code:
        # Without the usual end, in which JAX would wait for the others, who wait for this one.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _supervise(name: str) -> int:
    """Runs this very command in a process of its own, and explains how that ended."""
    spoken = os.dup(1), os.dup(2)
    with tempfile.TemporaryFile() as noise:
        child = subprocess.Popen(
            sys.orig_argv, executable=sys.executable, stdin=subprocess.PIPE, stdout=noise,
            stderr=noise, pass_fds=spoken,
            env={"LIBTPU_INIT_ARGS": TPU_ARGUMENTS} | os.environ
            | {SPOKEN: f"{spoken[0]},{spoken[1]}"},
        )  # fmt: skip
        while True:
            try:
                code = child.wait()
                break
            except KeyboardInterrupt:  # which the terminal sends to both
                continue
        noise.seek(max(0, noise.seek(0, os.SEEK_END) - TAIL))
        heard = noise.read()
    if code in UNDERSTOOD:
        return code
    if FATAL in heard:
        print(f"{name}: another process was lost{GOES_ON}", file=sys.stderr)
        return LOST
    print(f"{heard.decode(errors='replace')}{name}: ended by {_cause(code)}", file=sys.stderr)
    return code if code > 0 else 128 - code


def _cause(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _listen() -> None:
    """Speaks where the supervisor says, apart from the libraries below, and ends with it."""
    out, err = map(int, os.environ.pop(SPOKEN).split(","))
    sys.stdout = os.fdopen(out, "w")
    sys.stderr = os.fdopen(err, "w", buffering=1)

    def wait() -> None:
        os.read(0, 1)  # returns when nobody holds the other end any more
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
