"""Which foundation a project begins with: one that knows the elements, for the kind of data and level of theory."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase.data import chemical_symbols

from retemper.config import foundation_files, foundations
from retemper.config.foundations import Foundation
from retemper.core.errors import RetemperError
from retemper.core.template import template_root
from retemper.data.frames import FORCES
from retemper.data.units.predicted import Predict
from retemper.projects.survey import Labelled

MINI = "mini"  # the embedded one, for trying out
MOLECULAR = ("mace_off", "mace_omol", "mace_anicc")  # MACE's functions for foundations of molecules alone
SIZES = ("small", "medium", "large")


@dataclass(frozen=True)
class Choice:
    """The foundation that is taken, and the one that fits best of those that come with retemper."""

    entry: Foundation
    here: bool  # whether its weights are on this machine
    best: str | None  # name; None: none knows all elements


def choose(
    name: str | None, symbols: Sequence[str], *, level: str | None, molecular: bool, head: str | None = None
) -> Choice:
    """The foundation `name`, or by default `mini` where it knows the elements, else the best fitting one.

    `head` is for one of several heads.

    Raises
    ------
    RetemperError
        An unknown name; a foundation that does not know all elements, or none that does.
    """
    root = template_root()
    ranked = fitting(symbols, level, molecular=molecular)
    best = ranked[0] if ranked else None
    if name is None:
        mini = foundations.find(MINI, root)
        name = MINI if set(symbols) <= set(str(mini.elements).split()) else best
    if name is None:
        raise RetemperError(
            f"No foundation that comes with retemper knows all of {' '.join(symbols)}.",
            fix="give a model file or an address that does: --foundation",
        )
    entry = foundations.with_head(foundations.find(_placed(name), root), head)
    foundation_files.require_served(entry)
    known = _elements(entry)
    lacking = [symbol for symbol in symbols if known and symbol not in known]
    if lacking:
        others = f"--foundation {best}" if best else "give one that does: --foundation"
        raise RetemperError(f"The foundation {name} does not know {' '.join(lacking)}.", fix=others)
    return Choice(entry, foundation_files.place(entry, root).is_file(), best)


def _placed(name: str) -> str:
    """A model file by its whole path: the project lies elsewhere."""
    path = Path(name)
    return str(path.resolve()) if path.suffix in foundations.SUFFIXES and path.is_file() else name


def _elements(entry: Foundation) -> list[str]:
    """Symbols that the entry lists, else those of the file; empty where that is not here."""
    path = foundation_files.place(entry, template_root())
    if entry.elements or not path.is_file():
        return (entry.elements or "").split()
    from retemper.models import mace

    return [chemical_symbols[z] for z in mace.elements(path)]


def fitting(symbols: Sequence[str], level: str | None, *, molecular: bool) -> list[str]:
    """Names of the released foundations that know the elements, the best fitting first.

    The level's functional counts most, then the kind of structures, then size, then a licence that asks nothing; of
    what is alike the latest.
    """
    entries = list(foundations.shipped().values())
    able = [e for e in entries if e.served and e.elements and set(symbols) <= set(e.elements.split())]

    def order(entry: Foundation) -> tuple[bool, bool, int, bool, int]:
        terms = foundations.licence(entry)
        return (
            level is not None and functional(level) != functional(entry.level_of_theory),
            molecular != str(entry.mace).startswith(MOLECULAR),
            next((k for k, size in enumerate(SIZES) if size in entry.name), len(SIZES)),
            terms is not None and terms.accept,
            -entries.index(entry),
        )

    return [entry.name for entry in sorted(able, key=order)]


def functional(level: str) -> str:
    """The functional of a level of theory as it is compared: ``PBE+U`` and ``pbe (VASP)`` are both pbe."""
    return re.split(r"[^a-z0-9]", level.strip().lower().replace("ω", "w"))[0]


def ask(choice: Choice) -> Predict | None:
    """What the foundation predicts for frames; `None` where its weights are not here."""
    if not choice.here:
        return None
    from retemper.models import heads, library
    from retemper.prepare.predictor import predictor

    library.import_mace()
    weights = foundation_files.place(choice.entry, template_root())
    return predictor(weights, heads.of_entry(choice.entry, weights), "cpu")


def force_error(predict: Predict, labelled: Labelled) -> tuple[float, int] | None:
    """RMSE of its forces (meV/A) on a sample of the structures, and the size of that; `None` where it knows none."""
    predicted = predict(labelled.frames)
    if predicted is None:
        return None
    errors = [forces - frame.arrays[FORCES] for frame, forces in zip(predicted.frames, predicted.forces, strict=True)]
    return 1000.0 * float(np.sqrt(np.mean(np.concatenate(errors) ** 2))), len(errors)
