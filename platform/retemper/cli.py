"""The ``retemper`` command, and what stage scripts share. Imports nothing heavy."""

from __future__ import annotations

import argparse
import functools
import inspect
import os
import sys
from collections.abc import Callable
from typing import Any

from retemper import __version__
from retemper.errors import RetemperError
from retemper.promotion.commands import COMMANDS as MODEL_COMMANDS


def stage(function: Callable[..., None]) -> Callable[..., None]:
    """Make a stage script's `main` a command: errors as messages, status 1, no orphan.

    A `RetemperError` is printed without a traceback. Inside DVC the stage ends when DVC is
    killed, so that it cannot write outputs later.
    """

    @functools.wraps(function)
    def command(*arguments: str) -> None:
        signature = inspect.signature(function)
        try:
            signature.bind(*arguments)
        except TypeError:
            usage = " ".join(f"<{name}>" for name in signature.parameters)
            sys.exit(f"usage: python -m {function.__module__} {usage}")
        if os.environ.get("DVC_STAGE"):
            from retemper.launch import die_with_parent

            die_with_parent()
        try:
            function(*arguments)
        except RetemperError as error:
            print(f"\nerror: {error}", file=sys.stderr)
            sys.exit(1)

    return command


def _strategies(_: argparse.Namespace) -> None:
    from retemper import strategies

    for name in strategies.names():
        print(f"{name:20s} {strategies.load(name).about}")


def _foundations(_: argparse.Namespace) -> None:
    from retemper import foundations

    for name, entry in foundations.catalogue().items():
        where = "embedded" if entry.file else "download"
        print(f"{name:16s} {where:9s} {entry.level_of_theory:14s} {entry.licence:14s} {entry.about}")


def _table(_: argparse.Namespace) -> None:
    from retemper.files import project_root
    from retemper.report import terminal_table

    print(terminal_table(project_root()))


def _sync(_: argparse.Namespace) -> None:
    from retemper import tracking
    from retemper.files import project_root
    from retemper.settings import load_settings

    root = project_root()
    runs = tracking.sync(root, load_settings(root / "params.yaml"))
    print(f"{sum(map(len, runs.values()))} runs of {len(runs)} strategies are in MLflow")


COMMANDS: dict[str, tuple[Callable[[argparse.Namespace], Any], str]] = {
    "strategies": (_strategies, "list the fine-tuning strategies"),
    "foundations": (_foundations, "list the foundation models"),
    "table": (_table, "print the comparison of the strategies that have been evaluated"),
    "sync": (_sync, "bring MLflow up to date with the files under runs/"),
}


def main(arguments: list[str] | None = None) -> None:
    """Entry point of ``retemper``."""
    parser = argparse.ArgumentParser(
        prog="retemper", description="Fine-tune MLIP foundation models; run `dvc repro` for the pipeline."
    )
    parser.add_argument("--version", action="version", version=f"retemper {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for name, (_, about) in COMMANDS.items():
        commands.add_parser(name, help=about, description=about)
    for name, (_, arguments_of, about) in MODEL_COMMANDS.items():
        arguments_of(commands.add_parser(name, help=about, description=about))
    options = parser.parse_args(arguments)
    try:
        (COMMANDS.get(options.command) or MODEL_COMMANDS[options.command])[0](options)
    except RetemperError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
