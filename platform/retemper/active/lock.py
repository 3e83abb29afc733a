"""One round or campaign at a time in a checkout."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from retemper.core.errors import RetemperError
from retemper.core.files import atomic_write

LOCK = Path(".cache/campaign.lock")


@contextlib.contextmanager
def alone(root: Path) -> Iterator[None]:
    """Hold the checkout's lock; it goes with the process, however that ends.

    Raises
    ------
    RetemperError
        Another process holds it; its number and start are named.
    """
    from filelock import FileLock, Timeout

    path = root / LOCK
    path.parent.mkdir(parents=True, exist_ok=True)
    holder = path.with_suffix(".holder")
    try:
        with FileLock(path, timeout=0):
            with atomic_write(holder) as temporary:
                temporary.write_text(f"process {os.getpid()}, since {time.strftime('%Y-%m-%d %H:%M:%S')}\n")
            try:
                yield
            finally:
                holder.unlink(missing_ok=True)
    except Timeout:
        owner = holder.read_text().strip() if holder.is_file() else "another process"
        raise RetemperError(
            "A round or campaign is already running in this checkout.",
            got=owner,
            fix="wait for it or end it; a second campaign needs a clone of its own",
        ) from None
