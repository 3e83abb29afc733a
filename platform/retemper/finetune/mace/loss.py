"""A loss in which the replay weight works.

In multihead fine-tuning MACE reads neither ``--weight_pt_head`` for frames from a
``--pt_train_file`` nor a frame's weight in its universal loss, so a replay weight of 1
and of 100 train the same model. Here

    L = L_target(target frames of the batch) + w * L_replay(replay frames of the batch)

where both are MACE's universal loss, each a mean over its own frames. The gradient's
replay part is proportional to w whatever the batch size and whatever the mix.
"""

from __future__ import annotations

from typing import Any

import torch
from mace.modules.loss import UniversalLoss


def universal(weights: dict[str, float], huber_delta: float) -> UniversalLoss:
    """MACE's universal loss from energy_weight, forces_weight and stress_weight."""
    return UniversalLoss(
        energy_weight=weights["energy_weight"],
        forces_weight=weights["forces_weight"],
        stress_weight=weights["stress_weight"],
        huber_delta=huber_delta,
    )


class _Part(dict):
    """Reference labels of some frames of a batch, with the attributes that the loss reads."""

    def __getattr__(self, name: str) -> Any:
        return self[name]


class ReplayLoss(torch.nn.Module):
    """Target loss plus `weight` times replay loss.

    Parameters
    ----------
    target, replay : UniversalLoss
    weight : float
        Of the replay loss; 0 trains on the target alone.
    target_head : int
        Index of the target's head in ``batch.head``; frames of all others are replayed.
    """

    def __init__(self, target: UniversalLoss, replay: UniversalLoss, weight: float, target_head: int):
        super().__init__()
        self.target = target
        self.replay = replay
        self.weight = weight
        self.target_head = target_head

    def forward(self, ref: Any, pred: dict[str, torch.Tensor], ddp: bool | None = None) -> torch.Tensor:
        """Loss of a batch (scalar). A head without frames in the batch contributes nothing."""
        is_replay = ref["head"] != self.target_head
        total: torch.Tensor = pred["energy"].sum() * 0.0
        if bool((~is_replay).any()):
            total = total + self.target(*_select(ref, pred, ~is_replay), ddp)
        if self.weight > 0 and bool(is_replay.any()):
            total = total + self.weight * self.replay(*_select(ref, pred, is_replay), ddp)
        return total


def _select(ref: Any, pred: dict[str, torch.Tensor], graphs: torch.Tensor) -> tuple[_Part, dict[str, torch.Tensor]]:
    """The frames of `graphs` (mask [n_graphs]) of a batch and of its prediction."""
    counts = ref["ptr"][1:] - ref["ptr"][:-1]
    atoms = torch.repeat_interleave(graphs, counts)
    sizes = counts[graphs]
    part = _Part(
        ptr=torch.cat([sizes.new_zeros(1), sizes.cumsum(0)]),
        energy=ref["energy"][graphs],
        forces=ref["forces"][atoms],
        stress=ref["stress"][graphs],
        energy_weight=ref["energy_weight"][graphs],
        forces_weight=ref["forces_weight"][graphs],
        stress_weight=ref["stress_weight"][graphs],
    )
    selected = {"energy": pred["energy"][graphs], "forces": pred["forces"][atoms]}
    if pred.get("stress") is not None:
        selected["stress"] = pred["stress"][graphs]
    return part, selected


class WholeSet(torch.nn.Module):
    """Stands in for a loss while a set is evaluated batch by batch, and gives the loss of the set as one batch.

    A mean of batch means gives the frames of a small last batch more weight than the others.
    """

    def __init__(self, loss: torch.nn.Module):
        super().__init__()
        self.own = loss
        self.parts: list[tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]] = []

    def forward(self, ref: Any, pred: dict[str, torch.Tensor], ddp: bool | None = None) -> torch.Tensor:
        """Keep a batch; the value (0) means nothing."""
        names = ("energy", "forces", "stress", "energy_weight", "forces_weight", "stress_weight", "head")
        reference = {name: ref[name].detach() for name in names} | {"counts": ref["ptr"][1:] - ref["ptr"][:-1]}
        of_model = {name: pred[name].detach() for name in names[:3] if pred.get(name) is not None}
        self.parts.append((reference, of_model))
        return pred["energy"].new_zeros(())

    def value(self) -> float:
        """Loss of all frames kept so far: every frame weighs the same, however the set was divided."""
        ref, pred = (
            {name: torch.cat([part[name] for part in side]) for name in side[0]}
            for side in zip(*self.parts, strict=True)
        )
        counts = ref.pop("counts")
        ptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        return float(self.own(ref=_Part(**ref, ptr=ptr), pred=pred))
