"""Tasks on a Ray cluster through joblib's Ray backend. The cluster must see the model files at the same paths."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from retemper import launch
from retemper.errors import RetemperError
from retemper.sweep import nodes


def parallel(calls: Sequence[Any]) -> list[Any]:
    """Results of joblib `calls` on the cluster that ``RAY_ADDRESS`` names, or on a local one.

    Raises
    ------
    RetemperError
        No cluster answers there, or it has no CPU.
    """
    import ray
    from joblib import Parallel, parallel_backend
    from ray.util.joblib import register_ray

    with contextlib.nullcontext() if ray.is_initialized() else nodes.session("cpu", launch.cores()):
        held: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        if held.get("CPU", 0.0) < 1:
            raise RetemperError(
                "The Ray cluster has no CPU for tasks.", fix="start a worker node with CPUs, or set ray to false"
            )
        register_ray()
        with parallel_backend("ray"):
            return list(Parallel(batch_size=1)(calls))
