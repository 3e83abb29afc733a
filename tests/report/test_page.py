"""The report as a page that stands alone, and its Markdown."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

from retemper import report
from retemper.config.project import Project
from retemper.config.settings import Settings


class Page(HTMLParser):
    """Collects what a page would fetch, its ids and its unclosed tags."""

    VOID = ("meta", "br", "img", "link", "hr", "input")

    def __init__(self, text: str):
        super().__init__()
        self.fetched: list[str] = []
        self.ids: list[str] = []
        self.open: list[str] = []
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href") and value and not value.startswith(("#", "data:")):
                self.fetched.append(value)
            if name == "href" and value and value.startswith("#") and tag == "a":
                self.links.append(value[1:])
            if name == "id" and value:
                self.ids.append(value)
        if tag in ("script", "link", "iframe"):
            self.fetched.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_page_stands_alone(project: tuple[Path, Settings]) -> None:
    root, settings = project
    folder = report.run(Project(root, settings))
    assert {path.name for path in folder.iterdir()} == {
        "report.html",
        "failures.html",
        "report.md",
        "table.csv",
        "metrics.json",
        "pareto.csv",
        "curves.csv",
        "robustness.csv",
    }
    text = (folder / "report.html").read_text()
    page = Page(text)
    assert page.fetched == ["failures.html"] and page.open == []  # a link to what lies beside it
    assert "url(http" not in text and "@import" not in text
    assert len(page.ids) == len(set(page.ids))
    assert set(page.links) <= set(page.ids) and len(page.links) == 11
    plots = re.findall(r"<svg.*?</svg>", text, flags=re.S)
    assert len(plots) == 1 + 3 + 2 * 5  # front, curves, parity of five models on two sets
    for plot in plots:
        ElementTree.fromstring(plot)
        assert "currentColor" in plot and "font-family" not in plot and len(plot) < 20_000
        for reference in re.findall(r'(?:url\(#|href="#)([^)"]+)', plot):
            assert f'id="{reference}"' in plot
    assert text.count("★ ") >= 5 and "Missing" not in text


def test_markdown_tables_are_whole(project: tuple[Path, Settings]) -> None:
    root, settings = project
    text = (report.run(Project(root, settings)) / "report.md").read_text()
    for block in re.findall(r"(?:^\|.*\n)+", text, flags=re.M):
        assert len({line.count(" | ") for line in block.splitlines()}) == 1
    assert "| naive (Pareto front) |" in text
    assert "★ **30.5" in text
