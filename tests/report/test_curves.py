"""Curves are well-formed, and equal for equal numbers."""

import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

from edgeprune_jax.report.curves import COLOURS, MARKERS, Panel, Series, plot

PANELS = [
    Panel("KL", [Series("KL $x^2", [0, 1, 2], [1.0, 0.1, float("nan")])], log=True),
    Panel("share", [Series("_mask", [0, 1], [0, 1]), Series("aim", [0, 1], [1, 1], dashed=True)]),
    Panel("nothing", []),
]


def test_plots_are_well_formed_and_deterministic():
    text = plot(PANELS, x_label="steps_$", title="<Training> $")
    ElementTree.fromstring(text)
    assert text == plot(PANELS, x_label="steps_$", title="<Training> $")


def test_ten_lines_are_told_apart_and_named_once():
    lines = [Series(f"method {n}", [1, 2], [n, n + 1]) for n in range(10)]
    text = plot([Panel("KL", lines), Panel("accuracy", lines)], x_label="edges")
    names = re.findall(r"<!-- (method \d) -->", text)
    assert sorted(names) == [f"method {n}" for n in range(10)]
    assert len(set(zip(COLOURS, MARKERS, strict=True))) == len(set(COLOURS)) == 10


def test_a_line_keeps_its_look_where_others_are_left_out():
    lines = [Series("third", [1, 2], [1, 2], look=2), Series("first", [1, 2], [2, 3], look=0)]
    text = plot([Panel("KL", lines)], x_label="edges")
    assert text.index(COLOURS[2]) < text.index(COLOURS[0]) and COLOURS[1] not in text


def test_numbers_on_logarithmic_axes_are_written_out():
    panel = Panel("KL", [Series("circuit", [1, 10], [0.15, 0.8])], log=True)
    text = plot([panel], x_label="edges kept, %", log_x=True)
    written = re.findall(r"<!-- \$\\mathdefault\{(.*?)\}\$ -->", text)
    assert {"0.2", "0.4", "1", "10"} <= set(written) and not any("^" in one for one in written)


def test_only_curves_need_matplotlib():
    code = (
        "import sys, edgeprune_jax.report.draw, edgeprune_jax.report.page; "
        "assert 'matplotlib' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
