"""A foundation model of the catalogue as teacher: cheap labels at its own level of theory."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from ase import Atoms

from retemper.config.settings import Section
from retemper.core import software
from retemper.core.errors import RetemperError
from retemper.core.software import Ingredients
from retemper.data.charge import CHARGE, SPIN, State

READS_INFO = True  # its labels of charged structures were those of neutral ones before it did


class Options(Section):
    name: str  # a foundation, as in params.yaml
    head: str | None = None  # of one with several; null: the one of its entry
    dtype: Literal["float32", "float64"] = "float64"


def level(options: Options) -> str:
    """That of the catalogue, for the head."""
    from retemper.config.foundations import find, with_head

    return with_head(find(options.name), options.head).level_of_theory


def ingredients(options: Options, atoms: Atoms) -> Ingredients:
    """The weights, and the version of MACE."""
    from retemper.config.foundation_files import weights
    from retemper.config.foundations import find

    return {"weights": software.content(weights(find(options.name))), **software.packages("mace")}


def calculator(options: Options, atoms: Atoms, state: State, folder: Path) -> Any:
    """MACE's own calculator; structures with charge and spin are refused unless the model embeds them."""
    from retemper.config.foundation_files import weights
    from retemper.config.foundations import find
    from retemper.models import library
    from retemper.models.mace import pick_head, reads

    library.import_mace()
    from retemper.models.ase_calculator import of_weights

    entry = find(options.name)
    path = weights(entry)
    inputs = {CHARGE} if state.charge else set()
    inputs |= {SPIN} if state.given and state.multiplicity > 1 else set()
    if not inputs.issubset(reads(path)):
        raise RetemperError(
            f"The foundation {options.name} does not know the charge or spin of a structure.",
            got=f"charge {state.charge}, multiplicity {state.multiplicity}",
            fix="use a foundation that was trained on ions (mace-omol), or another oracle",
        )
    head = pick_head(path, options.head or entry.head)
    return of_weights(path, head, options.dtype)
