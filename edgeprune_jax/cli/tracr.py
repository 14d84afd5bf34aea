"""`edgeprune tracr`: recover compiled programs, and hold the result against their true circuits."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from edgeprune_jax import circuit_json
from edgeprune_jax.circuits import Circuit
from edgeprune_jax.cli.inputs import program_folder
from edgeprune_jax.report.tables import Table, to_rich

PROGRAMS = ("reverse", "xproportion")


@dataclass(frozen=True)
class Tracr:
    """Recover the circuits of compiled programs, edge by edge."""

    programs: Annotated[tuple[str, ...], tyro.conf.Positional] = PROGRAMS
    """Programs by name, or folders made by tracr_models.compile."""
    seeds: int = 1
    """Runs of each program, with seeds from `first_seed` on."""
    first_seed: int = 0
    """The first seed."""
    check: Path | None = None
    """Instead of pruning, hold this circuit file against the one program's truth."""
    json: bool = False
    """Print one JSON list."""


def run(options: Tracr) -> int:
    from tracr_models import ground_truth
    from tracr_models.recovery import recover

    folders = {name: find_program(name) for name in options.programs}
    if options.seeds < 1:
        raise ValueError(f"--seeds must be at least 1: got {options.seeds}")
    if options.check is not None:
        if len(folders) != 1:
            raise ValueError(f"--check needs one program: got {', '.join(folders)}")
        (folder,) = folders.values()
        return check(options.check, ground_truth.load(folder), as_json=options.json)
    console, rows = Console(quiet=options.json), []
    for name, folder in folders.items():
        for seed in range(options.first_seed, options.first_seed + options.seeds):
            with console.status(f"{name}, seed {seed}"):
                result = recover(folder, seed=seed)
            rows.append({
                "program": name, "seed": seed, "ablation": "zero",
                "edges": result.truth.graph.n_edges, "true": len(result.truth),
                "found": len(result.found), "precision": result.precision,
                "recall": result.recall, "exact": result.exact,
                "seconds": round(result.seconds, 1),
            })  # fmt: skip
            for note, extra in (("missing", result.truth - result.found),
                                ("not true", result.found - result.truth)):  # fmt: skip
                for writer, reader in extra:
                    console.print(f"  {name}, seed {seed}, {note}: {writer} -> {reader}")
    if options.json:
        print(json.dumps(rows))
    else:
        table = Table("Recovery", list(rows[0]), [[_word(v) for v in r.values()] for r in rows])
        console.print(to_rich(table))
    return 0 if all(row["exact"] for row in rows) else 1


def check(path: Path, truth: Circuit, *, as_json: bool) -> int:
    """Prints what a circuit lacks and what it has too much; 1 where it differs."""
    circuit = circuit_json.load(path, truth.graph)
    missing, extra = list(truth - circuit), list(circuit - truth)
    if as_json:
        print(json.dumps({"exact": circuit == truth, "missing": missing, "extra": extra}))
    else:
        for note, edges in (("missing", missing), ("not true", extra)):
            for writer, reader in edges:
                print(f"{note}: {writer} -> {reader}")
        print(f"{len(truth)} true edges, {len(missing)} missing, {len(extra)} not true")
    return 0 if circuit == truth else 1


def find_program(name: str) -> Path:
    """The folder of a compiled program. Raises `ValueError` where there is none."""
    folder = program_folder(name) or Path(name)
    if not (folder / "config.json").is_file():
        raise ValueError(
            f"{name!r} is no compiled program: expected {', '.join(PROGRAMS)} or a folder"
        )
    return folder


def _word(value):
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else value
