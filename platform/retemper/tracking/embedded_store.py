"""The embedded MLflow store of a project: ``mlflow.db`` with ``mlartifacts/`` beside it.

It is made whole or not at all, looked at before MLflow opens it (MLflow would try for 100 s), and belongs to the
folder where it lies: MLflow keeps absolute paths of artifacts, so those of a project that was copied or
moved are changed before anything is read or written. A copy would otherwise write into its original.
"""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from retemper.core.files import atomic_write, require_space
from retemper.tracking.store_errors import ARTIFACTS, ASIDE, DATABASE, StoreError, explain

LOCK = ".mlflow.lock"
PATIENCE = 10.0  # s to wait for a database that another process writes
HEADER = b"SQLite format 3\x00"
# Columns in which MLflow keeps absolute places of artifacts.
PLACES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("model_versions", "storage_location"),
    ("logged_models", "artifact_location"),
)


def uri(database: Path) -> str:
    """Address of a database file for SQLAlchemy, which takes ``%`` and ``?`` for its own."""
    return (
        f"sqlite:///{quote(str(database), safe='/ ')}"
        if re.search(r"[%?#]", str(database))
        else f"sqlite:///{database}"
    )


def file_of(address: str) -> Path | None:
    """The file of a SQLite address, `None` for another one."""
    if not address.startswith("sqlite:///"):
        return None
    path = address.removeprefix("sqlite:///").partition("?")[0]
    return Path(unquote(path)).resolve()


def ready(root: Path) -> None:
    """Make the store of the project at `root` where there is none, look at it, and bring it home.

    Raises
    ------
    StoreError
        The file is none of MLflow's databases, is broken or of another version, or cannot be read; or the
        project was moved and the file cannot be written.
    """
    database = root / DATABASE
    try:
        if not os.path.lexists(database):
            _create(root)
        check(database)
        _bring_home(root)
    except (OSError, sqlite3.Error) as error:
        raise explain(error, uri(database)) from error


def _create(root: Path) -> None:
    """Make ``mlflow.db`` under a lock, whole or not at all.

    Processes that create the database together break it, and so does a kill half way: it is
    made under another name and moved into place.
    """
    from filelock import FileLock

    database = root / DATABASE
    with FileLock(root / LOCK):
        if database.exists():
            return
        require_space(root, 10_000_000)
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        with atomic_write(database) as temporary:
            make: Any = SqlAlchemyStore
            make(uri(temporary), (root / ARTIFACTS).as_uri()).engine.dispose()


# ------------------------------------------------------------------ is it sound?


@contextlib.contextmanager
def _open_database(database: Path, mode: str) -> Iterator[sqlite3.Connection]:
    """A connection; `mode` is ``ro`` or ``rw``."""
    address = f"file:{quote(str(database))}?mode={mode}"
    with contextlib.closing(sqlite3.connect(address, timeout=PATIENCE, uri=True, isolation_level=None)) as connection:
        yield connection


def check(database: Path) -> None:
    """Raise unless this is a sound database of the MLflow that is installed."""
    if not database.is_file():
        kind = "a folder" if database.is_dir() else "no file" if database.exists() else "a link to nowhere"
        raise StoreError(f"{database} is {kind}.", expected="MLflow's database", fix=f"move it away, or {ASIDE}")
    with database.open("rb") as file:  # who may not read it is told so
        start = file.read(len(HEADER))
    if start != HEADER:
        got = "an empty file" if not start else f"a file that starts with {start[:16]!r}"
        raise StoreError(f"{database} is not a database.", expected="MLflow's SQLite database", got=got, fix=ASIDE)
    status = database.stat()
    _check_pages(database, status.st_dev, status.st_ino)
    with _open_database(database, "ro") as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not {"alembic_version", *(table for table, _ in PLACES[:2])} <= tables:
            raise StoreError(
                f"{database} is not MLflow's database.",
                expected="the tables of MLflow",
                got=", ".join(sorted(tables)[:5]) or "no tables",
                fix=ASIDE,
            )
        versions = [str(version) for (version,) in connection.execute("SELECT version_num FROM alembic_version")]
    if versions != [_newest_version()]:
        raise _other_version(database, versions)


@lru_cache(maxsize=8)
def _check_pages(database: Path, device: int, inode: int) -> None:
    """Every page, once a process and file; `device` and `inode` tell files apart."""
    with _open_database(database, "ro") as connection:
        (report,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if report != "ok":
        raise StoreError(f"{database} is broken: {report.splitlines()[-1]}.", expected="a sound database", fix=ASIDE)


@lru_cache(maxsize=1)
def _newest_version() -> str:
    """Version of the tables of the MLflow that is installed."""
    from mlflow.store.db import utils

    newest: Any = utils._get_latest_schema_revision
    return str(newest())


def _other_version(database: Path, versions: list[str]) -> StoreError:
    import mlflow
    from alembic.script import ScriptDirectory
    from mlflow.store.db import utils

    configuration: Any = utils._get_alembic_config
    script = ScriptDirectory.from_config(configuration(""))
    older = bool(versions) and set(versions) <= {revision.revision for revision in script.walk_revisions()}
    return StoreError(
        f"{database} was made by {'an older' if older else 'a newer'} MLflow than {mlflow.__version__}.",
        expected=f"tables of version {_newest_version()}",
        got=", ".join(versions) or "none",
        fix=f"copy it, then mlflow db upgrade '{uri(database)}'" if older else "pip install --upgrade mlflow",
    )


# ------------------------------------------------------------------ is it at home?


def _bring_home(root: Path) -> None:
    """Change the places of artifacts to those of `root`, all or none, when the project was somewhere else before."""
    database, artifacts = root / DATABASE, (root / ARTIFACTS).as_uri()
    with _open_database(database, "ro") as connection:
        if not _foreign_places(connection, artifacts):
            return
    from filelock import FileLock

    with FileLock(root / LOCK, timeout=PATIENCE), _open_database(database, "rw") as connection:
        connection.execute("BEGIN IMMEDIATE")
        earlier = _foreign_places(connection, artifacts)
        changed = sum(_replace(connection, place, artifacts) for place in earlier)
        connection.execute("COMMIT")
    if earlier:
        origins = ", ".join(sorted(unquote(place.removeprefix("file://").removesuffix(ARTIFACTS)) for place in earlier))
        print(
            f"This project was copied or moved here from {origins}: {changed} places of files in {DATABASE} are now "
            "here.",
            file=sys.stderr,
        )


def _foreign_places(connection: sqlite3.Connection, artifacts: str) -> set[str]:
    """Folders ``mlartifacts`` that experiments name, other than `artifacts`."""
    places = set()
    for (location,) in connection.execute("SELECT artifact_location FROM experiments"):
        match = re.fullmatch(rf"(.*/{ARTIFACTS})(/\d+)?", location or "")
        if match and match[1] != artifacts:
            places.add(match[1])
    return places


def _replace(connection: sqlite3.Connection, place: str, artifacts: str) -> int:
    changed = 0
    for table, column in PLACES:
        cursor = connection.execute(
            f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE {column} = ? OR substr({column}, 1, ?) = ?",
            (artifacts, len(place) + 1, place, len(place) + 1, f"{place}/"),
        )
        changed += cursor.rowcount
    return changed
