"""What explorers work with and give: starts with their lineage, candidates, and what is unphysical among them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ase import Atoms

from retemper.data import charge
from retemper.data.labels import reject
from retemper.models.evaluators import Subject, unusable
from retemper.simulation.engine import Task
from retemper.simulation.random_structures import nearest_ratio
from retemper.simulation.stability import CLOSE


@dataclass(frozen=True)
class Context:
    """What every explorer is given."""

    subject: Subject  # the model that explores
    starts: list[Atoms]  # labelled structures of training and validation, with their group
    elements: tuple[int, ...]  # atomic numbers of the data
    number: int  # structures wanted
    seed: int
    run: Callable[[Sequence[Task]], list[Any]]  # results of tasks in their order, kept for a resumed round


@dataclass
class Explored:
    """What exploring found. Paths are in order of time: a candidate's ``info["path"]`` names its own."""

    frames: list[Atoms] = field(default_factory=list)
    unphysical: list[Atoms] = field(default_factory=list)  # with info["reason"]
    notes: list[str] = field(default_factory=list)  # for people: what stopped, what failed

    def add(self, atoms: Atoms) -> bool:
        """Sort a candidate in by what `fault` says; whether it is sound."""
        reason = fault(atoms)
        if reason:
            self.unphysical.append(reject(atoms, reason))
        else:
            self.frames.append(atoms)
        return not reason

    def merge(self, other: Explored) -> None:
        self.frames += other.frames
        self.unphysical += other.unphysical
        self.notes += other.notes


def fault(atoms: Atoms) -> str:
    """Why no oracle should see a structure, or ""."""
    reason = unusable(atoms)
    if reason:
        return reason
    ratio = nearest_ratio(atoms)
    return f"atoms at {ratio:.2f} times the sum of their covalent radii" if ratio < CLOSE else ""


def descend(start: Atoms, atoms: Atoms, explorer: str, path: str, **info: Any) -> Atoms:
    """`atoms` as a candidate: positions and cell as files keep them, lineage, charge and spin of its `start`."""
    candidate = Atoms(atoms.numbers, atoms.positions.round(8), cell=atoms.cell.array.round(8), pbc=atoms.pbc)
    candidate.info = charge.info_of(start) | {key: start.info[key] for key in ("group",) if key in start.info}
    candidate.info |= {"explorer": explorer, "path": path, "start": str(start.info.get("source", "")), **info}
    candidate.info["config_type"] = explorer
    return candidate


def spread(starts: Sequence[Atoms], number: int, seed: int) -> Iterator[tuple[int, Atoms]]:
    """`number` starts, one of every group in turn, in an order that `seed` decides."""
    from retemper.data.splits import nested_order

    order = nested_order([str(atoms.info.get("group", k)) for k, atoms in enumerate(starts)], seed)
    for k in range(number):
        yield k, starts[order[k % len(order)]]


def generator(seed: int, name: str) -> np.random.Generator:
    """Random numbers of one explorer."""
    return np.random.default_rng([seed, *name.encode()])
