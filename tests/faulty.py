"""Calculators that leave a trace, hang, die or raise: EMT underneath."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.calculators.calculator import all_changes
from ase.calculators.emt import EMT

from retemper.models.evaluators import Evaluator


class Traced(EMT):
    """Notes the number of atoms before and after each calculation; the one with `bad` atoms goes wrong."""

    def __init__(self, log: str = "", seconds: float = 0.0, bad: int = 0, how: str = ""):
        super().__init__()
        self.note, self.seconds, self.bad, self.how = log, seconds, bad, how

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        assert atoms is not None
        self.say("begin", len(atoms))
        if len(atoms) == self.bad:
            self.go_wrong()
        time.sleep(self.seconds)
        super().calculate(atoms, properties, system_changes)
        self.say("end", len(atoms))

    def say(self, what: str, number: int) -> None:
        if self.note:
            with Path(self.note).open("a") as file:
                file.write(f"{what} {number}\n")

    def go_wrong(self) -> Any:
        if self.how == "raises":
            raise RuntimeError("no convergence")
        if self.how == "dies":
            os._exit(7)
        if self.how == "hangs":
            child = subprocess.Popen(["sleep", "300"])
            self.say("child", child.pid)
            time.sleep(300)
        return None


class Shifted(EMT):
    """Another level of theory under the same name: 0.1 eV an atom apart."""

    def calculate(self, atoms: Any = None, properties: Any = ("energy",), system_changes: Any = all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        self.results["energy"] += 0.1 * len(self.atoms)


class Charged(EMT):
    """Reads charge and multiplicity where MACE does."""

    def calculate(self, atoms: Any = None, properties: Any = ("energy",), system_changes: Any = all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        assert set(self.atoms.info) == {"charge", "spin"}
        self.results["energy"] += self.atoms.info["charge"] + self.atoms.info["spin"]


class Ionised(EMT):
    """Reads the charge under MACE's spelling, and 0 without; keeps results as ASE's calculators do."""

    def calculate(self, atoms: Any = None, properties: Any = ("energy",), system_changes: Any = all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        self.results["energy"] += self.atoms.info.get("charge", 0)


class Elsewhere(EMT):
    """Another program under the same name: what `file` says, nothing or how far it is off (eV)."""

    def __init__(self, file: str):
        super().__init__()
        self.file = Path(file)

    def calculate(self, atoms: Any = None, properties: Any = ("energy",), system_changes: Any = all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        self.results["energy"] += float(self.file.read_text())


class Unnamed(Elsewhere):
    """The same, where no setting says which file it is: that is in the environment."""

    def __init__(self) -> None:
        super().__init__(os.environ["UNNAMED_FILE"])


class NotFinite(EMT):
    """A code that prints NaN and ends well."""

    def calculate(self, atoms: Any = None, properties: Any = ("energy",), system_changes: Any = all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        self.results["forces"][0, 0] = float("nan")


def slow(evaluator: Evaluator, atoms: Atoms, seconds: float, note: str) -> dict[str, Any]:
    """Leaves a trace for each time that it ran."""
    time.sleep(seconds)
    with Path(note).open("a") as file:
        file.write(f"{os.getpid()}\n")
    return {"energy": float(evaluator([atoms]).energy[0])}
