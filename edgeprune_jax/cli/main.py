"""The command `edgeprune`: flags from documented dataclasses, one line and exit code 2 for bad
input."""

import io
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from typing import Annotated, Any

import jax
import tyro

from edgeprune_jax.cli import attribute, compare, draw, evaluate, export_mib, plan, prune, tracr

COMMANDS: dict[type, Callable[[Any], int]] = {
    prune.Prune: prune.run,
    attribute.Attribute: attribute.run,
    evaluate.Evaluate: evaluate.run,
    export_mib.ExportMib: export_mib.run_export,
    export_mib.ImportMib: export_mib.run_import,
    compare.Compare: compare.run,
    draw.Draw: draw.run,
    plan.Plan: plan.run,
    tracr.Tracr: tracr.run,
}
Command = (
    Annotated[prune.Prune, tyro.conf.subcommand("prune")]
    | Annotated[attribute.Attribute, tyro.conf.subcommand("attribute")]
    | Annotated[evaluate.Evaluate, tyro.conf.subcommand("evaluate")]
    | Annotated[export_mib.ExportMib, tyro.conf.subcommand("export-mib")]
    | Annotated[export_mib.ImportMib, tyro.conf.subcommand("import-mib")]
    | Annotated[compare.Compare, tyro.conf.subcommand("compare")]
    | Annotated[draw.Draw, tyro.conf.subcommand("draw")]
    | Annotated[plan.Plan, tyro.conf.subcommand("plan")]
    | Annotated[tracr.Tracr, tyro.conf.subcommand("tracr")]
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code: 0, 1 for a difference found, 2 for bad input."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        command = _parse(arguments)
        with warnings.catch_warnings():
            warnings.showwarning = _one_line
            return COMMANDS[type(command)](command)
    except (ValueError, OSError) as error:
        print(f"edgeprune: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        print(
            "edgeprune: out of memory: `edgeprune prune --dry-run` says which batch fits",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        resumes = arguments[:1] == ["prune"] and "--dry-run" not in arguments
        hope = "; the same command goes on from the last checkpoint" if resumes else ""
        print(f"edgeprune: stopped{hope}", file=sys.stderr)
        return 130


def _one_line(message, *_args, **_kwargs) -> None:
    print(f"edgeprune: note: {' '.join(str(message).split())}", file=sys.stderr)


def _parse(arguments: list[str]):
    complaint = io.StringIO()
    try:
        with redirect_stderr(complaint):
            return tyro.cli(
                Command,
                prog="edgeprune",
                description="Circuits of transformers by Edge Pruning.",
                args=prune.with_preset(arguments),
            )
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        words = "".join(" " if c in "│╭╮╰╯─" else c for c in complaint.getvalue()).split()
        text = " ".join(words) or f"cannot read {' '.join(arguments)}"
        raise ValueError(text) from None
