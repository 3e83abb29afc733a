"""What the metrics measure on, and how much: the same for every model that is compared."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from retemper.core.errors import unknown
from retemper.models.evaluators import Subject
from retemper.simulation.engine import Task

Plan = dict[Hashable, Task]  # what a metric computes, each under a key of its choice
Computed = Mapping[Any, Any]  # the results of a plan's tasks under the same keys; a `Failure` of one that failed
LEVELS = ("quick", "standard", "thorough")


class NotApplicableError(Exception):
    """A metric cannot be measured here; the text says why and what to give."""


@dataclass(frozen=True)
class Context:
    """Everything a metric may use. Metrics must do with what is missing: raise `NotApplicableError`."""

    subject: Subject
    elements: tuple[int, ...]  # atomic numbers to test
    level: str = "quick"
    frames: list[Atoms] = field(default_factory=list)  # structures of the target system: starts of dynamics
    reference: list[Atoms] = field(default_factory=list)  # frames that radial distributions are compared with
    retention: list[Atoms] = field(default_factory=list)  # labelled structures of the pretraining domain
    free_atoms: dict[int, float] = field(default_factory=dict)  # reference energies of isolated atoms, eV
    oracle: Subject | None = None  # the reference method
    oracle_level: str | None = None  # its level of theory; None: not known
    target_level: str | None = None  # that of the data set
    foundation: Subject | None = None  # measure of forgetting
    other_heads: tuple[Subject, ...] = ()  # the same model with its other heads
    figures: Path | None = None  # folder of reference figures (S66, ice)
    temperature: float = 300.0  # K
    seed: int = 0

    def __post_init__(self) -> None:
        if self.level not in LEVELS:
            raise unknown("level", self.level, LEVELS)

    @property
    def symbols(self) -> list[str]:
        return [chemical_symbols[z] for z in self.elements]

    @property
    def against(self) -> str | None:
        """What a number against the oracle says little of, where it is not at the data's level; `None` where it is."""
        if self.target_level is None or self.oracle is None:
            return None
        if self.oracle_level is None:
            return (
                f"against an oracle whose level is not known (robustness.oracle_level); the data: {self.target_level}"
            )
        levels = ["".join(level.split()).casefold() for level in (self.oracle_level, self.target_level)]
        return None if levels[0] == levels[1] else f"against {self.oracle_level}, the data are at {self.target_level}"

    def of_known_elements(self, frames: Sequence[Atoms]) -> list[Atoms]:
        """Those of `frames` whose elements the model knows."""
        elements = self.subject.known()
        return [a for a in frames if elements is None or set(a.numbers.tolist()) <= set(elements)]


def group_of(atoms: Atoms) -> str:
    """What a frame belongs to, with frames that are alike: the info key ``group``, else its composition."""
    return str(atoms.info.get("group", atoms.get_chemical_formula()))


def starts(frames: Sequence[Atoms], number: int, seed: int = 0) -> list[Atoms]:
    """`number` of `frames`, one of each composition in turn, and of each group within these.

    Deterministic; repeated when there are fewer.
    """
    rng = np.random.default_rng(seed)
    order = [frames[i] for i in rng.permutation(len(frames))]
    for name in (group_of, lambda atoms: (atoms.get_chemical_formula(), bool(atoms.pbc.any()))):
        order = _in_turn(order, name)
    return [order[i % len(order)] for i in range(number)] if order else []


def _in_turn(frames: Sequence[Atoms], name: Callable[[Atoms], Hashable]) -> list[Atoms]:
    """`frames`, one of each name in turn."""
    queues: dict[Hashable, list[Atoms]] = {}
    for atoms in frames:
        queues.setdefault(name(atoms), []).append(atoms)
    return [atoms for together in zip_longest(*queues.values()) for atoms in together if atoms is not None]
