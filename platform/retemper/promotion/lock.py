"""One process at a time moves the aliases of a system, on this machine and on a server that several machines share."""

from __future__ import annotations

import contextlib
import os
import socket
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from retemper.errors import RetemperError
from retemper.mlflow_store import DATABASE, tracking_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient

LOCK_MODEL = "retemper-lock."  # a registered model that exists while somebody moves an alias on a server
PATIENCE = 60.0  # s to wait for another process
STALE = 120.0  # s after which a server's lock is taken for one that a killed process left


@contextlib.contextmanager
def locked(client: MlflowClient, root: Path, system: str) -> Iterator[None]:
    """One process at a time moves aliases of `system`: a file lock here, and one on the server where there is one."""
    from filelock import FileLock, Timeout

    uri = tracking_uri(root)
    folder = root
    if uri.startswith("sqlite:///"):
        folder = Path(uri.removeprefix("sqlite:///")).parent
    lock = FileLock(folder / f".{DATABASE}.{system}.lock", timeout=PATIENCE)
    try:
        lock.acquire()
    except Timeout:
        raise RetemperError(
            f"Another process has been moving aliases of {system} for more than {PATIENCE:.0f} s.",
            fix=f"wait for it, or end it; its lock is {lock.lock_file}",
        ) from None
    try:
        with _server_lock(client, system) if uri.startswith("http") else contextlib.nullcontext():
            yield
    finally:
        lock.release()


@contextlib.contextmanager
def _server_lock(client: MlflowClient, system: str) -> Iterator[None]:
    """Hold the registered model that stands for the lock: its name is unique, so one process alone can create it."""
    from mlflow.exceptions import MlflowException

    name, token = f"{LOCK_MODEL}{system}", f"{socket.gethostname()}/{os.getpid()}/{uuid.uuid4().hex[:8]}"
    end = time.monotonic() + PATIENCE
    while True:
        try:
            client.create_registered_model(name, tags={"holder": token, "since": f"{time.time():.0f}"})
            break
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        holder = _holder(client, name)
        if holder is not None and time.time() - float(holder.get("since", 0)) > STALE:
            if holder == _holder(client, name):
                _delete_lock(client, name)
        elif time.monotonic() > end:
            raise RetemperError(
                f"Another process has been moving aliases of {system} for more than {PATIENCE:.0f} s.",
                got=f"lock {name} held by {(holder or {}).get('holder')}",
                fix="wait for it, or end it",
            )
        else:
            time.sleep(0.2)
    try:
        yield
    finally:
        if (_holder(client, name) or {}).get("holder") == token:
            _delete_lock(client, name)


def _holder(client: MlflowClient, name: str) -> dict[str, str] | None:
    from mlflow.exceptions import MlflowException

    try:
        return dict(client.get_registered_model(name).tags)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None


def _delete_lock(client: MlflowClient, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.delete_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":  # gone already
            raise
