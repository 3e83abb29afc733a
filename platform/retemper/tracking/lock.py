"""One process at a time registers models of a system and moves its aliases, on this machine and on a shared server."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from retemper.core.errors import RetemperError
from retemper.tracking import embedded_store
from retemper.tracking.store import DATABASE, tracking_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient

LOCK_MODEL = "retemper-lock."  # a registered model that exists while somebody holds the lock on a server
PATIENCE = 120.0  # s to wait for one other process
WORDLESS = 10.0  # s of waiting after which a line says so
BEAT = 15.0  # s between signs of life of a server's lock
STALE = 60.0  # s without one after which the lock is taken for one that a killed process left
ABANDONED = 600.0  # s of age, by the clocks of two machines, that need no watching


@contextlib.contextmanager
def locked(client: MlflowClient, root: Path, system: str) -> Iterator[None]:
    """Hold the lock of `system`: a file here, and on a server that several machines share one there as well.

    Raises
    ------
    RetemperError
        One other process has held it for more than `PATIENCE`.
    """
    from filelock import FileLock, Timeout

    file = embedded_store.file_of(tracking_uri(root))
    folder = file.parent if file is not None else root
    lock = FileLock(folder / f".{DATABASE}.{re.sub(r'[^A-Za-z0-9._-]', '_', system)}.lock")
    try:
        try:
            lock.acquire(timeout=min(WORDLESS, PATIENCE))
        except Timeout:
            _say(system, "another process on this machine")
            lock.acquire(timeout=max(0.0, PATIENCE - WORDLESS))
    except Timeout:
        raise _busy(system, f"lock {lock.lock_file}") from None
    try:
        with _server_lock(client, system) if file is None else contextlib.nullcontext():
            yield
    finally:
        lock.release()


def _say(system: str, holder: str) -> None:
    print(f"waiting for {holder}, which registers or promotes models of {system}", file=sys.stderr, flush=True)


def _busy(system: str, got: str) -> RetemperError:
    return RetemperError(
        f"Another process has been registering or promoting models of {system} for more than {PATIENCE:.0f} s.",
        got=got,
        fix="wait for it, or end it",
    )


@contextlib.contextmanager
def _server_lock(client: MlflowClient, system: str) -> Iterator[None]:
    """Hold the registered model that stands for the lock: its name is unique, so one process alone can create it."""
    name, token = f"{LOCK_MODEL}{system}", f"{socket.gethostname()}/{os.getpid()}/{uuid.uuid4().hex[:8]}"
    _acquire(client, system, name, token)
    stop = threading.Event()
    beats = threading.Thread(target=_beat, args=(client, name, stop), daemon=True)
    beats.start()
    try:
        yield
    finally:
        stop.set()
        beats.join()
        if (_holder(client, name) or {}).get("holder") == token:
            _delete_lock(client, name)


def _acquire(client: MlflowClient, system: str, name: str, token: str) -> None:
    """Wait until the lock is ours. One without a sign of life is taken over, whatever the clock of its machine says."""
    from mlflow.exceptions import MlflowException

    last_holder: dict[str, str] | None = None
    owner, waiting_since, unchanged_since = "", time.monotonic(), time.monotonic()
    announced = False
    while True:
        try:
            client.create_registered_model(name, tags={"holder": token, "since": _now()})
            return
        except MlflowException as error:
            # it was there, and gone when the server went to look at it: its turn is over
            gone = error.error_code == "RESOURCE_DOES_NOT_EXIST" and name in str(error)
            if error.error_code != "RESOURCE_ALREADY_EXISTS" and not gone:
                raise
        holder, now = _holder(client, name), time.monotonic()
        if holder is None:
            continue
        if holder.get("holder") != owner:
            owner, waiting_since = holder.get("holder", ""), now
        if holder != last_holder:
            last_holder, unchanged_since = holder, now
        if now - unchanged_since > STALE or time.time() - float(holder.get("since", 0)) > ABANDONED:
            if holder == _holder(client, name):
                _delete_lock(client, name)
        elif now - waiting_since > PATIENCE:
            raise _busy(system, f"lock {name} held by {owner}")
        else:
            if now - waiting_since > WORDLESS and not announced:
                _say(system, owner)
                announced = True
            time.sleep(0.2)


def _beat(client: MlflowClient, name: str, stop: threading.Event) -> None:
    """Signs of life until `stop`; one that does not arrive is missed, and several make the lock stale."""
    from mlflow.exceptions import MlflowException

    while not stop.wait(BEAT):
        with contextlib.suppress(MlflowException, OSError):
            client.set_registered_model_tag(name, "since", _now())


def _now() -> str:
    return f"{time.time():.3f}"


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
