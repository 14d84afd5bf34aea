"""The command `edgeprune`: flags from documented dataclasses, one line and exit code 2 for bad
input."""

import io
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from typing import Annotated, Any

import tyro

from edgeprune_jax.cli import attribute, compare, draw, evaluate, export_mib, plan, prune, tracr
from edgeprune_jax.cli.explain import explained
from edgeprune_jax.cli.several import together

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
    """Runs one command and returns its exit code, as `explained` says."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)

    def run() -> int:
        command = _parse(arguments)
        return COMMANDS[type(command)](command)

    if arguments[:1] == ["prune"] and "--dry-run" not in arguments:
        return together("edgeprune", run)
    return explained("edgeprune", run)


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
