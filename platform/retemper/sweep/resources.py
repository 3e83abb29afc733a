"""What the trials of a sweep take of Ray, and how many run at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from retemper.config.settings import Settings
from retemper.core import processes, ray_capacity
from retemper.core.ray_session import session
from retemper.sweep import file_transfer


@contextlib.contextmanager
def connection(settings: Settings) -> Iterator[Any]:
    """`session` for a sweep; on a cluster files travel through the actor that it yields."""
    with session(settings.finetune.device, max(processes.cores(), settings.sweep.concurrent or 0)) as cluster:
        needs = resources(settings)
        ray_capacity.require({"CPU": needs["cpu"], "GPU": needs["gpu"]}, cluster=cluster)
        home = file_transfer.serve() if cluster else None  # the actor lives as long as this name
        yield home


def places(settings: Settings) -> int:
    """Trials at a time: as asked, or one a core, or as many as the GPUs hold."""
    if settings.sweep.concurrent is not None:
        return settings.sweep.concurrent
    if settings.finetune.device != "cpu" and not gpus(settings):
        return 1
    return ray_capacity.places(gpus(settings))


def resources(settings: Settings) -> dict[str, float]:
    """What Ray reserves for a trial."""
    return {"cpu": 1, "gpu": gpus(settings)}


def gpus(settings: Settings) -> float:
    """GPUs of a trial, as Ray counts them: those for CUDA."""
    return settings.sweep.gpus if settings.finetune.device.startswith("cuda") else 0.0
