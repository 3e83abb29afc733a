"""Proof that what ran is what was asked for.

Everything is read from the live objects that MACE built (model, optimiser, average, loss,
loaded frames), not from its arguments or its log, and compared with the plan. MACE changes
or ignores settings silently in more than ten ways; each would show here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from retemper.config.strategies import Lora, Strategy
from retemper.core.errors import RetemperError
from retemper.data import charge, frame_weights
from retemper.data.frames import ENERGY, FORCES, STRESS, stream_frames
from retemper.finetune.mace.loaders import PairedLoader
from retemper.finetune.mace.loss import ReplayLoss
from retemper.finetune.plan import REPLAY, TARGET, HeadData, Plan
from retemper.records.training import Configuration, Counts, LossSettings, Ran, WeightRange


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
    strategy = Strategy.model_validate(plan.strategy)
    training = strategy.training
    result = Configuration(
        heads=[REPLAY, TARGET] if plan.replay is not None else [TARGET],
        elements=sorted(plan.elements),
        E0s={TARGET: plan.target.E0s, **({REPLAY: plan.replay.E0s} if plan.replay else {})},
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
        frames={TARGET: [plan.target.n_train, plan.target.n_valid]},
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
        result.replay_batch_size = min(strategy.replay.batch_size, plan.replay.n_train)
        result.frames[REPLAY] = [plan.replay.n_train, plan.replay.n_valid]
    return result


def _loss(loss: Any) -> LossSettings:
    return LossSettings(
        kind=type(loss).__name__,
        energy_weight=float(loss.energy_weight),
        forces_weight=float(loss.forces_weight),
        stress_weight=float(loss.stress_weight),
        huber_delta=float(loss.huber_delta),
    )


def ran(
    *,
    model: Any,
    optimizer: torch.optim.Optimizer,
    ema: Any,
    loss_fn: Any,
    loader: Any,
    frames: dict[str, tuple[Sequence[Any], Sequence[Any]]],
    max_grad_norm: float | None,
    max_num_epochs: int,
    scheduler: Any,
    start_gap: float,
) -> Ran:
    """What MACE and the loop hold at the start of training, read from the objects themselves."""
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
        ema_decay=float(ema.decay) if ema is not None else None,
        clip_grad=max_grad_norm,
        scheduler=type(scheduler.lr_scheduler).__name__,
        batch_size=loader.batch_size,
        max_epochs=max_num_epochs,
        dtype=str(next(model.parameters()).dtype).removeprefix("torch."),
        loss=_loss(loss_fn.target if isinstance(loss_fn, ReplayLoss) else loss_fn),
        frames={head: [len(train), len(valid)] for head, (train, valid) in frames.items()},
        lora=lora,
        starts_from_foundation=start_gap < 1e-3,
    )
    if isinstance(loss_fn, ReplayLoss) and isinstance(loader, PairedLoader):
        result.replay_loss = _loss(loss_fn.replay)
        result.replay_weight = float(loss_fn.weight)
        result.replay_batch_size = loader.replay_batch_size
    return result


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


@dataclass(frozen=True)
class Loaded:
    """What frames hold that a model is trained on, one row a frame."""

    labels: np.ndarray  # [n, 2] energy (eV), root mean square force (eV/A)
    states: np.ndarray  # [n, 2] charge (e), multiplicity
    weights: np.ndarray  # [n, 4] of energy, forces and stress in the loss, and of the frame; stress 0 without a label

    @classmethod
    def by_mace(cls, frames: Sequence[Any]) -> Loaded:
        """Of frames as MACE loaded them."""
        rows = np.empty((len(frames), 8))
        for k in range(len(frames)):  # once each: of a set on disk every look makes the frame anew
            frame = frames[k]
            labels = float(frame.energy), float(frame.forces.double().pow(2).mean().sqrt())
            weights = (frame.energy_weight, frame.forces_weight, frame.stress_weight, frame.weight)
            rows[k] = *labels, float(frame.total_charge), float(frame.total_spin), *map(float, weights)
        return cls(rows[:, :2], rows[:, 2:4], rows[:, 4:])

    @classmethod
    def from_file(cls, path: str, weighted: bool) -> Loaded:
        """Of a labelled file; weights count where they were asked for (`weighted`), else all are 1."""
        rows = []
        for a in stream_frames(path):
            energy, forces, stress = frame_weights.weights_of(a) if weighted else (1.0, 1.0, 1.0)
            weights = energy, forces, stress if STRESS in a.info else 0.0, 1.0
            rms = float(np.sqrt(np.mean(a.arrays[FORCES] ** 2)))
            rows.append((float(a.info[ENERGY]), rms, charge.charge_of(a), charge.spin_of(a) or 1.0, *weights))
        table = np.array(rows).reshape(-1, 8)
        return cls(table[:, :2], table[:, 2:4], table[:, 4:])


def check_labels(head: str, data: HeadData, loaded: Sequence[Any], path: str) -> dict[str, WeightRange]:
    """What of the frames' weights in the loss is not 1, by label; see `retemper.data.frame_weights.summary`.

    Raises
    ------
    RetemperError
        MACE did not load exactly the labels, charges, spins and weights of the file: one is dropped, doubled or
        replaced. Energies agree to 1e-6 relative (float32 storage), root mean square forces to 1e-4 eV/A.
    """
    got, want = Loaded.by_mace(loaded), Loaded.from_file(path, data.weighted)
    if len(got.labels) != len(want.labels):
        raise RetemperError(
            f"Head {head}: MACE trains on {len(got.labels)} frames.",
            expected=f"the {len(want.labels)} frames of {path}",
        )
    energies, forces = (
        np.isclose(got.labels[:, k], want.labels[:, k], rtol=rtol, atol=1e-4) for k, rtol in enumerate((1e-6, 1e-4))
    )
    _require(energies & forces, got.labels, want.labels, f"Head {head}: MACE holds other labels than {path}", _label)
    states = np.isclose(got.states, want.states, atol=1e-4).all(axis=1)
    _require(states, got.states, want.states, f"Head {head}: MACE holds other charges or spins than {path}", _state)
    weights = np.isclose(got.weights, want.weights, rtol=1e-5, atol=1e-6).all(axis=1)
    asked = "with the weights of" if data.weighted else "without weights for the frames of"
    _require(weights, got.weights, want.weights, f"Head {head}: MACE does not train {asked} {path}", _weight)
    ranges = frame_weights.summary((energy, forces, stress or 1.0) for energy, forces, stress, _ in got.weights)
    return {
        label: WeightRange(frames=int(found["frames"]), min=found["min"], max=found["max"])
        for label, found in ranges.items()
    }


def _require(same: np.ndarray, got: np.ndarray, want: np.ndarray, what: str, say: Callable[[Any], str]) -> None:
    """Raise unless all rows are the `same`; `say` puts a row into words."""
    off = np.flatnonzero(~same)
    if len(off):
        raise RetemperError(
            f"{what} ({len(off)} of {len(same)} frames, first: {off[0]}).",
            expected=say(want[off[0]]),
            got=say(got[off[0]]),
        )


def _label(row: Any) -> str:
    return f"energy {row[0]:.6f} eV, RMS force {row[1]:.6f} eV/A"


def _state(row: Any) -> str:
    return f"charge {row[0]:g}, multiplicity {row[1]:g}"


def _weight(row: Any) -> str:
    return f"weights: energy {row[0]:g}, forces {row[1]:g}, stress {row[2]:g}, frame {row[3]:g}"


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
