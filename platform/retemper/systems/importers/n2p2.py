"""RuNNer's and n2p2's ``input.data``: blocks from ``begin`` to ``end``, by default in Bohr and Hartree.

A block has up to three ``lattice`` lines, an ``atom`` line an atom (x y z element charge atomic-energy
fx fy fz), ``energy``, ``charge`` and ``comment``. RuNNer 2 may list the columns after ``begin``
(``position(3) element charge force(3)``); then that order counts.

References
----------
n2p2: A. Singraber et al., J. Chem. Theory Comput. 15, 3075 (2019), and its manual, "Configuration file format".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers

from retemper.config.settings import Section
from retemper.core.errors import RetemperError
from retemper.data.charge import CHARGE
from retemper.data.frames import ENERGY, FORCES
from retemper.data.units import energy_factor, length_factor
from retemper.systems.listing import OPENERS

COLUMNS = ["position(3)", "element", "charge", "energy", "force(3)"]
Line = tuple[int, list[str]]  # number, words


class Options(Section):
    length_unit: str = "Bohr"
    energy_unit: str = "Hartree"


def frames(source: Path, options: Options) -> Iterator[Atoms]:
    """Structures in the file's order.

    Raises
    ------
    RetemperError
        A line or a block that is not of this format; the line is named.
    """
    length, energy = length_factor(options.length_unit), energy_factor(options.energy_unit)
    block: list[Line] = []
    with OPENERS.get(source.suffix, open)(source, "rt") as file:
        for number, line in enumerate(file, start=1):
            words = line.split()
            if not words or words[0].startswith("#"):
                continue
            if (words[0] == "begin") == bool(block):
                raise _wrong(source, number, "'end' before the next 'begin'" if block else "'begin'", line)
            block.append((number, words))
            if words[0] == "end":
                yield _atoms(source, block, length, energy)
                block = []
    if block:
        raise _wrong(source, block[0][0], "a block that ends with 'end'", "the end of the file")


def _atoms(source: Path, block: list[Line], length: float, energy: float) -> Atoms:
    """One block as a structure with labels."""
    columns = _columns(block[0][1][1:] or COLUMNS)
    lattice, atoms, totals = [], [], {}
    comment = ""
    for number, words in block[1:-1]:
        try:
            if words[0] == "lattice":
                lattice.append([float(word) for word in words[1:4]])
            elif words[0] == "atom":
                atoms.append(_atom(words[1:], columns))
            elif words[0] in ("energy", "charge"):
                totals[words[0]] = float(words[1])
            elif words[0] == "comment":
                comment = " ".join(words[1:])
            else:
                raise ValueError(words[0])
        except (ValueError, IndexError, KeyError):
            expected = f"lattice, atom ({len(columns)} kinds of columns), energy, charge or comment with its numbers"
            raise _wrong(source, number, expected, " ".join(words)) from None
    number = block[0][0]
    if not atoms or "energy" not in totals:
        raise _wrong(source, number, "a block with atoms and an energy", f"{len(atoms)} atoms, {sorted(totals)}")
    if len(lattice) not in (0, 3):
        raise _wrong(source, number, "no or three lattice vectors", f"{len(lattice)}")
    table = np.array([row for _, row in atoms])
    frame = Atoms([z for z, _ in atoms], positions=table[:, :3] * length)
    if lattice:
        frame.cell, frame.pbc = np.array(lattice) * length, True
    frame.info[ENERGY] = totals["energy"] * energy
    frame.arrays[FORCES] = table[:, 3:] * (energy / length)
    if totals.get("charge"):
        frame.info[CHARGE] = totals["charge"]
    if comment:
        frame.info["comment"] = comment
    return frame


def _columns(names: list[str]) -> dict[str, int]:
    """Place of the first number of each column among the words of an atom line."""
    places: dict[str, int] = {}
    place = 0
    for name in names:
        match = re.fullmatch(r"([\w-]+)(?:\((\d+)\))?", name)
        stem, width = (match[1], int(match[2] or 1)) if match else (name, 1)
        places[stem.rstrip("s")] = place  # RuNNer 2 writes both position and positions
        place += width
    return places


def _atom(words: list[str], columns: dict[str, int]) -> tuple[int, list[float]]:
    """Atomic number, and position and force in the file's units."""
    numbers = []
    for name in ("position", "force"):
        place = columns[name]
        numbers += [float(word) for word in words[place : place + 3]]
    if len(numbers) != 6:
        raise ValueError("position or force is not three numbers")
    return atomic_numbers[words[columns["element"]]], numbers


def _wrong(source: Path, number: int, expected: str, got: str) -> RetemperError:
    return RetemperError(
        f"{source}, line {number}: not RuNNer's input.data format.",
        expected=expected,
        got=got.strip()[:80],
        fix="mend the file, or see the docstring of the importer n2p2",
    )
