"""Trials on nodes that do not see the project's folder: files come and go through an actor on the driver's node.

What a trial reads (structures, foundation) is fetched once a node, through Ray's object store, and kept by
content under the node's scratch folder. What a trial writes is sent home after every epoch, so that the loss
of a node costs at most the running epoch.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path
from typing import Any

from filelock import FileLock

from retemper.core import scratch, sealed, weight_files
from retemper.core.files import atomic_write, sha256
from retemper.finetune.plan import HeadData, Plan

# in the order in which they are sent: the last file of a group makes it whole
STATE = ("history.csv", "state.last")
RESULT = (
    *("effective.json", "mace.yaml", "training.log", "walk.csv", weight_files.NAME, "groups.json"),
    "summary.json",
)
NAME = "retemper-home"


class Home:
    """Reads and writes files on the driver's node, as a Ray actor."""

    def read(self, path: str) -> bytes | None:
        """Content of a file; `None` when there is none."""
        file = Path(path)
        return file.read_bytes() if file.is_file() else None

    def sha256(self, path: str) -> str:
        """Hash of a file."""
        return sha256(path)

    def write(self, path: str, content: bytes) -> None:
        """Write a file, whole or not at all."""
        with atomic_write(path) as temporary:
            temporary.write_bytes(content)


def serve() -> Any:
    """Start `Home` beside the driver; it ends with the handle that is returned."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    placement = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(Home).options(name=NAME, num_cpus=0, scheduling_strategy=placement).remote()


def home() -> Any:
    """The handle of `Home` in a worker."""
    import ray

    return ray.get_actor(NAME)


def sees_project(token: str, content: str) -> bool:
    """Whether this process reads the project's folder: the driver left `content` in the file `token`."""
    file = Path(token)
    return not os.environ.get("RETEMPER_SCRATCH") and file.is_file() and file.read_text() == content


def fetch(path: str, driver: Any) -> str:
    """A copy of a file of the project on this node, made once, named by its content and checked by it."""
    import ray

    sha = ray.get(driver.sha256.remote(path))
    local = scratch.folder() / "files" / f"{sha}{Path(path).suffix}"
    sealed.make_folder(local.parent)
    with FileLock(f"{local}.lock"):
        sealed.plain_files(local.parent, [local.name])
        if local.is_file() and sha256(local) != sha:
            sealed.put_aside(local, "it is not the project's file", "fetched again")
        if not local.is_file():
            with atomic_write(local) as temporary:
                temporary.write_bytes(ray.get(driver.read.remote(path)))
    return str(local)


def relocate(plan: Plan, driver: Any) -> Plan:
    """The plan with the copies of this node in place of the project's files."""

    def here(head: HeadData) -> HeadData:
        return dataclasses.replace(head, train=fetch(head.train, driver), valid=fetch(head.valid, driver))

    return dataclasses.replace(
        plan,
        foundation=fetch(plan.foundation, driver),
        target=here(plan.target),
        replay=None if plan.replay is None else here(plan.replay),
        kept={name: here(head) for name, head in plan.kept.items()},
        line=None if plan.line is None else dataclasses.replace(plan.line, valid=fetch(plan.line.valid, driver)),
    )


def bring(folder: Path, driver: Any) -> Path:
    """A folder of this node with what the run's folder at home holds: a state to go on from, or a finished run."""
    import ray

    local = scratch.folder() / "training" / folder.name
    shutil.rmtree(local, ignore_errors=True)
    local.mkdir(parents=True)
    for name in (*STATE, *RESULT):
        content = ray.get(driver.read.remote(f"{folder}/{name}"))
        if content is not None:
            (local / name).write_bytes(content)
    return local


def send(local: Path, folder: Path, names: tuple[str, ...], driver: Any) -> None:
    """Write files of the node's folder into the run's folder at home."""
    import ray

    for name in names:
        if (local / name).is_file():
            ray.get(driver.write.remote(f"{folder}/{name}", (local / name).read_bytes()))
