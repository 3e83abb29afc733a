"""The model card of an embedded foundation: what it was trained on and how wrong it is."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from ase.stress import voigt_6_to_full_3x3_stress

from retemper import foundations
from retemper.files import atomic_write, sha256
from retemper.frames import ENERGY, FORCES, STRESS, elements, is_isolated_atom, read_frames
from retemper.inference import predict

REAL_DATA = "RETEMPER_DATA"  # optional folder with real/mptrj_pbe_22el.extxyz


def errors(model: Path, frames: list) -> dict[str, dict[str, float]]:
    """Errors by configuration type and in all.

    Returns
    -------
    dict
        ``{type: {frames, energy_mae, energy_rmse (meV/atom), force_mae, force_rmse (meV/A),
        stress_rmse (meV/A^3)}}``; the energies of "shifted" have a per-element offset fitted away.
    """
    frames = [frame for frame in frames if not is_isolated_atom(frame)]
    predicted = predict(model, frames, backend="torch", progress=True)
    energy = np.array([(e - f.info[ENERGY]) / len(f) for e, f in zip(predicted.energy, frames, strict=True)]) * 1e3
    force = [(p - f.arrays[FORCES]) * 1e3 for p, f in zip(predicted.forces, frames, strict=True)]
    stress = [
        (p - _full(f.info[STRESS])) * 1e3 if STRESS in f.info else None
        for p, f in zip(predicted.stress, frames, strict=True)
    ]
    kinds = np.array([str(f.info.get("config_type", "all")) for f in frames])
    table = {}
    for kind in [*sorted(set(kinds)), "all"]:
        chosen = np.flatnonzero((kinds == kind) | (kind == "all"))
        f = np.concatenate([force[i].ravel() for i in chosen])
        s = [stress[i] for i in chosen if stress[i] is not None]
        table[kind] = {
            "frames": len(chosen),
            "energy_mae": float(np.abs(energy[chosen]).mean()),
            "energy_rmse": float(np.sqrt(np.mean(energy[chosen] ** 2))),
            "force_mae": float(np.abs(f).mean()),
            "force_rmse": float(np.sqrt(np.mean(f**2))),
            "stress_rmse": float(np.sqrt(np.mean(np.square(np.array(s, dtype=float))))) if s else float("nan"),
        }
    return table


def _full(stress: Any) -> np.ndarray:
    """Stress [3, 3] from 3x3, 9 or Voigt 6 values."""
    values = np.asarray(stress, dtype=float)
    return voigt_6_to_full_3x3_stress(values) if values.size == 6 else values.reshape(3, 3)


def _rows(table: dict[str, dict[str, float]]) -> str:
    head = "| configurations | frames | energy MAE | energy RMSE | force MAE | force RMSE | stress RMSE |\n"
    head += "|---|---|---|---|---|---|---|\n"
    body = ""
    for kind, row in table.items():
        stress = "" if np.isnan(row["stress_rmse"]) else f"{row['stress_rmse']:.1f}"
        body += (
            f"| {kind} | {row['frames']} | {row['energy_mae']:.1f} | {row['energy_rmse']:.1f} "
            f"| {row['force_mae']:.0f} | {row['force_rmse']:.0f} | {stress} |\n"
        )
    return head + body


def write_card(name: str, root: Path) -> str:
    """Evaluate the model file of entry `name` and write ``foundations/<name>.md``; returns its text.

    The sha256 in the card is the file's own: copy it into ``foundations.yaml`` after a new training.
    """
    entry = foundations.find(name, root)
    assert entry.file and entry.pool and entry.retention
    model = root / entry.file
    pool, held_out = read_frames(root / entry.pool), read_frames(root / entry.retention)
    kinds = Counter(str(frame.info["config_type"]) for frame in pool)
    content = ", ".join(f"{n} {kind}" for kind, n in sorted(kinds.items()))
    text = f"""# {name}

{entry.about}

| | |
|---|---|
| file | `{entry.file}`, {model.stat().st_size / 1e6:.1f} MB |
| sha256 | `{sha256(model)}` |
| level of theory | {entry.level_of_theory} |
| elements ({len(elements(pool))}) | {" ".join(elements(pool))} |
| licence | {entry.licence} |
| labels | {entry.citation} |
| trained on | {len(pool)} structures, {sum(map(len, pool))} atoms: {content} |
| settings | `foundations/pretraining/mace.yaml` |
| made by | `python -m pipelines.pretrain` (structures and labels: `foundations/pretraining/structures.py`) |

It exists so that examples and tests run without a network. It is far less accurate than a real
foundation; do not use it for science.

## Held-out errors

`{entry.retention}`: whole groups (prototypes, molecules, trajectories) that training never saw.
meV/atom, meV/A, meV/A^3.

{_rows(errors(model, held_out))}"""
    real = Path(os.environ.get(REAL_DATA, "")) / "real/mptrj_pbe_22el.extxyz"
    if os.environ.get(REAL_DATA) and real.is_file():
        known = set(elements(pool))
        frames = [frame for frame in read_frames(real) if set(frame.symbols) <= known]
        for frame in frames:
            frame.info["config_type"] = "MPtrj"
        text += f"""
## Real MPtrj structures

{len(frames)} random MPtrj frames (PBE and PBE+U, CC-BY-4.0) with these elements only.

{_rows({"MPtrj": errors(model, frames)["all"]})}"""
    with atomic_write(root / f"foundations/{name}.md") as path:
        path.write_text(text)
    return text
