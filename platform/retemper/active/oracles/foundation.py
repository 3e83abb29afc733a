"""A foundation model of the catalogue as teacher: cheap labels at its own level of theory."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from ase import Atoms

from retemper.active.state import State
from retemper.settings import Section


class Options(Section):
    name: str  # an entry of foundations/foundations.yaml
    dtype: Literal["float32", "float64"] = "float64"


def level(options: Options) -> str:
    """That of the catalogue."""
    from retemper.foundations import find

    return find(options.name).level_of_theory


def calculator(options: Options, atoms: Atoms, state: State, folder: Path) -> Any:
    """MACE's own calculator."""
    from retemper import launch
    from retemper.foundations import find, weights
    from retemper.inference import pick_head

    launch.import_mace()
    from mace.calculators import MACECalculator

    entry = find(options.name)
    path = weights(entry)
    head = pick_head(path, entry.head)
    return MACECalculator(model_paths=str(path), device="cpu", default_dtype=options.dtype, head=head)
