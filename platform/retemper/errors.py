"""One exception for everything a user can put right."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RetemperError(Exception):
    """Bad input or a broken promise: what is wrong, what was expected, how to fix it.

    The commands print the message without a traceback and exit with status 1.
    """

    def __init__(self, what: str, *, expected: object = None, got: object = None, fix: str | None = None):
        lines = [what]
        if expected is not None:
            lines.append(f"  expected: {expected}")
        if got is not None:
            lines.append(f"  got:      {got}")
        if fix is not None:
            lines.append(f"  to fix:   {fix}")
        super().__init__("\n".join(lines))


def unknown(kind: str, name: object, options: Iterable[str]) -> RetemperError:
    """Error for a name that is none of `options`; suggests the nearest one."""
    options = sorted(map(str, options))
    near = difflib.get_close_matches(str(name), options, n=1)
    fix = f"did you mean {near[0]!r}?" if near else f"use one of {', '.join(options)}"
    return RetemperError(f"Unknown {kind} {name!r}.", expected=f"one of {', '.join(options)}", fix=fix)
