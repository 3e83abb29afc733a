"""``retemper study``. Imports nothing heavy."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from retemper.core.errors import RetemperError
from retemper.core.files import project_root


def _study(options: argparse.Namespace) -> None:
    from retemper.core.processes import prepare

    prepare()
    root = project_root()
    if options.study[0] == "report":
        _report(root, [Path(name) for name in options.study[1:]])
        return
    if len(options.study) > 1:
        raise RetemperError("One study at a time.", got=" ".join(options.study))
    from retemper.study import run

    path = Path(options.study[0])
    if options.dry:
        print(run.dry(path, root))
    else:
        run.run(path, root, retry=options.retry, again=options.again)


def _report(root: Path, paths: list[Path]) -> None:
    """Reports of the studies in `paths`, or of all that have a result."""
    from retemper.study import report, table
    from retemper.study.plan import runs
    from retemper.study.spec import load

    given = bool(paths)
    for path in paths or sorted((root / table.FOLDER).glob("*.yaml")):
        study = load(path)
        every = runs(study, root)
        if given or any(table.result(root, one.key) for one in every):
            print(f"{study.name}: {report.write(study, every, root)}")


def _study_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("study", nargs="+", help="file of a study; or `report`, then files (default: all with results)")
    parser.add_argument("--dry", action="store_true", help="how many runs, how many are there, how long: run nothing")
    parser.add_argument("--retry", action="store_true", help="try failed runs again")
    parser.add_argument("--again", action="store_true", help="run again what other code than today's has made")


Command = tuple[Callable[[argparse.Namespace], None], Callable[[argparse.ArgumentParser], None], str]
COMMANDS: dict[str, Command] = {
    "study": (_study, _study_arguments, "run a study of systems, foundations, strategies, sizes; or report on it"),
}
