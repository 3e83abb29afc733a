"""The evaluation stage on a small project: numbers known by construction, heads, forgetting, leaks."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import prepared
import pytest
import run_files
import yaml
from ase import Atoms
from ase.build import bulk, molecule
from conftest import TINY_ELEMENTS

from retemper.config.project import Project
from retemper.config.settings import Settings
from retemper.core.errors import RetemperError
from retemper.core.files import sha256
from retemper.data.frames import ENERGY, FORCES, STRESS, write_frames
from retemper.evaluation import accuracy, stage
from retemper.evaluation.robustness import stage as robustness
from retemper.models import model_file, model_writing, predict, predictions
from retemper.prepare import pseudolabel
from retemper.records.evaluation import Evaluation
from retemper.registry import measurements

SHIFT = 0.7  # eV an atom that the target's level of theory adds to every E0
NOISE = 0.03  # eV/A on the labels of the foundation


def structures(number: int, seed: int) -> list[Atoms]:
    made = []
    for i in range(number):
        atoms = [molecule("H2O"), molecule("CH3OH"), bulk("NaCl", "rocksalt", a=5.6)][i % 3]
        atoms.rattle(0.1, seed=seed + i)
        atoms.info["config_type"] = ("water", "methanol", "salt")[i % 3]
        made.append(atoms)
    return made


def label(model: Path, frames: list[Atoms], shift: float, rng: np.random.Generator) -> np.ndarray:
    """Label by the foundation plus `shift` an atom and noise on the forces; returns the noise, flat."""
    predicted = predict.predict(model, frames, backend="torch")
    noises = []
    for i, atoms in enumerate(frames):
        noise = rng.normal(scale=NOISE, size=(len(atoms), 3))
        atoms.info[ENERGY] = float(predicted.energy[i]) + shift * len(atoms)
        atoms.arrays[FORCES] = predicted.forces[i] + noise
        if predictions.has_stress(atoms):
            atoms.info[STRESS] = predicted.stress[i] + 0.001
        noises.append(noise.ravel())
    return np.concatenate(noises)


def changed(source: Path, path: Path, seed: int) -> None:
    """Save `source` with other weights: a model that was trained on something else."""
    import torch

    model = torch.load(source, weights_only=False)
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    model_writing.write(model, path)


class Made:
    """A project folder with a foundation, a test set, a retention set and two trained strategies."""

    def __init__(self, root: Path, foundation: Path, multihead: Path) -> None:
        rng = np.random.default_rng(0)
        self.root = root
        self.foundation = root / "foundations/tiny.model"
        self.foundation.parent.mkdir(parents=True)
        shutil.copy(foundation, self.foundation)
        self.target, self.retention = structures(9, 100), structures(12, 200)
        self.target_noise = label(self.foundation, self.target, SHIFT, rng)
        self.retention_noise = label(self.foundation, self.retention, 0.0, rng)
        write_frames(root / "runs/dataset/test.extxyz", self.target)
        write_frames(root / "runs/dataset/train.extxyz", structures(3, 300))
        write_frames(root / "foundations/test.extxyz", [*self.retention, Atoms("O")])
        write_frames(root / "runs/replay/train.extxyz", structures(3, 400))
        E0s = {str(z): e + SHIFT for z, e in zip(TINY_ELEMENTS, np.linspace(-30, -1, 6), strict=True)}
        prepared.e0s({int(z): e for z, e in E0s.items()}).write(root / "runs/e0s/e0s.json")
        (root / "foundations/foundations.yaml").write_text(
            yaml.safe_dump(
                {
                    "tiny": {
                        "about": "untrained",
                        "level_of_theory": "none",
                        "licence": "MIT",
                        "citation": "none",
                        "file": "foundations/tiny.model",
                        "sha256": sha256(self.foundation),
                        "retention": "foundations/test.extxyz",
                    }
                }
            )
        )
        self.settings = self.settings_with({})
        for seed in (1, 2):
            changed(self.foundation, self.model("naive", seed), seed)
        changed(multihead, self.model("replay", 1), 3)
        for strategy, seeds in (("naive", (1, 2)), ("replay", (1,))):
            run_files.write_summary(root, strategy, {seed: run_files.outcome() for seed in seeds})

    def model(self, strategy: str, seed: int) -> Path:
        return self.root / f"runs/finetune/{strategy}/seed-{seed}/model.safetensors"

    def settings_with(self, options: dict[str, object]) -> Settings:
        return Settings.model_validate(
            {
                "system": "test",
                "foundation": "tiny",
                "strategies": ["naive", "replay"],
                "seeds": [1, 2],
                "dataset": {"files": ["x"], "level_of_theory": "none"},
                "evaluate": {"backend": "torch", **options},
            }
        )


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, tiny_multihead: Path) -> Made:
    made = Made(tmp_path_factory.mktemp("project"), tiny_model, tiny_multihead)
    stage.run(Project(made.root, made.settings), "foundation")
    return made


def rms(values: np.ndarray) -> float:
    return float(1e3 * np.sqrt(np.mean(values**2)))


def by_calculator(model: Path, frames: list[Atoms], head: str) -> tuple[np.ndarray, np.ndarray]:
    """Energies and flat force errors (eV, eV/A) from MACE's own calculator."""
    from mace.calculators import MACECalculator

    calculator = MACECalculator(models=model_file.load(model), device="cpu", default_dtype="float64", head=head)
    energies, errors = [], []
    for frame in frames:
        atoms = frame.copy()
        atoms.calc = calculator
        energies.append(atoms.get_potential_energy())
        errors.append((atoms.get_forces() - frame.arrays[FORCES]).ravel())
    return np.array(energies), np.concatenate(errors)


def test_the_foundation(project: Made) -> None:
    """Its errors are the noise that the labels were given; the shift of the E0s is taken out."""
    metrics = Evaluation.read(project.root / "runs/evaluate/foundation/metrics.json")
    target, retention = metrics.seeds[0].target, metrics.seeds[0].retention
    assert target.force_rmse.value == pytest.approx(rms(project.target_noise), rel=1e-5)
    assert retention.force_rmse.value == pytest.approx(rms(project.retention_noise), rel=1e-5)
    assert target.energy_rmse.value == pytest.approx(0.0, abs=1e-3)
    assert target.energy_rmse_unshifted == pytest.approx(1e3 * SHIFT, rel=1e-6)
    assert retention.energy_rmse.value == pytest.approx(0.0, abs=1e-3)
    assert retention.stress_rmse.value == pytest.approx(1.0, rel=1e-3)
    assert retention.n_frames == 12  # without the isolated atom
    assert target.by_config_type["salt"].n_frames == 3
    ratio = metrics.summary.forgetting_ratio
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((1.0, 1.0, 1.0))


def test_a_strategy(project: Made) -> None:
    """Every seed against MACE's calculator; retention energies after the exchange of the E0s."""
    metrics = stage.run(Project(project.root, project.settings), "naive")
    ratios = []
    for seed in (1, 2):
        model = project.model("naive", seed)
        energies, errors = by_calculator(model, project.target, "Default")
        target = metrics.seeds[seed].target
        assert target.force_rmse.value == pytest.approx(rms(errors), rel=1e-6)
        off = [(e - a.info[ENERGY]) / len(a) for e, a in zip(energies, project.target, strict=True)]
        assert target.energy_rmse.value == pytest.approx(rms(np.array(off)), rel=1e-6)
        _, errors = by_calculator(model, project.retention, "Default")
        ratios.append(rms(errors) / rms(project.retention_noise))
    summary = metrics.summary
    assert summary.forgetting_ratio.value == pytest.approx(np.mean(ratios), rel=1e-5)
    assert summary.forgetting_ratio.std == pytest.approx(np.std(ratios, ddof=1), rel=1e-4)
    assert summary.forgetting_ratio.low < np.mean(ratios) < summary.forgetting_ratio.high
    assert summary.forgetting_ratio_replay_head is None
    rmse = [metrics.seeds[s].target.force_rmse.value for s in (1, 2)]
    assert summary.target.force_rmse.value == pytest.approx(np.mean(rmse))


def test_both_heads_of_a_replay_model(project: Made) -> None:
    """Target head on both sets, replay head on the retention set; E0s are exchanged for the target head alone."""
    metrics = stage.run(Project(project.root, project.settings), "replay")
    parts = metrics.seeds[1].sets()
    model = project.model("replay", 1)
    for part, head, frames in (
        ("target", "Default", project.target),
        ("retention", "Default", project.retention),
        ("retention_replay_head", "pt_head", project.retention),
    ):
        energies, errors = by_calculator(model, frames, head)
        assert parts[part].force_rmse.value == pytest.approx(rms(errors), rel=1e-6)
        # the target head's E0s are 0.5 eV above the foundation's (see build_tiny)
        exchange = -0.5 if part == "retention" else 0.0
        off = [(e - a.info[ENERGY]) / len(a) + exchange for e, a in zip(energies, frames, strict=True)]
        assert parts[part].energy_rmse.value == pytest.approx(rms(np.array(off)), rel=1e-6)
        if part == "retention_replay_head":
            expected = rms(errors) / rms(project.retention_noise)
            assert metrics.summary.forgetting_ratio_replay_head.value == pytest.approx(expected, rel=1e-5)


@pytest.fixture(scope="module")
def drifted(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, tiny_multihead: Path) -> Made:
    """Without a named retention set: the replay stage kept structures apart, with the foundation's labels."""
    made = Made(tmp_path_factory.mktemp("drifted"), tiny_model, tiny_multihead)
    path = made.root / "foundations/foundations.yaml"
    entry = yaml.safe_load(path.read_text())["tiny"]
    del entry["retention"]
    path.write_text(yaml.safe_dump({"tiny": entry}))
    made.retention = pseudolabel.of_project(Project(made.root, made.settings), made.retention).frames
    write_frames(made.root / "runs/replay/retention.extxyz", made.retention)
    return made


def test_without_labels_the_drift_from_the_foundation_is_measured(drifted: Made) -> None:
    """Both heads against the foundation's predictions; the foundation has no drift, and nothing a forgetting ratio."""
    here = Project(drifted.root, drifted.settings)
    foundation = stage.run(here, "foundation")
    assert list(foundation.seeds[0].sets()) == ["target"]
    metrics = stage.run(here, "replay")
    parts = metrics.seeds[1].sets()
    assert list(parts) == ["target", "drift", "drift_replay_head"]
    _, forces = by_calculator(drifted.foundation, drifted.retention, "Default")
    assert rms(forces) < 1e-3  # the labels are its own
    for part, head in (("drift", "Default"), ("drift_replay_head", "pt_head")):
        _, errors = by_calculator(drifted.model("replay", 1), drifted.retention, head)
        assert parts[part].force_rmse.value == pytest.approx(rms(errors), rel=1e-5)
    assert metrics.summary.drift.force_rmse.value == pytest.approx(parts["drift"].force_rmse.value)
    assert metrics.summary.forgetting_ratio is None and parts["drift"].forgetting_ratio is None
    assert {"drift.force_rmse", "drift_replay_head.force_rmse"} < set(metrics.numbers(1))
    assert foundation.identity == metrics.identity
    measured = measurements.from_accuracy(metrics.seeds[1], 0.95)
    assert measured["drift.force_rmse"].groups == parts["drift"].n_groups


def test_robustness_takes_no_drift_for_retention(drifted: Made, project: Made) -> None:
    for made, number in ((drifted, 0), (project, 12)):
        write_frames(made.root / "runs/dataset/valid.extxyz", made.target)
        assert len(robustness.context(Project(made.root, made.settings)).retention) == number


def test_tables(project: Made) -> None:
    folder = project.root / "runs/evaluate/replay"
    if not folder.exists():
        stage.run(Project(project.root, project.settings), "replay")
    with (folder / "frames.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    errors = ["energy_error", "force_rmse"]
    assert list(rows[0]) == ["seed", "set", "head", "frame", "n_atoms", "config_type", "group", *errors]
    assert [(r["set"], r["head"]) for r in rows].count(("retention_replay_head", "pt_head")) == 12
    own = [r for r in rows if r["set"] == "target"]
    total = sum(float(r["force_rmse"]) ** 2 * int(r["n_atoms"]) for r in own) / sum(int(r["n_atoms"]) for r in own)
    metrics = Evaluation.read(folder / "metrics.json")
    assert np.sqrt(total) == pytest.approx(metrics.seeds[1].target.force_rmse.value, rel=1e-6)
    with (folder / "parity.csv").open(newline="") as file:
        parity = list(csv.DictReader(file))
    target = [r for r in parity if r["set"] == "target"]
    assert len(target) == 3 * sum(map(len, project.target))
    off = np.array([float(r["predicted"]) - float(r["reference"]) for r in target])
    assert rms(off) == pytest.approx(metrics.seeds[1].target.force_rmse.value, rel=1e-3)


def test_the_foundation_is_measured_when_its_results_are_of_other_frames(
    project: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    sets = stage.read_sets(Project(project.root, project.settings))
    stored = stage.foundation_retention(sets)
    assert "measuring" not in capsys.readouterr().out
    smaller = stage.read_sets(Project(project.root, project.settings_with({"max_retention": 5})))
    computed = stage.foundation_retention(smaller)
    assert "measuring the foundation again" in capsys.readouterr().out
    assert len(smaller.retention) == 5
    rmse = accuracy.values(stored)["force_rmse"]
    assert rmse == pytest.approx(rms(project.retention_noise), rel=1e-6)
    assert accuracy.values(computed)["force_rmse"] != pytest.approx(rmse, rel=1e-3)
    again = stage.measure(sets, sets.project.weights, sets.head, sets.retention).errors
    assert again.force_sq == pytest.approx(stored.force_sq)
    assert again.group == stored.group


def test_a_retention_structure_that_was_replayed_is_an_error(project: Made, tmp_path: Path) -> None:
    path = project.root / "runs/replay/train.extxyz"
    before = path.read_bytes()
    write_frames(path, [*structures(3, 400), project.retention[4]])
    try:
        with pytest.raises(RetemperError, match=r"runs/replay/train.extxyz and the retention set share 1"):
            stage.run(Project(project.root, project.settings), "naive")
    finally:
        path.write_bytes(before)
