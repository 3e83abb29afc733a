"""``retemper doctor``. Imports nothing heavy."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from retemper.core.files import project_root

MARKS = {"ok": "ok", "warning": "warning", "fails": "FAILS"}


def _doctor(_: argparse.Namespace) -> None:
    root = project_root()
    from retemper.core.processes import prepare

    prepare()
    from retemper.advise import doctor

    counts = dict.fromkeys(MARKS, 0)
    for finding in doctor.examine(root):
        counts[finding.status] += 1
        first, *rest = finding.text.splitlines()
        print(f"{MARKS[finding.status]:8s} {finding.subject:12s} {first}", flush=True)
        for line in rest:
            print(f"{'':21s} {line}", flush=True)
    if counts["fails"]:
        sys.exit(1)
    print(f"nothing that would stop it was seen; {counts['warning']} warning(s). Next: dvc repro")


def _nothing(_: argparse.ArgumentParser) -> None:
    """A command without arguments."""


Command = tuple[Callable[[argparse.Namespace], None], Callable[[argparse.ArgumentParser], None], str]
COMMANDS: dict[str, Command] = {
    "doctor": (_doctor, _nothing, "say what will fail before it does: environment, data, E0s, foundation, gates, disk"),
}
