"""What each uncertainty is worth in a finished project: scaled on the validation set, judged on the test set.

    python -m benchmarks.calibration --strategy naive --out plots    # three seeds, so that there is a committee

Prints a row for each uncertainty, with the 95 % interval of its rank correlation over groups of structures, and writes
its plot: error against expected error, and observed against expected confidence.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ase import Atoms

from retemper.active import calibrate, estimate, plugins
from retemper.config.settings import Plugin, load_settings
from retemper.core import weight_files
from retemper.core.files import project_root
from retemper.data.frames import FORCES, is_isolated_atom, read_frames
from retemper.data.grouping import groups_of
from retemper.models import library
from retemper.models.mace import pick_head
from retemper.models.predict import predict
from retemper.records.training import TrainingSummary


def held_out(root: Path, name: str) -> list[Atoms]:
    """A set of the project without free atoms."""
    return [atoms for atoms in read_frames(root / f"runs/dataset/{name}.extxyz") if not is_isolated_atom(atoms)]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.calibration")
    parser.add_argument("--strategy", default="naive")
    parser.add_argument("--out", type=Path, default=Path("."))
    options = parser.parse_args()
    library.import_mace()
    root = project_root()
    system = load_settings(root / "params.yaml").system
    folder = root / "runs/finetune" / options.strategy
    seeds = sorted(TrainingSummary.read(folder / "summary.json").seeds)
    models = [folder / f"seed-{seed}" / weight_files.NAME for seed in seeds]
    sets = {name: held_out(root, name) for name in ("train", "valid", "test")}
    errors, groups = {}, {name: groups_of(frames) for name, frames in sets.items()}
    for name in ("valid", "test"):
        forces = predict(models[0], sets[name]).forces
        errors[name] = [f - atoms.arrays[FORCES] for f, atoms in zip(forces, sets[name], strict=True)]
    print(f"{system}, {options.strategy}: {len(sets['train'])} training, {len(sets['valid'])} validation, "
          f"{len(sets['test'])} test structures in {len(set(groups['test']))} groups, {len(models)} seeds")  # fmt: skip
    print("| uncertainty | rank correlation | AUROC | miscalibration |\n|---|---|---|---|")
    for name in plugins.names("uncertainty"):
        module, own = plugins.load("uncertainty", Plugin(name=name))
        if module.INFO.models > len(models):
            print(f"| {name} | needs {module.INFO.models} seeds | | |")
            continue
        unsure = module.fit(estimate.Context(models, pick_head(models[0]), "cpu", sets["train"]), own)
        u = {part: unsure(sets[part]) for part in ("valid", "test")}
        scale = calibrate.Scale.of(calibrate.calibrate(u["valid"], errors["valid"], groups["valid"]))
        judged = calibrate.calibrate(u["test"], errors["test"], groups["test"], scale)
        calibrate.plot(u["test"], errors["test"], judged, options.out / f"calibration-{system}-{name}.png")
        print(f"| {name} | {judged.spearman:.2f} [{judged.spearman_low:.2f}, {judged.spearman_high:.2f}] | "
              f"{judged.auroc:.2f} | {judged.miscalibration:.2f} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
