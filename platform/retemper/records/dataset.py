"""``runs/dataset/manifest.json``: what the sets of structures hold, where they come from, and what was left out."""

from __future__ import annotations

from collections.abc import Mapping

from retemper.config.settings import Dataset
from retemper.records.record import Part, Record


class EnergyRange(Part):
    """Energies per atom of a set, eV/atom."""

    min: float
    max: float


class ForceSizes(Part):
    """Forces of a set, eV/A: RMS of the components, and the largest force on an atom."""

    rms: float
    max: float


class StructureSet(Part):
    """Numbers of one set."""

    frames: int
    atoms: int
    hash: str  # of structures and labels
    elements: list[str]
    config_types: dict[str, int]  # frames by config_type
    groups: int
    formulas: int
    compositions: dict[str, int]  # frames of the most frequent formulas
    with_stress: int
    periodic: int
    energy_per_atom: EnergyRange | None = None  # without labels, or with one that is not finite: None
    force: ForceSizes | None = None


class Source(Part):
    """A file that was read."""

    file: str
    sha256: str
    bytes: int


class JoinedRound(Part):
    """A round of active learning in the sets."""

    round: int
    sha256: str  # of its labelled structures
    identity: str | None
    frames_read: int
    train: int
    valid: int
    rejected: int
    reasons: dict[str, int]  # rejected frames by kind of reason


class Groups(Part):
    """How frames were grouped for the split."""

    rule: str
    groups: int


class Subset(Part):
    """The order that ``dataset.max_train`` cuts: of the training frames, and of their sources."""

    rule: str
    seed: int
    of: int
    order_hash: str | None  # None: nothing was cut


class Nearness(Part):
    """How near one held-out set lies to the training set; `retemper.data.nearness` judges it."""

    frames: int
    judged: int  # that could be
    near: int  # a training frame
    nearest: float | None = None  # A, median RMS displacement of the near frames to their nearest training frame
    usual: float | None = None  # A, the same to any training frame with the same atoms


class LevelOfTheory(Part):
    """What made the labels, as the settings and the frames' info say."""

    declared: str
    info_keys: dict[str, dict[str, int]]  # frames by info key and value
    left_out: int  # frames of files at another level


class Units(Part):
    """Units of the labels, and how they were tested; by file."""

    energy: str
    length: str
    evidence: dict[str, list[str]]
    untested: dict[str, list[str]]


class DatasetManifest(Record):
    """The data set: counts, ranges, hashes and provenance."""

    STAGE = "dataset"

    system: str
    sets: dict[str, StructureSet]  # train, valid, test, isolated, unused, rejected
    unused: dict[str, int]  # sound frames by kind of reason
    rejected: dict[str, int]
    elements: list[str]
    sources: list[Source]
    settings: Dataset
    software: dict[str, str]
    frames_read: int
    rounds: list[JoinedRound]
    grouping: Groups
    subset: Subset
    audited: list[str]  # pairs of sets that share nothing
    nearness: dict[str, Nearness]
    level_of_theory: LevelOfTheory
    units: Units
    warnings: list[str]

    def labels_used(self) -> str:
        """How many labels that were read are in no set, and why; of each round as well."""

        def listed(kinds: Mapping[str, int]) -> str:
            return f" ({', '.join(f'{kind} {number}' for kind, number in kinds.items())})" if kinds else ""

        idle = self.rejected | self.unused
        parts = [f"{sum(idle.values())} of {self.frames_read} structures not used{listed(idle)}"]
        parts += [
            f"round {entry.round}: {entry.train + entry.valid} of {entry.frames_read} labels used"
            + listed(entry.reasons)
            for entry in self.rounds
        ]
        return "; ".join(parts)
