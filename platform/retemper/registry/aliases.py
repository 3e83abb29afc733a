"""The aliases ``champion`` and ``challenger`` of a registered model: who may move them, and how a move survives.

A move is one tag of the registered model, written first: from then on it has happened. The
alias itself, the tag that says which move it shows, and the line in ``promotions.jsonl`` follow,
and whatever a kill, a full disk or a lost connection left undone is done by the next command
that looks (`settle`). An alias that somebody moved in MLflow itself is entered into the history
as such. This module alone writes these aliases.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from retemper.core.errors import RetemperError, unknown
from retemper.core.files import require_space
from retemper.records.trained_model import TrainedModel
from retemper.registry import history
from retemper.registry.client import Registry, Version, open_registry
from retemper.registry.history import How, Move
from retemper.tracking import lineage
from retemper.tracking.store import PROJECT, is_embedded, tracking_uri

CHAMPION, CHALLENGER = "champion", "challenger"
MOVE, SHOWN = "retemper.move.", "retemper.shown."  # tags of the registered model
ANYONE = "anyone"  # has the alias now
NEED = 2_000_000  # bytes that a move may take


@dataclass(frozen=True)
class Standing:
    """Who has an alias: the model, and its version in this store (`None`: it is not registered here)."""

    model: TrainedModel
    version: str | None


# ------------------------------------------------------------------ what is so


def require_ownership(registry: Registry, root: Path, system: str) -> None:
    """Take the name of a registered model for this project where nobody has it.

    Raises
    ------
    RetemperError
        It is another project's.
    """
    identity, tags = lineage.project_identity(root), registry.entry(system).tags
    if not _is_foreign(tags, root):
        if identity is not None and PROJECT not in tags and not is_embedded(root):
            registry.set_tag(system, PROJECT, identity)
        return
    owner = tags[PROJECT]
    raise RetemperError(
        f"The registered model {system} at {tracking_uri(root)} belongs to another project.",
        expected=f"project {identity}",
        got=f"project {owner}",
        fix="give this project another name (system in params.yaml); "
        f"if it is the same project, set tracking.project: {owner} in params.yaml",
    )


def _is_foreign(tags: Mapping[str, str], root: Path) -> bool:
    """Whether the tags of a registered model say that it is another project's."""
    identity, owner = lineage.project_identity(root), tags.get(PROJECT)
    return None not in (identity, owner) and identity != owner and not is_embedded(root)


def settle(registry: Registry, root: Path, system: str) -> list[Move]:
    """Join the histories of store and file, finish what was interrupted, enter what was moved by hand.

    Call it within the lock. A model that another project registered under the name is looked at and left alone.

    Returns
    -------
    list of Move
        The whole history, oldest first.
    """
    entry = registry.entry(system)
    tags = entry.tags
    stored = [history.loads(text, f"tag {tag} of {system}") for tag, text in tags.items() if tag.startswith(MOVE)]
    if _is_foreign(tags, root):
        return history.join(stored)
    moves = history.join(stored, history.read(root, system))
    versions = registry.versions(system)
    models = {version.number: version.model for version in versions}
    for alias in (CHAMPION, CHALLENGER):
        last, number = history.last(moves, alias), entry.aliases.get(alias)
        holder = None if number is None else models[number]
        interrupted = last is not None and tags.get(f"{SHOWN}{alias}") != last.id  # or the history of another store
        if not interrupted and holder != (last.to if last else None):
            last = history.new(moves, system, alias, holder, number, "outside", "moved in MLflow itself")
            moves = [*moves, last]
        elif not interrupted:
            continue
        assert last is not None
        _show(registry, last, versions, number)
    for move in moves:
        if move.id not in {stored_move.id for stored_move in stored}:
            _store(registry, move)
    history.append(root, moves)
    description = history.described(entry.description, moves, {model: number for number, model in models.items()})
    if description != entry.description:
        registry.describe_model(system, description)
    return moves


def _show(registry: Registry, move: Move, versions: Sequence[Version], current: str | None) -> None:
    """Make the alias what `move` says, and note that it is; a model that this store lacks leaves no alias."""
    numbers = [version.number for version in versions if version.model == move.to]
    number = move.version if move.version in numbers else next(iter(numbers), None)
    if current not in (number, *numbers):
        registry.point(move.system, move.alias, number)
    target = next((version for version in versions if version.number == number), None)
    if target is not None:
        registry.tag(target, {f"promotion.{move.alias}": f"{move.time[:10]} by {move.how}: {move.reason}"})
    if move.to is None or target is not None:
        registry.set_tag(move.system, f"{SHOWN}{move.alias}", move.id)


def _store(registry: Registry, move: Move) -> None:
    registry.set_tag(move.system, f"{MOVE}{move.time}.{move.id}", history.dumps(move))


def standing(registry: Registry, moves: Sequence[Move], system: str, alias: str) -> Standing | None:
    """Who has the alias by the history; `None`: nobody."""
    last = history.last(moves, alias)
    if last is None or last.to is None:
        return None
    numbers = [version.number for version in registry.versions(system) if version.model == last.to]
    return Standing(last.to, numbers[0] if numbers else None)


def settle_locked(registry: Registry, root: Path, system: str) -> list[Move]:
    """`settle` under the lock."""
    with registry.locked(system):
        return settle(registry, root, system)


def current(root: Path, system: str) -> tuple[list[Move], dict[str, Standing | None]]:
    """The settled history, and who has which alias."""
    with open_registry(root) as registry:
        moves = settle_locked(registry, root, system)
        return moves, {alias: standing(registry, moves, system, alias) for alias in (CHAMPION, CHALLENGER)}


# ------------------------------------------------------------------ moves


@contextlib.contextmanager
def _moving(root: Path, system: str) -> Iterator[tuple[Registry, list[Move]]]:
    """The registry and the settled history of a model of this project, locked."""
    require_space(root, NEED)
    with open_registry(root) as registry, registry.locked(system):
        moves = settle(registry, root, system)
        require_ownership(registry, root, system)
        yield registry, moves


def move(
    root: Path,
    system: str,
    alias: str,
    version: str | None,
    how: How,
    reason: str,
    *,
    expected: TrainedModel | str | None = ANYONE,
    verdict: str | None = None,
) -> Move | None:
    """Give an alias to a version, once and for all.

    Parameters
    ----------
    version : str or None
        `None` takes the alias away.
    expected : TrainedModel, None or `ANYONE`
        Who had the alias when this was decided; when somebody else has it by now, nothing is moved.
    verdict : str, optional
        Digest of the verdict that allows it.

    Returns
    -------
    Move or None
        `None` when the version has the alias already.

    Raises
    ------
    RetemperError
        An unknown alias or version, somebody else has the alias, no space, or no answer from the store.
    """
    if alias not in (CHAMPION, CHALLENGER):
        raise unknown("alias", alias, (CHAMPION, CHALLENGER))
    with _moving(root, system) as (registry, moves):
        last = history.last(moves, alias)
        holder = last.to if last else None
        to = None if version is None else _model(registry, system, version)
        if to == holder:
            return None
        if expected not in (ANYONE, holder):
            raise RetemperError(
                f"The {alias} of {system} has changed in the meantime.",
                expected=expected.words if isinstance(expected, TrainedModel) else "nobody",
                got="nobody" if holder is None else holder.words,
                fix="judge again: dvc repro -f promote",
            )
        commit = lineage.git_commit(root).commit
        record = history.new(moves, system, alias, to, version, how, reason, verdict=verdict, commit=commit)
        _store(registry, record)  # it has happened
        settle(registry, root, system)
        return record


def rollback(root: Path, system: str, reason: str, alias: str = CHAMPION) -> Move:
    """Give the alias back to whoever had it before.

    Raises
    ------
    RetemperError
        Nobody had it before, or the model that had it is not registered in this store.
    """
    with _moving(root, system) as (registry, moves):
        holders = history.stack(moves, alias)
        to = holders[-2] if len(holders) > 1 else None
        if to is None:
            raise RetemperError(f"{system} has no earlier {alias} to go back to.", fix="retemper models")
        numbers = [version.number for version in registry.versions(system) if version.model == to]
        if not numbers:
            raise RetemperError(
                f"The {alias} of {system} was {to.words}, which is not registered in this store.",
                fix=f"check out the commit that has it (git log -S{to.sha256[:16]} -- promotions.jsonl), "
                "then dvc pull and retemper sync",
            )
        commit = lineage.git_commit(root).commit
        record = history.new(moves, system, alias, to, numbers[0], "rollback", reason, commit=commit)
        _store(registry, record)
        settle(registry, root, system)
        return record


def _model(registry: Registry, system: str, number: str) -> TrainedModel:
    versions = {version.number: version for version in registry.versions(system)}
    if number not in versions:
        raise unknown(f"version of {system}", number, versions)
    model = versions[number].model
    if not model.sha256:
        raise RetemperError(f"{system}/{number} was not registered by retemper.", fix="dvc repro register")
    return model


def model(root: Path, system: str, version: str) -> TrainedModel:
    """Which trained model a version is; one that retemper did not register is an error."""
    with open_registry(root) as registry:
        return _model(registry, system, version)
