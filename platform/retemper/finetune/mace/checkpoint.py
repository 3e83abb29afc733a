"""Checkpoints from which a killed run goes on as the same run.

MACE's own checkpoints hold the averaged weights and are written only when validation
improves; going on from one starts another run. These hold the raw weights, the average,
the optimiser, the schedule, every random state, the best weights and the history, after every epoch.
The last two are kept: where one is damaged, or of another run, the run goes on from the other or from its start.
"""

from __future__ import annotations

import contextlib
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch

from retemper.core import sealed

Content = dict[str, Any]  # numbers, arrays and tensors, nested: states of MACE's and torch's objects
LAST, BEFORE = "state.last", "state.before"  # in the folder of a run


def save(folder: Path, key: str, content: Content) -> None:
    """Write `content` and the random states of this process for the run `key`; whole or not at all."""
    states = {"torch": torch.get_rng_state(), "numpy": np.random.get_state(legacy=False), "python": random.getstate()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state_all()
    with contextlib.suppress(FileNotFoundError):
        os.replace(folder / LAST, folder / BEFORE)
    sealed.write(folder / LAST, key, {"random": _to_arrays(states), "content": _to_arrays(content)})


def read(folder: Path, key: str) -> Content | None:
    """The last sound checkpoint of the run `key` for `resume`; `None` where there is none.

    One that is damaged or of another run is put aside, and the person is told.
    """
    for name in (LAST, BEFORE):
        content: Content | None = sealed.read(folder / name, key)
        if content is not None:
            return content
    return None


def resume(content: Content, device: torch.device) -> Content:
    """Content of a checkpoint, with tensors on `device`; restores the random states of this process."""
    states = _to_tensors(content["random"], torch.device("cpu"))
    torch.set_rng_state(states["torch"])
    numpy = content["random"]["numpy"]
    np.random.set_state(numpy)
    random.setstate(states["python"])
    if "cuda" in states:
        torch.cuda.set_rng_state_all(states["cuda"])
    return dict(_to_tensors(content["content"], device))


def _to_arrays(value: Any) -> Any:
    """The same with arrays in place of tensors."""
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().numpy()
    if isinstance(value, dict):
        return {key: _to_arrays(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_to_arrays(part) for part in value)
    return value


def _to_tensors(value: Any, device: torch.device) -> Any:
    """The same with tensors in place of arrays."""
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value).to(device)
    if isinstance(value, dict):
        return {key: _to_tensors(part, device) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_to_tensors(part, device) for part in value)
    return value
