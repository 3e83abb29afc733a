"""Records of the stages before training, for tests of what reads them."""

from __future__ import annotations

from typing import Any

from retemper.config.settings import Dataset
from retemper.records.dataset import (
    DatasetManifest,
    EnergyRange,
    ForceSizes,
    Groups,
    JoinedRound,
    LevelOfTheory,
    Source,
    StructureSet,
    Subset,
    Units,
)

COUNTS = {"train": 40, "valid": 6, "test": 8, "isolated": 0, "unused": 2, "rejected": 3}


def manifest(**fields: Any) -> DatasetManifest:
    """A data set of 57 structures; `fields` are set to other values."""
    sets = {
        name: StructureSet(
            frames=frames,
            atoms=7 * frames,
            hash=f"hash of {name}",
            elements=["H", "Na", "O"],
            config_types={"salt": frames},
            groups=frames // 2,
            formulas=1,
            compositions={"H4NaO2": frames},
            with_stress=0,
            periodic=0,
            energy_per_atom=EnergyRange(min=-14.4, max=-14.2) if frames else None,
            force=ForceSizes(rms=1.02, max=3.9) if frames else None,
        )
        for name, frames in COUNTS.items()
    }
    content: dict[str, Any] = {
        "system": "salt",
        "sets": sets,
        "unused": {"beyond dataset.max_train": 2},
        "rejected": {"duplicate": 2, "dataset.max_force": 1},
        "elements": ["H", "Na", "O"],
        "sources": [Source(file="data/raw/salt.extxyz", sha256="0" * 64, bytes=1000)],
        "settings": Dataset(files=["data/raw/salt.extxyz"], level_of_theory="GFN2-xTB"),
        "software": {},
        "frames_read": 57,
        "rounds": [],
        "grouping": Groups(rule="composition", groups=12),
        "subset": Subset(rule="groups", seed=0, of=42, order_hash=None),
        "audited": [],
        "nearness": {},
        "level_of_theory": LevelOfTheory(declared="GFN2-xTB", info_keys={}, left_out=0),
        "units": Units(energy="eV", length="Angstrom", evidence={}, untested={}),
        "warnings": [],
    }
    return DatasetManifest(**content | fields)


def joined_round(read: int, used: int, **reasons: int) -> JoinedRound:
    """The first round, of whose structures `used` are in the sets: one for validation, the rest for training."""
    return JoinedRound(
        round=1,
        sha256="0" * 64,
        identity=None,
        frames_read=read,
        train=max(used - 1, 0),
        valid=min(used, 1),
        rejected=read - used,
        reasons=reasons,
    )
