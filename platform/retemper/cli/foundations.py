"""``retemper foundations``: what there is, bring it here, what a file holds. Imports nothing heavy."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from retemper.core.errors import RetemperError, unknown

if TYPE_CHECKING:
    from retemper.config.foundations import Foundation


def _run(options: argparse.Namespace) -> None:
    if options.what == "get":
        _get(options)
    else:
        _list()


def _arguments(parser: argparse.ArgumentParser) -> None:
    what = parser.add_subparsers(dest="what", metavar="what", help="without: list them")
    about = "bring weights and structures for replay to this machine, and remember what they are"
    get = what.add_parser("get", help=about, description=about)
    get.add_argument("name", help="a foundation, as in params.yaml")
    get.add_argument("--accept-licence", action="store_true", help="accept its licence, where it must be accepted")
    get.add_argument("--weights-only", action="store_true", help="leave the structures for replay")


def _root() -> Path | None:
    """The project around the working directory, if there is one."""
    from retemper.core.files import project_root

    try:
        return project_root()
    except RetemperError:
        return None


def _list() -> None:
    from retemper.config import foundations

    root = _root()
    entries = foundations.shipped() if root is None else foundations.catalogue(root)
    rows = [_row(entry, root) for entry in entries.values()]
    titles = ("foundation", "here", "level of theory", "heads", "elements", "licence", "replay", "what")
    widths = [max(len(row[k]) for row in (titles, *rows)) for k in range(len(titles))]
    for row in (titles, *rows):
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    print(
        "here: size where the file is on this machine; elements: ? are read from the file; replay: structures that are "
        "published for it.\nRun `retemper foundations get NAME` to fetch one."
    )


def _row(entry: Foundation, root: Path | None) -> tuple[str, ...]:
    from retemper.config import foundation_files, foundations

    path = foundation_files.place(entry, root)
    terms = foundations.licence(entry)
    published = foundations.published(entry)
    symbols = (entry.elements or "").split()
    return (
        entry.name,
        f"{path.stat().st_size / 1e6:.1f} MB" if path.is_file() else "no",
        entry.level_of_theory,
        str(len(entry.heads)) if entry.heads else "?" if entry.head else "1",
        str(len(symbols)) if len(symbols) > 4 else " ".join(symbols) or "?",
        entry.licence + (" (accept)" if terms is not None and terms.accept else ""),
        "own" if entry.pool else published.name if published else "-",
        entry.about,
    )


def _get(options: argparse.Namespace) -> None:
    from retemper.config import foundation_files, foundations

    root = _root()
    if root is None and options.name not in foundations.shipped() and "://" not in options.name:
        raise unknown("foundation", options.name, foundations.shipped())
    entry = foundations.shipped().get(options.name) or foundations.find(options.name, root)
    _accept(entry, options.accept_licence)
    path = foundation_files.fetched(entry, root) if root is None else foundation_files.weights(entry, root)
    print(f"{entry.name}: {path} ({path.stat().st_size / 1e6:.1f} MB)")
    published = foundations.published(entry)
    if published is not None and not options.weights_only:
        fetched = foundation_files.fetched_structures if root is None else foundation_files.structures
        path = fetched(published, root)
        print(f"{published.name}, structures for replay: {path} ({path.stat().st_size / 1e6:.1f} MB)")


def _accept(entry: Foundation, said: bool) -> None:
    """Have the licence of a foundation accepted, where that is needed and was not done."""
    from retemper.config import foundations, licences

    terms = foundations.licence(entry)
    if terms is None or licences.accepted(terms):
        return
    if not said and sys.stdin.isatty():
        print(f"{entry.name} is under the {terms.title}: {terms.url}")
        print(f"It is {terms.about}." if terms.about else "")
        said = input("Have you read it, and do you accept it? [y/N] ").strip().lower() in ("y", "yes")
    if said:
        licences.accept(terms)
        print(f"accepted: {terms.title}, {terms.url}")


Command = tuple[Callable[[argparse.Namespace], None], Callable[[argparse.ArgumentParser], None], str]
COMMANDS: dict[str, Command] = {
    "foundations": (_run, _arguments, "list the foundation models, or bring one here"),
}
