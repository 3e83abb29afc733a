"""Tasks on a Ray cluster through joblib's Ray backend. The cluster must see the model files at the same paths."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from retemper.sweep import capacity


def parallel(calls: Sequence[Any]) -> list[Any]:
    """Results of joblib `calls` on the cluster that ``RAY_ADDRESS`` names, or on a local one."""
    import ray
    from joblib import Parallel, parallel_backend
    from ray.util.joblib import register_ray

    address = os.environ.get("RAY_ADDRESS", "local")
    if not ray.is_initialized():
        ray.init(address=address, log_to_driver=False, include_dashboard=False)
    capacity.require({"CPU": 1}, cluster=address != "local")
    register_ray()
    with parallel_backend("ray"):
        return list(Parallel(batch_size=1)(calls))
