"""What commands and workers say while they compute: one logger, and one handler for it."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Iterator

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


@contextlib.contextmanager
def progress(total: int, interval: float = 10.0) -> Iterator[Callable[[int, str], None]]:
    """Yield a function that takes how much of `total` is done, and a line about it.

    On a terminal the line stands behind a bar; elsewhere it is logged, at most once in `interval` seconds.
    """
    if sys.stdout.isatty():
        from rich.progress import BarColumn, Progress, TextColumn

        with Progress(BarColumn(), TextColumn("{task.description}", markup=False), transient=True) as bars:
            bar = bars.add_task("", total=total)
            yield lambda done, line: bars.update(bar, completed=done, description=line.strip())
        return
    last = time.monotonic()

    def say(done: int, line: str) -> None:
        nonlocal last
        if time.monotonic() - last > interval:
            last = time.monotonic()
            log.info(line)

    yield say
