"""The aliases ``champion`` and ``challenger`` of a registered model: who may move them, and how a move survives.

A move is one tag of the registered model, written first: from then on it has happened. The
alias itself, the tag that says which move it shows, and the line in ``promotions.jsonl`` follow,
and whatever a kill, a full disk or a lost connection left undone is done by the next command
that looks (`settle`). An alias that somebody moved in MLflow itself is entered into the history
as such. This module alone writes aliases.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from retemper.core.errors import RetemperError, unknown
from retemper.core.files import require_space
from retemper.records.trained_model import TrainedModel
from retemper.registry import history
from retemper.registry.history import How, Move
from retemper.tracking import lineage
from retemper.tracking.lock import LOCK_MODEL, locked
from retemper.tracking.store import PROJECT, connect, is_embedded, store_errors, tracking_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

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


def systems(client: MlflowClient) -> list[str]:
    """Names of all registered models, without those that stand for locks."""
    return [m.name for m in client.search_registered_models() if not m.name.startswith(LOCK_MODEL)]


def versions(client: MlflowClient, system: str) -> list[ModelVersion]:
    """All versions of a registered model, newest first."""
    found = list(client.search_model_versions(f"name = '{system}'", max_results=10000))
    return sorted(found, key=lambda version: -int(version.version))


def model_of(version: ModelVersion) -> TrainedModel:
    """Which trained model a version is."""
    tags = version.tags
    seed = tags.get("seed", "")
    return TrainedModel(tags.get("sha256", ""), tags.get("strategy", ""), int(seed) if seed.isdecimal() else -1)


def require_own(client: MlflowClient, root: Path, system: str) -> None:
    """Take the name of a registered model for this project where nobody has it.

    Raises
    ------
    RetemperError
        It is another project's.
    """
    own, tags = lineage.project_identity(root), dict(client.get_registered_model(system).tags)
    if not _anothers(tags, root):
        if own is not None and PROJECT not in tags and not is_embedded(root):
            client.set_registered_model_tag(system, PROJECT, own)
        return
    whose = tags[PROJECT]
    raise RetemperError(
        f"The registered model {system} at {tracking_uri(root)} belongs to another project.",
        expected=f"project {own}",
        got=f"project {whose}",
        fix="give this project another name (system in params.yaml); "
        f"if it is the same project, set tracking.project: {whose} in params.yaml",
    )


def _anothers(tags: Mapping[str, str], root: Path) -> bool:
    """Whether the tags of a registered model say that it is another project's."""
    own, whose = lineage.project_identity(root), tags.get(PROJECT)
    return None not in (own, whose) and own != whose and not is_embedded(root)


def point(client: MlflowClient, system: str, alias: str, version: str | None) -> None:
    """Set an alias, or delete it; nothing is recorded."""
    if version is None:
        client.delete_registered_model_alias(system, alias)
    else:
        client.set_registered_model_alias(system, alias, version)


def settle(client: MlflowClient, root: Path, system: str) -> list[Move]:
    """Join the histories of store and file, finish what was interrupted, enter what was moved by hand.

    Call it within `locked`. A model that another project registered under the name is looked at and left alone.

    Returns
    -------
    list of Move
        The whole history, oldest first.
    """
    from mlflow.exceptions import MlflowException

    try:
        registered = client.get_registered_model(system)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise unknown("registered model", system, systems(client)) from None
    tags = dict(registered.tags)
    stored = [history.loads(v, f"tag {k} of {system}") for k, v in tags.items() if k.startswith(MOVE)]
    if _anothers(tags, root):
        return history.join(stored)
    moves = history.join(stored, history.read(root, system))
    models = {str(version.version): model_of(version) for version in versions(client, system)}
    here = {alias: str(number) for alias, number in dict(registered.aliases).items()}
    for alias in (CHAMPION, CHALLENGER):
        last, shown = history.last(moves, alias), tags.get(f"{SHOWN}{alias}")
        version = here.get(alias)
        holder = None if version is None else models[version]
        if last is not None and shown != last.id:  # interrupted, or the history of another store
            _show(client, system, last, models, version)
        elif holder != (last.to if last else None):
            moves = [*moves, history.new(moves, system, alias, holder, version, "outside", "moved in MLflow itself")]
            _show(client, system, moves[-1], models, version)
    _write(client, root, system, moves, {move.id for move in stored})
    return moves


def _show(client: MlflowClient, system: str, move: Move, models: dict[str, TrainedModel], present: str | None) -> None:
    """Make the alias what `move` says, and note that it is; a model that this store lacks leaves no alias."""
    wanted = next((version for version, model in models.items() if model == move.to), None)
    if (None if present is None else models[present]) != move.to and wanted != present:
        point(client, system, move.alias, wanted)
    if move.to is None or wanted is not None:
        client.set_registered_model_tag(system, f"{SHOWN}{move.alias}", move.id)


def _write(client: MlflowClient, root: Path, system: str, moves: Sequence[Move], stored: set[str]) -> None:
    """Bring the tags, then the file, up to `moves`."""
    for move in moves:
        if move.id not in stored:
            client.set_registered_model_tag(system, f"{MOVE}{move.time}.{move.id}", history.dumps(move))
    written = {move.id for move in history.read(root, system)}
    history.append(root, [move for move in moves if move.id not in written])


def standing(client: MlflowClient, moves: Sequence[Move], system: str, alias: str) -> Standing | None:
    """Who has the alias by the history; `None`: nobody."""
    last = history.last(moves, alias)
    if last is None or last.to is None:
        return None
    found = [str(v.version) for v in versions(client, system) if model_of(v) == last.to]
    return Standing(last.to, found[0] if found else None)


def present(root: Path, system: str) -> tuple[list[Move], dict[str, Standing | None]]:
    """The settled history, and who has which alias."""
    with store_errors(root):
        client = connect(root)
        with locked(client, root, system):
            moves = settle(client, root, system)
        return moves, {alias: standing(client, moves, system, alias) for alias in (CHAMPION, CHALLENGER)}


# ------------------------------------------------------------------ moves


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
    require_space(root, NEED)
    with store_errors(root):
        client = connect(root)
        with locked(client, root, system):
            moves = settle(client, root, system)
            require_own(client, root, system)
            last = history.last(moves, alias)
            holder = last.to if last else None
            to = None if version is None else _model(client, system, version)
            if to == holder:
                return None
            if expected not in (ANYONE, holder):
                raise RetemperError(
                    f"The {alias} of {system} has changed in the meantime.",
                    expected=expected.words if isinstance(expected, TrainedModel) else "nobody",
                    got="nobody" if holder is None else holder.words,
                    fix="judge again: dvc repro -f promote",
                )
            return _record(client, root, system, moves, alias, to, version, how, reason, verdict)


def rollback(root: Path, system: str, reason: str, alias: str = CHAMPION) -> Move:
    """Give the alias back to whoever had it before.

    Raises
    ------
    RetemperError
        Nobody had it before, or the model that had it is not registered in this store.
    """
    require_space(root, NEED)
    with store_errors(root):
        client = connect(root)
        with locked(client, root, system):
            moves = settle(client, root, system)
            require_own(client, root, system)
            held = history.stack(moves, alias)
            if len(held) < 2 or held[-2] is None:
                raise RetemperError(f"{system} has no earlier {alias} to go back to.", fix="retemper models")
            to = held[-2]
            found = [str(v.version) for v in versions(client, system) if model_of(v) == to]
            if not found:
                raise _not_here(to, alias, system)
            return _record(client, root, system, moves, alias, to, found[0], "rollback", reason, None)


def _record(
    client: MlflowClient,
    root: Path,
    system: str,
    moves: Sequence[Move],
    alias: str,
    to: TrainedModel | None,
    version: str | None,
    how: How,
    reason: str,
    verdict: str | None,
) -> Move:
    commit = lineage.git_commit(root)["commit"]
    made = history.new(moves, system, alias, to, version, how, reason, verdict=verdict, commit=commit)
    client.set_registered_model_tag(system, f"{MOVE}{made.time}.{made.id}", history.dumps(made))  # it has happened
    if version is None:
        point(client, system, alias, None)
    else:
        point(client, system, alias, version)
        client.set_model_version_tag(system, version, f"promotion.{alias}", f"{made.time[:10]} by {how}: {made.reason}")
    client.set_registered_model_tag(system, f"{SHOWN}{alias}", made.id)
    written = {move.id for move in history.read(root, system)}
    history.append(root, [move for move in (*moves, made) if move.id not in written])
    return made


def _model(client: MlflowClient, system: str, version: str) -> TrainedModel:
    found = {str(v.version): v for v in versions(client, system)}
    if version not in found:
        raise unknown(f"version of {system}", version, found)
    model = model_of(found[version])
    if not model.sha256:
        raise RetemperError(f"{system}/{version} was not registered by retemper.", fix="dvc repro register")
    return model


def model(root: Path, system: str, version: str) -> TrainedModel:
    """Which trained model a version is; one that retemper did not register is an error."""
    with store_errors(root):
        return _model(connect(root), system, version)


def _not_here(model: TrainedModel, alias: str, system: str) -> RetemperError:
    return RetemperError(
        f"The {alias} of {system} was {model.words}, which is not registered in this store.",
        fix=f"check out the commit that has it (git log -S{model.sha256[:16]} -- promotions.jsonl), "
        "then dvc pull and retemper sync",
    )
