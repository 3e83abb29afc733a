"""Data that would train or judge a model on something else than the user believes: what comes of each."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from conftest import ROOT
from trainings import make_plan, run

from retemper.config.project import Project
from retemper.config.settings import Dataset, Settings
from retemper.core.errors import RetemperError
from retemper.data.duplicates import near_pairs
from retemper.data.frames import ENERGY, FORCES, read_frames, write_frames
from retemper.data.grouping import name_of as group_name
from retemper.data.labels import is_free_atom, map_labels
from retemper.data.nearness import judge, near_in_majority
from retemper.finetune.plan import HeadData, head_data
from retemper.prepare import dataset as stage
from retemper.prepare import reference_set
from retemper.records.dataset import DatasetManifest
from retemper.records.training import Effective, WeightRange

hostile = pytest.mark.hostile("data")
SHIPPED = ("nacl", "molecules", "sn2", "spice", "ice", "lpsc")


def water(k: int, **info: Any) -> Atoms:
    """A rattled water molecule with labels by xTB."""
    from ase.build import molecule
    from tblite.ase import TBLite

    atoms = molecule("H2O")
    atoms.rattle(0.05, seed=k)
    atoms.calc = TBLite(method="GFN2-xTB", verbosity=0)
    atoms.info |= {ENERGY: float(atoms.get_potential_energy()), **info}
    atoms.arrays[FORCES] = atoms.get_forces()
    atoms.calc = None
    return atoms


# ------------------------------------------------------------------ weights of frames

REFUSED, TAKEN, REJECTED, HARMLESS = "refused", "taken", "rejected", "harmless"
WEIGHTS = [  # info of one frame in ten, dataset.weights, what comes of it
    ({"config_forces_weight": 100.0}, "refuse", REFUSED),
    ({"config_energy_weight": 0.0}, "refuse", REFUSED),
    ({"config_stress_weight": 2}, "refuse", REFUSED),
    ({"config_weight": 10.0}, "refuse", REFUSED),
    ({"config_virials_weight": 3.0}, "refuse", REFUSED),
    ({"config_dipole_weight": 3.0}, "refuse", REFUSED),
    ({"config_forces_weight": "heavy"}, "refuse", REFUSED),
    ({"config_forces_weight": np.array([2.0, 2.0])}, "refuse", REFUSED),
    ({"config_forces_weight": 1.0, "config_weight": 1}, "refuse", HARMLESS),
    ({"config_forces_weight": 100.0, "config_energy_weight": 0.0}, "use", TAKEN),
    ({"config_forces_weight": -1.0}, "use", REJECTED),
    ({"config_forces_weight": np.nan}, "use", REJECTED),
    ({"config_forces_weight": np.inf}, "use", REJECTED),
    ({"config_forces_weight": True}, "use", REJECTED),
    ({"config_forces_weight": 0.0, "config_energy_weight": 0.0}, "use", REJECTED),
    ({"config_weight": 10.0}, "use", REJECTED),
    ({"config_virials_weight": 10.0}, "use", REJECTED),
    ({"config_forces_weight": 100.0, "config_weight": 7.0}, "ignore", HARMLESS),
]


@hostile
@pytest.mark.parametrize(("info", "setting", "outcome"), WEIGHTS, ids=str)
def test_weights_of_frames(info: dict[str, Any], setting: str, outcome: str) -> None:
    dataset = Dataset.model_validate({"files": ["a"], "level_of_theory": "x", "weights": setting})
    frames = [water(k, **(info if k == 3 else {})) for k in range(10)]
    if outcome == REFUSED:
        with pytest.raises(RetemperError, match=rf"(?s){next(iter(info))} in 1 frame.*dataset.weights: use.*ignore"):
            map_labels(frames, dataset, "a")
        return
    mapped = map_labels(frames, dataset, "a")
    assert len(mapped.rejected) == (outcome == REJECTED)
    kept = {key: value for frame in mapped.frames for key, value in frame.info.items() if "weight" in key}
    assert kept == (info if outcome == TAKEN else {})
    if setting == "ignore":
        assert "1 frames have weights of their own; they are ignored (dataset.weights)" in mapped.warnings[0]


@hostile
@pytest.mark.parametrize("key", ["elec_temp", "dipole", "polarizability", "REF_virials"])
def test_nothing_else_that_mace_obeys_gets_through(key: str) -> None:
    mapped = map_labels([water(k, **{key: 1000.0}) for k in range(10)], Dataset(files=["a"], level_of_theory="x"), "a")
    assert not any(key in frame.info for frame in mapped.frames)
    assert f"10 frames have {key}, which is no label here" in mapped.warnings[0]


def test_the_keys_that_mace_reads_are_the_known_ones() -> None:
    """A MACE that reads further keys of a frame must be looked at before frames go to it."""
    from mace.data.utils import KeySpecification

    from retemper.data.labels import MACE_READS

    keys = KeySpecification.from_defaults()
    ours = {"REF_energy", "REF_forces", "REF_stress", "total_charge", "total_spin", "head"}  # head: MACE sets it itself
    assert {*keys.info_keys.values(), *keys.arrays_keys.values()} == ours | MACE_READS


def weighted(files: dict[str, Any], folder: Path, weights: dict[str, float], disk: bool = False) -> Any:
    """A plan for the small target set of which every second frame has these weights in its file."""
    paths = []
    for name in ("train", "valid"):
        frames = read_frames(files["folder"] / f"{name}.extxyz")
        for frame in frames[::2]:
            frame.info |= weights
        write_frames(folder / f"{name}.extxyz", frames)
        paths.append(folder / f"{name}.extxyz")
    target = head_data(*paths, "target", files["target_e0s"], weighted=True)
    plan = dataclasses.replace(make_plan(files, "naive", epochs=1), target=target)
    return dataclasses.replace(plan, disk_above=0) if disk else plan


@hostile
@pytest.mark.parametrize("disk", [False, True])
def test_declared_weights_reach_the_loss_and_the_proof_says_so(
    disk: bool, files: dict[str, Any], tmp_path: Path
) -> None:
    without = run(make_plan(files, "naive", epochs=1), tmp_path / "plain")[1][-1]["valid_loss"]
    plan = weighted(files, tmp_path, {"config_forces_weight": 10.0, "config_energy_weight": 0.0}, disk)
    _, rows = run(plan, tmp_path / "weighted")
    assert rows[-1]["valid_loss"] > 1.5 * without
    ran = Effective.read(tmp_path / "weighted/effective.json").ran
    assert ran.frame_weights is not None
    assert ran.frame_weights["Default"]["train"] == {
        "config_energy_weight": WeightRange(frames=7, min=0.0, max=1.0),
        "config_forces_weight": WeightRange(frames=7, min=1.0, max=10.0),
    }
    assert ran.frame_weights["Default"]["valid"]["config_forces_weight"].frames == 4


@hostile
@pytest.mark.parametrize("key", ["config_forces_weight", "config_energy_weight", "config_weight"])
def test_undeclared_weights_in_a_training_file_fail_the_proof(key: str, files: dict[str, Any], tmp_path: Path) -> None:
    plan = weighted(files, tmp_path, {key: 3.0})
    target: HeadData = dataclasses.replace(plan.target, weighted=False)
    with pytest.raises(RetemperError, match=r"(?s)MACE does not train without weights.*7 of 14 frames, first: 0.*3"):
        run(dataclasses.replace(plan, target=target), tmp_path / "run")
    assert not (tmp_path / "run/model.model").exists()


@hostile
def test_a_frame_weight_that_the_loss_does_not_read_fails_the_proof_even_where_weights_are_declared(
    files: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(RetemperError, match=r"(?s)MACE does not train with the weights.*frame 1\n.*frame 5"):
        run(weighted(files, tmp_path, {"config_weight": 5.0}), tmp_path / "run")


def test_weights_change_the_identity_of_a_set(files: dict[str, Any], tmp_path: Path) -> None:
    plain = make_plan(files, "naive", epochs=1)
    assert weighted(files, tmp_path, {"config_forces_weight": 2.0}).key != plain.key
    assert weighted(files, tmp_path, {}).key == plain.key


# ------------------------------------------------------------------ test frames that training has all but seen


def dynamics(seed: int, steps: int, stride: int, temperature: float = 600.0) -> list[Atoms]:
    """Labelled frames of copper, 32 atoms by EMT, `stride` steps of 2 fs apart."""
    from ase import units
    from ase.build import bulk
    from ase.calculators.emt import EMT
    from ase.md.langevin import Langevin
    from ase.md.velocitydistribution import MaxwellBoltzmannDistribution

    random = np.random.default_rng(seed)
    atoms = bulk("Cu", cubic=True) * (2, 2, 2)
    atoms.calc = EMT()
    MaxwellBoltzmannDistribution(atoms, temperature_K=temperature, rng=random)
    run = Langevin(atoms, 2 * units.fs, temperature_K=temperature, friction=0.01 / units.fs, rng=random)
    run.run(100)
    frames = []
    for _ in range(steps):
        run.run(stride)
        frame = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=True)
        frame.info[ENERGY], frame.arrays[FORCES] = float(atoms.get_potential_energy()), atoms.get_forces()
        frames.append(frame)
    return frames


def displaced(strains: tuple[float, ...], number: int, size: float) -> list[Atoms]:
    """Labelled copies of a copper cell, independent of each other."""
    from ase.build import bulk
    from ase.calculators.emt import EMT

    random = np.random.default_rng(0)
    frames = []
    for strain in strains:
        for _ in range(number):
            atoms = bulk("Cu", cubic=True) * (2, 2, 2)
            atoms.set_cell(atoms.cell * (1 + strain), scale_atoms=True)
            atoms.positions += random.normal(0, size, atoms.positions.shape)
            atoms.calc = EMT()
            atoms.info[ENERGY], atoms.arrays[FORCES] = float(atoms.get_potential_energy()), atoms.get_forces()
            atoms.calc = None
            frames.append(atoms)
    return frames


@pytest.fixture(scope="module")
def slow() -> list[Atoms]:
    return dynamics(1, 150, 2)


def shuffled(frames: list[Atoms], seed: int = 0) -> list[Atoms]:
    return [frames[k].copy() for k in np.random.default_rng(seed).permutation(len(frames))]


def named(frames: list[Atoms], names: Any) -> list[Atoms]:
    copies = [frame.copy() for frame in frames]
    for frame, name in zip(copies, names, strict=False):
        frame.info["traj"] = name
    return copies


def staged(root: Path, files: dict[str, list[Atoms]], **dataset: Any) -> DatasetManifest:
    """The manifest of the dataset stage on these files."""
    from ase.io import write

    (root / "foundations").mkdir(parents=True)
    entry = "{about: a, level_of_theory: x, licence: x, citation: x, elements: H C N O Na Cl Cu, file: none}"
    (root / "foundations/foundations.yaml").write_text(f"small: {entry}\n")
    for name, frames in files.items():
        write(root / name, frames, format="extxyz")
    settings = Settings.model_validate(
        {
            "system": "s",
            "foundation": "small",
            "strategies": ["naive"],
            "seeds": [1],
            "dataset": {"files": ["data.xyz"], "level_of_theory": "x", "test": 0.2, **dataset},
        }
    )
    return stage.run(Project(root, settings))


LEAKS: dict[str, Any] = {
    "shuffled": lambda slow: ({"data.xyz": shuffled(slow)}, {}),
    "shuffled otherwise": lambda slow: ({"data.xyz": shuffled(slow, 5)}, {"group": "auto", "seed": 3}),
    "random group key": lambda slow: (
        {"data.xyz": named(slow, np.random.default_rng(0).integers(0, 12, len(slow)).tolist())},
        {"group": "traj"},
    ),
    "every frame its own group": lambda slow: ({"data.xyz": named(slow, range(len(slow)))}, {"group": "traj"}),
    "test file of the same trajectory": lambda slow: (
        {"data.xyz": slow[::2], "test.xyz": slow[1::2]},
        {"test_files": ["test.xyz"]},
    ),
    "test file turned and wrapped": lambda slow: (
        {"data.xyz": slow[::2], "test.xyz": [turned(frame) for frame in slow[1::2]]},
        {"test_files": ["test.xyz"]},
    ),
}


def turned(frame: Atoms) -> Atoms:
    new = frame.copy()
    new.rotate(40, (1, 2, 3), rotate_cell=True)
    new.positions += 1.7
    new.wrap()
    new.arrays[FORCES] = new.arrays[FORCES] @ np.linalg.solve(frame.cell.array, new.cell.array)
    return new


@hostile
@pytest.mark.parametrize("mode", ["warn", "refuse"])
@pytest.mark.parametrize("case", LEAKS)
def test_test_frames_between_training_frames_are_said(
    case: str, mode: str, slow: list[Atoms], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files, settings = LEAKS[case](slow)
    if mode == "refuse":
        with pytest.raises(RetemperError, match=r"(?s)Most test frames lie between.*of \d+ frames lie on a path"):
            staged(tmp_path, files, near_test="refuse", **settings)
        assert not (tmp_path / "runs/dataset").exists()
        return
    manifest = staged(tmp_path, files, **settings)
    test = manifest.nearness["test"]
    assert test.near > 0.7 * test.judged and test.judged == test.frames
    assert test.nearest < 0.5 * test.usual < 0.3
    assert any(text.startswith("test: ") and "say nothing about new structures" in text for text in manifest.warnings)
    assert f"nearness of test to train: {test.near} of {test.judged}" in capsys.readouterr().out


SOUND: dict[str, Any] = {
    "far apart in time, shuffled": lambda: shuffled(dynamics(1, 60, 20)),
    "cold crystal": lambda: displaced((0.0,), 80, 0.005),
    "hot crystal": lambda: displaced((0.0,), 80, 0.15),
    "five volumes": lambda: shuffled(displaced((-0.04, -0.02, 0.0, 0.02, 0.04), 20, 0.05)),
}


@hostile
@pytest.mark.parametrize("case", SOUND)
def test_independent_frames_raise_no_alarm(case: str, tmp_path: Path) -> None:
    manifest = staged(tmp_path, {"data.xyz": SOUND[case]()}, near_test="refuse")
    assert manifest.nearness["test"].judged > 10
    assert manifest.nearness["test"].near <= 0.2 * manifest.nearness["test"].judged


@hostile
def test_trajectories_of_one_crystal_kept_whole_raise_no_alarm(tmp_path: Path) -> None:
    frames = [frame for k in range(5) for frame in named(dynamics(k, 20, 3), [f"t{k}"] * 20)]
    manifest = staged(tmp_path, {"data.xyz": frames}, group="traj", near_test="refuse")
    assert manifest.nearness["test"].near <= 0.2 * manifest.nearness["test"].judged


@hostile
def test_what_cannot_be_judged_is_said_to_be_not_tested(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = staged(tmp_path, {"data.xyz": [water(k) for k in range(40)]})
    assert manifest.nearness["test"].judged == 0
    assert "nearness of test to train: not tested" in capsys.readouterr().out


@hostile
@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_sets_raise_no_alarm(name: str, tmp_path: Path) -> None:
    frames = [frame for frame in read_frames(ROOT / f"data/raw/{name}.extxyz.xz") if not is_free_atom(frame)]
    held = set(sorted({str(frame.info["group"]) for frame in frames})[::5])
    train, test = ([a for a in frames if (str(a.info["group"]) in held) == side] for side in (False, True))
    assert not near_in_majority(judge(train, test))


@pytest.mark.parametrize("name", ["3bpa_300K", "water64_revPBE0-D3", "ec_emc_liquid_DFT", "mlearn_Li_PBE"])
def test_published_sets_raise_no_alarm(name: str, real_data: Path) -> None:
    frames = [frame for frame in read_frames(real_data / f"real/{name}.extxyz") if not is_free_atom(frame)]
    order = np.random.default_rng(0).permutation(len(frames))
    found = judge([frames[k] for k in order[::2]], [frames[k] for k in order[1::2]])
    assert found.judged > 20 and not near_in_majority(found)


# ------------------------------------------------------------------ names of groups

SAME = [(1, 1.0), ("1", 1), ("1.0", "1"), (1e0, "1"), (" 7", 7), (-0.0, 0), (2.5, "2.50"), ("1e1", 10), (0, "0")]
DIFFERENT = [(1, 10), ("1a", "1"), ("nan", "inf"), (True, 1), ("run 1", "run 1.0"), (1.5, 1), ("A", "a")]


@hostile
@pytest.mark.parametrize(("a", "b"), SAME, ids=repr)
def test_numbers_that_are_equal_name_one_group(a: object, b: object) -> None:
    assert group_name(a) == group_name(b)


@hostile
@pytest.mark.parametrize(("a", "b"), DIFFERENT, ids=repr)
def test_other_names_are_other_groups(a: object, b: object) -> None:
    assert group_name(a) != group_name(b)


@hostile
def test_a_group_written_as_1_and_as_1_0_is_in_one_set(tmp_path: Path) -> None:
    frames = [water(k, traj=float(k // 5) if k % 2 else k // 5) for k in range(100)]
    manifest = staged(tmp_path, {"data.xyz": frames}, group="traj")
    assert manifest.grouping.groups == 20
    sets = [read_frames(tmp_path / f"runs/dataset/{name}.extxyz") for name in ("train", "valid", "test")]
    places = [{float(frame.info["traj"]) for frame in part} for part in sets]
    assert not (places[0] & places[1] or places[0] & places[2] or places[1] & places[2])


# ------------------------------------------------------------------ absurd frames, names of files, reasons


@hostile
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"positions": 1e12}, "1e+12 A from the origin"),
        ({"positions": -1e300}, "from the origin"),
        ({"positions": 2e5}, "from the origin"),
        ({"cell": 1e9}, "A long"),
        ({"positions": np.nan}, "not finite"),
        ({"atoms": 120_000}, "above dataset.max_atoms"),
    ],
    ids=str,
)
def test_far_positions_and_huge_frames_are_rejected_at_once(
    change: dict[str, float], reason: str, slow: list[Atoms], tmp_path: Path
) -> None:
    bad = slow[0].copy()
    if "positions" in change:
        bad.positions[3, 1] = change["positions"]
    if "cell" in change:
        bad.cell[2, 2] = change["cell"]
    if "atoms" in change:
        side = np.indices((50, 50, 48)).reshape(3, -1).T * 2.5
        bad = Atoms("Cu120000", positions=side, cell=[125, 125, 120], pbc=True, info={ENERGY: -3.5 * 120_000})
        bad.arrays[FORCES] = np.zeros((120_000, 3))
    begun = time.perf_counter()
    manifest = staged(tmp_path, {"data.xyz": [*slow[:60], bad, bad]})
    assert time.perf_counter() - begun < 60
    rejected = read_frames(tmp_path / "runs/dataset/rejected.extxyz")
    assert len(rejected) == 2 and reason in rejected[0].info["reason"]
    assert manifest.sets["rejected"].frames == 2


@hostile
def test_equal_frames_of_many_atoms_are_found_in_little_memory() -> None:
    import tracemalloc

    positions = np.random.default_rng(0).uniform(0, 60, (15_000, 3))
    frames = [Atoms("Cu15000", positions=positions + k * 1e-5) for k in range(3)]
    tracemalloc.start()
    assert near_pairs(frames, 1e-3) == [(0, 1), (0, 2), (1, 2)]
    assert tracemalloc.get_traced_memory()[1] < 5e8
    tracemalloc.stop()


@hostile
@pytest.mark.parametrize("suffix", ["", ".xyz", ".traj", ".json"])
def test_an_at_sign_in_a_name_is_a_part_of_it(suffix: str, slow: list[Atoms], tmp_path: Path) -> None:
    """ASE takes run@:30 for a slice of the file run."""
    from ase.io import write

    kind = {"": "extxyz", ".xyz": "extxyz", ".traj": "traj", ".json": "json"}[suffix]
    write(str(tmp_path / "run"), slow[:9], format="extxyz")
    with pytest.raises(RetemperError, match=r"(?s)run@:3.* does not exist.*whole name of a file"):
        read_frames(tmp_path / "run@:3")
    (tmp_path / "other").mkdir()
    write(str(tmp_path / f"other/file{suffix}"), slow[10:14], format=kind)
    (tmp_path / f"other/file{suffix}").rename(tmp_path / f"run@:3{suffix}")
    found = read_frames(tmp_path / f"run@:3{suffix}")
    assert len(found) == 4
    np.testing.assert_allclose(found[0].positions, slow[10].positions, atol=1e-6)


def equal(frames: list[Atoms]) -> list[Atoms]:
    return [frames[k % 3].copy() for k in range(40)]


@hostile
@pytest.mark.parametrize(
    ("frames", "settings", "said"),
    [
        (lambda slow: equal(slow), {}, ["Only 3 frame", "37 not used: duplicate"]),
        (lambda slow: slow[:40], {"max_force": 1e-6, "max_rejected": 1.0}, ["40 not used: dataset.max_force"]),
        (lambda slow: slow[:40], {"max_stress": 1e-9, "max_force": 1e-6, "max_rejected": 1.0}, ["dataset.max_force"]),
        (lambda slow: slow[:40], {"max_atoms": 5, "max_rejected": 1.0}, ["40 not used: dataset.max_atoms"]),
        (
            lambda slow: slow[:40],
            {"near_duplicate": 5.0, "max_rejected": 1.0},
            ["Only 1 frame", "39 not used: duplicate"],
        ),
    ],
    ids=["equal", "force", "stress", "atoms", "duplicates"],
)
def test_nothing_left_says_why(
    frames: Any, settings: dict[str, Any], said: list[str], slow: list[Atoms], tmp_path: Path
) -> None:
    with pytest.raises(RetemperError) as raised:
        staged(tmp_path, {"data.xyz": frames(slow)}, **settings)
    assert all(text in str(raised.value) for text in said), raised.value


@hostile
@pytest.mark.parametrize(
    ("keys", "info", "expected", "never"),
    [
        ({"stress": "REF_stress"}, {}, "dataset.keys.stress: null", "REF_forces"),
        ({"virial": "REF_virial"}, {}, "dataset.keys.virial: null", "REF_forces"),
        ({"stress": "REF_stress"}, {"my_stress": np.zeros(6)}, "dataset.keys.stress: my_stress", "REF_forces"),
        ({"energy": "E"}, {"step": 3}, "keys that could be it", "REF_forces"),
    ],
    ids=str,
)
def test_advice_on_a_missing_key_is_a_key_that_could_be_it(
    keys: dict[str, str], info: dict[str, Any], expected: str, never: str
) -> None:
    frames = [water(k, **info) for k in range(6)]  # forces of three atoms are nine numbers, as a stress is
    dataset = Dataset.model_validate({"files": ["a"], "level_of_theory": "x", "keys": keys})
    with pytest.raises(RetemperError) as raised:
        map_labels(frames, dataset, "a")
    assert expected in str(raised.value) and never not in str(raised.value)


def crushed(k: int) -> Atoms:
    """Two atoms that are too near, with labels."""
    atoms = Atoms("H2", positions=[(0, 0, 0), (0.01 + k * 1e-4, 0, 0)], info={ENERGY: -1.0 * k})
    atoms.arrays[FORCES] = np.array([[1.0, 0, 0], [-1.0, 0, 0]])
    return atoms


@hostile
@pytest.mark.parametrize(
    "frames",
    [
        lambda: [water(k, functional=f"f{k}" + 400 * "x") for k in range(60)],
        lambda: [water(k, **{f"key{i}{k}": "x" for i in range(40)}) for k in range(60)],
        lambda: [crushed(k) for k in range(60)],
    ],
    ids=["a level a frame", "keys without end", "a reason a frame"],
)
def test_messages_stay_short(frames: Any, tmp_path: Path) -> None:
    made = frames()
    with pytest.raises(RetemperError) as raised:
        staged(tmp_path, {"data.xyz": made}, group="nowhere")
    assert len(str(raised.value)) < 4000


# ------------------------------------------------------------------ replay pools and retention sets

POOLS = [
    ("weights", r"config_forces_weight in 1 frame"),
    ("nan", r"the energy is not finite"),
    ("far", r"from the origin"),
    ("stress", r"dataset\.max_stress"),
    ("force", r"dataset\.max_force"),
]


def spoilt(slow: list[Atoms], what: str) -> list[Atoms]:
    frames = [frame.copy() for frame in slow[:10]]
    if what == "weights":
        frames[2].info["config_forces_weight"] = 9.0
    elif what == "nan":
        frames[2].info[ENERGY] = np.nan
    elif what == "far":
        frames[2].positions[0] = 1e12
    elif what == "stress":
        frames[2].info["REF_stress"] = np.full(9, 50.0)
    else:
        frames[2].arrays[FORCES][:2] = [[900.0, 0, 0], [-900.0, 0, 0]]
    return frames


@hostile
@pytest.mark.parametrize(("what", "said"), POOLS)
def test_pools_and_retention_sets_are_checked_as_data_are(
    what: str, said: str, slow: list[Atoms], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "pool.extxyz"
    write_frames(path, spoilt(slow, what))
    limits = Dataset(files=["a"], level_of_theory="x")
    with pytest.raises(RetemperError, match=said):
        reference_set.read(path, limits)
    lenient = limits.model_copy(update={"max_rejected": 0.5, "weights": "ignore"})
    frames = reference_set.read(path, lenient)
    assert len(frames) == (10 if what == "weights" else 9)
    assert not any("weight" in key for frame in frames for key in frame.info)
    assert ("left out" in capsys.readouterr().out) == (what != "weights")


@hostile
@pytest.mark.parametrize("factor", [-1.0, 27.2114])
def test_a_pool_in_other_units_is_refused(factor: float) -> None:
    frames = [frame for frame in read_frames(ROOT / "data/raw/nacl.extxyz.xz") if not is_free_atom(frame)]
    for frame in frames:
        frame.arrays[FORCES] = frame.arrays[FORCES] * factor
    with pytest.raises(RetemperError, match=r"pool: wrong units"):
        reference_set.judge_units(frames, "pool", None)
