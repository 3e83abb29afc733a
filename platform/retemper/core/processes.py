"""Processes that compute: their environment, their parents, their number.

On a CPU one thread a process and as many processes as cores is the fastest way to train
several small models, and the allocator must keep its memory: glibc otherwise returns every
large block to the system and faults it in again (measured in ``benchmarks/``).
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import getpass
import os
import signal
import threading
import time

ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "4294967296",
    "MALLOC_TOP_PAD_": "268435456",
    "PYTHONUNBUFFERED": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


def prepare(device: str = "cpu") -> None:
    """Set the environment that processes started from here inherit.

    The allocator reads its settings when a process starts, so the calling process itself
    does not change: start workers after this. Values already set by the user win.
    """
    for name, value in ENVIRONMENT.items():
        if device != "cpu" and name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
            continue
        os.environ.setdefault(name, value)


def user() -> str:
    """Who runs this. A user without an entry in the system (a container's ``--user``) is called by the number.

    Libraries that ask for the name and would fail find it in the environment then.
    """
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        os.environ["LOGNAME"] = f"uid-{os.getuid()}"
        return os.environ["LOGNAME"]


def release_memory() -> None:
    """Give memory that was freed back to the system.

    The settings above keep it in the process, where the blocks of trainings with other batch sizes would pile up.
    """
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # not glibc: nothing was kept
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def cores() -> int:
    """CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def die_with_parent(group: bool = False, parent: int | None = None) -> None:
    """End this process when its parent ends, so that a killed run leaves no orphan that writes.

    With `group` all processes of its group end with it: what it started itself goes too. `parent` is the parent's
    number, for a process that may have lost it before it comes to ask.
    """
    parent = parent or os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        if group:
            os.killpg(0, signal.SIGKILL)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="die-with-parent").start()
