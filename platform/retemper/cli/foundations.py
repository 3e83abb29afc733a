"""``retemper foundations``: what there is, bring it here, what a file holds. Imports nothing heavy."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from retemper.core.errors import unknown
from retemper.core.files import find_project
from retemper.core.output import table

if TYPE_CHECKING:
    from retemper.config.foundations import Foundation


def _run(options: argparse.Namespace) -> None:
    if options.what == "get":
        _get(options)
    elif options.what == "inspect":
        _inspect(options.name)
    else:
        _list()


def _arguments(parser: argparse.ArgumentParser) -> None:
    what = parser.add_subparsers(dest="what", metavar="what", help="without: list them")
    about = "bring weights and structures for replay to this machine, and remember what they are"
    get = what.add_parser("get", help=about, description=about)
    get.add_argument("name", help="a foundation, as in params.yaml")
    get.add_argument("--accept-licence", action="store_true", help="accept its licence, where it must be accepted")
    get.add_argument("--weights-only", action="store_true", help="leave the structures for replay")
    about = "what a model file is: elements, heads, architecture, E0s; nothing in it is run"
    inspect = what.add_parser("inspect", help=about, description=about)
    inspect.add_argument("name", help="a model file, or a foundation as in params.yaml")


def _list() -> None:
    from retemper.config import foundations

    root = find_project()
    entries = foundations.shipped() if root is None else foundations.catalogue(root)
    rows = [_row(entry, root) for entry in entries.values()]
    titles = ("foundation", "here", "level of theory", "heads", "elements", "licence", "replay", "what")
    print(table([titles, *rows]))
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
        entry.about + ("; not served" if not entry.served else ""),
    )


def _entry(name: str, root: Path | None) -> Foundation:
    """What a foundation is called by; without a project a released one or an address."""
    from retemper.config import foundations

    if root is None and name not in foundations.shipped() and "://" not in name:
        raise unknown("foundation", name, foundations.shipped())
    return foundations.shipped().get(name) or foundations.find(name, root)


def _weights(entry: Foundation, root: Path | None) -> Path:
    from retemper.config import foundation_files

    return foundation_files.fetched(entry, root) if root is None else foundation_files.weights(entry, root)


def _inspect(name: str) -> None:
    root = find_project()
    entry = None if Path(name).is_file() else _entry(name, root)
    path = Path(name) if entry is None else _weights(entry, root)
    from ase.data import chemical_symbols

    from retemper.models.inspection import inspect

    model = inspect(path)
    levels = (entry.heads or {}) if entry is not None else {}
    age = f"an earlier release: {', '.join(model.lacks)} came later" if model.lacks else "as of this release"
    said = {
        "file": f"{model.path}, {model.bytes / 1e6:.1f} MB",
        "sha256": model.sha256,
        "form": "written by MACE" if model.form == "pickle" else "written by retemper, executes nothing",
        "generation": f"MACE, {age}",
        "architecture": ("\n" + " " * 14).join(model.architecture),
        "parameters": str(model.parameters),
        "heads": ", ".join(head + (f" ({levels[head]})" if head in levels else "") for head in model.heads),
        "elements": f"{len(model.elements)}: {' '.join(chemical_symbols[z] for z in model.elements)}",
        "served": "yes" if model.reason is None else f"no: {model.reason}",
    }
    if entry is not None:
        said["level"], said["licence"] = entry.level_of_theory, entry.licence
    for key, text in said.items():
        print(f"{key:12s}  {text}")
    if model.e0s:
        print("E0s (eV)" + "".join(f"{head:>18s}" for head in model.e0s))
        for z in model.elements:
            print(f"  {chemical_symbols[z]:6s}" + "".join(f"{energies[z]:18.6f}" for energies in model.e0s.values()))


def _get(options: argparse.Namespace) -> None:
    from retemper.config import foundation_files, foundations

    root = find_project()
    entry = _entry(options.name, root)
    _accept(entry, options.accept_licence)
    path = _weights(entry, root)
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
    "foundations": (_run, _arguments, "list the foundation models, bring one here, or say what a model file is"),
}
