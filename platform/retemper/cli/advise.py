"""``retemper advise``. Imports nothing heavy."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from retemper.core.errors import RetemperError
from retemper.core.files import project_root


def _advise(options: argparse.Namespace) -> None:
    from retemper.core.processes import prepare

    prepare()
    from retemper.advise import evidence, facts, recommend, words

    root = project_root()
    table = evidence.tables(root)
    if options.check:
        if table is None:
            raise RetemperError("No study has been run here.", fix="retemper study studies/smoke.yaml")
        print(words.check(table))
        return
    if options.system is None:
        raise RetemperError("Which data?", expected="--system with a system of `retemper systems`, or a file")
    found = recommend.advise(facts.gather(options.system, root, options.level), options.scope, table)
    print(words.text(found))


def _advise_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--system", help="a system of `retemper systems`, or a file of labelled structures")
    add("--scope", default="family", choices=("single-system", "family", "broad"), help="default: family")
    add("--level", help="level of theory of a file")
    add("--check", action="store_true", help="leave one system of the studies out: how good is this advice")


Command = tuple[Callable[[argparse.Namespace], None], Callable[[argparse.ArgumentParser], None], str]
COMMANDS: dict[str, Command] = {
    "advise": (_advise, _advise_arguments, "recommend foundation, E0s, strategy and settings from finished studies"),
}
