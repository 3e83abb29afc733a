"""Records of the stages before training, for tests of what reads them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from ase.data import chemical_symbols

from retemper.config.project import Project
from retemper.config.settings import Dataset, Settings
from retemper.core import files
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
from retemper.records.e0s import Candidate, EnergyError, Evidence, Levels, ReferenceEnergies, Unavailable
from retemper.records.pseudolabel import LabelErrors, PseudolabelledSet, PseudolabelManifest
from retemper.records.replay import Coverage, KeptApart, LabelledSet, PoolOfReplay, ReplayManifest

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


def e0s(energies: Mapping[int, float], **fields: Any) -> ReferenceEnergies:
    """Reference energies, eV; `fields` are set to other values."""
    error = EnergyError(rmse=41.0, mae=33.0, max=120.0, mean=0.4)
    symbols = [chemical_symbols[z] for z in energies]
    known = Evidence(rests_on="frames", clusters=6.0, standard_error=0.05, off_free_atom=None)
    content: dict[str, Any] = {
        "method": "reestimate",
        "E0s": dict(energies),
        "elements_in_data": symbols,
        "isolated_atoms": [],
        "frames": {"train": 40, "valid": 6},
        "rank": len(symbols),
        "n_elements": len(symbols),
        "condition_number": 12.5,
        "ratios": [],
        "open_ratios": [],
        "deficient": [],
        "add_atoms": [],
        "error_per_atom": error,
        "new_compositions": 52.0,
        "evidence": dict.fromkeys(symbols, known),
        "left_out": {"of another charge than most": 1, "odd, and weigh less": 0},
        "candidates": {
            "foundation": Candidate(E0s=dict(energies), error_per_atom=error.model_copy(update={"rmse": 3100.0})),
            "reestimate": Candidate(E0s=dict(energies), error_per_atom=error),
            "isolated": Unavailable(reason=f"no free atoms of {', '.join(symbols)}"),
        },
        "levels": Levels(frames=0, scatter=None, findings=[], sentence="not tested"),
    }
    return ReferenceEnergies(**content | fields)


def replay() -> ReplayManifest:
    """Three structures of 900."""
    part = LabelledSet(
        n_frames=3, n_atoms=21, labels_hash="a", config_types={"salt": 3}, elements={"H": 3, "Na": 3, "O": 3}
    )
    pool = PoolOfReplay(
        name="foundations/pool.extxyz",
        sha256="0" * 64,
        labels="original",
        agreement=None,
        structures=900,
        train=3,
        valid=3,
    )
    return ReplayManifest(
        pools=[pool],
        retention=KeptApart(source="foundations/test.extxyz", labels="original", structures=4),
        select="farthest-point",
        seed=0,
        left_out={},
        findings=[],
        candidates=900,
        groups_for_validation=10,
        coverage=Coverage(radius=0.5, radius_random=0.9),
        train=part,
        valid=part,
    )


def pseudolabel(sha256: str = "0" * 64, train: str = "a", valid: str = "b") -> PseudolabelManifest:
    """Labels by the foundation with this sha256; `train` and `valid` are their hashes."""
    parts = {
        name: PseudolabelledSet(
            address="a",
            n_frames=3,
            labels_hash=labels,
            structures_sha256="0" * 64,
            labels_sha256="0" * 64,
            rmse_to_original=LabelErrors(energy=11.0, force=45.0, stress=None),
        )
        for name, labels in (("train", train), ("valid", valid))
    }
    return PseudolabelManifest(
        foundation="tiny", sha256=sha256, head="Default", dtype="float64", retemper="0.1.0", **parts
    )


def project(root: Path, model: Path, **sections: Any) -> Project:
    """A project whose foundation is `model`, with these sections of settings."""
    entry = {"about": "a", "level_of_theory": "b", "licence": "c", "citation": "d"}
    entry |= {"file": str(model), "sha256": files.sha256(model)}
    (root / "foundations").mkdir(exist_ok=True)
    (root / "foundations/foundations.yaml").write_text(yaml.safe_dump({"tiny": entry}))
    content = {"system": "test", "foundation": "tiny", "strategies": ["naive"], "seeds": [1]}
    dataset = {"files": ["some.extxyz"], "level_of_theory": "test"}
    return Project(root, Settings.model_validate({**content, "dataset": dataset, **sections}))
