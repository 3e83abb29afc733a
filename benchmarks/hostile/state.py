"""What a project has come to, as flat text: its files, its MLflow store, its commits; and how two of them differ.

Two undisturbed runs differ in times and identifiers. What differs between them is not compared with a third; all the
rest must be equal, numbers within a tolerance.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import sqlite3
import subprocess
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import yaml

State = dict[str, str]
HEX = re.compile(r"(?<![0-9a-zA-Z])(?:[0-9a-f]{8}-[0-9a-f-]{27}|[0-9a-f]{12,64})(?![0-9a-zA-Z])")
NUMBER = re.compile(r"[-+]?(?:\d+\.\d*|\.\d+|\d+)(?:[eE][-+]?\d+)?")
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT[0-9:.]+Z?")
TIMES = re.compile(r"(?<![a-z])(time|seconds|duration)(?![a-z])", re.IGNORECASE)
LASTED = re.compile(r"(?<=, )\d+ s(?=, )|(?<=\| )\d+(?= \|$)")  # in a version's description, in a study's table
OF_TRIALS = re.compile(r"trial|alike|study\.db|/sweep .*\bstate\b")
NUMBERED = re.compile(r" \(\d+\)$")
TEXT = {".md", ".html", ".txt", ".log", ".extxyz", ".xyz", ".py", ".dvc", ".gitignore", ""}
PLACES = ("runs", "data", "studies")  # what commands write; the rest of the tree is git's


def read(root: Path) -> State:
    """Everything of the project at `root` that a later command or a person reads."""
    items = [*_files(root), *_git(root)]
    if (root / "mlflow.db").exists():
        items += _store(root)
    return _unique(items)


def _unique(items: Iterable[tuple[str, str]]) -> State:
    """Keys without identifiers; of several with one key, numbered in the order of their values."""
    state: State = {}
    count: Counter[str] = Counter()
    for key, value in sorted((HEX.sub("#", MOMENT.sub("MOMENT", key)), value) for key, value in items):
        count[key] += 1
        state[key if count[key] == 1 else f"{key} ({count[key]})"] = value
    return state


# ------------------------------------------------------------------ files


def _files(root: Path) -> Iterator[tuple[str, str]]:
    paths = [path for place in PLACES for path in (root / place).rglob("*")]
    paths += [root / "promotions.jsonl", root / "dvc.lock", root / "params.yaml"]
    for path in sorted(paths):
        name = str(path.relative_to(root))
        if not path.is_file() or re.search(r"/\.\d+\.", name):
            continue
        for part, value in contents(path):
            yield f"{name} {part}".strip(), value
    for path in root.rglob(".*"):
        if re.match(r"\.\d+\.", path.name) and ".git/" not in str(path):
            yield f"left behind {re.sub(r'[0-9]+', 'N', str(path.relative_to(root)))}", "a temporary file or folder"


def contents(path: Path) -> list[tuple[str, str]]:
    """A file as named values: leaves of JSON and YAML, cells of tables, lines, arrays of models, or its hash."""
    try:
        match path.suffix:
            case ".json":
                return list(leaves(json.loads(path.read_text())))
            case ".jsonl":
                return [
                    (f"line {k} {name}", value)
                    for k, line in enumerate(path.read_text().splitlines())
                    for name, value in leaves(json.loads(line))
                ]
            case ".yaml" | ".lock":
                return list(leaves(yaml.safe_load(path.read_text())))
            case ".csv":
                head, *rows = list(csv.reader(io.StringIO(path.read_text()))) or [[]]
                cells = [zip(head, row, strict=True) for row in rows]
                named = [(f"row {i} {name}", cell) for i, row in enumerate(cells) for name, cell in row]
                return [("columns", ", ".join(head)), *named]
            case ".model" | ".pt":
                return _archive(path)
            case ".db":
                return _database(path)
            case suffix if suffix in TEXT:
                text = re.sub(r"[A-Za-z0-9+/=]{200,}", lambda found: _hash(found[0].encode()), path.read_text())
                return [(f"line {k}", line) for k, line in enumerate(text.splitlines())]
    except (ValueError, UnicodeDecodeError, zipfile.BadZipFile, yaml.YAMLError, sqlite3.DatabaseError) as error:
        return [("unreadable", f"{type(error).__name__}: {error}"), ("sha256", _hash(path.read_bytes()))]
    return [("sha256", _hash(path.read_bytes()))]


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def leaves(content: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Leaves of nested mappings and lists, by their path."""
    if isinstance(content, dict) and content:
        for key, value in content.items():
            yield from leaves(value, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(content, list) and content:
        for k, value in enumerate(content):
            yield from leaves(value, f"{prefix}[{k}]")
    else:
        yield prefix, str(content)


def _archive(path: Path) -> list[tuple[str, str]]:
    """A model as PyTorch stores it: the hash of each array and of the description."""
    with zipfile.ZipFile(path) as archive:
        return [
            (name.split("/", 1)[-1], _hash(archive.read(name)))
            for name in archive.namelist()
            if not name.endswith(".data/serialization_id")
        ]


def _database(path: Path) -> list[tuple[str, str]]:
    """Every row of every table."""
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
        tables = [name for (name,) in database.execute("select name from sqlite_master where type = 'table'")]
        return [
            (f"{table} row {k}", " | ".join(map(str, row)))
            for table in tables
            for k, row in enumerate(database.execute(f'select * from "{table}" order by 1'))
        ]


# ------------------------------------------------------------------ git


def _git(root: Path) -> Iterator[tuple[str, str]]:
    for name, arguments in {
        "git status": ("status", "--porcelain"),
        "git log": ("log", "--format=%s"),
    }.items():
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True)
        for k, line in enumerate(done.stdout.splitlines()):
            yield f"{name} {k}", line


# ------------------------------------------------------------------ MLflow


def _store(root: Path) -> list[tuple[str, str]]:
    """Runs with states, parameters, metrics and artifacts, and the registry, from the project's own database."""
    with sqlite3.connect(f"file:{root / 'mlflow.db'}?mode=ro", uri=True) as database:
        database.row_factory = sqlite3.Row
        return [*_runs(database), *_models(database)]


def _rows(database: sqlite3.Connection, question: str, *values: str) -> list[sqlite3.Row]:
    return database.execute(question, values).fetchall()


def _runs(database: sqlite3.Connection) -> Iterator[tuple[str, str]]:
    experiments = {str(row["experiment_id"]): row["name"] for row in _rows(database, "select * from experiments")}
    for run in _rows(database, "select * from runs order by start_time"):
        key = f"run {experiments[str(run['experiment_id'])]} {run['name']}"
        own = run["run_uuid"]
        yield f"{key} status", f"{run['status']}, {run['lifecycle_stage']}, ended {run['end_time'] is not None}"
        for table in ("params", "tags"):
            for row in _rows(database, f"select key, value from {table} where run_uuid = ?", own):
                yield f"{key} {table} {row['key']}", row["value"]
        for row in _rows(database, "select distinct key, step, value from metrics where run_uuid = ?", own):
            yield f"{key} metric {row['key']} at {row['step']}", repr(row["value"])
        question = "select d.name, d.digest from inputs i join datasets d on d.dataset_uuid = i.source_id"
        for row in _rows(database, f"{question} where i.destination_id = ?", own):
            yield f"{key} data {row['name']}", row["digest"]
        yield from _artifacts(key, run["artifact_uri"])


def _artifacts(key: str, uri: str) -> Iterator[tuple[str, str]]:
    folder = Path(unquote(urlparse(uri).path))
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            for part, value in contents(path):
                yield f"{key} artifact {path.relative_to(folder)} {part}", value


def _models(database: sqlite3.Connection) -> Iterator[tuple[str, str]]:
    for row in _rows(database, "select * from registered_model_tags"):
        value = row["value"]
        try:
            for name, leaf in leaves(json.loads(value)):
                yield f"model {row['name']} tag {row['key']} {name}", leaf
        except ValueError:
            yield f"model {row['name']} tag {row['key']}", str(value)
    for row in _rows(database, "select * from registered_model_aliases"):
        yield f"model {row['name']} alias {row['alias']}", str(row["version"])
    logged = {row["model_id"]: row for row in _rows(database, "select * from logged_models")}
    for row in _rows(database, "select * from model_versions"):
        key = f"version {row['name']}/{row['version']}"
        yield f"{key} status", f"{row['status']}, {row['current_stage']}"
        yield f"{key} description", str(row["description"])
        question = "select key, value from model_version_tags where name = ? and version = ?"
        for tag in _rows(database, question, row["name"], row["version"]):
            yield f"{key} tag {tag['key']}", str(tag["value"])
        model = logged.get(str(row["source"]).rpartition("/")[2])
        if model is None:
            yield f"{key} weights", "none"
        else:
            yield from _artifacts(key, model["artifact_location"])
    for row in logged.values():
        if row["lifecycle_stage"] != "deleted":
            yield f"logged model {row['name']} status", str(row["status"])


# ------------------------------------------------------------------ comparison


def without_numbers_of_trials(state: State) -> State:
    """A sweep that was killed keeps its broken trials and tries their settings again under new numbers.

    What is left is the setting it chose, and of each finished trial settings and values.
    """
    found = {key: value for key, value in state.items() if not OF_TRIALS.search(key)}
    rows: dict[str, dict[str, str]] = {}
    for key, value in state.items():
        if match := re.fullmatch(r"runs/sweep/\w+/trials\.csv row (\d+) (\w+)", key):
            rows.setdefault(match[1], {})[match[2]] = value
    finished = [{k: v for k, v in row.items() if k != "trial"} for row in rows.values() if row["state"] == "complete"]
    for k, row in enumerate(sorted(finished, key=lambda row: [v for n, v in row.items() if not TIMES.search(n)])):
        found |= {f"finished trial {k} {name}": value for name, value in row.items()}
    return found


def volatile(references: list[State]) -> set[str]:
    """Keys whose values differ between undisturbed runs, or are not in all of them; with those of the same name.

    Of several values with one name, numbered by their order, a value that changes may take another one's number.
    """
    keys = set().union(*references)
    changing = {NUMBERED.sub("", key) for key in keys if len({reference.get(key) for reference in references}) > 1}
    return {key for key in keys if NUMBERED.sub("", key) in changing}


def differences(reference: State, other: State, ignored: set[str], tolerance: float = 0.0) -> list[str]:
    """What is missing, what is too much, and what is another value, one line each."""
    found = []
    for key in sorted(set(reference) | set(other)):
        if key in ignored or TIMES.search(key) or re.sub(r"\.(size|nfiles)$", ".md5", key) in ignored:
            continue
        if key not in other:
            found.append(f"missing: {key} = {reference[key][:80]}")
        elif key not in reference:
            found.append(f"too much: {key} = {other[key][:80]}")
        elif not _alike(*(LASTED.sub("", text) for text in (reference[key], other[key])), tolerance):
            found.append(f"other: {key}: {reference[key][:80]} -> {other[key][:80]}")
    return found


def _alike(one: str, two: str, tolerance: float) -> bool:
    """Equal texts, or equal words with numbers in between that differ by at most `tolerance` of the larger one."""
    if one == two:
        return True
    if not tolerance or NUMBER.sub("0", one) != NUMBER.sub("0", two):
        return False
    pairs = zip(NUMBER.findall(one), NUMBER.findall(two), strict=True)
    return all(abs(float(a) - float(b)) <= tolerance * max(abs(float(a)), abs(float(b))) for a, b in pairs)
