"""How heads that are kept alive train: from where they start, by which loss, from disk, after a kill."""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from architectures import MH1_HEADS, build_mh1
from trainings import keeping, make_files, make_plan, molecules, run, weights

from retemper.core.errors import RetemperError
from retemper.data.frames import read_frames
from retemper.finetune.plan import Plan
from retemper.models import model_file, predict
from retemper.models.head_names import REPLAY
from retemper.records.training import Effective

FIRST, KEPT = MH1_HEADS[1], [MH1_HEADS[2], MH1_HEADS[0]]
ORIGINS = {REPLAY: FIRST, **dict(zip(KEPT, KEPT, strict=True))}  # heads of the foundation


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("kept")
    return make_files(folder, build_mh1(folder / "foundation.model"), FIRST, molecules())


def plan_of(files: dict[str, Any], **more: Any) -> Plan:
    return keeping(make_plan(files, "pseudolabel-replay", **more), files, KEPT)


@pytest.mark.parametrize("changes", [{"lora": {"rank": 2, "alpha": 1.0}}, {"freeze": 6}], ids=str)
def test_they_go_with_adapters_and_freezing(changes: dict[str, Any], files: dict[str, Any], tmp_path: Path) -> None:
    run(plan_of(files, epochs=1, **changes), tmp_path)
    proof = Effective.read(tmp_path / "effective.json")
    assert proof.differences == [] and proof.ran.start_gap < 1e-9 and set(KEPT) < set(proof.ran.heads)


def test_maces_file_says_what_mace_does_otherwise(files: dict[str, Any], tmp_path: Path) -> None:
    """14 target frames and three heads of 12 are 12 steps of 4; MACE starts every head as one."""
    run(plan_of(files, epochs=1), tmp_path)
    note = (tmp_path / "mace.yaml").read_text()
    assert "an epoch of MACE has 12 steps" in note
    assert all(f"# head {head}: MACE starts it as head {FIRST}" in note for head in KEPT)


def test_every_head_starts_as_the_foundations(
    files: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from retemper.finetune.mace import train

    def keep(plan: Plan, built: Any, *rest: Any) -> None:
        model_file.write_pickle(built.model, tmp_path / "start.model")
        raise RetemperError("written")

    monkeypatch.setattr(train, "_train", keep)
    with pytest.raises(RetemperError, match="written"):
        run(plan_of(files), tmp_path / "run")
    frames, energies = read_frames(files["folder"] / "valid.extxyz")[:3], []
    for head, origin in ORIGINS.items():
        got = predict.predict(tmp_path / "start.model", frames, head=head, backend="torch")
        want = predict.predict(files["model"], frames, head=origin, backend="torch")
        np.testing.assert_allclose(got.energy, want.energy, atol=1e-9)
        np.testing.assert_allclose(np.concatenate(got.forces), np.concatenate(want.forces), atol=1e-9)
        energies.append(got.energy)
    assert min(abs(a - b).min() for a, b in pairwise(energies)) > 0.1  # heads differ


def test_heads_that_start_as_another_are_refused(
    files: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Left to MACE all heads start as one; the proof sees it."""
    from retemper.finetune.mace import train

    of_heads = train.head_weights.with_heads
    monkeypatch.setattr(
        train.head_weights, "with_heads", lambda model, heads: of_heads(model, dict.fromkeys(heads, FIRST))
    )
    with pytest.raises(RetemperError, match="is not what was asked for") as raised:
        run(plan_of(files), tmp_path)
    assert "starts_from_foundation: asked True, ran False" in str(raised.value.got)


def batch_of(files: dict[str, Any], model: Any, counts: dict[str, int]) -> Any:
    """The first frames of each head's training set, with their labels, as MACE takes them."""
    from mace import data
    from mace.data.utils import KeySpecification, config_from_atoms
    from mace.tools import AtomicNumberTable, torch_geometric

    table = AtomicNumberTable([int(z) for z in model.atomic_numbers])
    keys = KeySpecification(info_keys={"energy": "REF_energy"}, arrays_keys={"forces": "REF_forces"})
    graphs = []
    for head, count in counts.items():
        name = f"{head}-train" if head in KEPT else "train"
        for atoms in read_frames(files["folder"] / f"{name}.extxyz")[:count]:
            config = config_from_atoms(atoms, key_specification=keys, head_name=head)
            graphs.append(data.AtomicData.from_config(config, z_table=table, cutoff=4.0, heads=list(model.heads)))
    return torch_geometric.Batch.from_data_list(graphs)


def test_the_loss_weighs_replayed_frames_of_all_heads_alike(files: dict[str, Any]) -> None:
    """It is the sum that it says, and its gradient is that of finite differences."""
    import torch

    from retemper.finetune.mace.loss import ReplayLoss, universal

    torch.set_default_dtype(torch.float64)
    plan_of(files)  # labels
    model = model_file.load(files["model"])
    numbers = {"energy_weight": 1.0, "forces_weight": 10.0, "stress_weight": 1.0}
    target, replay = universal(numbers | {"energy_weight": 10.0}, 0.01), universal(numbers, 0.01)
    loss = ReplayLoss(target, replay, 3.0, list(model.heads).index(FIRST))
    model.scale_shift.scale += 0.1  # away from the labels, where the replay loss has its minimum

    def value(of: Any, batch: Any) -> Any:
        return of(pred=model(batch.to_dict(), training=True, compute_stress=True), ref=batch)

    mixed = batch_of(files, model, {FIRST: 3, KEPT[0]: 4, KEPT[1]: 2})
    of_target, of_replay = batch_of(files, model, {FIRST: 3}), batch_of(files, model, {KEPT[0]: 4, KEPT[1]: 2})
    parts = float(value(target, of_target)), float(value(replay, of_replay))
    assert float(value(loss, mixed)) == pytest.approx(parts[0] + 3.0 * parts[1], rel=1e-10) and parts[1] > 1e-4
    model.zero_grad()
    value(loss, mixed).backward()
    torch.manual_seed(0)
    parameters = [p for p in model.parameters() if p.grad is not None]
    direction = [torch.randn_like(p) * p.abs().mean() for p in parameters]
    slope = sum(float((p.grad * d).sum()) for p, d in zip(parameters, direction, strict=True))  # type: ignore[operator]
    step, ends = 1e-5, []
    for sign in (1, -2):
        with torch.no_grad():
            for p, d in zip(parameters, direction, strict=True):
                p += sign * step * d
        ends.append(float(value(loss, mixed)))
    assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(slope, rel=1e-5)


def test_a_target_on_disk_trains_the_same(files: dict[str, Any], tmp_path: Path) -> None:
    plan = plan_of(files, epochs=1)
    _, memory = run(plan, tmp_path / "memory")
    _, disk = run(dataclasses.replace(plan, disk_above=0), tmp_path / "disk")
    assert "aselmdb" in (tmp_path / "disk/mace.yaml").read_text()
    assert untimed(disk[0]) == pytest.approx(untimed(memory[0]), rel=1e-9)


def test_a_killed_training_goes_on_as_the_same(files: dict[str, Any], tmp_path: Path) -> None:
    from retemper.finetune.mace.train import train

    plan = plan_of(files, epochs=3)
    _, rows = run(plan, tmp_path / "whole")

    def die(row: dict[str, float]) -> None:
        if row["epoch"] == 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(plan, tmp_path / "killed", die)
    outcome, rest = run(plan, tmp_path / "killed")
    assert outcome.started_from == 1 and [untimed(row) for row in rest] == [untimed(row) for row in rows[1:]]
    a, b = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert all(bool((a[name] == b[name]).all()) for name in a)


def untimed(row: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in row.items() if "seconds" not in name}
