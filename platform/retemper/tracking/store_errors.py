"""What went wrong with the MLflow store, in words that are true for the case at hand."""

from __future__ import annotations

import errno
import re

from retemper.core.errors import RetemperError

DATABASE, ARTIFACTS = "mlflow.db", "mlartifacts"
REBUILT = "`retemper sync` makes another one from runs/ and promotions.jsonl"
ASIDE = f"restore it from a backup, or move {DATABASE} and {ARTIFACTS}/ away: {REBUILT}"
FREE_SPACE = "free space, then run again"


class StoreError(RetemperError):
    """The tracking store cannot be used; training goes on without it."""


# What MLflow, SQLAlchemy and SQLite say -> what was expected, and what helps.
DATABASE_SAYS = (
    (
        r"database is locked",
        "a database that no other program holds",
        f"end what holds {DATABASE} (mlflow ui, a backup, a database browser), or wait for it",
    ),
    (
        r"readonly database|unable to open database|Permission denied|Read-only file system",
        f"{DATABASE} and its folder to be writable",
        f"chown or chmod the project's folder, {DATABASE} and {ARTIFACTS}/ so that you may write there",
    ),
    (r"could not be acquired", "no other process at it", "wait for it, or end it"),
    (r"malformed|not a database|disk I/O error|no such (table|column)", "a sound database", ASIDE),
    (r"database or disk is full", "space on the disk", FREE_SPACE),
)
SERVER_SAYS = (
    (
        r"error code 401|Unauthorized",
        "name and password that the server knows",
        "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD",
    ),
    (
        r"error code 403|PERMISSION_DENIED|Permission denied|Forbidden",
        "the right to do this",
        "ask who runs the server for EDIT on the experiment and the registered model",
    ),
    (
        r"error code 404|Not Found|Expecting value|not in a valid JSON",
        "an MLflow server at this address",
        f"mend MLFLOW_TRACKING_URI, or unset it to use {DATABASE} in the project",
    ),
    (
        r"error code 5\d\d|too many \d+ error",
        "a server that works",
        "look into the server's log; when it works again, `retemper sync` brings what is missing",
    ),
    (
        r"Max retries|Connection|timed out|Timeout|resolve",
        "a server that answers",
        f"start the server, or unset MLFLOW_TRACKING_URI to use {DATABASE} in the project",
    ),
)
EITHER_SAYS = (
    (
        r"No such file or directory|No such artifact|does not exist: '?/|Failed to download artifacts",
        "files of runs and models where the store says they are",
        f"bring {ARTIFACTS}/ (copy or move it with {DATABASE}), or `retemper sync` to store what runs/ has again",
    ),
    (
        r"Can't locate revision|out-of-date database schema",
        "a store of this version of MLflow",
        "install the MLflow that made it, or `mlflow db upgrade` a copy",
    ),
    (
        r"RESOURCE_DOES_NOT_EXIST|not found|must be in the 'active' state|deleted",
        "what retemper made to be there still",
        "it was deleted or made by hand in MLflow: restore it there (mlflow experiments restore, mlflow runs restore), "
        "or `retemper sync` to make again what runs/ has",
    ),
    (
        r"Invalid value|INVALID_PARAMETER_VALUE|invalid parameter",
        "names and values that MLflow takes",
        "change what the message names in params.yaml or in the data",
    ),
    (r"IntegrityError|UNIQUE constraint|already exists", "no other process doing the same", "run it again"),
)


def explain(error: Exception, uri: str) -> StoreError:
    """An exception of MLflow, of its database or of the file system at the store `uri`, as error for a user."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreError(f"No space left on the disk for MLflow at {uri}.", fix=FREE_SPACE)
    text = str(error).strip() or type(error).__name__
    code = str(getattr(error, "error_code", ""))
    searched = f"{code} {text[:2000]}"
    tables = (SERVER_SAYS if uri.startswith("http") else DATABASE_SAYS) + EITHER_SAYS
    for pattern, expected, fix in tables:
        if re.search(pattern, searched):
            return StoreError(f"MLflow at {uri} failed: {_line(text, pattern)}", expected=expected, fix=fix)
    return StoreError(
        f"MLflow at {uri} failed: {_line(text, '')}", fix=f"see what MLflow says; {REBUILT} if the store is broken"
    )


def _line(text: str, pattern: str) -> str:
    """The first line that `pattern` is about, without the names of classes before it."""
    lines = text.splitlines()
    line = next((candidate for candidate in lines if re.search(pattern, candidate)), lines[0])
    return re.sub(r"^\((?:builtins|sqlite3)\.\w+\)\s*", "", line)[:300]
