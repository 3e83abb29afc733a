"""``retemper init`` and ``upgrade``: a project of one's own. Imports nothing heavy."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from retemper.core.errors import RetemperError, unknown

LABELS = ("energy", "forces", "stress", "virial")


def _init(options: argparse.Namespace) -> None:
    from retemper.core.processes import prepare
    from retemper.projects import create

    folder = Path(options.name).absolute()
    create.require_new(folder)
    if (options.example, bool(options.data), options.source is not None).count(True) != 1:
        raise RetemperError(
            "A project needs data, from one place.",
            fix="name your labelled structures with --data, a project with --from, or take the example: --example",
        )
    if options.source is not None:
        from retemper.projects import derived

        for note in derived.write(folder, options.source):
            print(f"note: {note}")
        print(f"{folder} is a project that begins as {options.source}.\nnext: cd {options.name} && dvc repro")
        return
    if options.example:
        for note in create.write_example(folder):
            print(f"note: {note}")
        print(f"{folder} is a project with the embedded example.\nnext: cd {options.name} && dvc repro")
        return
    prepare()
    from retemper.projects import start
    from retemper.projects.proposal import Wishes

    wishes = Wishes(options.foundation, options.head, options.level, options.group, options.strategies, options.seeds)
    units = {"energy_unit": options.energy_unit, "length_unit": options.length_unit}
    given = {name: unit for name, unit in units.items() if unit is not None}
    start.init(folder, options.data, wishes, _keys(options.keys), given, _ask if sys.stdin.isatty() else None)


def _upgrade(options: argparse.Namespace) -> None:
    from retemper.core.files import project_root
    from retemper.core.version import __version__
    from retemper.projects import upgrade

    root = project_root()
    base, changes = upgrade.plan(root)
    if not changes and base.version == __version__:
        print(f"{root} has the files of retemper {__version__}: nothing to do")
        return
    print(f"{root}: from retemper {base.version} to {__version__}")
    if options.dry_run:
        print(upgrade.difference(root, changes), end="")
    else:
        upgrade.apply(root, base, changes)
    for change in changes:
        print(f"  {change.name}: {change.what}")
    if options.dry_run:
        print("nothing was written; without --dry-run it is")
        return
    if any(change.beside is not None for change in changes):
        print("next: settle each FILE.new: make FILE what it should be, and delete FILE.new")
    print("next: git diff; python -m pipelines.inputs && dvc status, which say what runs again; git commit -a")


def _upgrade_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="show what would change, and write nothing")


def _keys(pairs: list[str]) -> dict[str, str | None]:
    """``energy=dft_energy stress=none`` by label."""
    keys: dict[str, str | None] = {}
    for pair in pairs:
        label, sign, key = pair.partition("=")
        if not sign or not key:
            raise RetemperError(f"{pair!r} names no key.", expected="--keys energy=KEY forces=KEY stress=none")
        if label not in LABELS:
            raise unknown("label (--keys)", label, LABELS)
        keys[label] = None if key == "none" and label in ("stress", "virial") else key
    return keys


def _ask(question: str, default: str) -> str:
    """The user's answer at the terminal; nothing is the default."""
    try:
        return input(f"{question} [{default}]: ").strip() or default
    except EOFError:
        return default


def _init_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("name", help="folder to make; its last part is the name of the system and of its registered models")
    add("--data", nargs="+", type=Path, default=[], metavar="FILE", help="labelled structures, anything ASE reads")
    add("--example", action="store_true", help="the embedded example instead of own data")
    add("--from", dest="source", metavar="PROJECT", help="begin as another project: address or folder of its git")
    add("--level", help="level of theory of the labels, such as PBE+D3")
    add("--foundation", help="of `retemper foundations`, a model file, or an address; default: the embedded miniature")
    add("--head", help="of a foundation with several")
    add("--keys", nargs="+", default=[], metavar="LABEL=KEY", help="where labels are: energy=E forces=F stress=none")
    add("--energy-unit", help="of the labels: eV, meV, Hartree, Ry, kcal/mol, kJ/mol; default: told from them")
    add("--length-unit", help="of the labels: Angstrom, Bohr, nm; default: told from them")
    add("--group", help="info key of trajectory or molecule, or composition; default: told from the frames")
    add("--strategies", nargs="+", help="of `retemper strategies`; default: naive and one with replay")
    add("--seeds", nargs="+", type=int, help="of the trainings; default: 1 2")


Command = tuple[Callable[[argparse.Namespace], None], Callable[[argparse.ArgumentParser], None], str]
COMMANDS: dict[str, Command] = {
    "init": (_init, _init_arguments, "make a project: settings proposed from your data, stages, strategies, DVC, git"),
    "upgrade": (_upgrade, _upgrade_arguments, "renew the files that retemper gave to a project; your changes stay"),
}
