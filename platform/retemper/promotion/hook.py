"""Tells others that an alias was moved: a command from ``params.yaml`` gets the move as JSON on its input."""

from __future__ import annotations

import shlex
import subprocess
import warnings
from pathlib import Path

from retemper.registry import history
from retemper.registry.history import Move

TIMEOUT = 60.0  # s


def tell(command: str | None, root: Path, move: Move) -> None:
    """Run `command` (no shell) in the project's folder; the move stands whether it works or not."""
    if not command:
        return
    try:
        process = subprocess.run(
            shlex.split(command),
            cwd=root,
            input=history.dumps(move) + "\n",
            text=True,
            timeout=TIMEOUT,
            capture_output=True,
            check=False,
        )
        problem = None if process.returncode == 0 else f"status {process.returncode}: {process.stderr.strip()[-300:]}"
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        problem = str(error)
    if problem:
        warnings.warn(
            f"promotion.hook failed ({problem}). The {move.alias} of {move.system} has moved all the same.",
            RuntimeWarning,
            stacklevel=2,
        )
