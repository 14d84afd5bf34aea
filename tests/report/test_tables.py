"""A table says the same in a terminal, as Markdown and in a report."""

import io

import numpy as np
import rich.console

from edgeprune_jax.circuits import Circuit, from_names
from edgeprune_jax.graph import FINAL, Graph
from edgeprune_jax.report import tables
from edgeprune_jax.report.tables import Table


def test_comparison_has_every_measure_of_every_circuit():
    table = tables.comparison("t", {"ours": {"edges": 2800, "KL": 0.123456}, "EAP": {"flip": 1}})
    assert table.headers == ["", "edges", "KL", "flip"]
    assert tables.to_markdown(table) == (
        "|  | edges | KL | flip |\n"
        "| --- | ---: | ---: | ---: |\n"
        "| ours | 2,800 | 0.1235 | – |\n"
        "| EAP | – | – | 1 |\n"
    )


def test_a_turned_table_has_the_same_cells_and_turns_back():
    table = tables.comparison("t", {"ours": {"edges": 28, "exact_match": 1.0}, "EAP": {"edges": 3}})
    turned = tables.turned(table)
    assert turned == Table(
        "t", ["", "ours", "EAP"], [["edges", 28, 3], ["exact match", 1.0, None]]
    )  # fmt: skip
    assert tables.turned(turned) == table


def test_cells_are_formatted_by_their_type():
    cells = [None, "a", True, 1234567, np.int64(1000), 0.5, np.float32(0.25), 1e-7, 12345.678]
    expected = ["–", "a", "True", "1,234,567", "1,000", "0.5", "0.25", "1e-07", "1.235e+04"]
    assert [tables.formatted(cell) for cell in cells] == expected


def test_markdown_cells_cannot_leave_their_cell():
    text = tables.to_markdown(Table("t", ["a|b"], [["c\nd | <b> \\"]]))
    assert text == "| a\\|b |\n| --- |\n| c d \\| &lt;b> \\\\ |\n"


def test_the_terminal_shows_brackets_as_they_are():
    console = rich.console.Console(record=True, width=80, file=io.StringIO())
    console.print(tables.to_rich(Table("[red]t", ["[b]h"], [["[link=x]c[/link]"], ["[/]"]])))
    shown = console.export_text()
    assert all(text in shown for text in ("[red]t", "[b]h", "[link=x]c[/link]", "[/]"))


def test_busiest_counts_each_edge_at_both_ends():
    graph = Graph(2, 4, 2, ("tok_embeds",))
    everything = Circuit(graph, np.ones(graph.n_edges, bool))
    table = tables.busiest(everything, most=1000)
    assert sum(row[1] for row in table.rows) == 2 * len(everything)
    assert all(row[1] == sum(cell or 0 for cell in row[2:]) for row in table.rows)
    assert table.rows[0][0] == "tok_embeds"
    assert len(tables.busiest(everything, most=3).rows) == 3


def test_busiest_tells_a_shared_key_from_the_head_of_its_number():
    graph = Graph(2, 4, 2, ("tok_embeds",))
    circuit = from_names(graph, [("tok_embeds", "a0.h1.k"), ("tok_embeds", "a0.h1.q")])
    assert {row[0] for row in tables.busiest(circuit).rows} == {"tok_embeds", "a0.h1", "a0.h1.k"}
    graph = Graph(2, 4, 4, ("tok_embeds",))
    circuit = from_names(graph, [("tok_embeds", "a0.h1.k"), ("tok_embeds", "a0.h1.q")])
    assert {row[0] for row in tables.busiest(circuit).rows} == {"tok_embeds", "a0.h1"}


def test_origin_has_a_row_for_each_entry():
    provenance = {"data": {"seed": 12345, "x": None}, "devices": ["a", "b"], "operands": [{"t": 1}]}
    circuit = from_names(Graph(1, 1, 1), [("m0", FINAL)], provenance=provenance)
    assert tables.origin(circuit).rows == [
        ("data.seed", "12345"), ("data.x", None), ("devices", "a, b"), ("operands[0].t", "1"),
    ]  # fmt: skip
