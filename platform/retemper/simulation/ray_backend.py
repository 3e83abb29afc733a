"""Tasks on a Ray cluster through joblib's Ray backend. The cluster must see the model files at the same paths."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from retemper.core import processes, ray_capacity, ray_session


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

    joined = contextlib.nullcontext(True) if ray.is_initialized() else ray_session.session("cpu", processes.cores())
    with joined as cluster:
        ray_capacity.require({"CPU": 1}, cluster=cluster)
        register_ray()
        with parallel_backend("ray"):
            return list(Parallel(batch_size=1)(calls))
