"""What commands and workers say while they compute: one logger, and one handler for it."""

from __future__ import annotations

import contextlib
import io
import logging
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Literal, Protocol

LONG_WORD = 14  # characters that are broken where a table is wider than the terminal
log = logging.getLogger("retemper")


class Lines(logging.Handler):
    """Plain lines on standard output, each at once; a reader that has left is the command's to notice."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), flush=True)


def show() -> None:
    """Print what is logged from now on, and nowhere else: every command and every worker begins with it."""
    log.setLevel(logging.INFO)
    log.propagate = False  # MACE gives the root logger handlers of its own
    if not log.handlers:
        log.addHandler(Lines())


def table(rows: Sequence[Sequence[str]], *, numbers: bool = False, rule: bool = False) -> str:
    """Rows of text in columns, the first row as heading.

    On a terminal that is too narrow, cells go on in the next line; elsewhere a row is a line.

    Parameters
    ----------
    numbers
        Whether all columns but the first hold numbers, which are aligned to the right.
    rule
        Whether a line is drawn under the heading.
    """
    from rich.console import Console
    from rich.table import Table

    widths = [max(max(map(len, row[k].split("\n"))) for row in rows) for k in range(len(rows[0]))]
    width = sum(widths) + 2 * (len(widths) - 1)
    there = shutil.get_terminal_size().columns if sys.stdout.isatty() else width
    grid = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    for k in range(len(rows[0])):
        word = max(len(word) for row in rows for word in row[k].split() or [""])
        justify: Literal["left", "right"] = "right" if numbers and k else "left"
        grid.add_column(justify=justify, overflow="fold", min_width=min(word, LONG_WORD), no_wrap=k == 0)
    for row in (rows[0], *([["-" * wide for wide in widths]] if rule and width <= there else []), *rows[1:]):
        grid.add_row(*row)
    text = io.StringIO()
    console = Console(file=text, width=min(width, there), color_system=None, markup=False, highlight=False, emoji=False)
    console.print(grid)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())


class Say(Protocol):
    """Tells how much of a thing is done, with a line about it; `name` tells things apart that run side by side."""

    def __call__(self, done: int, line: str, name: str = "") -> None: ...


@contextlib.contextmanager
def progress(total: int, interval: float = 10.0) -> Iterator[Say]:
    """Yield what takes how much of `total` is done, for each thing that runs.

    On a terminal each thing has one line: a bar, the time that is left, and the last thing said; lines with a name stay
    when it ends. Elsewhere lines are logged, of all things together at most one in `interval` seconds.
    """
    if sys.stdout.isatty():
        from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

        columns = (BarColumn(20), TimeRemainingColumn(compact=True), TextColumn("{task.description}", markup=False))
        with Progress(*columns) as bars:
            tasks: dict[str, TaskID] = {}

            def show(done: int, line: str, name: str = "") -> None:
                if name not in tasks:
                    tasks[name] = bars.add_task("", total=total)
                bars.update(tasks[name], completed=done, description=line.strip())

            try:
                yield show
            finally:
                if "" in tasks:
                    bars.remove_task(tasks[""])
        return
    last = time.monotonic() - (0.0 if interval else 1.0)

    def say(done: int, line: str, name: str = "") -> None:
        nonlocal last
        if time.monotonic() - last > interval:
            last = time.monotonic()
            log.info(line)

    yield say
