"""A document of sections, as one HTML file that needs nothing else, and as Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from jinja2 import Environment, PackageLoader
from markupsafe import Markup, escape


@dataclass(frozen=True)
class Cell:
    """Text of a table cell, a smaller second line, and a mark: ``best``, ``tied``, ``chosen``, ``front`` or none."""

    text: str
    small: str | None = None
    mark: str = ""


@dataclass(frozen=True)
class Paragraph:
    """Sentences with ``**bold**`` and `` `code` ``. `kind`: text, lead (large), heading, note (small), warning."""

    text: str
    kind: str = "text"


@dataclass(frozen=True)
class Bullets:
    items: Sequence[str]


@dataclass(frozen=True)
class Table:
    """Columns (title, unit) and rows; the first column is text, the others are numbers unless `textual`."""

    columns: Sequence[tuple[str, str]]
    rows: Sequence[Sequence[Cell]]
    textual: bool = False
    reference: Sequence[int] = ()  # rows that the others are compared with


@dataclass(frozen=True)
class Plot:
    """An ``<svg>`` and what it shows; Markdown gets the caption alone."""

    svg: str
    caption: str


@dataclass(frozen=True)
class Plots:
    """Plots side by side, as many in a row as have `width` (pixels at least)."""

    plots: Sequence[Plot]
    width: int


@dataclass(frozen=True)
class Details:
    """Something that is folded away until it is wanted."""

    title: str
    blocks: Sequence[Block]


Block = Paragraph | Bullets | Table | Plot | Plots | Details


@dataclass(frozen=True)
class Section:
    id: str  # also the name in the navigation
    title: str
    blocks: list[Block] = field(default_factory=list)


@dataclass(frozen=True)
class Document:
    title: str
    subtitle: str
    facts: Sequence[tuple[str, str]]  # name and value, shown at the top
    sections: Sequence[Section]
    beside: Sequence[tuple[str, str]] = ()  # name and file of pages in the same folder


def _inline(text: str) -> Markup:
    """Escaped HTML with bold and code."""
    escaped = str(escape(text))
    escaped = re.sub(r"`([^`]+)`", r"<code>\1</code>", escaped)
    return Markup(re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", escaped))


def to_html(document: Document) -> str:
    """One file: style and plots inside, nothing is fetched."""
    environment = Environment(
        loader=PackageLoader("retemper.report", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"inline": _inline, "kind": lambda block: type(block).__name__}
    return environment.get_template("page.html").render(document=document) + "\n"


# ------------------------------------------------------------------ Markdown


def to_markdown(document: Document) -> str:
    """The same document without its plots."""
    lines = [f"# {document.title}", "", document.subtitle, ""]
    lines += [f"- {name}: {value}" for name, value in document.facts]
    for section in document.sections:
        lines += ["", f"## {section.title}", ""]
        for block in section.blocks:
            lines += [*_markdown_block(block), ""]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip() + "\n"


def _markdown_block(block: Block) -> list[str]:
    if isinstance(block, Paragraph):
        return [{"warning": "> **Warning.** ", "heading": "### "}.get(block.kind, "") + block.text]
    if isinstance(block, Bullets):
        return [f"- {item}" for item in block.items]
    if isinstance(block, (Plot, Plots)):
        return []
    if isinstance(block, Details):
        return [line for part in block.blocks for line in ["", *_markdown_block(part)]]
    head = [f"{title} ({unit})" if unit else title for title, unit in block.columns]
    align = ["---"] + ["---" if block.textual else "---:"] * (len(head) - 1)
    lines = [_row(head), _row(align)]
    return lines + [_row([_markdown_cell(cell) for cell in row]) for row in block.rows]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _markdown_cell(cell: Cell) -> str:
    text = f"{cell.text} ({cell.small})" if cell.small else cell.text
    return {
        "best": f"★ **{text}**",
        "tied": f"≈ {text}",
        "chosen": f"**{text}**",
        "front": f"{cell.text} (Pareto front)",
    }.get(cell.mark, text)
