"""Proof that what ran is what was asked for.

Everything is read from the live objects that MACE built (model, optimiser, average, loss,
loaded frames), not from its arguments or its log, and compared with the plan. MACE changes
or ignores settings silently in more than ten ways; each would show here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from retemper.config.strategies import Lora, Strategy
from retemper.core.errors import RetemperError
from retemper.finetune.mace.loaders import PairedLoader
from retemper.finetune.mace.loss import ReplayLoss
from retemper.finetune.mace.setup import Frames, Setup
from retemper.finetune.plan import Plan
from retemper.models.head_names import TARGET
from retemper.records.training import Configuration, Counts, Effective, LossSettings, Ran


def _rule(strategy: Strategy) -> tuple[str, ...]:
    """Fragments of parameter names that a strategy trains; empty: all that MACE optimises."""
    allowed: tuple[str, ...] = ()
    if strategy.freeze == 5:
        allowed = ("products.", "readouts.")
    if strategy.freeze == 6:
        allowed = ("readouts.",)
    return allowed


def trainable(model: Any, optimizer: torch.optim.Optimizer) -> list[str]:
    """Names of parameters that are optimised: they need a gradient, are in the optimiser, at lr > 0."""
    optimised = {id(p) for group in optimizer.param_groups if group["lr"] > 0 for p in group["params"]}
    return sorted(name for name, p in model.named_parameters() if p.requires_grad and id(p) in optimised)


def expected_trainable(model: Any, strategy: Strategy) -> list[str]:
    """Names that the strategy's words imply, found without MACE's freezing code."""
    optimised_parts = (
        "node_embedding.",
        "interactions.",
        "products.",
        "readouts.",
        "joint_embedding.",
        "embedding_readout.",
    )
    names = [name for name, _ in model.named_parameters() if name.startswith(optimised_parts)]
    allowed = _rule(strategy)
    if allowed:
        names = [name for name in names if name.startswith(allowed)]
    if strategy.lora is not None:
        names = [name for name in names if "lora_A" in name or "lora_B" in name]
    return sorted(names)


def asked(plan: Plan) -> Configuration:
    """What the plan demands, in the form that `ran` reads back."""
    strategy, training = plan.strategy, plan.strategy.training
    result = Configuration(
        heads=list(plan.heads),
        elements=sorted(plan.elements),
        E0s={head: data.E0s for head, data in plan.heads.items()},
        optimizer={"adam": "Adam", "adamw": "AdamW"}[training.optimizer],
        lr=training.lr,
        weight_decay=training.weight_decay,
        ema_decay=training.ema_decay,
        clip_grad=training.clip_grad,
        scheduler=training.scheduler,
        batch_size=plan.batch_size,
        max_epochs=plan.epochs,
        dtype=plan.dtype,
        loss=LossSettings(kind="UniversalLoss", **strategy.loss.model_dump()),
        frames={head: [data.n_train, data.n_valid] for head, data in plan.heads.items()},
        free_atoms=plan.target.free_atoms,
        lora=strategy.lora,
        starts_from_foundation=strategy.start == "foundation",
    )
    if plan.replay is not None and strategy.replay is not None:
        result.replay_loss = LossSettings(
            kind="UniversalLoss",
            energy_weight=strategy.replay.energy_weight,
            forces_weight=strategy.replay.forces_weight,
            stress_weight=strategy.replay.stress_weight,
            huber_delta=strategy.loss.huber_delta,
        )
        result.replay_weight = strategy.replay.weight
        replayed = sum(data.n_train for head, data in plan.heads.items() if head != TARGET)
        result.replay_batch_size = min(strategy.replay.batch_size, replayed)
    return result


def _loss(loss: Any) -> LossSettings:
    return LossSettings(
        kind=type(loss).__name__,
        energy_weight=float(loss.energy_weight),
        forces_weight=float(loss.forces_weight),
        stress_weight=float(loss.stress_weight),
        huber_delta=float(loss.huber_delta),
    )


def ran(setup: Setup, frames: Frames, free_atoms: int, start_gap: float) -> Ran:
    """What MACE and the loop hold at the start of training, read from the objects themselves.

    `free_atoms` were counted among the loaded training frames of the target (`loaded_labels.check`).
    """
    model, optimizer, loss_fn, loader = setup.model, setup.optimizer, setup.loss_fn, setup.train_loader
    rates = {float(group["lr"]) for group in optimizer.param_groups if group["lr"] > 0}
    decays = {float(group["weight_decay"]) for group in optimizer.param_groups}
    energies = model.atomic_energies_fn.atomic_energies.detach().cpu().double().numpy()
    energies = energies.reshape(len(model.heads), -1)
    zs = [int(z) for z in model.atomic_numbers]
    wrappers = [m for m in model.modules() if type(m).__name__.startswith("LoRA")]
    lora = None
    if wrappers:
        ranks = {_rank(m) for m in wrappers}
        lora = Lora(rank=min(ranks), alpha=float(wrappers[0].scaling) * min(ranks))
    result = Ran(
        heads=list(model.heads),
        elements=sorted(zs),
        E0s={head: dict(zip(zs, map(float, energies[k]), strict=True)) for k, head in enumerate(model.heads)},
        optimizer=type(optimizer).__name__,
        lr=rates.pop() if len(rates) == 1 else sorted(rates),
        weight_decay=decays.pop() if len(decays) == 1 else sorted(decays),
        ema_decay=float(setup.ema.decay) if setup.ema is not None else None,
        clip_grad=setup.max_grad_norm,
        scheduler=type(setup.lr_scheduler.lr_scheduler).__name__,
        batch_size=loader.batch_size,
        max_epochs=setup.max_num_epochs,
        dtype=str(next(model.parameters()).dtype).removeprefix("torch."),
        loss=_loss(loss_fn.target if isinstance(loss_fn, ReplayLoss) else loss_fn),
        frames={head: [len(train), len(valid)] for head, (train, valid) in frames.items()},
        free_atoms=free_atoms,
        lora=lora,
        starts_from_foundation=start_gap < 1e-3,
    )
    if isinstance(loss_fn, ReplayLoss) and isinstance(loader, PairedLoader):
        result.replay_loss = _loss(loss_fn.replay)
        result.replay_weight = float(loss_fn.weight)
        result.replay_batch_size = loader.replay_batch_size
    return result


def compared(plan: Plan, setup: Setup, frames: Frames, free: int, start_gap: float, trained: list[str]) -> Effective:
    """What the plan demands beside what is there at the start of training, with the differences."""
    want, got = asked(plan), ran(setup, frames, free, start_gap)
    wrong = differences(want.model_dump(), got.model_dump())
    expected = expected_trainable(setup.model, plan.strategy)
    if trained != expected:
        wrong.append(f"trainable: asked {len(expected)} tensors, ran {len(trained)}: {set(trained) ^ set(expected)}")
    return Effective(asked=want, ran=got, differences=wrong)


def _rank(module: Any) -> int:
    """Rank of an adapter: the inner dimension (dense), or copies of each irrep (equivariant)."""
    a = module.lora_A
    if isinstance(a, torch.nn.Parameter):
        return int(a.shape[1])
    if isinstance(a, torch.nn.Linear):
        return int(a.out_features)
    return min(int(mul) for mul, _ in module.lora_irreps)


def differences(want: Any, got: Any, path: str = "", tolerance: float = 1e-5) -> list[str]:
    """Where `got` is not `want`, as readable lines; numbers compare relatively."""
    if isinstance(want, dict) and isinstance(got, dict):
        lines = []
        for key in sorted(set(want) | set(got), key=str):
            if key not in want or key not in got:
                lines.append(f"{path}{key}: asked {want.get(key, 'nothing')}, ran {got.get(key, 'nothing')}")
            else:
                lines += differences(want[key], got[key], f"{path}{key}.", tolerance)
        return lines
    if isinstance(want, (int, float)) and isinstance(got, (int, float)) and not isinstance(want, bool):
        if math.isclose(want, got, rel_tol=tolerance, abs_tol=tolerance):
            return []
    elif want == got:
        return []
    return [f"{path.rstrip('.')}: asked {want}, ran {got}"]


def fingerprint(model: Any) -> dict[str, torch.Tensor]:
    """Copy of every parameter, to see afterwards which ones moved."""
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def check_moved(before: dict[str, torch.Tensor], model: Any, trained: Sequence[str]) -> Counts:
    """Raise if a frozen parameter moved or no trained one did; count both (numbers of parameters)."""
    moved = sorted(
        name for name, p in model.named_parameters() if not torch.equal(p.detach(), before[name].to(p.device))
    )
    stray = sorted(set(moved) - set(trained))
    if stray:
        raise RetemperError(
            f"Parameters that should be frozen moved: {', '.join(stray[:5])}.", expected="frozen parameters unchanged"
        )
    if not moved:
        raise RetemperError("No parameter moved during training.", expected=f"{len(trained)} trained tensors to change")
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    return Counts(
        parameters=sum(sizes.values()),
        trainable=sum(sizes[name] for name in trained),
        moved=sum(sizes[name] for name in moved),
    )
