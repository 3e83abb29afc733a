"""The model card of an embedded foundation: what it was trained on and how wrong it is."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import numpy as np
from ase import Atoms

from retemper.config import foundations
from retemper.core.files import atomic_write, sha256
from retemper.data.frames import elements, is_isolated_atom, read_frames
from retemper.evaluation import accuracy
from retemper.models.predict import predict
from retemper.models.predictions import Predictions

REAL_DATA = "RETEMPER_DATA"  # optional folder with real/mptrj_pbe_22el.extxyz


def errors(model: Path, frames: list[Atoms]) -> dict[str, dict[str, float]]:
    """Errors by configuration type, and of "all" frames; free atoms are left out.

    Returns
    -------
    dict
        ``{type: {"frames": n, ...}}`` with the metrics of `accuracy.values`: meV/atom, meV/A, meV/A^3;
        NaN for stress without labels.
    """
    frames = [frame for frame in frames if not is_isolated_atom(frame)]
    predicted = predict(model, frames, backend="torch", progress=True)
    kinds = [str(frame.info.get("config_type", "all")) for frame in frames]
    table = {}
    for kind in [*sorted(set(kinds) - {"all"}), "all"]:
        indices = [i for i, frame_kind in enumerate(kinds) if kind in (frame_kind, "all")]
        part = Predictions(
            energy=predicted.energy[indices],
            forces=[predicted.forces[i] for i in indices],
            stress=predicted.stress[indices],
            backend=predicted.backend,
        )
        table[kind] = {
            "frames": len(indices),
            **accuracy.values(accuracy.frame_errors([frames[i] for i in indices], part, [kind] * len(indices))),
        }
    return table


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
| settings | `foundations/pretraining/mace.yaml` and `generations.yaml` |
| made by | `python -m pipelines.pretrain {name}` (structures and labels: `foundations/pretraining/structures.py`) |

It exists so that examples and tests run without a network. It is far less accurate than a real
foundation; do not use it for science.

## Held-out errors

`{entry.retention}`: whole groups (prototypes, molecules, trajectories) that training never saw.
meV/atom, meV/A, meV/A^3.

{_rows(errors(model, held_out))}"""
    real = Path(os.environ.get(REAL_DATA, "")) / "real/mptrj_pbe_22el.extxyz"
    if os.environ.get(REAL_DATA) and real.is_file():
        symbols = set(elements(pool))
        frames = [frame for frame in read_frames(real) if set(frame.symbols) <= symbols]
        for frame in frames:
            frame.info["config_type"] = "MPtrj"
        text += f"""
## Real MPtrj structures

{len(frames)} random MPtrj frames (PBE and PBE+U, CC-BY-4.0) with these elements only.

{_rows({"MPtrj": errors(model, frames)["all"]})}"""
    with atomic_write(root / f"foundations/{name}.md") as path:
        path.write_text(text)
    return text
