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


class ReplayManifest(Record):
    """The replay set; without a pool both sets are empty."""

    STAGE = "replay"

    source: str | None  # the pool: a file, or "generated"
    sha256: str | None  # of the file
    labels: Literal["original", "foundation"]  # whose the labels of the chosen structures are
    agreement: Agreement | None  # of original labels; None where the foundation knows none of the elements
    select: str
    seed: int
    pool: int  # structures in it
    left_out: dict[str, int]  # of these by reason
    candidates: int
    groups_for_validation: int
    coverage: Coverage | None  # of farthest-point sampling
    audited_against_retention: int  # structures of the retention set, none of which is replayed
    train: LabelledSet
    valid: LabelledSet
