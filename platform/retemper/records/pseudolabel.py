"""``runs/pseudolabel/manifest.json``: who labelled the replay structures, and how far that is from their own labels."""

from __future__ import annotations

from retemper.records.record import Part, Record


class LabelErrors(Part):
    """Root mean square differences of two labellings; `None` where no structure has both labels."""

    energy: float | None  # meV/atom
    force: float | None  # meV/A
    stress: float | None  # meV/A^3


class PseudolabelledSet(Part):
    """One set of structures."""

    address: str  # under which the labels are kept
    n_frames: int
    labels_hash: str
    structures_sha256: str  # of the file of the stage replay
    labels_sha256: str  # of the file with the new labels
    rmse_to_original: LabelErrors


class LabelledByHead(Part):
    """The sets with the labels of a further head, in a folder of its name."""

    train: PseudolabelledSet
    valid: PseudolabelledSet


class PseudolabelManifest(Record):
    """Labels by the foundation for the replay set."""

    STAGE = "pseudolabel"

    foundation: str
    sha256: str  # of its weights
    head: str  # of the foundation, that gave the labels
    dtype: str
    retemper: str
    train: PseudolabelledSet
    valid: PseudolabelledSet
    heads: dict[str, LabelledByHead] = {}  # by further heads that are kept alive
