"""Smaller training sets: an order of the training frames of which every size is a beginning (``dataset.subset``).

- ``groups``: one frame of each group before the second of any, see `retemper.data.splits.nested_order`;
- ``random``: at random, groups and times notwithstanding;
- ``farthest-point``: each frame the farthest from those before it, by the foundation's mean descriptors;
- ``first``: as they come in the files.

An order does not depend on how much of it is used, so a smaller size is the beginning of a larger one. It belongs
to the data set, so it is the same for every strategy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from ase import Atoms

from retemper.config.project import Project
from retemper.data import selection
from retemper.data.splits import nested_order
from retemper.models import heads

Describe = Callable[[Sequence[Atoms]], np.ndarray]


def order(rule: str, frames: Sequence[Atoms], number: int, seed: int, describe: Describe) -> list[int]:
    """Indices of the first `number` training frames by `rule`, in order.

    Parameters
    ----------
    rule
        ``dataset.subset``.
    frames
        Training frames with ``info["group"]``.
    number
        At most as many as there are frames.
    seed
        Of ``groups`` and ``random``.
    describe
        Descriptors [n_frames, d] of frames; called for ``farthest-point`` alone.
    """
    if rule == "groups":
        return nested_order([str(frame.info["group"]) for frame in frames], seed)[:number]
    if rule == "random":
        return [int(k) for k in selection.random(len(frames), number, seed)]
    if rule == "farthest-point":
        return [int(k) for k in selection.farthest_point(describe(frames), number)]
    return list(range(number))


def by_foundation(project: Project) -> Describe:
    """Mean descriptors of frames by the project's foundation, which is loaded when they are asked for."""

    def describe(frames: Sequence[Atoms]) -> np.ndarray:
        from retemper.models.descriptors import mean_descriptors

        device = project.settings.finetune.device
        return mean_descriptors(
            project.weights, frames, head=heads.of_foundation(project), device=device, progress=True
        )

    return describe
