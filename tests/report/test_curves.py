"""Curves are well-formed, and equal for equal numbers."""

import subprocess
import sys
import xml.etree.ElementTree as ElementTree

from edgeprune_jax.report.curves import Panel, Series, plot

PANELS = [
    Panel("KL", [Series("KL $x^2", [0, 1, 2], [1.0, 0.1, float("nan")])], log=True),
    Panel("share", [Series("_mask", [0, 1], [0, 1]), Series("aim", [0, 1], [1, 1], dashed=True)]),
    Panel("nothing", []),
]


def test_plots_are_well_formed_and_deterministic():
    text = plot(PANELS, x_label="steps_$", title="<Training> $")
    ElementTree.fromstring(text)
    assert text == plot(PANELS, x_label="steps_$", title="<Training> $")


def test_only_curves_need_matplotlib():
    code = (
        "import sys, edgeprune_jax.report.draw, edgeprune_jax.report.page; "
        "assert 'matplotlib' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
