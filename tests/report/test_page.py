"""A report is one page that shows its sections as they are, whatever their text."""

from html.parser import HTMLParser

from edgeprune_jax.circuits import from_names
from edgeprune_jax.graph import FINAL, Graph
from edgeprune_jax.report.curves import Panel, Series, plot
from edgeprune_jax.report.draw import draw
from edgeprune_jax.report.page import Drawing, Paragraph, Plot, render, write_report
from edgeprune_jax.report.tables import Table, origin

EVIL = "</script><img src=x onerror=alert(1)>\"'&"
CIRCUIT = from_names(Graph(2, 2, 1), [("a0.h0", "m1"), ("m1", FINAL)], provenance={EVIL: EVIL})


class Page(HTMLParser):
    """The tags of a page, their attributes, and all text outside of styles and scripts."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.text, self.raw = [], [], "", False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self.raw = tag in ("script", "style")

    def handle_endtag(self, tag):
        self.raw = False

    def handle_data(self, data):
        self.text += "" if self.raw else data


def everything(text):
    sections = [
        Table(text, [text, "n"], [[text, 1]]),
        Drawing(text, draw(CIRCUIT, title=text)),
        Plot(text, plot([Panel(text, [Series(text, [1, 2], [3, 4])])], x_label=text)),
        Paragraph(text, text),
        origin(CIRCUIT),
    ]
    return render(title=text, summary=text, sections=sections)


def test_hostile_text_is_shown_and_not_run():
    evil, tame = Page(everything(EVIL)), Page(everything("tame"))
    assert evil.tags == tame.tags and tame.tags.count("script") == 1
    assert not any(name.startswith("on") for name, _ in evil.attributes)
    assert evil.text.count(EVIL) >= 10


def test_a_page_needs_no_other_file():
    page = Page(everything("tame"))
    links = [value for name, value in page.attributes if name in ("src", "href")]
    assert links and all(link.startswith("data:image/svg+xml;base64,") for link in links)


def test_the_same_sections_give_the_same_page():
    assert everything("tame") == everything("tame")


def test_sections_keep_their_order(tmp_path):
    sections = [Paragraph("second", ""), Paragraph("first", "")]
    write_report(tmp_path / "r.html", title="t", summary="s \ud800", sections=sections)
    text = (tmp_path / "r.html").read_text("utf-8")
    assert text.index("second") < text.index("first")
