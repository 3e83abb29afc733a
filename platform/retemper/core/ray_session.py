"""Ray as everything here starts it: on this machine, or on the cluster in which a job was submitted."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Iterator

from retemper.core import processes, scratch
from retemper.core.errors import RetemperError

ANSWER = 10.0  # s for a cluster to accept a connection
OBJECT_STORE = 200_000_000  # bytes on one machine, where files are shared and plans are small
LOCAL = "local"  # Ray's own name for this machine alone
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_TRAIN_V2_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_worker_niceness": "0",  # trials are the work: they compete with other programs as any training does
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # the searcher's metrics come with the last report alone
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",  # the study is the state of a sweep, not Ray's
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C ends a sweep at once, it goes on from its study
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "30",  # for a stopped trial to leave its worker to the next one
}


def address() -> str:
    """Of the cluster that ``RAY_ADDRESS`` names, or `LOCAL`."""
    return os.environ.get("RAY_ADDRESS", LOCAL)


@contextlib.contextmanager
def session(device: str, cores: int) -> Iterator[bool]:
    """Ray within the block: `cores` of this machine, or the cluster that ``RAY_ADDRESS`` names.

    `ray job submit` sets the address. Yields whether it is a cluster.
    """
    os.environ.update({name: value for name, value in QUIET.items() if name not in os.environ})
    processes.prepare(device)
    import ray

    logging.getLogger("ray").setLevel(logging.CRITICAL)  # how each job ended is recorded, with the reason
    if address() == LOCAL:
        _start(cores)
    else:
        _require_answer(address())
        _connect(address())
    try:
        yield address() != LOCAL
    finally:
        ray.shutdown()


def _require_answer(address: str) -> None:
    """Raise where nobody listens at ``host:port``: Ray itself tries for minutes. Other addresses are left to Ray."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER).close()
    except (OSError, OverflowError) as error:
        raise RetemperError(
            f"No Ray cluster answers at {address} (RAY_ADDRESS): {error}.",
            fix="start it (ray start --head), correct RAY_ADDRESS, or unset it to use this machine alone",
        ) from error


def _connect(address: str) -> None:
    """Join the cluster at `address`."""
    import ray

    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise RetemperError(
            f"Ray at {address} (RAY_ADDRESS) does not take part: {str(error).strip().splitlines()[0]}",
            fix="start the cluster, correct RAY_ADDRESS, or unset it to compute on this machine",
        ) from error


def _start(cores: int) -> None:
    """Ray on this machine. Its own limit for that is 30 s, too short on a machine under load: three tries."""
    import psutil
    import ray

    process = psutil.Process()
    earlier = {child.pid for child in process.children()}
    for last in (False, False, True):
        try:
            ray.init(
                address=LOCAL,
                num_cpus=cores,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.CRITICAL,
                object_store_memory=OBJECT_STORE,
                _temp_dir=str(scratch.ray_folder()),
            )
            return
        except Exception as error:  # Ray raises no class of its own
            if "timed out during startup" not in str(error):
                raise
            for child in process.children():  # Ray forgets what it had started, and that would slow the next try
                if child.pid not in earlier:
                    for descendant in (*child.children(recursive=True), child):
                        with contextlib.suppress(psutil.NoSuchProcess):
                            descendant.kill()
            if last:
                raise RetemperError(
                    f"Ray did not start: {error}", fix="try again when the machine is less busy: what is done is kept"
                ) from error
