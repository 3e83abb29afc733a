"""The replay weight works: in gradients, whatever the batch, and down to zero."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trainings import make_plan, run, weights

from retemper.data.frames import read_frames, write_frames
from retemper.finetune.plan import head_data


def gradients(
    files: dict[str, Any], weight: float, replay_count: int, target_count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Gradient of the replay loss class on one batch: [total, target part alone] flattened."""
    import torch
    from mace import data
    from mace.data.utils import KeySpecification, config_from_atoms
    from mace.tools import AtomicNumberTable, torch_geometric
    from mace.tools.model_script_utils import configure_model  # noqa: F401  (imports mace before e3nn)

    from retemper.finetune.mace.loss import ReplayLoss, universal

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
        loss = ReplayLoss(target, replay, weight, target_head=1)
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
    from retemper.finetune.mace.loaders import PairedLoader, target_loader

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
