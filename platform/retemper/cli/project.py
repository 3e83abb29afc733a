"""``retemper init``: a project of one's own. Imports nothing heavy."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from retemper.core.errors import RetemperError


def _init(options: argparse.Namespace) -> None:
    from retemper.projects import create

    folder = Path(options.name).absolute()
    create.require_new(folder)
    if options.example == bool(options.data):
        raise RetemperError(
            "A project needs data.", fix="name your labelled structures with --data, or take the example with --example"
        )
    notes = create.write_example(folder)
    for note in notes:
        print(f"note: {note}")
    print(f"{folder} is a project with the embedded example.\nnext: cd {options.name} && dvc repro")


def _init_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("name", help="folder to make; its last part is the name of the system and of its registered models")
    add("--data", nargs="+", type=Path, default=[], metavar="FILE", help="labelled structures, anything ASE reads")
    add("--example", action="store_true", help="the embedded example instead of own data")


Command = tuple[Callable[[argparse.Namespace], None], Callable[[argparse.ArgumentParser], None], str]
COMMANDS: dict[str, Command] = {
    "init": (_init, _init_arguments, "make a project: settings proposed from your data, stages, strategies, DVC, git"),
}
