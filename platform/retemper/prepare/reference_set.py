"""Labelled structures of the pretraining domain (a replay pool, a retention set), checked as the data set's own are."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from ase import Atoms

from retemper.config.pretraining_data import PoolSource
from retemper.config.settings import Dataset
from retemper.core.errors import RetemperError
from retemper.core.output import log
from retemper.data import checks, frame_weights
from retemper.data.frames import ENERGY, FORCES, is_isolated_atom, read_frames
from retemper.data.labels import look_up, plain, stream_labels
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
    sound = _sound(frames, [_fault(atoms, limits) for atoms in frames], str(path), limits)
    for atoms in sound if limits.weights != "use" else []:
        for key in [key for key in atoms.info if frame_weights.is_weight(key)]:
            del atoms.info[key]
    return sound


def read_pool(path: Path, pool: PoolSource, limits: Dataset) -> list[Atoms]:
    """Frames of a pool with its labels under retemper's keys, or all without; broken ones are left out and counted.

    Raises
    ------
    RetemperError
        As `read`; keys that were asked for and that no frame has; labels of some frames that others lack, where
        these are more than ``dataset.max_rejected``.
    """
    frames, keys = read_frames(path), pool.keys
    labelled = any(look_up(atoms, key) is not None for atoms in frames for key in (keys.energy, keys.forces))
    if labelled or keys.model_fields_set:
        dataset = limits.model_copy(update={"keys": keys, "energy_unit": "eV", "length_unit": "Angstrom"})
        mapped = list(stream_labels(lambda: frames, dataset, pool.name, "keys of replay.pools: keys"))
        faults = [fault or _fault(new, limits) for new, fault, _ in mapped]
        return _sound([new for new, _, _ in mapped], faults, pool.name, limits)
    if any(look_up(atoms, "energy") is not None and look_up(atoms, "forces") is not None for atoms in frames):
        log.info(
            f"replay: {pool.name} has no {keys.energy} and {keys.forces}, but energy and forces: they are not read; "
            f"with `- {{pool: {pool.name}, keys: {{energy: energy, forces: forces, stress: stress}}}}` they are"
        )
    bare = [plain(atoms, f"{pool.name}:{k}", keys) for k, atoms in enumerate(frames)]
    return _sound(bare, [checks.frame_fault(atoms, limits) for atoms in bare], pool.name, limits)


def _sound(frames: list[Atoms], faults: list[str | None], name: str, limits: Dataset) -> list[Atoms]:
    """Frames without faults; the others are counted, and too many raise."""
    kinds = Counter(reason_kind(fault) for fault in faults if fault is not None)
    if sum(kinds.values()) > limits.max_rejected * len(frames):
        first = next(k for k, fault in enumerate(faults) if fault is not None)
        raise RetemperError(
            f"{name}: {sum(kinds.values())} of {len(frames)} frames fail the checks: "
            + "; ".join(f"{kind} ({number})" for kind, number in kinds.most_common(8)),
            expected=f"at most {limits.max_rejected:.0%} (dataset.max_rejected)",
            got=f"frame {first}: {faults[first]}",
            fix="mend or remove these frames",
        )
    for kind, number in kinds.items():
        log.info(f"{Path(name).name}: {number} frame(s) left out: {kind}")
    return [atoms for atoms, fault in zip(frames, faults, strict=True) if fault is None]


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
