"""Checkpoints from which a killed run goes on as the same run.

MACE's own checkpoints hold the averaged weights and are written only when validation
improves; going on from one starts another run. These hold the raw weights, the average,
the optimiser, the schedule and every random state, after every epoch.
"""

from __future__ import annotations

import io
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch

from retemper.files import atomic_write


def save(path: Path, content: dict[str, Any]) -> None:
    """Write `content` and the random states of this process; whole or not at all."""
    content = dict(content)
    content["random"] = {"torch": torch.get_rng_state(), "numpy": np.random.get_state(), "python": random.getstate()}
    if torch.cuda.is_available():
        content["random"]["cuda"] = torch.cuda.get_rng_state_all()
    write(path, content)


def write(path: Path, content: Any) -> None:
    """`torch.save`, whole or not at all; a full disk is a `RetemperError`, which torch's own writer hides."""
    packed = io.BytesIO()
    torch.save(content, packed)
    with atomic_write(path) as temporary:
        temporary.write_bytes(packed.getbuffer())


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
