"""Spread of the forces over models that differ in their training seed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms

from retemper.active.estimate import Context, Estimator, Info
from retemper.config.settings import Section
from retemper.core.errors import RetemperError
from retemper.models import predict

INFO = Info(
    title="Committee: standard deviation of a force component over the training seeds, eV/A",
    models=2,
    reference="R. Jinnouchi et al., J. Phys. Chem. Lett. 11, 6946 (2020)",
)


class Options(Section):
    members: int | None = None  # models to use; null: one for each seed


def fit(context: Context, options: Options) -> Estimator:
    """No fit is needed: the members were trained apart."""
    members = context.models[: options.members]
    if len(members) < INFO.models:
        raise RetemperError(
            f"A committee of {len(members)} model(s) has no spread.",
            expected="two training seeds or more",
            fix="list more seeds in params.yaml, or set acquire.uncertainty: llpr, which needs one model",
        )

    def estimate(frames: Sequence[Atoms]) -> list[np.ndarray]:
        forces = [predict.predict(m, frames, head=context.head, device=context.device).forces for m in members]
        return [np.sqrt(np.var(f, axis=0, ddof=1).mean(axis=1)) for f in zip(*forces, strict=True)]

    return estimate
