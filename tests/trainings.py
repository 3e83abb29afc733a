"""Small trainings for the tests of the trainer: sets, plans, runs, weights.

Training data are frames of the embedded GFN2-xTB droplets or molecules; the foundation is a tiny untrained MACE.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import molecule
from conftest import ROOT, TINY_ELEMENTS

from retemper.config import strategies
from retemper.core import weight_files
from retemper.core.files import sha256
from retemper.data.frames import is_isolated_atom, read_frames, write_frames
from retemper.finetune.plan import Line, Plan, counted, head_data, versions
from retemper.models import model_file
from retemper.records.training import Outcome


def droplets() -> list[Atoms]:
    """22 of the embedded droplets, of 26 to 44 atoms."""
    return [a for a in read_frames(ROOT / "data/raw/nacl.extxyz.xz") if not is_isolated_atom(a)][::9][:22]


def molecules() -> list[Atoms]:
    """22 of the embedded molecules, of 5 to 9 atoms, with elements of the tiny models."""
    frames = read_frames(ROOT / "data/raw/molecules.extxyz.xz")
    small = [a for a in frames if 1 < len(a) < 10 and set(a.numbers) <= set(TINY_ELEMENTS)]
    return small[:: len(small) // 22][:22]


def make_files(
    folder: Path, tiny_model: Path, head: str | None = None, frames: list[Atoms] | None = None
) -> dict[str, Any]:
    """Target (`frames`) and replay sets with their reference energies; `head` is the model's to start from."""
    from retemper.models.mace import atomic_energies
    from retemper.models.predict import predict

    frames = droplets() if frames is None else frames
    write_frames(folder / "train.extxyz", frames[:14])
    write_frames(folder / "valid.extxyz", frames[14:22])
    rng = np.random.default_rng(0)
    replay = []
    for k in range(18):
        atoms = molecule(["CH3OH", "NH3", "CH4", "C2H6", "H2O", "CH3Cl"][k % 6])
        atoms.positions += rng.normal(scale=0.05, size=atoms.positions.shape)
        replay.append(atoms)
    labels = predict(tiny_model, replay, head=head, backend="torch")
    for atoms, energy, forces in zip(replay, labels.energy, labels.forces, strict=True):
        atoms.info["REF_energy"], atoms.arrays["REF_forces"] = float(energy), forces
    write_frames(folder / "replay-train.extxyz", replay[:12])
    write_frames(folder / "replay-valid.extxyz", replay[12:])
    e0s = atomic_energies(tiny_model, head)
    zs = sorted(e0s)
    counts = np.array([[np.sum(a.numbers == z) for z in zs] for a in frames[:14]], float)
    own = predict(tiny_model, frames[:14], head=head, backend="torch").energy
    gap = np.array([a.info["REF_energy"] for a in frames[:14]]) - own
    shift = np.linalg.lstsq(counts, gap, rcond=None)[0]
    return {
        "folder": folder,
        "model": tiny_model,
        "head": head,
        "replay_e0s": e0s,
        "target_e0s": {z: e0s[z] + d for z, d in zip(zs, shift, strict=True)},
    }


def make_plan(files: dict[str, Any], name: str, epochs: int = 2, dtype: str = "float64", **overrides: Any) -> Plan:
    strategy = strategies.load(name, ROOT, {key.replace("__", "."): value for key, value in overrides.items()})
    folder, model = files["folder"], files["model"]
    replay = None
    if strategy.replay is not None:
        source = "original" if strategy.replay.labels == "original" else f"foundation:{sha256(model)}"
        replay = head_data(folder / "replay-train.extxyz", folder / "replay-valid.extxyz", source, files["replay_e0s"])
    line = None
    if strategy.interpolate is not None:
        valid, alpha = folder / "replay-valid.extxyz", strategy.interpolate.alpha
        line = Line(None if alpha == "scope" else alpha, 1.0, "drift", str(valid), counted(valid)[1])
    return Plan(
        line=line,
        strategy=strategy,
        seed=3,
        foundation=str(model),
        foundation_sha256=sha256(model),
        foundation_head=files["head"],
        elements=sorted(files["target_e0s"]),
        target=head_data(folder / "train.extxyz", folder / "valid.extxyz", "target", files["target_e0s"]),
        replay=replay,
        epochs=epochs,
        batch_size=4,
        valid_batch_size=4,
        dtype=dtype,
        device="cpu",
        versions=versions(),
    )


def keeping(plan: Plan, files: dict[str, Any], heads: list[str]) -> Plan:
    """`plan` with further heads of the foundation kept alive: the replay set with labels by each."""
    from retemper.models.mace import atomic_energies
    from retemper.prepare import pseudolabel

    folder, model, kept = files["folder"], files["model"], {}
    for head in heads:
        for name in ("train", "valid"):
            frames = read_frames(folder / f"replay-{name}.extxyz")
            labelled = pseudolabel.label(model, frames, name="several", head=head, cache=folder / "labels")
            write_frames(folder / f"{head}-{name}.extxyz", labelled.frames)
        paths = [folder / f"{head}-{name}.extxyz" for name in ("train", "valid")]
        kept[head] = head_data(*paths, f"foundation:{sha256(model)}", atomic_energies(model, head))
    return dataclasses.replace(plan, kept=kept)


def run(plan: Plan, folder: Path) -> tuple[Outcome, list[dict[str, float]]]:
    from retemper.finetune.mace.train import train

    rows: list[dict[str, float]] = []
    return train(plan, folder, rows.append), rows


def weights(folder: Path) -> dict[str, Any]:
    return dict(model_file.read(folder / weight_files.NAME).state_dict())


def weights_of(path: Path) -> dict[str, Any]:
    import torch

    return dict(torch.load(path, weights_only=False).state_dict())
