"""A document of sections, as one HTML file that needs nothing else, and as Markdown."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Cell:
    """Text of a table cell, a smaller second line, and a mark: ``best``, ``tied``, ``chosen``, ``front`` or none."""

    text: str
    small: str | None = None
    mark: str = ""


@dataclass(frozen=True)
class Paragraph:
    """Sentences with ``**bold**`` and `` `code` ``. `kind`: text, heading, note (small), warning."""

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


# ------------------------------------------------------------------ HTML

STYLE = """
:root {
  color-scheme: light dark;
  --ground: #ffffff; --panel: #f5f7f9; --ink: #1a2128; --soft: #5b6671; --line: #dfe4e9; --accent: #0b62a8;
  --good: #0a7d55; --goodground: #e3f4ec; --warn: #8a5300; --warnground: #fdf2dd;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #14181c; --panel: #1c2227; --ink: #e4e8ec; --soft: #9aa6b1; --line: #323a42; --accent: #6db4f0;
    --good: #5fd3a4; --goodground: #17352a; --warn: #f0bf6a; --warnground: #382b13;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--ground); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
.page { max-width: 1180px; margin: 0 auto; padding: 0 28px 72px; }
header { padding: 40px 0 22px; border-bottom: 1px solid var(--line); }
h1 { margin: 0 0 4px; font-size: 30px; line-height: 1.2; letter-spacing: -0.01em; }
header p { margin: 0; color: var(--soft); font-size: 17px; }
dl.facts { display: flex; flex-wrap: wrap; gap: 10px 36px; margin: 22px 0 0; }
dt { color: var(--soft); font-size: 13px; }
dd { margin: 0; font-weight: 600; overflow-wrap: anywhere; }
nav {
  position: sticky; top: 0; z-index: 2; display: flex; flex-wrap: wrap; gap: 2px 22px; padding: 10px 0;
  background: var(--ground); border-bottom: 1px solid var(--line); font-size: 14px;
}
a { color: var(--accent); text-decoration: none; }
a:hover { text-decoration: underline; }
section { padding-top: 36px; scroll-margin-top: 30px; }
h2 { margin: 0 0 12px; font-size: 21px; letter-spacing: -0.005em; }
h3 { margin: 18px 0 8px; font-size: 16px; }
p { margin: 0 0 12px; max-width: 80ch; }
p.note { color: var(--soft); font-size: 14px; max-width: 92ch; }
p.warning {
  max-width: none; padding: 9px 14px; border-left: 3px solid var(--warn); border-radius: 3px;
  background: var(--warnground); color: var(--warn); overflow-wrap: anywhere;
}
ul { margin: 0 0 14px; padding-left: 20px; max-width: 86ch; }
li { margin: 5px 0; }
strong { white-space: nowrap; }
code {
  padding: 1px 5px; border-radius: 3px; background: var(--panel); overflow-wrap: anywhere;
  font: 0.88em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace;
}
.scroll { overflow-x: auto; margin: 0 0 14px; border: 1px solid var(--line); border-radius: 6px; }
table { width: 100%; border-collapse: collapse; font-size: 14.5px; font-variant-numeric: tabular-nums; }
th, td { padding: 8px 13px; border-bottom: 1px solid var(--line); text-align: right; vertical-align: top; }
td { white-space: nowrap; }
th { background: var(--panel); font-weight: 600; vertical-align: bottom; line-height: 1.3; }
th small, td small { display: block; white-space: nowrap; color: var(--soft); font-weight: 400; font-size: 12.5px; }
th:first-child, td:first-child { position: sticky; left: 0; background: var(--ground); text-align: left; }
td:first-child { font-weight: 600; }
th:first-child, tr.reference td { background: var(--panel); }
tbody tr:last-child td { border-bottom: 0; }
table.textual th, table.textual td { text-align: left; }
table.textual td { white-space: normal; overflow-wrap: anywhere; }
td.best { background: var(--goodground); color: var(--good); font-weight: 700; }
td.tied { color: var(--good); }
td.best small, td.tied small { color: inherit; }
td.chosen { background: var(--goodground); font-weight: 600; }
.tag {
  display: inline-block; margin-left: 8px; padding: 0 7px; border: 1px solid var(--accent); border-radius: 9px;
  color: var(--accent); font-size: 11.5px; font-weight: 600; line-height: 17px; vertical-align: 1px;
}
figure { margin: 4px 0 18px; max-width: 860px; }
figure svg { display: block; width: 100%; height: auto; color: var(--ink); }
figcaption { margin-top: 4px; max-width: 92ch; color: var(--soft); font-size: 14px; }
.grid { display: grid; gap: 10px 24px; margin-bottom: 14px; }
.grid figure { margin: 0; max-width: 620px; }
details { margin: 0 0 10px; padding: 0 14px; border: 1px solid var(--line); border-radius: 6px; }
details[open] { padding-bottom: 4px; }
summary { padding: 9px 0; font-weight: 600; cursor: pointer; }
@media (max-width: 860px) {
  .page { padding: 0 16px 48px; }
  h1 { font-size: 25px; }
  nav { position: static; gap: 2px 16px; }
  th, td { padding: 7px 8px; }
  table { font-size: 13.5px; }
  .tag { display: block; width: max-content; margin: 2px 0 0; }
}
@media print {
  nav { display: none; }
  .scroll { overflow: visible; }
}
"""


def inline(text: str) -> str:
    """Escaped HTML with bold and code."""
    escaped = html.escape(text, quote=False)
    escaped = re.sub(r"`([^`]+)`", r"<code>\1</code>", escaped)
    return re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", escaped)


def to_html(document: Document) -> str:
    """One file: style and plots inside, nothing is fetched."""
    facts = "".join(f"<div><dt>{inline(name)}</dt><dd>{inline(value)}</dd></div>" for name, value in document.facts)
    links = "".join(f'<a href="#{section.id}">{section.id}</a>' for section in document.sections)
    body = "\n".join(
        f'<section id="{section.id}">\n<h2>{inline(section.title)}</h2>\n'
        + "\n".join(_html_block(block) for block in section.blocks)
        + "\n</section>"
        for section in document.sections
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<title>{html.escape(document.title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<div class="page">\n'
        f"<header>\n<h1>{inline(document.title)}</h1>\n<p>{inline(document.subtitle)}</p>\n"
        f'<dl class="facts">{facts}</dl>\n</header>\n<nav>{links}</nav>\n{body}\n</div>\n</body>\n</html>\n'
    )


def _html_block(block: Block) -> str:
    if isinstance(block, Paragraph):
        if block.kind == "heading":
            return f"<h3>{inline(block.text)}</h3>"
        kind = "" if block.kind == "text" else f' class="{block.kind}"'
        return f"<p{kind}>{inline(block.text)}</p>"
    if isinstance(block, Bullets):
        return "<ul>" + "".join(f"<li>{inline(item)}</li>" for item in block.items) + "</ul>"
    if isinstance(block, Plot):
        return f"<figure>{block.svg}<figcaption>{inline(block.caption)}</figcaption></figure>"
    if isinstance(block, Plots):
        columns = f"grid-template-columns: repeat(auto-fill, minmax(min(100%, {block.width}px), 1fr))"
        return f'<div class="grid" style="{columns}">' + "".join(_html_block(plot) for plot in block.plots) + "</div>"
    if isinstance(block, Details):
        inside = "\n".join(_html_block(part) for part in block.blocks)
        return f"<details><summary>{inline(block.title)}</summary>{inside}</details>"
    head = "".join(f"<th>{inline(title)}{_small(unit)}</th>" for title, unit in block.columns)
    rows = []
    for index, row in enumerate(block.rows):
        cells = "".join(_html_cell(cell) for cell in row)
        rows.append(f'<tr class="reference">{cells}</tr>' if index in block.reference else f"<tr>{cells}</tr>")
    kind = ' class="textual"' if block.textual else ""
    return (
        f'<div class="scroll"><table{kind}><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


def _html_cell(cell: Cell) -> str:
    text = inline(cell.text)
    if cell.mark == "front":
        return f'<td>{text}<span class="tag">Pareto front</span>{_small(cell.small)}</td>'
    text = {"best": f"★ {text}", "tied": f"≈ {text}"}.get(cell.mark, text)
    kind = f' class="{cell.mark}"' if cell.mark else ""
    return f"<td{kind}>{text}{_small(cell.small)}</td>"


def _small(text: str | None) -> str:
    return f"<small>{inline(text)}</small>" if text else ""


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
