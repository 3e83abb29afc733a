"""The line from the foundation's weights to the trained ones: errors along it, and the place on it that is kept.

Every parameter is w(alpha) = w_foundation + alpha (w_trained - w_foundation), after M. Wortsman et al., Robust
fine-tuning of zero-shot models, CVPR 2022 (arXiv:2109.01903). Reference energies are the target's all along, so that
alpha = 0 is the foundation as it would be used without fine-tuning.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from ase import Atoms

from retemper.core import weight_files
from retemper.core.errors import RetemperError
from retemper.core.files import atomic_write
from retemper.data.frames import ENERGY, FORCES, read_frames
from retemper.finetune.collect import WALK
from retemper.finetune.plan import Line, Plan
from retemper.models import model_writing
from retemper.models.head_names import TARGET
from retemper.models.predict import predict

STEPS = tuple(k / 10 for k in range(11))  # alpha
Weights = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Place:
    """Errors on the validation sets at a place on the line."""

    alpha: float
    energy: float  # RMSE on the target, meV/atom
    force: float  # RMSE on the target, meV/A
    kept: float  # force RMSE on the foundation's side, meV/A: by its labels, or by the foundation's own predictions


def parameters(model: torch.nn.Module) -> Weights:
    """Copies of the parameters, which the line is between."""
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def walk(model: torch.nn.Module, start: Weights, plan: Plan, folder: Path) -> float:
    """Leave `model`, which is trained, at its place on the line from `start`; errors along the line go to ``walk.csv``.

    Parameters
    ----------
    start
        The foundation's parameters, by the names that they have in `model`.

    Returns
    -------
    float
        The place, read back from the weights.

    Raises
    ------
    RetemperError
        The model has parameters that the foundation lacks.
    """
    line, end = plan.line, parameters(model)
    assert line is not None
    lacking = sorted(end.keys() - start.keys())
    if lacking or any(start[name].shape != tensor.shape for name, tensor in end.items()):
        raise RetemperError(
            "There is no line between the foundation's weights and the trained ones: their shapes differ.",
            got=", ".join(lacking[:3]) or "the same names, other shapes",
            fix="leave `interpolate` out of the strategy, and report this with the foundation's architecture",
        )
    places = list(_measured(model, start, end, plan, folder))
    alpha = chosen(places, line)
    with atomic_write(folder / WALK) as temporary, temporary.open("w", newline="") as file:
        kept = f"valid_{line.kind}.force_rmse"
        writer = csv.writer(file)
        writer.writerow(["alpha", "valid.energy_rmse", "valid.force_rmse", kept, "chosen"])
        writer.writerows([*asdict(place).values(), int(place.alpha == alpha)] for place in places)
    _set(model, start, end, alpha)
    return _place_of(parameters(model), start, end)


def _measured(model: torch.nn.Module, start: Weights, end: Weights, plan: Plan, folder: Path) -> Iterator[Place]:
    line = plan.line
    assert line is not None
    target, beside = read_frames(Path(plan.target.valid)), read_frames(Path(line.valid))
    path = folder / f".walk{weight_files.SUFFIX}"
    for alpha in sorted({*STEPS, *([] if line.alpha is None else [line.alpha])}):
        _set(model, start, end, alpha)
        model_writing.write(model, path)
        energy, force = _errors(path, target, plan)
        yield Place(alpha, energy, force, _errors(path, beside, plan)[1])
    path.unlink()


def _errors(path: Path, frames: list[Atoms], plan: Plan) -> tuple[float, float]:
    """Energy (meV/atom) and force (meV/A) RMSE of the head that learned the target."""
    said = predict(path, frames, head=TARGET, dtype=plan.dtype, device=plan.device, backend="torch")
    energy = [(e - a.info[ENERGY]) / len(a) for e, a in zip(said.energy, frames, strict=True)]
    force = np.concatenate([(f - a.arrays[FORCES]).ravel() for f, a in zip(said.forces, frames, strict=True)])
    return 1e3 * float(np.sqrt(np.mean(np.square(energy)))), 1e3 * float(np.sqrt(np.mean(force**2)))


def chosen(places: list[Place], line: Line) -> float:
    """The alpha that was asked for, or the one with the smallest log(target) + weight * log(kept).

    Where the foundation's side has labels, `kept` is the force error by them. Without labels only the drift from the
    foundation is known; the error there is taken as the foundation's own, as large as on the target, and the drift as
    independent of it.
    """
    if line.alpha is not None:
        return line.alpha
    floor = places[0].force if line.kind == "drift" else 0.0

    def score(place: Place) -> float:
        return math.log(place.force) + line.weight * math.log(math.hypot(place.kept, floor))

    return min(places, key=lambda place: (score(place), -place.alpha)).alpha


@torch.no_grad()
def _set(model: torch.nn.Module, start: Weights, end: Weights, alpha: float) -> None:
    for name, parameter in model.named_parameters():
        parameter.copy_(torch.lerp(start[name], end[name], alpha))


def _place_of(weights: Weights, start: Weights, end: Weights) -> float:
    """alpha of the nearest point on the line; NaN where training moved nothing."""
    along = across = 0.0
    for name, tensor in weights.items():
        step = (end[name] - start[name]).double()
        along += float(((tensor - start[name]).double() * step).sum())
        across += float((step**2).sum())
    return along / across if across else math.nan
