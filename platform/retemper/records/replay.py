"""``runs/replay/manifest.json``: which pretraining structures are replayed, and how they were chosen."""

from __future__ import annotations

from retemper.records.record import Part, Record


class LabelledSet(Part):
    """Counts and identity of labelled structures."""

    n_frames: int
    n_atoms: int
    labels_hash: str  # of structures and labels
    config_types: dict[str, int]
    elements: dict[str, int]  # structures by symbol


class Coverage(Part):
    """Largest distance, in descriptors, from a candidate to the nearest chosen structure."""

    radius: float
    radius_random: float  # of as many at random


class ReplayManifest(Record):
    """The replay set; without a pool both sets are empty."""

    STAGE = "replay"

    source: str | None  # the pool
    sha256: str | None  # of it
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
