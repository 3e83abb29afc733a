"""Labels by an oracle, and programs that stand in for codes that are not installed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ase import Atoms

from retemper.active import workers
from retemper.config.settings import Plugin

WATER = Atoms("OH2", [[0, 0, 0], [0.9584, 0, 0], [-0.24, 0.9279, 0]])
NEEDED: dict[str, dict[str, Any]] = {
    "ase": {"calculator": "ase.calculators.emt:EMT()", "level_of_theory": "EMT"},
    "foundation": {"name": "mini"},
    "cp2k": {"level_of_theory": "PBE"},
    "vasp": {"level_of_theory": "PBE"},
    "espresso": {"level_of_theory": "PBE", "pseudo_dir": ".", "pseudopotentials": {}},
    "orca": {"level_of_theory": "PBE", "simple_input": "PBE def2-SVP"},
    "aims": {"level_of_theory": "PBE", "species_dir": "."},
    "manual": {"level_of_theory": "PBE"},
}


def label(name: str, options: dict[str, Any], atoms: Atoms, folder: Path) -> workers.Answer:
    return workers.compute(workers.Job("key", atoms, Plugin(name=name, options=options), str(folder)))


def program(path: Path, body: str) -> str:
    """A command that stands for a code: `body` is Python, run where the inputs are."""
    path.write_text(f"import shutil, sys\nfrom pathlib import Path\nkeep = Path({str(path.parent)!r})\n{body}")
    return f"{sys.executable} {path}"
