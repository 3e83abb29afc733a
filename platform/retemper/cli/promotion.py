"""Arguments and work of the commands about registered models; imports nothing heavy."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from retemper.core.files import project_root
from retemper.registry.formats import FORMATS


def _models(options: argparse.Namespace) -> None:
    from retemper.promotion import views

    print(views.models(project_root(), options.model))


def _show(options: argparse.Namespace) -> None:
    from retemper.promotion import views

    print(views.show(project_root(), options.name))


def _compare(options: argparse.Namespace) -> None:
    from retemper.promotion import views

    print(views.compare_versions(project_root(), options.first, options.second))


def _lineage(options: argparse.Namespace) -> None:
    from retemper.promotion import views

    print(views.lineage(project_root(), options.hash))


def _promote(options: argparse.Namespace) -> None:
    from retemper.config.project import Project
    from retemper.promotion import promote
    from retemper.registry.versions import find

    project = Project.here()
    version = find(options.name, project.root)
    moved = promote.override(project, version.system, version.number, options.alias, options.reason)
    print(f"{version.name} is the {options.alias}" + (" now" if moved else " already"))


def _rollback(options: argparse.Namespace) -> None:
    from retemper.config.project import Project
    from retemper.promotion import promote

    moved = promote.rollback(Project.here(), options.model, options.reason)
    print(f"{moved.system}/{moved.version} is the {moved.alias} again")


def _export(options: argparse.Namespace) -> None:
    from retemper.registry import export

    made = export.export(project_root(), options.name, options.to, Path(options.out), options.dtype, options.head)
    print("\n".join(str(path) for path in made))


def _serve(options: argparse.Namespace) -> None:
    from retemper.registry import serve

    serve.run(project_root(), options.name, options.host, options.port, options.head)


def _name(parser: argparse.ArgumentParser, name: str = "name") -> None:
    parser.add_argument(name, help="nacl@champion, nacl/4, or nacl: the champion, else the candidate")


def _head(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--head", help="of the model; default: the one that learned the target")


def _show_arguments(parser: argparse.ArgumentParser) -> None:
    _name(parser)


def _models_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", help="one registered model; default: all")


def _compare_arguments(parser: argparse.ArgumentParser) -> None:
    _name(parser, "first")
    _name(parser, "second")


def _promote_arguments(parser: argparse.ArgumentParser) -> None:
    _name(parser)
    parser.add_argument("--alias", default="champion", choices=("champion", "challenger"))
    parser.add_argument("--reason", help="overrule the gates; it is recorded")


def _rollback_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="registered model")
    parser.add_argument("--reason", default="no reason given", help="it is recorded")


def _export_arguments(parser: argparse.ArgumentParser) -> None:
    _name(parser)
    parser.add_argument("--to", default="model", choices=FORMATS)
    parser.add_argument("--out", default=".", help="folder; default: here")
    parser.add_argument("--dtype", default="float64", choices=("float64", "float32"))
    _head(parser)


def _serve_arguments(parser: argparse.ArgumentParser) -> None:
    _name(parser)
    parser.add_argument("--host", default="127.0.0.1", help="default: this machine alone; there are no passwords")
    parser.add_argument("--port", type=int, default=5055)
    _head(parser)


def _lineage_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("hash", help="md5 of data, sha256 of weights or foundation, git commit; six digits or more")


Command = tuple[Callable[[argparse.Namespace], None], Callable[[argparse.ArgumentParser], None], str]
COMMANDS: dict[str, Command] = {
    "models": (_models, _models_arguments, "list registered models: versions, aliases, headline metrics"),
    "show": (_show, _show_arguments, "show one version: card, measures with intervals, gate by gate"),
    "compare": (_compare, _compare_arguments, "compare two versions on the same frames, with significance"),
    "promote": (_promote, _promote_arguments, "give an alias to a version that passes the gates, or with a reason"),
    "rollback": (_rollback, _rollback_arguments, "give `champion` back to the version that had it before"),
    "export": (_export, _export_arguments, "write a version for other programs"),
    "serve": (_serve, _serve_arguments, "answer requests for energies and forces, as JSON"),
    "lineage": (_lineage, _lineage_arguments, "list the versions that came of a data set, foundation or commit"),
}
