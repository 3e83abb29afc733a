"""The ``retemper`` command, and what stage scripts share. Imports nothing heavy."""

from __future__ import annotations

import argparse
import functools
import inspect
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from retemper.cli.active import COMMANDS as ROUND_COMMANDS
from retemper.cli.advise import COMMANDS as ADVICE_COMMANDS
from retemper.cli.doctor import COMMANDS as DOCTOR_COMMANDS
from retemper.cli.foundations import COMMANDS as FOUNDATION_COMMANDS
from retemper.cli.open import COMMANDS as OPEN_COMMANDS
from retemper.cli.project import COMMANDS as PROJECT_COMMANDS
from retemper.cli.promotion import COMMANDS as MODEL_COMMANDS
from retemper.cli.settings import COMMANDS as SETTING_COMMANDS
from retemper.cli.study import COMMANDS as STUDY_COMMANDS
from retemper.core.ending import handle_errors
from retemper.core.version import __version__


def stage(function: Callable[..., None]) -> Callable[..., None]:
    """Make a stage script's `main` a command that ends as `ending.handle_errors` says, without orphans.

    Inside DVC the stage ends when DVC is
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
            from retemper.core.processes import die_with_parent

            die_with_parent()
        with handle_errors():
            function(*arguments)

    return command


def _project_or_template() -> Path:
    """The project around the working directory; without one what comes with retemper."""
    from retemper.core.files import find_project
    from retemper.core.template import template_root

    return find_project() or template_root()


def _strategies(_: argparse.Namespace) -> None:
    from retemper.config import strategies
    from retemper.core.output import table

    root = _project_or_template()
    print(table([(name, strategies.load(name, root).about) for name in strategies.names(root)]))


def _systems(options: argparse.Namespace) -> None:
    from retemper import systems
    from retemper.systems import listing

    root = _project_or_template()
    if options.name:
        print(listing.description(systems.find(options.name, root), root))
    else:
        print(listing.listing(systems.catalogue(root), root))


def _systems_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", help="everything about one system, and the lines for params.yaml")


def _table(_: argparse.Namespace) -> None:
    from retemper.config.project import Project
    from retemper.report import terminal_table

    print(terminal_table(Project.here()))


def _sync(_: argparse.Namespace) -> None:
    from retemper.config.project import Project
    from retemper.promotion import promote
    from retemper.registry import register
    from retemper.tracking import runs as tracking
    from retemper.tracking import sweeps

    project = Project.here()
    root, settings = project.root, project.settings
    runs = tracking.sync(root, settings)
    trials = sweeps.sync(project)
    versions = register.sync(project)
    promote.sync(project)
    print(
        f"{sum(map(len, runs.values()))} runs of {len(runs)} strategies, {trials} trials of sweeps and "
        f"{versions} versions of {settings.system} are in MLflow"
    )


def _sweep(options: argparse.Namespace) -> None:
    from retemper.config.project import Project
    from retemper.sweep import status

    view = status.show if options.what == "show" else status.status
    print(view(Project.here(), options.strategy))


def _evaluate(options: argparse.Namespace) -> None:
    from retemper.core.processes import prepare

    prepare()
    from retemper.cli import evaluate as command

    command.run(options)


def _evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("model", help="model file, strategy, foundation, registered model (nacl@candidate), or a name for --calculator")
    add("--metrics", nargs="+", default=["all"], help="names as `retemper metrics` lists them; default: all")
    add("--level", default="quick", choices=("quick", "standard", "thorough"), help="some 1 or 5 minutes, or hours")
    add("--calculator", help="measure this instead of a MACE model: ase:package.module:Class(keyword=value)")
    add("--sha256", help="what a model file has to be: another one is not opened")
    add("--head", help="head of a multihead model; default: the one called Default")
    add("--elements", nargs="+", help="symbols; default: those of the structures, else of the model")
    add("--structures", help="target structures, for dynamics; default: the project's test set")
    add("--reference", help="trajectory for radial distributions; default: the structures")
    add("--retention", help="labelled pretraining structures; default: the foundation's")
    add("--foundation", help="what forgetting is measured against: an entry or a file; default: the project's")
    add("--oracle", help="reference method: ase:package.module:Class(keyword=value)")
    add("--oracle-level", help="its level of theory, where the calculator does not say")
    add("--figures", help="folder with reference figures (s66.extxyz, dmc_ice13.extxyz, path.extxyz)")
    add("--temperature", type=float, default=300.0, help="K; default: 300")
    add("--seed", type=int, default=0)
    add("--workers", type=int, help="processes; default: one a core")
    add("--device", default="cpu", help="cpu or cuda, of a MACE model through torch")
    add("--out", help="folder; default: runs/robustness/<name>")


def _convert(options: argparse.Namespace) -> None:
    from pathlib import Path

    from retemper.core import weight_files
    from retemper.models import library, model_writing

    path = weight_files.require(options.model, options.sha256)
    library.import_mace()
    model_writing.convert(path, Path(options.out))
    print(options.out)


def _convert_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("model", help="model file, of MACE (*.model) or as retemper writes it (*.safetensors)")
    add("out", help="file to write, of the other kind by its name")
    add("--sha256", help="what the file has to be: another one is not opened")


def _metrics(_: argparse.Namespace) -> None:
    from retemper.cli import evaluate as command

    print(command.listing())


def _completion(options: argparse.Namespace) -> None:
    import shtab

    print(shtab.complete(parser(), shell=options.shell))


def _completion_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=("bash", "zsh", "tcsh"), help='bash: eval "$(retemper completion bash)"')


def _sweep_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=("status", "show"), help="how far they are, or everything")
    parser.add_argument("strategy", nargs="?", help="one strategy alone")


def _nothing(_: argparse.ArgumentParser) -> None:
    """A command without arguments."""


Command = tuple[Callable[[argparse.Namespace], Any], Callable[[argparse.ArgumentParser], None], str]
COMMANDS: dict[str, Command] = {
    "strategies": (_strategies, _nothing, "list the fine-tuning strategies"),
    "systems": (_systems, _systems_arguments, "list the systems: what, level of theory, size, elements, observables"),
    "table": (_table, _nothing, "print the comparison of the strategies that have been evaluated"),
    "sweep": (_sweep, _sweep_arguments, "show sweeps: trials, best so far, Pareto front, importance of each parameter"),
    "evaluate": (_evaluate, _evaluate_arguments, "measure what a model does away from its test set"),
    "metrics": (_metrics, _nothing, "list the robustness metrics: unit, direction, good and bad, cost, reference"),
    "convert": (_convert, _convert_arguments, "write a model file as safetensors, which execute nothing, or as pickle"),
    "completion": (_completion, _completion_arguments, "print what completes commands and options in your shell"),
    "sync": (_sync, _nothing, "bring MLflow up to date with the files under runs/"),
}


def every() -> dict[str, Command]:
    """All commands by name, in the order in which the help lists them."""
    groups = (
        PROJECT_COMMANDS,
        DOCTOR_COMMANDS,
        SETTING_COMMANDS,
        COMMANDS,
        OPEN_COMMANDS,
        FOUNDATION_COMMANDS,
        STUDY_COMMANDS,
        ADVICE_COMMANDS,
        ROUND_COMMANDS,
        MODEL_COMMANDS,
    )
    return {name: command for group in groups for name, command in group.items()}


def parser() -> argparse.ArgumentParser:
    """What understands a command line."""
    whole = argparse.ArgumentParser(
        prog="retemper", description="Fine-tune MLIP foundation models; run `dvc repro` for the pipeline."
    )
    whole.add_argument("--version", action="version", version=f"retemper {__version__}")
    commands = whole.add_subparsers(dest="command", required=True, metavar="command")
    for name, (_, arguments_of, about) in every().items():
        arguments_of(commands.add_parser(name, help=about, description=about))
    return whole


def main(arguments: list[str] | None = None) -> None:
    """Entry point of ``retemper``."""
    options = parser().parse_args(arguments)
    with handle_errors():
        every()[options.command][0](options)
