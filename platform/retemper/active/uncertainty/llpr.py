"""Last-layer prediction rigidity: how far an atom's features lie outside what the training set has pinned down."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from pydantic import Field

from retemper.active.estimate import Context, Estimator, Info
from retemper.config.settings import Section
from retemper.models import last_layer

INFO = Info(
    title="Last-layer prediction rigidity of each atom's energy",
    models=1,
    reference="F. Bigi et al., arXiv:2403.02251 (2024); S. Chong et al., J. Chem. Theory Comput. 19, 8020 (2023)",
)


class Options(Section):
    regularisation: float = Field(1e-5, gt=0)  # added to the covariance, as a share of its mean eigenvalue


def fit(context: Context, options: Options) -> Estimator:
    """The energy is linear in the last layer's features f, so its variance is f C^-1 f with C = sum of f f^T.

    The sum runs over the atoms of the training set; the variance is that of one atom's energy. Its
    square root is compared with the error of that atom's force, whose scale calibration finds.
    """
    features = np.concatenate(_features(context, context.train))
    covariance = features.T @ features
    covariance += options.regularisation * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    root = np.linalg.cholesky(np.linalg.inv(covariance))

    def estimate(frames: Sequence[Atoms]) -> list[np.ndarray]:
        return [np.linalg.norm(f @ root, axis=1) for f in _features(context, frames)]

    return estimate


def _features(context: Context, frames: Sequence[Atoms]) -> list[np.ndarray]:
    by_frame = [np.empty(0)] * len(frames)
    for k, features in last_layer.features(context.models[0], frames, context.head, context.device):
        by_frame[k] = features
    return by_frame
