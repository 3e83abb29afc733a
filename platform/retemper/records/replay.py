"""``runs/replay/manifest.json``: which pretraining structures are replayed, and how they were chosen."""

from __future__ import annotations

from typing import Literal

from retemper.records.record import Part, Record


class LabelledSet(Part):
    """Counts and identity of labelled structures."""

    n_frames: int
    n_atoms: int
    labels_hash: str  # of structures and labels
    config_types: dict[str, int]
    elements: dict[str, int]  # structures by symbol


class Agreement(Part):
    """Labels of a sample of the pool against the foundation's predictions."""

    frames: int
    energy: float  # median |difference|, meV/atom
    energy_without_offsets: float  # the same after one energy an element is taken out
    offsets: dict[str, float]  # by element: labels minus predictions, eV
    force_rmse: float  # meV/A
    force_rmse_by_element: dict[str, float]  # meV/A
    stress_rmse: float | None  # meV/A^3; None where no frame has stress


class Coverage(Part):
    """Largest distance, in descriptors, from a candidate to the nearest chosen structure."""

    radius: float
    radius_random: float  # of as many at random


class PoolOfReplay(Part):
    """One of the pools."""

    name: str  # file, or "generated"
    sha256: str | None  # of the file
    labels: Literal["original", "foundation"]  # whose the labels of its structures are
    agreement: Agreement | None  # of original labels; None where the foundation knows none of the elements
    structures: int
    train: int  # chosen ones
    valid: int


class PoolFinding(Part):
    """Something odd about the pools that does not stop the stage."""

    kind: str  # level of theory, no stress, labels differ, groups of <set>, near <set>
    number: int  # structures
    of: int  # structures that were looked at
    text: str


class KeptApart(Part):
    """What is forgotten is measured on."""

    source: str  # file of the settings or the foundation's entry; else the pools that structures were kept apart from
    labels: Literal["original", "foundation"]  # "foundation": its own predictions, from which models drift
    structures: int  # none of which is replayed


class ReplayManifest(Record):
    """The replay set, and what is kept apart from it."""

    FORM = 2
    STAGE = "replay"

    pools: list[PoolOfReplay]
    retention: KeptApart | None  # None: there were too few structures to keep any apart
    select: str
    seed: int
    left_out: dict[str, int]  # structures of the pools by reason
    findings: list[PoolFinding]
    candidates: int
    groups_for_validation: int
    coverage: Coverage | None  # of farthest-point sampling
    train: LabelledSet
    valid: LabelledSet

    @property
    def source(self) -> str:
        """The pools."""
        return ", ".join(pool.name for pool in self.pools)

    @property
    def labels(self) -> Literal["original", "foundation"]:
        """ "original" where all chosen structures have labels of their own."""
        origins = (pool.labels for pool in self.pools if pool.train or pool.valid)
        return "original" if set(origins) <= {"original"} else "foundation"
