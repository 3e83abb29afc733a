"""How a command ends: with one message instead of a traceback, and a status that says which kind of end it was."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

from retemper.core import output, processes
from retemper.core.errors import RetemperError, WaitingError
from retemper.core.files import explain

FAILED = 1
WAITING = 75  # not finished, and nothing is wrong: sysexits.h calls it EX_TEMPFAIL
INTERRUPTED = 130  # as a shell says it of Ctrl-C


@contextlib.contextmanager
def handle_errors() -> Iterator[None]:
    """Within the block a command runs: what a user can put right is printed, Ctrl-C ends it with ``interrupted``.

    Errors of this package and of the file system (a full disk, a quota, missing rights) end with status 1, waiting
    for someone with 75, an interruption with 130. A reader that has seen enough (``| head``) is no error.
    """
    processes.user()
    output.show()
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        _no_more_output()
    except WaitingError as waiting:
        output.log.info(waiting)
        sys.exit(WAITING)
    except RetemperError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(FAILED)
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except OSError as error:
        reason = explain(error)
        if reason is None:
            raise
        print(f"error: {reason}", file=sys.stderr)
        sys.exit(FAILED)


def _no_more_output() -> None:
    """Nobody reads standard output any more: what is left of it goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
