"""Tables: one value, shown in a terminal, as Markdown, or in a report."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from numbers import Integral, Real
from typing import NamedTuple

import rich.table
import rich.text

from edgeprune_jax.circuits import Circuit

Cell = str | float | int | Real | None


class Table(NamedTuple):
    """Rows of text and numbers under headers; None is a cell without a value."""

    title: str
    headers: Sequence[str]
    rows: Sequence[Sequence[Cell]]


def comparison(title: str, measures: Mapping[str, Mapping[str, Cell]]) -> Table:
    """A row for each circuit, a column for each measure that any of them has."""
    names = list(dict.fromkeys(name for row in measures.values() for name in row))
    rows = [[circuit, *map(row.get, names)] for circuit, row in measures.items()]
    return Table(title, ["", *(name.replace("_", " ") for name in names)], rows)


def turned(table: Table) -> Table:
    """Its rows as columns: for few rows of many cells."""
    corner, *headers = table.headers
    cells = (row[1:] for row in table.rows)
    columns = [list(column) for column in zip(headers, *cells, strict=True)]
    return Table(table.title, [corner, *(str(row[0]) for row in table.rows)], columns)


def busiest(circuit: Circuit, *, most: int = 15) -> Table:
    """The nodes with most kept edges; keys and values that heads share are rows of their own."""
    reads: dict[str, Counter] = {}
    for writer, reader in circuit.edges():
        own = circuit.graph.heads == circuit.graph.kv_heads or reader.endswith(".q")
        slot = reader[-1] if reader.endswith((".q", ".k", ".v")) else ""
        node = reader.rsplit(".", 1)[0] if slot and own else reader
        reads.setdefault(node, Counter())[slot] += 1
        reads.setdefault(writer, Counter())["writes"] += 1
    order = {name: i for i, name in enumerate([*circuit.graph.writers, *circuit.graph.readers])}
    nodes = sorted(reads, key=lambda name: (-reads[name].total(), order[name]))
    columns = ["writes", "q", "k", "v", ""]
    rows = [[n, reads[n].total(), *(reads[n][c] or None for c in columns)] for n in nodes[:most]]
    headers = ["node", "edges", "out", "into q", "into k", "into v", "into MLP or output"]
    return Table("Most connected nodes", headers, rows)


def origin(circuit: Circuit) -> Table:
    """The circuit's provenance, one row for each entry."""
    return Table("Provenance", ["entry", "value"], list(_entries(circuit.provenance)))


def formatted(cell: Cell) -> str:
    """A cell as text: numbers with four digits, whole ones with their thousands apart."""
    if cell is None:
        return "–"
    if isinstance(cell, bool) or not isinstance(cell, Real):
        return str(cell)
    return f"{cell:,}" if isinstance(cell, Integral) else f"{cell:.4g}"


def numeric(table: Table) -> list[bool]:
    """Whether each column holds numbers, which are set to the right."""
    columns = [[row[i] for row in table.rows] for i in range(len(table.headers))]
    return [
        any(cell is not None for cell in column)
        and all(isinstance(cell, Real | None) for cell in column)
        for column in columns
    ]


def to_rich(table: Table) -> rich.table.Table:
    """The table for a terminal."""
    # As `Text`, because rich takes brackets in plain strings for markup.
    shown = rich.table.Table(title=rich.text.Text(table.title))
    for header, right in zip(table.headers, numeric(table), strict=True):
        side = "right" if right else "left"
        shown.add_column(rich.text.Text(header), justify=side, overflow="fold")
    for row in table.rows:
        shown.add_row(*(rich.text.Text(formatted(cell)) for cell in row))
    return shown


def to_markdown(table: Table) -> str:
    """The table as Markdown, without its title."""
    rules = ["---:" if right else "---" for right in numeric(table)]
    body = [[_escape(formatted(cell)) for cell in row] for row in table.rows]
    lines = [[_escape(header) for header in table.headers], rules, *body]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _escape(text: str) -> str:
    """Text that stays in its cell and is no HTML."""
    text = " ".join(text.split())
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def _entries(value: object, name: str = "") -> Iterator[tuple[str, Cell]]:
    if isinstance(value, dict):
        for key, entry in value.items():
            yield from _entries(entry, f"{name}.{key}" if name else key)
    elif isinstance(value, list | tuple) and any(isinstance(v, dict | list) for v in value):
        for position, entry in enumerate(value):
            yield from _entries(entry, f"{name}[{position}]")
    elif isinstance(value, list | tuple):
        yield name, ", ".join(map(str, value))
    else:
        # A seed or a step count is quoted, not measured: no thousands apart, all digits.
        yield name, None if value is None else str(value)
