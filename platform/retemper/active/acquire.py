"""One acquisition: explore, score, choose, label, and write ``data/rounds/NNN``. Killed anywhere, it goes on there."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from retemper.active import calibrate, choose, label, manual, source
from retemper.active.calibrate import Calibration, Scale
from retemper.active.source import Source
from retemper.config.settings import Settings
from retemper.core import weight_files
from retemper.core.errors import RetemperError
from retemper.core.files import atomic_folder, digest, read_json, sha256, write_json
from retemper.data import rounds
from retemper.data.frames import FORCES, read_frames, structure_hash, write_frames
from retemper.data.grouping import groups_of
from retemper.data.splits import uncharged
from retemper.prepare import mixture
from retemper.prepare.one_level import errors_of
from retemper.tracking.lineage import git_commit, versions

UNPHYSICAL = 200  # kept of a round
MUTABLE = {"timeout", "retries", "workers", "ray", "verify", "stop"}  # settings that may change within a round


def acquire(settings: Settings, root: Path, number: int, *, labels: int | None = None, partial: bool = False) -> Path:
    """Make round `number`; returns its folder.

    Parameters
    ----------
    labels
        Structures to label; default: ``acquire.labels``.
    partial
        For the manual oracle: structures that did not come back are recorded as failures.

    Raises
    ------
    RetemperError
        No models, nothing found that may be labelled, an oracle that is not the data's, settings that changed
        since the round began, or labels that are still to come (manual oracle).
    """
    out = root / rounds.FOLDER / rounds.name(number)
    work = root / rounds.WORK / rounds.name(number)
    if (out / "round.json").is_file():
        if not manual.corrected(root, number):
            return out
        if not (work / "chosen").is_dir():
            raise RetemperError(
                f"The labels of round {number} were changed, but what it was made from is gone.",
                expected=str(work.relative_to(root)),
                fix=f"put the labels back, or remove {out.relative_to(root)} with its .dvc file to make the round anew",
            )
        print(f"round {number}: the labels were changed and are taken anew", flush=True)
    options = settings.acquire
    label.require_level(options.oracle, settings.dataset.level_of_theory)
    if not (work / "plan.json").is_file():
        _begin(settings, root, number, work, labels or options.labels)
    plan = read_json(work / "plan.json")
    if _decisive(plan["settings"]) != _decisive(options.model_dump()):
        raise RetemperError(
            f"The settings of `acquire` changed since round {number} began.",
            fix=f"put them back, or delete {work.relative_to(root)} to begin the round anew (labels are kept)",
        )
    if not (work / "chosen").is_dir():
        _choose(settings, root, plan, work)
    chosen = read_frames(work / "chosen/chosen.extxyz")
    print(f"round {number}: {len(chosen)} structures for {options.oracle.name}", flush=True)
    if label.is_manual(options.oracle):
        here = source.of_plan(settings, root, plan, work)
        known = label.to_verify(here.train, plan["settings"]["verify"])
        labelled, failed = manual.collect(chosen, settings, root, number, partial, known)
        if options.verify:
            require_alike(here, labelled)
    else:
        labelled, failed = label.label_all(chosen, options, root)
    if not labelled:
        raise RetemperError(
            f"None of {len(chosen)} structures of round {number} was labelled.",
            got=failed[0].info["reason"],
            fix="mend the oracle; then raise acquire.retries, which has failures tried again, and run again",
        )
    _finish(settings, root, plan, work, out, labelled, failed)
    return out


def require_alike(here: Source, labelled: Sequence[Atoms]) -> None:
    """Raise where new labels lie apart from the model as those it was trained on do not."""
    known = [*here.train, *here.valid]
    errors = errors_of(here.lead, [*known, *labelled], head=here.head, device=here.device)
    apart = mixture.common_offset(errors, np.arange(len(known), len(errors)))
    if apart is not None:
        raise RetemperError(
            f"The {len(labelled)} new labels lie {apart[0]:+.3g} eV/atom from what model and data expect.",
            expected=f"as near as the new labels lie to each other (scatter {apart[1]:.2g} eV/atom)",
            fix="label with the method, zero of energy and units of the data, put the files in place of these, then "
            "`retemper round --resume`; acquire.verify: 0 takes labels untested",
        )


def _decisive(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name not in MUTABLE}


def _begin(settings: Settings, root: Path, number: int, work: Path, labels: int) -> None:
    """Fix what the round is made with: copies of the weights, the seed, the number of labels."""
    found = source.of_project(settings, root)
    options = settings.acquire
    for before in work.parent.glob("[0-9]*"):
        if before.name < work.name:
            shutil.rmtree(before)
    checked = None
    if options.verify and not label.is_manual(options.oracle):
        checked = label.verify(found.train, options, root)
        print(f"the oracle reproduces {checked['number']} labels of the data", flush=True)
    with atomic_folder(work) as folder:
        for seed, path in found.models.items():
            shutil.copy2(path, folder / f"seed-{seed}{weight_files.SUFFIX}")
        plan = {
            "round": number,
            "labels": labels,
            "seed": options.seed * 1000 + number,
            "strategy": found.strategy,
            "champion": found.champion,
            "models": {str(seed): sha256(path) for seed, path in found.models.items()},
            "lead": found.lead_seed,
            "data": found.data,
            "oracle_check": checked,
            "settings": options.model_dump(),
            "level_of_theory": label.require_level(options.oracle, settings.dataset.level_of_theory),
            "git": git_commit(root),
            "software": versions(),
        }
        write_json(folder / "plan.json", plan)


def _choose(settings: Settings, root: Path, plan: dict[str, Any], work: Path) -> None:
    """Explore, score and choose into ``chosen``; tasks that were computed before a kill are not computed again."""
    options = settings.acquire
    here = source.of_plan(settings, root, plan, work)
    explored = choose.explore(here, options, plan["seed"], root)
    print(
        f"round {plan['round']}: {len(explored.frames)} candidates, {len(explored.unphysical)} unphysical", flush=True
    )
    known = choose.known_frames(root)
    with atomic_folder(work / "chosen") as folder:
        estimate = choose.estimator(here, options)
        held_out = calibration_of(here, estimate, here.valid, folder / "calibration")
        print(f"{options.uncertainty.name}: {held_out.sentence()}", flush=True)
        candidates, turned_away = choose.admissible(explored, estimate, held_out, here, settings, known)
        if not candidates:
            turned = ", ".join(f"{number} {why}" for why, number in turned_away.items())
            raise RetemperError(
                "Exploration found no structure that may be labelled.",
                got=turned or "; ".join(explored.notes[:3]),
                fix="raise acquire.candidates, add explorers, or lower acquire.apart",
            )
        chosen = choose.select(candidates, here, options, plan)
        write_frames(folder / "chosen.extxyz", chosen)
        write_frames(folder / "unphysical.extxyz", explored.unphysical[:UNPHYSICAL])
        content = {
            "candidates": len(explored.frames),
            "unphysical": len(explored.unphysical),
            "turned_away": turned_away,
            "notes": explored.notes,
            "calibration": held_out.as_dict(),
        }
        write_json(folder / "chosen.json", content)


def calibration_of(
    here: Source, estimate: Any, frames: Sequence[Atoms], plot: Path | None, scale: Scale | None = None
) -> Calibration:
    """The uncertainty against the leading model's errors on labelled `frames`; with a plot (path without suffix).

    With `scale` that is judged, else one is fitted.
    """
    uncertainty = estimate(frames)
    forces = source.forces(here, frames)
    error = [f - atoms.arrays[FORCES] for f, atoms in zip(forces, frames, strict=True)]
    found = calibrate.calibrate(uncertainty, error, groups_of(frames), scale)
    if plot is not None:
        calibrate.plot(uncertainty, error, found, plot.with_suffix(".png"))
    return found


def _finish(
    settings: Settings,
    root: Path,
    plan: dict[str, Any],
    work: Path,
    out: Path,
    labelled: list[Atoms],
    failed: list[Atoms],
) -> None:
    """The round's folder, whole or not at all; what the model expected is compared with what the oracle found."""
    here = source.of_plan(settings, root, plan, work)
    by_hand = label.is_manual(settings.acquire.oracle)
    estimate = choose.estimator(here, settings.acquire)
    about = read_json(work / "chosen/chosen.json")
    held_out = Scale(about["calibration"]["alpha"], about["calibration"].get("floor", 0.0))
    with atomic_folder(out) as folder:
        ahead = calibration_of(here, estimate, labelled, folder / "prospective", held_out)
        print(f"{settings.acquire.uncertainty.name} on what was labelled: {ahead.sentence()}", flush=True)
        write_frames(folder / "labelled.extxyz", labelled)
        write_frames(folder / "failed.extxyz", failed)
        for name in ("unphysical.extxyz", "calibration.png"):
            shutil.copy2(work / "chosen" / name, folder / name)
        if settings.finetune.start == "last-round":
            shutil.copy2(here.lead, folder / rounds.MODEL)
            trained = {structure_hash(atoms): atoms for atoms in uncharged([*rounds.seen(root), *here.train])}
            write_frames(folder / rounds.SEEN, trained.values())
        content = {
            **plan,
            **about,
            "prospective": ahead.as_dict(),
            "labelled": [_entry(atoms) for atoms in labelled],
            "failed": [_entry(atoms) for atoms in failed],
        }
        content["identity"] = digest([entry["label"] for entry in content["labelled"]])
        content["returned"] = manual.returned(root, plan["round"]) if by_hand else None
        write_json(folder / "round.json", content)
    if not by_hand:  # labels by hand may be corrected later
        shutil.rmtree(work)
    label.clean(root)


def _entry(atoms: Atoms) -> dict[str, Any]:
    """Why a structure was chosen, as plain data."""
    info = {key: value for key, value in atoms.info.items() if not key.startswith("REF_")}
    entry = {key: value.item() if isinstance(value, np.generic) else value for key, value in info.items()}
    return {"formula": atoms.get_chemical_formula(), **entry}
