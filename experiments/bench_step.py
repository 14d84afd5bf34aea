"""What a step costs: times as multiples of one plain forward pass, memory, compilation.

    python experiments/bench_step.py                       GPT-2 small, 8 prompts of 20 tokens
    python experiments/bench_step.py --shape smollm2 --json
    python experiments/bench_step.py --reference FOLDER    beside torch and the paper's own code

Everything is timed in one process, in turns; the peak of memory is that of a fresh process that
runs nothing but the step. `--reference` takes a checkout of the paper's repository, and an
interpreter (`--reference-python`) that has torch and a transformers it runs with.
`experiments/sweep_step.py` varies the shapes; experiments/step_cost.md explains the figures.
"""

import dataclasses
import json
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import jax
import tyro
from bench import work
from bench.timing import interleaved, product_rate, spread
from rich.console import Console
from rich.table import Table

from edgeprune_jax import cost, provenance

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Bench(work.Work):
    """Time the plain forward pass, the masked one, EAP's gradient and the training step."""

    repeats: int = 5
    """Readings of each; medians count."""
    reference: Path | None = None
    """A checkout of the paper's code, to time its step and torch's forward pass in the same run."""
    reference_python: Path = Path(sys.executable)
    """The interpreter that runs the paper's code."""
    json: bool = False
    """Print one JSON object."""


def measure(options: Bench) -> dict:
    """All figures, as JSON. Seconds, bytes, operations."""
    built = work.build(options)
    programs = {
        "plain": work.plain(built),
        "masked": work.masked(built, options),
        "step": work.step(built, options),
        "eap": work.eap(built),
    }
    readings = interleaved(
        {name: program.run for name, program in programs.items()}, repeats=options.repeats
    )
    seconds = {name: spread(values) for name, values in readings.items()}
    plain, step = seconds["plain"]["median"], seconds["step"]["median"]
    args = (built.model, built.params, built.shapes)
    plain_flops = cost.plain_flops(*args) + cost.unembedding_flops(*args, positions=options.tokens)
    settings = {"segment": options.segment}
    counted = cost.step_flops(built.model, built.params, built.graph, built.shapes, **settings)
    held = cost.step_bytes(
        built.model, built.params, built.graph, built.shapes,
        outbox_dtype=options.outbox_dtype, **settings,
    )  # fmt: skip
    two_outboxes = 2 * built.graph.n_writers * options.batch * options.tokens * _width(built) * 4
    return {
        "step_over_plain": step / plain,
        "masked_over_plain": seconds["masked"]["median"] / plain,
        "eap_over_plain": seconds["eap"]["median"] / plain,
        "peak_bytes": _peak_bytes(options),
        "compile_seconds": programs["step"].seconds,
        "seconds": seconds,
        "edges": built.graph.n_edges,
        "two_outboxes_bytes": two_outboxes,
        "temporary_bytes": programs["step"].temporary_bytes,
        "temporary_over_two_outboxes": programs["step"].temporary_bytes / two_outboxes,
        "modelled_bytes": held._asdict() | {"temporary": held.temporary},
        "plain_flops": plain_flops,
        "step_flops": counted._asdict() | {"total": sum(counted), "xla": programs["step"].flops},
        "plain_flops_per_second": plain_flops / plain,
        "step_flops_per_second": sum(counted) / step,
        "product_flops_per_second": product_rate(),
    }


def _width(built: work.Built) -> int:
    return built.params.norm.shape[0]


def _arguments(options: work.Work) -> list[str]:
    """The command-line arguments of the work, where it is not the default."""
    arguments = []
    for field in dataclasses.fields(work.Work):
        value = getattr(options, field.name)
        if value != field.default:
            arguments += ["--" + field.name.replace("_", "-"), str(value)]
    return arguments


def _peak_bytes(options: Bench) -> int:
    command = [sys.executable, str(HERE / "bench" / "peak.py"), *_arguments(options)]
    return int(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def reference(options: Bench) -> dict:
    """Seconds of torch's plain forward pass and of the paper's training step."""
    if options.reference is None:
        return {}
    command = [
        str(options.reference_python), str(HERE / "bench" / "reference.py"), str(options.reference),
        *(str(value) for value in (options.batch, options.tokens, options.repeats)),
    ]  # fmt: skip
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(printed.splitlines()[-1])


def table(row: dict) -> Table:
    shown = Table("", "median", "x plain forward", "spread")
    plain = row["seconds"]["plain"]["median"]
    for name, one in row["seconds"].items():
        shown.add_row(
            name, f"{one['median']:.3f} s", f"{one['median'] / plain:.2f}",
            f"{one['min']:.3f} to {one['max']:.3f}",
        )  # fmt: skip
    for name, one in row.get("reference", {}).items():
        shown.add_row(
            f"reference: {name}", f"{one['median']:.3f} s",
            f"{one['median'] / row['reference']['plain']['median']:.2f} (of its own)",
            f"{one['min']:.3f} to {one['max']:.3f}",
        )  # fmt: skip
    return shown


def main() -> None:
    options = tyro.cli(Bench)
    if options.reference is not None and (options.shape, options.layers) != ("gpt2", None):
        raise SystemExit("--reference compares GPT-2 small only: leave --shape and --layers out")
    row = measure(options)
    if other := reference(options):
        row["reference"] = other
    if options.json:
        command = shlex.join(["python", "experiments/bench_step.py", *sys.argv[1:]])
        kinds = sorted({device.device_kind for device in jax.devices()})
        print(json.dumps(provenance.collect(command=command, devices=kinds) | row))
        return
    console = Console()
    console.print(table(row))
    console.print(
        f"peak {row['peak_bytes'] / 1e9:.2f} GB, temporaries {row['temporary_bytes'] / 1e9:.2f} GB "
        f"({row['temporary_over_two_outboxes']:.1f} times two outboxes), step compiled in "
        f"{row['compile_seconds']:.1f} s"
    )
    console.print(
        f"GFLOP/s: plain {row['plain_flops_per_second'] / 1e9:.0f}, step "
        f"{row['step_flops_per_second'] / 1e9:.0f}, a square product "
        f"{row['product_flops_per_second'] / 1e9:.0f}"
    )


if __name__ == "__main__":
    main()
