"""One exception for everything a user can put right."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

LONGEST = 2000  # characters of each part of a message


class RetemperError(Exception):
    """Bad input or a broken promise: what is wrong, what was expected, how to fix it.

    The commands print the message without a traceback and exit with status 1. Parts of more than `LONGEST` characters
    are shortened: what came may be a whole file.
    """

    advice = "to fix:   "

    def __init__(self, what: str, *, expected: object = None, got: object = None, fix: str | None = None):
        self.what = short(what)
        self.expected, self.got, self.fix = (None if part is None else short(part) for part in (expected, got, fix))
        labelled = (("expected: ", self.expected), ("got:      ", self.got), (self.advice, self.fix))
        super().__init__("\n".join([self.what, *(f"  {name}{part}" for name, part in labelled if part is not None)]))

    def __reduce__(self) -> Any:
        """For pickle, which carries errors out of processes."""
        return _again, (type(self), self.what, self.expected, self.got, self.fix)


def _again(kind: type[RetemperError], what: str, expected: str | None, got: str | None, fix: str | None) -> Any:
    return kind(what, expected=expected, got=got, fix=fix)


class WaitingError(RetemperError):
    """Nothing is wrong, and nothing can go on before someone has done something: printed, and no error."""

    advice = "next:     "


class UnknownNameError(RetemperError, ValueError):
    """A name that is none of the possible ones. A `ValueError` too, so that settings say where the name stands."""


def short(value: object, longest: int = LONGEST) -> str:
    """`value` as text of at most about `longest` characters: its beginning, its end, and how much there was."""
    text = str(value)
    if len(text) <= longest:
        return text
    return f"{text[: longest * 3 // 4]} ... {text[-longest // 4 :]} ({len(text)} characters)"


def unknown(kind: str, name: object, options: Iterable[str]) -> UnknownNameError:
    """Error for a name that is none of `options`; suggests the nearest one."""
    options = sorted(map(str, options))
    matches = difflib.get_close_matches(short(name, 200), options, n=1)
    listing = ", ".join(options) or "none: there are none yet"
    fix = f"did you mean {matches[0]!r}?" if matches else f"use one of {listing}"
    return UnknownNameError(f"Unknown {kind} {short(repr(name), 200)}.", expected=f"one of {listing}", fix=fix)
