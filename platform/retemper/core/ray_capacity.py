"""Whether the Ray that one is connected to can ever run what is asked of it: without a look it would wait for ever."""

from __future__ import annotations

import time
from collections.abc import Mapping

from retemper.core.errors import RetemperError
from retemper.core.output import log

GRACE = 60.0  # s for a node to join a cluster that has just been started


def words(needs: Mapping[str, float]) -> str:
    """Resources as in ``1 CPU and 1 GPU``."""
    return " and ".join(f"{number:g} {name}" for name, number in needs.items() if number)


def require(needs: Mapping[str, float], *, cluster: bool, grace: float = GRACE) -> None:
    """Return when one node has what one trial or job needs, or the cluster can start such a node.

    Parameters
    ----------
    needs
        Ray's resources of one trial: ``CPU``, ``GPU``.
    cluster
        Whether nodes may still join; this machine alone has what it has.
    grace
        Seconds to wait for them.

    Raises
    ------
    RetemperError
        No node has it, and the cluster does not grow.
    """
    deadline = time.monotonic() + (grace if cluster else 0.0)
    announced = False
    while not any(_has(node, needs) for node in _nodes()):
        if _has(_largest(), needs):
            log.info(f"no node has {words(needs)} yet: waiting for one that the cluster can start")
            return
        if time.monotonic() >= deadline:
            raise RetemperError(
                f"{'No node of the Ray cluster has' if cluster else 'This machine does not have'} {words(needs)}.",
                expected=f"{words(needs)} for each trial or job",
                got="; ".join(words(_resources(node, needs)) or "nothing of it" for node in _nodes()) or "no node",
                fix="set finetune.device to cpu, or sweep.gpus to less; or give RAY_ADDRESS a cluster that has it",
            )
        if not announced:
            log.info(f"no node of the cluster has {words(needs)}: waiting {grace:.0f} s for one to join")
            announced = True
        time.sleep(1.0)


def places(gpus: float) -> int:
    """Jobs at a time: one a core, or as many as the GPUs hold at `gpus` of one each."""
    import ray

    total: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return max(1, int(total.get("GPU", 0.0) / gpus if gpus else total.get("CPU", 1.0)))


def _has(available: Mapping[str, float], needs: Mapping[str, float]) -> bool:
    return all(available.get(name, 0.0) >= number for name, number in needs.items())


def _resources(available: Mapping[str, float], needs: Mapping[str, float]) -> dict[str, float]:
    return {name: available.get(name, 0.0) for name in needs}


def _nodes() -> list[dict[str, float]]:
    """Resources of each node that is alive."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


def _largest() -> dict[str, float]:
    """What an autoscaler may add in all; nothing without one."""
    from ray._private.state import state  # Ray has no public function for it; its own trainers ask here

    return dict(state.get_max_resources_from_cluster_config() or {})
