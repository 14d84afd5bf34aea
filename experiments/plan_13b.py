"""CodeLlama-13B and Llama-3-70B on accelerators that were not there, compiled ahead of time.

    python experiments/plan_13b.py                  (resumable; hours on two cores, all of it)
    python experiments/plan_13b.py --only v5e-2x4-64-16 table

Every entry of `CASES` is one compiled step, or a search for the largest batch that fits; its plan
is stored as `experiments/results/plan_13b/NAME.json`, and `table` writes `README.md` beside them.
A prototype before this code: batch 24 of 64 tokens on v5e:2x4, 46 GB of traffic per chip and
example, 3 hours for the paper's run. The paper used 32 H100s, with weights in host memory.
Needs `pip install 'edgeprune_jax[plan-tpu,plan-gpu]'`.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import jax
import sweep_results
import tyro

from edgeprune_jax import atomic, provenance
from edgeprune_jax.plan.make import largest_batch, make_plan
from edgeprune_jax.plan.request import Request
from edgeprune_jax.report.tables import Table, to_markdown

STEPS, BATCH = 6000, 32  # of the paper's run
SEARCHED = "-largest"  # ends the names of cases that look for the largest batch
RESULTS = Path("experiments/results/plan_13b")
_13B, _70B = "codellama-13b", "llama-3-70b"
CASES: Mapping[str, Request] = MappingProxyType(
    {
        "v5e-2x4-64-16": Request(_13B, "v5e:2x4", 16, 64),
        "v5e-2x4-64-32": Request(_13B, "v5e:2x4", 32, 64),
        "v5e-2x4-64-40": Request(_13B, "v5e:2x4", 40, 64),
        "v5e-2x4-72-32": Request(_13B, "v5e:2x4", 32, 72),
        "v5e-2x4-64-largest": Request(_13B, "v5e:2x4", 34, 64),
        "v5e-2x4-72-largest": Request(_13B, "v5e:2x4", 30, 72),
        "h100-8": Request(_13B, "h100:8", 32, 72),
        "h100-1": Request(_13B, "h100:1", 8, 72),
        "70b-v5p-2x2x1": Request(_70B, "v5p:2x2x1", 1, 72),
        "70b-v5p-2x2x2": Request(_70B, "v5p:2x2x2", 1, 72),
        "70b-v6e-2x4": Request(_70B, "v6e:2x4", 1, 72),
        "70b-v6e-4x4": Request(_70B, "v6e:4x4", 1, 72),
    }
)


@dataclass(frozen=True)
class Options:
    """Compile the cases that have no result yet, and write the table."""

    only: tuple[str, ...] = (*CASES, "table")
    """Names of cases, and 'table'."""
    again: bool = False
    """Compile a case although its result is there."""


def plan(name: str, request: Request) -> dict:
    """The plan of a case, or of the largest batch that fits."""
    if not name.endswith(SEARCHED):
        return make_plan(request, steps=STEPS)
    largest, found = largest_batch(request, steps=STEPS, on_plan=show)
    return found | {"largest_batch": largest}


def show(found: dict) -> None:
    request, needed = found["request"], found["bytes_per_device"]
    size = "" if needed is None else f", {needed / 2**30:.2f} GiB"
    print(
        f"{request['topology']}, batch {request['batch']}: fits {found['fits']}{size}", flush=True
    )


def table(plans: Mapping[str, dict]) -> Table:
    """A row for each plan."""
    rows = []
    for found in plans.values():
        request = found["request"]
        largest = " (largest)" if found.get("largest_batch") else ""
        needed, traffic = found["bytes_per_device"], found["bytes_accessed_per_device_and_example"]
        step = found["seconds_per_step"]
        hours = None if step is None else step / request["batch"] * BATCH * STEPS / 3600
        rows.append([
            request["model"] + (f", {request['layers']} layers" if request["layers"] else ""),
            request["topology"], f"{request['batch']}{largest} x {request['length']}",
            "yes" if found["fits"] else "no",
            None if needed is None else needed / 2**30, found["memory_bytes"] / 2**30,
            found["flops_over_exact"], None if traffic is None else traffic / 1e9,
            None if step is None else step / request["batch"], hours, found["compile_seconds"],
        ])  # fmt: skip
    headers = [
        "model", "devices", "batch x tokens", "fits", "GiB needed", "usable", "FLOP over exact",
        "traffic, GB/example", "s/example", f"hours for {STEPS * BATCH:,} examples", "compiled, s",
    ]  # fmt: skip
    return Table("Planned steps", headers, rows)


def messages(plans: Mapping[str, dict]) -> Table:
    """Collectives of every step that compiled."""
    rows = [
        [name, kind, sent["count"], sent["bytes"] / 1e9]
        for name, found in plans.items()
        for kind, sent in (found["collectives"] or {}).items()
    ]
    return Table("Messages of a step", ["case", "kind", "count", "GB sent by a device"], rows)


def main() -> None:
    options = tyro.cli(Options)
    unknown = set(options.only) - {*CASES, "table"}
    if unknown:
        raise SystemExit(
            f"no such case: {', '.join(sorted(unknown))}; there are {', '.join(CASES)}"
        )
    for name in options.only:
        path = RESULTS / f"{name}.json"
        if name == "table" or (path.exists() and not options.again):
            continue
        try:
            found = plan(name, CASES[name])
        except ValueError as error:  # what XLA cannot compile is a result too
            found = {"request": dataclasses.asdict(CASES[name]), "error": str(error)}
        origin = provenance.collect(command=sweep_results.command())
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic.write(path, json.dumps(found | {"provenance": origin}, indent=1) + "\n")
        show(found) if "error" not in found else print(name, found["error"])
    if "table" in options.only:
        stored = {name: RESULTS / f"{name}.json" for name in CASES}
        records = {n: json.loads(p.read_text()) for n, p in stored.items() if p.exists()}
        plans = {name: found for name, found in records.items() if "error" not in found}
        errors = [f"- {name}: {f['error']}" for name, f in records.items() if "error" in f]
        parts = [
            "# Plans of large steps\n\nWritten by `python experiments/plan_13b.py`; compiled with "
            f"jax {jax.__version__}, no device at hand. Times are rooflines, the least.\n",
            to_markdown(table(plans)), to_markdown(messages(plans)),
            *(["What XLA could not compile:\n\n" + "\n".join(errors) + "\n"] if errors else []),
        ]  # fmt: skip
        atomic.write(RESULTS / "README.md", "\n".join(parts))


if __name__ == "__main__":
    main()
