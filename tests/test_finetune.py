"""The trainer: traps closed, weights that work, runs that resume as the same run.

Training data are frames of the embedded GFN2-xTB droplets; the foundation is a tiny
untrained MACE, so that every test is a matter of seconds.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.build import molecule
from conftest import ROOT

from retemper import strategies
from retemper.errors import RetemperError
from retemper.files import sha256
from retemper.finetune.plan import Plan, head_data, versions
from retemper.frames import is_isolated_atom, read_frames, write_frames

ALL = ["scratch", "naive", "freeze-5", "freeze-6", "lora", "replay", "pseudolabel-replay", "replay-lora"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> dict[str, Any]:
    """Target and replay sets with their reference energies."""
    from retemper.inference import atomic_energies, predict

    folder = tmp_path_factory.mktemp("sets")
    frames = [a for a in read_frames(ROOT / "data/raw/nacl.extxyz.xz") if not is_isolated_atom(a)][::9][:22]
    write_frames(folder / "train.extxyz", frames[:14])
    write_frames(folder / "valid.extxyz", frames[14:22])
    rng = np.random.default_rng(0)
    replay = []
    for k in range(18):
        atoms = molecule(["CH3OH", "NH3", "CH4", "C2H6", "H2O", "CH3Cl"][k % 6])
        atoms.positions += rng.normal(scale=0.05, size=atoms.positions.shape)
        replay.append(atoms)
    labels = predict(tiny_model, replay, backend="torch")
    for atoms, energy, forces in zip(replay, labels.energy, labels.forces, strict=True):
        atoms.info["REF_energy"], atoms.arrays["REF_forces"] = float(energy), forces
    write_frames(folder / "replay-train.extxyz", replay[:12])
    write_frames(folder / "replay-valid.extxyz", replay[12:])
    e0s = atomic_energies(tiny_model)
    zs = sorted(e0s)
    counts = np.array([[np.sum(a.numbers == z) for z in zs] for a in frames[:14]], float)
    gap = (
        np.array([a.info["REF_energy"] for a in frames[:14]]) - predict(tiny_model, frames[:14], backend="torch").energy
    )
    shift = np.linalg.lstsq(counts, gap, rcond=None)[0]
    return {
        "folder": folder,
        "model": tiny_model,
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
    return Plan(
        strategy=strategy.model_dump(),
        seed=3,
        foundation=str(model),
        foundation_sha256=sha256(model),
        foundation_head=None,
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


def run(plan: Plan, folder: Path) -> tuple[dict[str, Any], list[dict[str, float]]]:
    from retemper.finetune.worker import train

    rows: list[dict[str, float]] = []
    return train(plan, folder, rows.append), rows


def weights(folder: Path) -> dict[str, Any]:
    import torch

    return dict(torch.load(folder / "model.model", weights_only=False).state_dict())


def test_every_strategy_is_listed() -> None:
    assert sorted(ALL) == strategies.names(ROOT)


@pytest.mark.parametrize("name", ALL)
def test_strategy_runs_as_asked(name: str, files: dict[str, Any], tmp_path: Path) -> None:
    """Every strategy trains, keeps all elements, moves what it should, and the proof agrees."""
    from retemper import inference

    summary, rows = run(make_plan(files, name), tmp_path)
    proof = json.loads((tmp_path / "effective.json").read_text())
    assert proof["differences"] == [] and proof["asked"]["lr"] == proof["ran"]["lr"]
    assert len(rows) == 2 and rows[1]["valid_loss"] < rows[0]["valid_loss"]
    assert inference.elements(tmp_path / "model.model") == inference.elements(files["model"])
    before, after = weights_of(files["model"]), weights(tmp_path)
    frozen = {"freeze-5": "interactions.0.linear_up.weight", "freeze-6": "products.0.linear.weight"}.get(name)
    if frozen:
        assert np.array_equal(before[frozen].numpy(), after[frozen].numpy())
    if name == "lora":
        linear = "interactions.0.linear_up.weight"  # merged adapters: changed, and no adapter left
        assert not np.array_equal(before[linear].numpy(), after[linear].numpy())
        assert not any("lora" in key for key in after)
        assert summary["trainable"] < summary["parameters"] / 2
    if name != "scratch":
        assert proof["ran"]["start_gap"] < 1e-9


def weights_of(path: Path) -> dict[str, Any]:
    import torch

    return dict(torch.load(path, weights_only=False).state_dict())


def test_lr_and_ema_of_replay_are_not_overwritten(files: dict[str, Any], tmp_path: Path) -> None:
    """MACE sets lr 1e-4 and EMA 0.99999 in multihead mode unless told otherwise."""
    run(make_plan(files, "replay", epochs=1, training__lr=2.5e-3, training__ema_decay=0.97), tmp_path)
    ran = json.loads((tmp_path / "effective.json").read_text())["ran"]
    assert ran["lr"] == 2.5e-3 and ran["ema_decay"] == 0.97


def test_a_silently_changed_setting_fails_the_run(
    files: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without force_mh_ft_lr MACE changes the learning rate: the proof must refuse that run."""
    from retemper.finetune import worker

    original = worker.mace_flags
    monkeypatch.setattr(worker, "mace_flags", lambda *a: {**original(*a), "force_mh_ft_lr": False})
    with pytest.raises(RetemperError, match=r"lr: asked 0.0025, ran 0.0001"):
        run(make_plan(files, "replay", training__lr=2.5e-3), tmp_path)
    assert not (tmp_path / "model.model").exists()


def test_changed_labels_fail_the_run(files: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames that MACE doubles (few targets beside much replay) are noticed."""
    from retemper.finetune import worker

    original = worker.mace_flags
    monkeypatch.setattr(worker, "mace_flags", lambda *a: {**original(*a), "real_pt_data_ratio_threshold": 3.0})
    with pytest.raises(RetemperError, match=r"MACE trains on \d+ frames"):
        run(make_plan(files, "replay"), tmp_path)


def gradients(
    files: dict[str, Any], weight: float, replay_count: int, target_count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Gradient of the replay loss class on one batch: [total, target part alone] flattened."""
    import torch
    from mace import data
    from mace.data.utils import KeySpecification, config_from_atoms
    from mace.tools import AtomicNumberTable, torch_geometric
    from mace.tools.model_script_utils import configure_model  # noqa: F401  (imports mace before e3nn)

    from retemper.finetune.loss import ReplayLoss, universal

    torch.set_default_dtype(torch.float64)
    model = torch.load(files["multihead"], weights_only=False)
    table = AtomicNumberTable([int(z) for z in model.atomic_numbers])
    keys = KeySpecification(info_keys={"energy": "REF_energy", "head": "head"}, arrays_keys={"forces": "REF_forces"})

    def batch_of(counts: dict[str, int]) -> Any:
        items = []
        for head, count in counts.items():
            name = "replay-train" if head == "pt_head" else "train"
            for atoms in read_frames(files["folder"] / f"{name}.extxyz")[:count]:
                atoms.info["head"] = head
                config = config_from_atoms(atoms, key_specification=keys, head_name=head)
                items.append(data.AtomicData.from_config(config, z_table=table, cutoff=4.0, heads=list(model.heads)))
        return torch_geometric.Batch.from_data_list(items)

    target = universal({"energy_weight": 10.0, "forces_weight": 10.0, "stress_weight": 1.0}, 0.01)
    replay = universal({"energy_weight": 1.0, "forces_weight": 10.0, "stress_weight": 1.0}, 0.01)
    results = []
    for counts in ({"Default": target_count, "pt_head": replay_count}, {"Default": target_count}):
        loss = ReplayLoss(target, replay, weight, 0)
        batch = batch_of(counts)
        model.zero_grad()
        loss(pred=model(batch.to_dict(), training=True, compute_stress=True), ref=batch).backward()
        results.append(
            np.concatenate(
                [(p.grad if p.grad is not None else torch.zeros_like(p)).flatten() for p in model.parameters()]
            )
        )
    return results[0], results[1]


@pytest.fixture(scope="module")
def multi(files: dict[str, Any], tiny_multihead: Path) -> dict[str, Any]:
    return {**files, "multihead": tiny_multihead}


def test_replay_gradient_is_proportional_to_the_weight(multi: dict[str, Any]) -> None:
    """g(w) = g_target + w g_replay, exactly; in MACE itself w = 1 and w = 100 give the same."""
    one, target = gradients(multi, 1.0, 4, 4)
    hundred, _ = gradients(multi, 100.0, 4, 4)
    zero, _ = gradients(multi, 0.0, 4, 4)
    np.testing.assert_allclose(zero, target, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(hundred - target, 100 * (one - target), rtol=1e-7, atol=1e-9)
    assert np.linalg.norm(one - target) > 1e-3 * np.linalg.norm(target)


def test_replay_weight_does_not_depend_on_the_mix(multi: dict[str, Any]) -> None:
    """Doubling the replay frames (same frames twice) or adding targets leaves the replay gradient as it is."""
    few, target_few = gradients(multi, 2.0, 6, 3)
    many, target_many = gradients(multi, 2.0, 6, 12)
    np.testing.assert_allclose(few - target_few, many - target_many, rtol=1e-6, atol=1e-10)
    assert not np.allclose(target_few, target_many)


def test_weight_zero_ignores_the_replay_set(files: dict[str, Any], tmp_path: Path) -> None:
    """With weight 0 the target trains on the batches of a run without replay, whatever the replay set holds."""
    from retemper.finetune.batches import PairedLoader, target_loader

    plan = make_plan(files, "replay", replay__weight=0.0, training__lr=1e-3)
    run(plan, tmp_path / "a")
    other = read_frames(plan.replay.train)[:6]  # type: ignore[union-attr]
    for atoms in other:
        atoms.arrays["REF_forces"] = atoms.arrays["REF_forces"] * 3.0
    write_frames(files["folder"] / "other.extxyz", other)
    changed = head_data(
        files["folder"] / "other.extxyz", files["folder"] / "replay-valid.extxyz", "original", files["replay_e0s"]
    )
    run(dataclasses.replace(plan, replay=changed), tmp_path / "b")
    a, b = weights(tmp_path / "a"), weights(tmp_path / "b")
    assert all(np.allclose(a[key].numpy(), b[key].numpy(), rtol=0, atol=1e-12) for key in a)

    items = list(range(11))
    plain = target_loader(items, 3, seed=5)
    paired = PairedLoader(items, list(range(100, 107)), 3, 2, seed=5)
    import mace.tools.torch_geometric as geometric

    seen: list[list[int]] = []
    original = geometric.Batch.from_data_list
    geometric.Batch.from_data_list = lambda chosen: seen.append(chosen)  # type: ignore[method-assign,assignment]
    try:
        for _ in range(3):
            list(paired)
    finally:
        geometric.Batch.from_data_list = original  # type: ignore[method-assign]
    expected = [batch.tolist() for _ in range(3) for batch in plain]
    assert [batch[:3] for batch in seen] == expected
    drawn = [index for batch in seen for index in batch[3:]]
    assert sorted(drawn[:14]) == sorted(list(range(100, 107)) * 2)  # every replay frame once a cycle


@pytest.mark.parametrize("name", ["naive", "lora", "freeze-5"])
def test_losses_agree_with_mace_run_train(name: str, files: dict[str, Any], tmp_path: Path) -> None:
    """The same settings through MACE's own command give the same validation loss, epoch by epoch.

    The target's E0s are the foundation's here: MACE would replace any others (see the next test).
    """
    folder = files["folder"]
    target = head_data(folder / "replay-train.extxyz", folder / "replay-valid.extxyz", "target", files["replay_e0s"])
    plan = dataclasses.replace(make_plan(files, name, epochs=3), target=target)
    _, rows = run(plan, tmp_path / "ours")
    config = (tmp_path / "ours/mace.yaml").read_text().replace(str(tmp_path / "ours/mace"), str(tmp_path / "mace"))
    (tmp_path / "mace.yaml").write_text(config)
    subprocess.run(
        [sys.executable, "-m", "mace.cli.run_train", "--config", str(tmp_path / "mace.yaml")],
        check=True, capture_output=True, env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )  # fmt: skip
    results = next((tmp_path / "mace/results").glob("*_train.txt")).read_text().splitlines()
    theirs = [e for e in map(json.loads, results) if e["mode"] == "eval" and e["epoch"] is not None]
    batches, frames = 2, 6  # MACE reports the sum of batch means divided by the number of frames
    assert len(theirs) == 3
    for ours, entry in zip(rows, theirs, strict=True):
        assert ours["target_force_rmse"] == pytest.approx(1e3 * entry["rmse_f"], rel=1e-6)
        assert ours["target_loss"] == pytest.approx(entry["loss"] * frames / batches, rel=1e-6)


def test_mace_would_lose_the_reference_energies(
    files: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Left alone, MACE overwrites the E0s it is given by the foundation's; the proof sees it, the worker mends it."""
    from retemper.finetune import worker
    from retemper.inference import atomic_energies

    run(make_plan(files, "naive", epochs=1), tmp_path / "mended")
    assert atomic_energies(tmp_path / "mended/model.model") == pytest.approx(files["target_e0s"], rel=1e-12)
    monkeypatch.setattr(worker, "_set_reference_energies", lambda model, plan: None)
    with pytest.raises(RetemperError, match=r"E0s\.Default"):
        run(make_plan(files, "naive", epochs=1), tmp_path / "alone")


def test_killed_run_goes_on_as_the_same_run(files: dict[str, Any], tmp_path: Path) -> None:
    """kill -9 after an epoch, run again: the same history and the same weights as an unbroken run."""
    plan = make_plan(files, "replay", epochs=4, training__lr=1e-3)
    _, rows = run(plan, tmp_path / "whole")
    script = tmp_path / "train.py"
    script.write_text(
        "import os, pickle, signal, sys\n"
        "from pathlib import Path\n"
        "from retemper.finetune.worker import train\n"
        "plan = pickle.load(open(sys.argv[1], 'rb'))\n"
        "die = lambda row: os.kill(os.getpid(), signal.SIGKILL) if row['epoch'] == 1 else None\n"
        "train(plan, Path(sys.argv[2]), die)\n"
    )
    import pickle

    (tmp_path / "plan.pkl").write_bytes(pickle.dumps(plan))
    killed = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "plan.pkl"), str(tmp_path / "killed")],
        env={**os.environ, "PYTHONWARNINGS": "ignore"}, capture_output=True,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "killed/model.model").exists()
    summary, rest = run(plan, tmp_path / "killed")
    assert summary["started_from"] == 2 and [row["epoch"] for row in rest] == [2, 3]
    assert rest[-1]["valid_loss"] == pytest.approx(rows[-1]["valid_loss"], rel=1e-10)
    a, b = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert all(np.allclose(a[key].numpy(), b[key].numpy(), rtol=0, atol=1e-10) for key in a)
    assert len((tmp_path / "killed/history.csv").read_text().splitlines()) == 5
    again, none = run(plan, tmp_path / "killed")  # a finished run is not repeated
    assert none == [] and again["sha256"] == summary["sha256"]


def test_seeds_side_by_side_and_no_orphans(files: dict[str, Any], tmp_path: Path) -> None:
    """Two seeds train in two workers; kill -9 of the parent ends them; running again finishes both."""
    import pickle

    import psutil

    plans = [dataclasses.replace(make_plan(files, "naive", epochs=6), seed=seed) for seed in (1, 2)]
    (tmp_path / "plans.pkl").write_bytes(pickle.dumps(plans))
    script = tmp_path / "seeds.py"
    script.write_text(
        "import pickle, sys\n"
        "from pathlib import Path\n"
        "from retemper.finetune.seeds import train_all\n"
        "if __name__ == '__main__':\n"
        "    plans = pickle.load(open(sys.argv[1], 'rb'))\n"
        "    folders = [Path(sys.argv[2]) / str(plan.seed) for plan in plans]\n"
        "    done = train_all(plans, folders, 2, lambda seed, row: print(seed, int(row['epoch']), flush=True))\n"
        "    print('done', [one['epochs'] for one in done], flush=True)\n"
    )
    command = [sys.executable, str(script), str(tmp_path / "plans.pkl"), str(tmp_path / "runs")]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert first.stdout is not None and first.stdout.readline().split()[1] == "0"
    children = psutil.Process(first.pid).children(recursive=True)
    assert len(children) >= 2
    first.kill()
    first.wait()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not [p for p in alive if p.status() != psutil.STATUS_ZOMBIE]
    second = subprocess.run(command, capture_output=True, text=True)
    assert "done [6, 6]" in second.stdout, second.stderr
    epochs = [line.split() for line in second.stdout.splitlines() if not line.startswith("done")]
    assert ["1", "5"] in epochs and ["2", "5"] in epochs and len(epochs) < 12


def test_key_depends_on_what_decides_the_result(files: dict[str, Any]) -> None:
    plan = make_plan(files, "replay")
    assert plan.key == make_plan(files, "replay").key
    assert plan.key != make_plan(files, "replay", replay__weight=2.0).key
    assert plan.key != dataclasses.replace(plan, seed=4).key
    renamed = copy.deepcopy(plan.strategy)
    renamed["about"] = "other words"
    assert plan.key == dataclasses.replace(plan, strategy=renamed, device="cuda").key


def test_unknown_names_suggest_the_nearest() -> None:
    with pytest.raises(RetemperError, match="did you mean 'replay-lora'"):
        strategies.load("replay-lorra", ROOT)
    with pytest.raises(RetemperError, match="no setting trainings.lr"):
        strategies.load("naive", ROOT, {"trainings.lr": 1.0})
    with pytest.raises(RetemperError, match="did you mean 'lr'"):
        strategies.load("naive", ROOT, {"training.lrr": 1.0})


def test_mace_still_has_the_places_we_use() -> None:
    """A MACE release that moves them fails here, loudly."""
    import inspect

    import mace.tools
    from mace.cli import run_train
    from mace.tools.train import evaluate, train_one_epoch

    assert run_train.tools is mace.tools
    needed = {"model", "loss_fn", "train_loader", "valid_loaders", "optimizer", "lr_scheduler", "ema", "max_grad_norm"}
    assert needed <= set(inspect.signature(mace.tools.train).parameters)
    assert {"logger", "ema", "max_grad_norm"} <= set(inspect.signature(train_one_epoch).parameters)
    assert {"data_loader", "output_args"} <= set(inspect.signature(evaluate).parameters)
