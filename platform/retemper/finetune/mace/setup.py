"""What MACE built for a training, and what is put in place of parts of it before the first step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch

from retemper.finetune.mace.loaders import PairedLoader
from retemper.finetune.mace.loss import ReplayLoss, universal
from retemper.finetune.plan import Plan
from retemper.models.head_names import REPLAY, TARGET, name_of

Frames = dict[str, tuple[Sequence[Any], Sequence[Any]]]  # training and validation, by head


@dataclass(frozen=True)
class Setup:
    """MACE's objects at the point where it would train, under the names that it gives them."""

    model: Any
    loss_fn: Any
    train_loader: Any
    valid_loaders: dict[str, Any]  # by head
    optimizer: torch.optim.Optimizer
    lr_scheduler: Any
    ema: Any  # None without an average
    max_grad_norm: float | None
    max_num_epochs: int
    patience: int
    output_args: dict[str, bool]
    device: torch.device

    @classmethod
    def of(cls, arguments: dict[str, Any]) -> Self:
        """From what MACE passes to `mace.tools.train`."""
        return cls(**{field.name: arguments[field.name] for field in fields(cls)})

    def frames(self) -> Frames:
        """Frames by head; MACE concatenates its training sets in the order of the heads."""
        sets = self.train_loader.dataset.datasets
        return {head: (sets[k], self.valid_loaders[head].dataset) for k, head in enumerate(self.model.heads)}

    def first_batch(self, head: str = TARGET) -> Any:
        """The first validation batch of a head."""
        return next(iter(self.valid_loaders[head])).to(self.device)

    def with_replay(self, plan: Plan, frames: Frames) -> Setup:
        """The same with a loss in which the replay weight works, and batches in which it is balanced."""
        strategy, replay = plan.strategy, plan.strategy.replay
        if plan.replay is None or replay is None:
            return self
        weights = {name: getattr(replay, name) for name in ("energy_weight", "forces_weight", "stress_weight")}
        loss = universal(weights, strategy.loss.huber_delta).to(self.device)
        target = list(self.model.heads).index(TARGET)
        replayed = [frame for head in (REPLAY, *map(name_of, plan.kept)) for frame in frames[head][0]]
        return replace(
            self,
            loss_fn=ReplayLoss(self.loss_fn, loss, replay.weight, target).to(self.device),
            train_loader=PairedLoader(frames[TARGET][0], replayed, plan.batch_size, replay.batch_size, plan.seed),
        )
