"""Whether a folder can be submitted to the MIB benchmark's circuit track, told offline.

A submission has a folder for each `TASK_MODEL`, such as `ioi_gpt2`, and in each one file of scores,
or nine of circuits with at most 0.1, 0.2, 0.5, 1, 2, 5, 10, 20 and 50 % of the edges.
"""

import re
from pathlib import Path

from edgeprune_jax import mib
from edgeprune_jax.measures.curve import FRACTIONS

CELL = re.compile(r"[a-z0-9.-]+_[a-z0-9.-]+")


def check(path: Path) -> list[dict]:
    """What was found: for each file its `cell`, `file`, `edges`, and how many are `in_graph`.

    `path` is a file, the folder of a cell, or a folder of these. Raises `ValueError` naming the
    file or folder and what is wrong with it.
    """
    if path.is_file():
        return [_file(path)]
    if not path.is_dir():
        raise ValueError(f"{path} does not exist")
    folders = sorted(entry for entry in path.iterdir() if entry.is_dir())
    found = [row for folder in folders or [path] for row in _cell(folder)]
    cells = {row["cell"] for row in found}
    tasks, models = ({cell.rsplit("_", 1)[i] for cell in cells} for i in (0, 1))
    if folders and min(len(tasks), len(models)) < 2:
        raise ValueError(
            f"{path}: a submission has two tasks and two models or more: got {', '.join(cells)}"
        )
    return found


def _cell(folder: Path) -> list[dict]:
    if not CELL.fullmatch(folder.resolve().name):
        raise ValueError(f"{folder} must be named TASK_MODEL, such as ioi_gpt2")
    paths = sorted(entry for entry in folder.iterdir() if entry.is_file())
    if strange := [one.name for one in paths if one.suffix != ".json"]:
        raise ValueError(f"{folder} must hold .json files alone: got {ascii(strange[0])}")
    rows = sorted((_file(path) for path in paths), key=lambda row: row["in_graph"])
    sizes = FRACTIONS[:-1]
    if len(rows) not in (1, len(sizes)):
        raise ValueError(f"{folder} must hold one file of scores or nine circuits: got {len(rows)}")
    for row, share in zip(rows, sizes, strict=False):
        if len(rows) > 1 and row["in_graph"] > share * row["edges"]:
            raise ValueError(
                f"{row['file']} must have at most {share:.1%} of {row['edges']} edges in the "
                f"graph, as one of nine: got {row['in_graph']}"
            )
    return rows


def _file(path: Path) -> dict:
    edges = mib.check(path)
    inside = sum(entry["in_graph"] for entry in edges.values())
    cell = path.resolve().parent.name
    return {"cell": cell, "file": str(path), "edges": len(edges), "in_graph": inside}
