"""A command's end: an exit code, and for what went wrong one line."""

import sys
import warnings
from collections.abc import Callable

import jax

from edgeprune_jax import hosts

LOST = 75  # EX_TEMPFAIL of sysexits.h: the same command may well succeed


def explained(name: str, run: Callable[[], int], *, hope: str = "") -> int:
    """What `run` returns: 0, or 1 for a difference found; 2 where it refuses its input, 75 where
    another process was lost, 130 where it was interrupted.

    `name` begins each line, `hope` ends the last two, of what the user did not do wrong.
    """

    def say(text: object) -> None:
        print(f"{name}: {' '.join(str(text).split())}", file=sys.stderr)

    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_args, **_kwargs: say(f"note: {message}")
            return run()
    except (ValueError, OSError, MemoryError, jax.errors.JaxRuntimeError) as error:
        if hosts.is_loss(error):
            say(f"another process was lost{hope}")
            return LOST
        if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
            say("out of memory: `edgeprune prune --dry-run` says which batch fits")
        elif isinstance(error, jax.errors.JaxRuntimeError):
            raise
        else:
            say(error)
        return 2
    except KeyboardInterrupt:
        say(f"stopped{hope}")
        return 130
