"""Every move of an alias, append-only: in ``promotions.jsonl`` beside ``params.yaml``, and as tags in the store.

The file belongs into git: it names models by the sha256 of their weights, so it outlives any
store. The same moves are tags of the registered model, where everyone who shares a server sees
them. Two histories are joined by the moves' identifiers.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from retemper.core import processes
from retemper.core.errors import RetemperError
from retemper.core.files import atomic_write
from retemper.records.trained_model import TrainedModel

FILE = "promotions.jsonl"
HEADING = "\n\n## Who had which alias\n\nThe tags `retemper.move.*` say the same to programs.\n\n"  # of a description
LONGEST_DESCRIPTION = 4900  # characters; the store bounds it
LONGEST_REASON = 1000  # characters; the store bounds a tag
How = Literal["gates", "override", "rollback", "outside"]
PERSONS = ("override", "rollback", "outside")  # a person decided


@dataclass(frozen=True)
class Move:
    """An alias was given to a model, or taken away (`to` is `None`)."""

    time: str  # UTC, 2026-11-22T21:31:00.123456Z: moves are ordered by it
    id: str
    system: str  # registered model
    alias: str
    to: TrainedModel | None
    version: str | None  # number of `to` in the store where it was moved
    how: How
    reason: str
    by: str
    verdict: str | None = None  # digest of the verdict that allowed it
    commit: str | None = None  # of the project


def new(
    earlier: Sequence[Move],
    system: str,
    alias: str,
    to: TrainedModel | None,
    version: str | None,
    how: How,
    reason: str,
    *,
    verdict: str | None = None,
    commit: str | None = None,
) -> Move:
    """A move that comes after all of `earlier`, whatever this machine's clock says."""
    now = datetime.now(UTC)
    if earlier:
        now = max(now, _time(earlier[-1]) + timedelta(microseconds=1))
    stamp = now.isoformat(timespec="microseconds").replace("+00:00", "Z")
    by = processes.user()
    return Move(
        stamp, uuid.uuid4().hex[:12], system, alias, to, version, how, reason[:LONGEST_REASON], by, verdict, commit
    )


def _time(move: Move) -> datetime:
    return datetime.fromisoformat(move.time)


def dumps(move: Move) -> str:
    """One line of JSON."""
    return json.dumps(asdict(move), ensure_ascii=False)


def loads(line: str, source: str) -> Move:
    """A line of the file or the value of a tag as move."""
    try:
        content = json.loads(line)
        to = content.pop("to")
        return Move(**content, to=None if to is None else TrainedModel(**to))
    except (ValueError, TypeError, KeyError) as error:
        raise RetemperError(
            f"{source} holds a line that is no move of an alias: {line[:80]!r} ({error}).",
            expected="one JSON object a line, as retemper wrote it",
            fix="restore the file from git",
        ) from error


def join(*histories: Iterable[Move]) -> list[Move]:
    """All moves once, in the order of time."""
    return sorted({move.id: move for history in histories for move in history}.values(), key=lambda m: (m.time, m.id))


# ------------------------------------------------------------------ the file


def read(root: Path, system: str | None = None) -> list[Move]:
    """Moves of `system` (all without) in the project's file, in order; none without a file."""
    path = root / FILE
    if not path.is_file():
        return []
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    moves = [loads(line, str(path)) for line in lines]
    return join(move for move in moves if system in (None, move.system))


def append(root: Path, moves: Sequence[Move]) -> None:
    """Put those of `moves` that the file lacks below its lines; it is replaced whole: a full disk loses nothing."""
    written = {move.id for move in read(root)}
    new = [move for move in moves if move.id not in written]
    if not new:
        return
    path = root / FILE
    lines = path.read_text(encoding="utf-8") if path.is_file() else ""
    if lines and not lines.endswith("\n"):
        lines += "\n"
    with atomic_write(path) as temporary:
        temporary.write_text(lines + "".join(dumps(move) + "\n" for move in new), encoding="utf-8")


# ------------------------------------------------------------------ in words


def described(description: str, moves: Sequence[Move], numbers: Mapping[TrainedModel, str]) -> str:
    """A registered model's description with its moves below, the newest first; what stands above stays as it is.

    `numbers` are those of the versions in this store.
    """
    if not moves:
        return description
    text = description.partition(HEADING)[0].rstrip() + HEADING
    for move in reversed(moves):
        line = f"- {_words(move, numbers)}\n"
        if len(text) + len(line) > LONGEST_DESCRIPTION:
            break
        text += line
    return text


def _words(move: Move, numbers: Mapping[TrainedModel, str]) -> str:
    whom = "nobody"
    if move.to is not None:
        number = f"version {numbers[move.to]}, " if move.to in numbers else ""
        whom = f"{number}{move.to.strategy} seed {move.to.seed}"
    reason = " ".join(move.reason.split())
    return f"{move.time[:16].replace('T', ' ')} **{move.alias}**: {whom}, by {move.how} ({move.by}): {reason}"


# ------------------------------------------------------------------ what a history means


def last(moves: Sequence[Move], alias: str) -> Move | None:
    """The newest move of an alias."""
    return next((move for move in reversed(moves) if move.alias == alias), None)


def stack(moves: Sequence[Move], alias: str) -> list[TrainedModel | None]:
    """Who had the alias, oldest first, the present one last: a promotion adds one, a rollback takes one away."""
    holders: list[TrainedModel | None] = []
    for move in moves:
        if move.alias != alias:
            continue
        if move.how == "rollback" and len(holders) > 1:
            holders.pop()
        if not holders or holders[-1] != move.to:
            holders.append(move.to)
    return holders


def by_person(moves: Sequence[Move], alias: str) -> bool:
    """Whether a person, not the gates, decided who has an alias."""
    newest = last(moves, alias)
    return newest is not None and newest.how in PERSONS


def barred_models(moves: Sequence[Move], alias: str) -> dict[TrainedModel, str]:
    """Models from which a person took the alias and to which none has given it since, with the reason."""
    reasons: dict[TrainedModel, str] = {}
    holder: TrainedModel | None = None
    for move in moves:
        if move.alias != alias:
            continue
        if move.how in PERSONS and holder is not None:
            verb = "rolled back" if move.how == "rollback" else "replaced by a person"
            reasons[holder] = f"{verb} on {move.time[:10]} ({move.reason}): only a person promotes it again"
        if move.how in PERSONS and move.to is not None:
            reasons.pop(move.to, None)
        holder = move.to
    return reasons
