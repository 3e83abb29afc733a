"""What commands and workers say while they compute: one logger, and one handler for it."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Iterator
from typing import Protocol

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
