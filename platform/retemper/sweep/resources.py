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
def connected(settings: Settings) -> Iterator[Any]:
    """`session` for a sweep; on a cluster files travel through the actor that it yields."""
    with session(settings.finetune.device, max(processes.cores(), settings.sweep.concurrent or 0)) as cluster:
        needs = resources(settings)
        ray_capacity.require({"CPU": needs["cpu"], "GPU": needs["gpu"]}, cluster=cluster)
        home = file_transfer.serve() if cluster else None  # the actor lives as long as this name
        yield home


def places(settings: Settings) -> int:
    """Trials at a time: as asked, or one a core, or as many as the GPUs hold."""
    import ray

    if settings.sweep.concurrent is not None:
        return settings.sweep.concurrent
    held: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    if settings.finetune.device == "cpu":
        return max(1, int(held.get("CPU", 1.0)))
    return max(1, int(held.get("GPU", 0.0) / settings.sweep.gpus)) if gpus(settings) else 1


def resources(settings: Settings) -> dict[str, float]:
    """What Ray reserves for a trial."""
    return {"cpu": 1, "gpu": gpus(settings)}


def gpus(settings: Settings) -> float:
    """GPUs of a trial, as Ray counts them: those for CUDA."""
    return settings.sweep.gpus if settings.finetune.device.startswith("cuda") else 0.0
