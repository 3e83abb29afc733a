"""Labelled structures of the pretraining domain (a replay pool, a retention set), checked as the data set's own are."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from ase import Atoms

from retemper.config.settings import Dataset
from retemper.core.errors import RetemperError
from retemper.data import checks, frame_weights
from retemper.data.frames import ENERGY, FORCES, is_isolated_atom, read_frames
from retemper.data.units import require_units
from retemper.data.units.predicted import Predict
from retemper.prepare.manifest import reason_kind


def read(path: Path, limits: Dataset) -> list[Atoms]:
    """Frames with eV and eV/A under ``REF_energy`` and ``REF_forces``; broken ones are left out and counted.

    Weights of frames are dropped with ``dataset.weights: ignore``.

    Raises
    ------
    RetemperError
        Frames with weights of their own that no setting declares, or more broken frames than
        ``dataset.max_rejected``.
    """
    frames = read_frames(path)
    weighted = Counter(key for atoms in frames for key in frame_weights.stated_weights(atoms))
    if weighted and limits.weights == "refuse":
        raise frame_weights.refusal(weighted, str(path))
    faults = [_fault(atoms, limits) for atoms in frames]
    kinds = Counter(reason_kind(fault) for fault in faults if fault is not None)
    if sum(kinds.values()) > limits.max_rejected * len(frames):
        first = next(k for k, fault in enumerate(faults) if fault is not None)
        raise RetemperError(
            f"{path}: {sum(kinds.values())} of {len(frames)} frames fail the checks: "
            + "; ".join(f"{kind} ({number})" for kind, number in kinds.most_common(8)),
            expected=f"at most {limits.max_rejected:.0%} (dataset.max_rejected)",
            got=f"frame {first}: {faults[first]}",
            fix="mend or remove these frames",
        )
    for kind, number in kinds.items():
        print(f"{path.name}: {number} frame(s) left out: {kind}", flush=True)
    sound = [atoms for atoms, fault in zip(frames, faults, strict=True) if fault is None]
    for atoms in sound if limits.weights != "use" else []:
        for key in [key for key in atoms.info if frame_weights.is_weight(key)]:
            del atoms.info[key]
    return sound


def _fault(atoms: Atoms, limits: Dataset) -> str | None:
    """As `checks.frame_fault`; what has no labels, and free atoms, are for the caller to judge."""
    weights = frame_weights.fault(frame_weights.stated_weights(atoms)) if limits.weights == "use" else None
    if weights is not None or is_isolated_atom(atoms) or ENERGY not in atoms.info or FORCES not in atoms.arrays:
        return weights
    return checks.frame_fault(atoms, limits)


def judge_units(frames: list[Atoms], name: str, predict: Predict | None) -> list[str]:
    """Warnings about units of labels that should be eV and eV/A; wrong ones raise."""
    labelled = [atoms for atoms in frames if ENERGY in atoms.info and FORCES in atoms.arrays]
    return require_units({name: labelled}, "eV", "Angstrom", predict).warnings
