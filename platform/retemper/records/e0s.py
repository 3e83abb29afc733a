"""``runs/e0s/e0s.json``: the atomic reference energies, what they rest on, and how other choices compare."""

from __future__ import annotations

from typing import Literal

from retemper.records.record import Part, Record


class EnergyError(Part):
    """What the foundation misses of the frames' energies with some E0s, meV/atom."""

    rmse: float
    mae: float
    max: float
    mean: float


class Candidate(Part):
    """E0s by one method."""

    available: Literal[True] = True
    E0s: dict[int, float]  # eV, by atomic number; elements of the data
    error_per_atom: EnergyError


class Unavailable(Part):
    """A method that the data do not allow."""

    available: Literal[False] = False
    reason: str


class Evidence(Part):
    """What the figure of an element rests on."""

    rests_on: str  # frames, free atom, foundation, or several
    clusters: float  # effective number of compositions or groups
    standard_error: float | None  # eV, of the energy of one atom more; None where nothing tells it
    off_free_atom: float | None  # eV, E0 minus the free atom's energy: error for an atom that leaves a structure


class Separability(Part):
    """What the compositions of the training frames can tell apart."""

    rank: int  # of the frames that decide
    n_elements: int
    condition_number: float  # largest over smallest non-zero singular value
    ratios: list[str]  # fixed ratios of elements, in words
    open_ratios: list[str]  # those that stay open with free atoms as well
    deficient: list[str]  # symbols of elements that stay undetermined, or are known worse than e0s.max_uncertainty
    add_atoms: list[str]  # free atoms that would settle them


class Offset(Part):
    """Frames whose labels have an offset that nothing explains."""

    kind: str
    frames: int
    of: int  # frames that they were compared with, themselves included
    offset: float  # eV/atom
    separation: float  # in scatters
    where: str


class Levels(Part):
    """Whether the labels are of one kind."""

    frames: int  # that were tested
    scatter: float | None  # eV/atom
    findings: list[Offset]
    sentence: str


class ReferenceEnergies(Separability, Record):
    """The E0s of every element of the foundation: those absent from the data have its own."""

    STAGE = "e0s"

    method: str
    E0s: dict[int, float]  # eV, by atomic number
    elements_in_data: list[str]
    isolated_atoms: list[str]
    frames: dict[str, int]  # train, valid
    unit: str = "eV; errors meV/atom"
    error_per_atom: EnergyError  # training and validation frames
    new_compositions: float | None  # meV/atom, RMSE on compositions left out of the fit; None with other methods
    evidence: dict[str, Evidence]  # by symbol
    left_out: dict[str, int]  # training frames by why they do not count, or count for less
    candidates: dict[str, Candidate | Unavailable]  # by method
    levels: Levels

    @property
    def available(self) -> dict[str, Candidate]:
        """The methods that the data allow."""
        return {name: part for name, part in self.candidates.items() if isinstance(part, Candidate)}

    @property
    def unavailable(self) -> dict[str, str]:
        """Why the data do not allow the other methods."""
        return {name: part.reason for name, part in self.candidates.items() if isinstance(part, Unavailable)}
