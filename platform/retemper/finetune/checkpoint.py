"""Checkpoints from which a killed run goes on as the same run.

MACE's own checkpoints hold the averaged weights and are written only when validation
improves; going on from one starts another run. These hold the raw weights, the average,
the optimiser, the schedule and every random state, after every epoch.
"""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch


def save(path: Path, content: dict[str, Any]) -> None:
    """Write `content` and the random states of this process; whole or not at all."""
    content = dict(content)
    content["random"] = {"torch": torch.get_rng_state(), "numpy": np.random.get_state(), "python": random.getstate()}
    if torch.cuda.is_available():
        content["random"]["cuda"] = torch.cuda.get_rng_state_all()
    temporary = path.with_suffix(".part")
    torch.save(content, temporary)
    os.replace(temporary, path)


def load(path: Path, device: torch.device) -> dict[str, Any] | None:
    """Read a checkpoint of this machine and restore the random states; `None` when there is none."""
    if not path.exists():
        return None
    content: dict[str, Any] = torch.load(path, map_location=device, weights_only=False)
    states = content["random"]
    torch.set_rng_state(states["torch"].cpu())
    np.random.set_state(states["numpy"])
    random.setstate(states["python"])
    if "cuda" in states:
        torch.cuda.set_rng_state_all([state.cpu() for state in states["cuda"]])
    return content
