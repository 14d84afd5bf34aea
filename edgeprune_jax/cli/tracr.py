"""`edgeprune tracr`: recover compiled programs, and hold the result against their true circuits."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console

from edgeprune_jax import circuit_json
from edgeprune_jax.circuits import Circuit, jaccard
from edgeprune_jax.report.tables import Table, to_rich

PROGRAMS = ("reverse", "xproportion")


@dataclass(frozen=True)
class Tracr:
    """Recover the circuits of compiled programs, edge by edge."""

    programs: Annotated[tuple[str, ...], tyro.conf.Positional] = PROGRAMS
    """Programs by name, `module:name` of your own, or folders made by tracr_models.compile."""
    seeds: int = 1
    """Runs of each program, with seeds from `first_seed` on."""
    first_seed: int = 0
    """The first seed."""
    ablation: Literal["zero", "interchange"] = "zero"
    """What a cut edge carries."""
    criterion: Literal["decoded", "activations"] = "decoded"
    """What a faithful circuit keeps: the decoded output, or the numbers behind it."""
    check: Path | None = None
    """Instead of pruning, hold this circuit file against the one program's truth."""
    json: bool = False
    """Print one JSON list."""


def run(options: Tracr) -> int:
    from tracr_models import ground_truth
    from tracr_models.recovery import recover
    from tracr_models.store import compiled

    if options.seeds < 1:
        raise ValueError(f"--seeds must be at least 1: got {options.seeds}")
    if options.check is not None and len(set(options.programs)) != 1:
        raise ValueError(f"--check needs one program: got {', '.join(options.programs)}")
    ablation, criterion = options.ablation, options.criterion
    folders = {name: compiled(name) for name in options.programs}
    if options.check is not None:
        (folder,) = folders.values()
        truth = ground_truth.obtain(folder, ablation=ablation, criterion=criterion)
        return check(options.check, ground_truth.true_circuits(truth), as_json=options.json)
    console, rows = Console(quiet=options.json), []
    for name, folder in folders.items():
        for seed in range(options.first_seed, options.first_seed + options.seeds):
            with console.status(f"{name}, seed {seed}"):
                result = recover(folder, seed=seed, ablation=ablation, criterion=criterion)
            rows.append(result.row() | {"program": name})  # as it was asked for
            for note, extra in (("missing", result.nearest - result.found),
                                ("not true", result.found - result.nearest)):  # fmt: skip
                for writer, reader in extra:
                    console.print(f"  {name}, seed {seed}, {note}: {writer} -> {reader}")
    if options.json:
        print(json.dumps(rows))
    else:
        console.print(to_rich(narrow(rows, f"{ablation} ablation, {criterion}")))
        console.print(polish_line(rows))
    return 0 if all(row["exact"] for row in rows) else 1


def check(path: Path, truths: list[Circuit], *, as_json: bool) -> int:
    """Prints what a circuit lacks and has too much, against the nearest truth; 1 if it differs."""
    circuit = circuit_json.load(path, truths[0].graph)
    truth = max(truths, key=lambda one: jaccard(one, circuit))
    missing, extra = list(truth - circuit), list(circuit - truth)
    if as_json:
        print(json.dumps({"exact": circuit == truth, "missing": missing, "extra": extra}))
    else:
        for note, edges in (("missing", missing), ("not true", extra)):
            for writer, reader in edges:
                print(f"{note}: {writer} -> {reader}")
        print(f"{len(truth)} true edges, {len(missing)} missing, {len(extra)} not true")
    return 0 if circuit == truth else 1


def narrow(rows: list[dict], judged: str) -> Table:
    """The rows for a terminal of 80 columns: P precision, R recall, a ? where truth is in doubt."""
    headers = ["program", "seed", "edges", "true", "found", "P", "R", "exact", "polished", "s"]
    cells = [
        [
            row["program"], row["seed"], row["edges"],
            f"{row['true']}{'' if row['certified'] else '?'}", row["found"],
            f"{row['precision']:.2f}", f"{row['recall']:.2f}",
            *("yes" if row[name] else "no" for name in ("exact", "exact_polished")),
            row["seconds"],
        ]
        for row in rows
    ]  # fmt: skip
    return Table(f"Recovery: {judged}", headers, cells)


def polish_line(rows: list[dict]) -> str:
    """What polish did, and what it does to a random circuit of the same size: its own worth."""
    exact = sum(row["exact_polished"] for row in rows)
    control = sum(row["exact_control"] for row in rows)
    tried = [row["evaluations"] for row in rows]
    return (
        f"polished: {exact} of {len(rows)} exact, in {min(tried)} to {max(tried)} evaluations; "
        f"random circuits, polished likewise: {control} exact"
    )
