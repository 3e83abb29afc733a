"""``retemper round`` and ``retemper campaign``. Imports nothing heavy."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from retemper.core.errors import RetemperError


def _round(options: argparse.Namespace) -> None:
    from retemper.config.project import Project
    from retemper.core.processes import prepare

    project = Project.here()
    if options.undo:
        from retemper.active import undo

        if options.resume or options.partial:
            raise RetemperError("--undo stands alone.")
        print(f"round {undo.undo(project)} is undone")
        return
    prepare()
    from retemper.active import campaign

    campaign.round_once(project, resume=options.resume, partial=options.partial)


def _campaign(options: argparse.Namespace) -> None:
    from retemper.config.project import Project
    from retemper.core.processes import prepare

    prepare()
    from retemper.active import campaign, status

    project = Project.here()
    if options.what == "status":
        print(status.show(project, Project.here(Path(options.against)) if options.against else None))
        return
    if options.against:
        raise RetemperError("--against belongs to `retemper campaign status`.")
    why = campaign.campaign(project, max_rounds=options.rounds, budget=options.budget)
    print(f"campaign stopped: {why}")


def _round_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--resume", action="store_true", help="finish the round that has begun, or take labels back")
    parser.add_argument("--undo", action="store_true", help="take the last committed round back, by a further commit")
    parser.add_argument("--partial", action="store_true", help="structures that did not come back count as failed")


def _campaign_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", nargs="?", choices=("run", "status"), default="run")
    parser.add_argument("--rounds", type=int, default=10, help="rounds in all; default: 10")
    parser.add_argument("--budget", type=int, help="structures sent to the oracle in all; default: no limit")
    parser.add_argument("--against", help="folder of another campaign, for example with selector: random")


Command = tuple[Callable[[argparse.Namespace], None], Callable[[argparse.ArgumentParser], None], str]
COMMANDS: dict[str, Command] = {
    "round": (_round, _round_arguments, "explore, select, label, and run the graph again: one commit"),
    "campaign": (
        _campaign,
        _campaign_arguments,
        "rounds until the gates hold, the budget is spent or little is gained",
    ),
}
