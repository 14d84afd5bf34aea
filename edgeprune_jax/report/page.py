"""A report: one HTML file that needs no other, and says what was found and how to find it again.

write_report("ioi.html", title="IOI", summary="...", sections=[
    comparison("Faithfulness", {"circuit": {"KL": 0.2}, "random": {"KL": 3.1}}),
    Drawing("The circuit", draw(circuit, title="IOI")),
    Plot("Training", plot([Panel("KL", [Series("KL", steps, kl)])], x_label="step")),
    busiest(circuit),
    origin(circuit),
])
"""

import base64
import os
from collections.abc import Sequence
from importlib import resources
from typing import NamedTuple

from jinja2 import Environment, StrictUndefined

from edgeprune_jax import atomic
from edgeprune_jax.report.tables import Table, formatted, numeric


class Drawing(NamedTuple):
    """A circuit as `draw` returns it. It becomes part of the page, so it must be trusted."""

    title: str
    svg: str


class Plot(NamedTuple):
    """Any other SVG, shown as an image: its styles and names cannot reach the page."""

    title: str
    svg: str


class Paragraph(NamedTuple):
    """A paragraph."""

    title: str
    text: str


Section = Table | Drawing | Plot | Paragraph


def write_report(
    path: str | os.PathLike, *, title: str, summary: str, sections: Sequence[Section]
) -> None:
    """Writes a page of the sections in their order, under a title and a summary."""
    atomic.write(path, render(title=title, summary=summary, sections=sections))


def render(*, title: str, summary: str, sections: Sequence[Section]) -> str:
    """The page as text. The same sections give the same text."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters |= {"formatted": formatted, "numeric": numeric, "image": _image}
    source = resources.files("edgeprune_jax.report").joinpath("report.html.j2").read_text("utf-8")
    page = environment.from_string(source).render(
        title=title,
        summary=summary,
        sections=[(type(section).__name__, section) for section in sections],
    )
    # Half of a surrogate pair in a name would stop the file from being written.
    return page.encode("utf-8", "replace").decode()


def _image(svg: str) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()
