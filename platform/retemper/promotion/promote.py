"""The stage promote: judge this run's candidates, keep the verdict, move the aliases it allows.

Each strategy is judged by one version (`verdict.pick_seed`). The verdict is
``runs/promote/verdict.json`` and ``.md``, tags of every version judged, and a file beside its weights.
"""

from __future__ import annotations

import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retemper.config.foundations import find
from retemper.config.settings import Settings
from retemper.core.errors import RetemperError
from retemper.core.files import atomic_folder, digest, read_json, write_json
from retemper.promotion import hook, looks, verdict
from retemper.promotion.baselines import compared_with
from retemper.promotion.gates import References
from retemper.records.runs import Results, counts_looks, read_results
from retemper.registry import aliases, attachments, history, measurements
from retemper.registry.aliases import CHALLENGER, CHAMPION, Standing
from retemper.registry.history import How, Model, Move, barred
from retemper.registry.measurements import Measured
from retemper.tracking.lock import locked
from retemper.tracking.store import connect, store_errors

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

OUT = Path("runs/promote")


def run(root: str | Path, settings: Settings) -> dict[str, Any]:
    """Judge, write the verdict, move the aliases.

    Returns
    -------
    dict
        The content of ``verdict.json``.

    Raises
    ------
    RetemperError
        Nothing is registered, the store does not answer, or another process moved the champion
        while this one judged.
    """
    root = Path(root).resolve()
    results = read_results(root, settings)
    if not results.registered:
        raise RetemperError("No models are registered.", fix="dvc repro register")
    system = settings.system
    with store_errors(root):
        client = connect(root)
        with locked(client, root, system):
            moves = aliases.settle(client, root, system)
        versions = _versions(client, results)
        candidates: dict[str, Measured] = {}
        chosen: dict[str, str] = {}
        for strategy, by_seed in versions.items():
            measured = {seed: measurements.collect(results, strategy, seed) for seed in by_seed}
            for seed, version in by_seed.items():
                attachments.keep(client, version, results, measured[seed])
            losses = {seed: results.trainings[strategy][seed].finished.valid_loss for seed in by_seed}
            seed, chosen[strategy] = verdict.pick_seed(measured, losses, settings.promotion)
            candidates[strategy] = measured[seed]
        champion = aliases.standing(client, moves, system, CHAMPION)
        references = replace(
            compared_with(client, results, candidates, champion), by_person=history.by_person(moves, CHAMPION)
        )
        others = {n: c for n, c in candidates.items() if champion is None or c.model != champion.model}
        judged = [versions[name][one.seed] for name, one in others.items()]
        tested = next(iter(candidates.values())).identity["target"]
        look = 0 if champion is None else looks.number(aliases.versions(client, system), judged, tested)
        found = verdict.decide(others, references, candidates, settings.promotion, barred(moves, CHAMPION), look)
        numbers = {name: str(versions[name][one.seed].version) for name, one in candidates.items()}
        about = _about(settings, champion, references) | {"look": look, "test_frames": tested}
        about["foundation_level"] = find(settings.foundation, root).level_of_theory
        content = verdict.as_dict(found, numbers, chosen, about)
        _write(root, content)
        for name in found.judged:
            _keep(client, versions[name], content, name)
    _move(root, settings, content, champion)
    return content


def sync(root: Path, settings: Settings) -> None:
    """Put the verdict of the file into a store that has none on its versions."""
    results = read_results(root, settings)
    content = results.verdict
    if content is None or content["model"] != settings.system or not results.registered:
        return
    with store_errors(root):
        client = connect(root)
        known = _known(client, settings.system)
        for name, one in content["candidates"].items():
            models = [Model(t.finished.sha256, name, seed) for seed, t in results.trainings.get(name, {}).items()]
            seeds = {model.seed: known[model] for model in models if model in known}
            judged = Model(one["sha256"], name, one["seed"])
            if judged in models and judged.seed in seeds and "verdict" not in seeds[judged.seed].tags:
                _keep(client, seeds, content, name)


def _known(client: MlflowClient, system: str) -> dict[Model, ModelVersion]:
    return {aliases.model_of(version): version for version in reversed(aliases.versions(client, system))}


def _about(settings: Settings, champion: Standing | None, references: References) -> dict[str, Any]:
    before = None
    gates = [gate.model_dump(exclude_defaults=True) for gate in settings.promotion.gates]
    if champion is not None:
        where = (
            f"`{settings.system}/{champion.version}` " if champion.version else "a model that is not registered here, "
        )
        before = f"{where}({champion.model.strategy}, seed {champion.model.seed}, {champion.model.sha256[:12]})"
    return {
        "model": settings.system,
        "objective": settings.promotion.objective,
        "gates": gates,
        "gates_digest": digest([settings.promotion.objective, gates]),
        "before": before,
        "champion_before": None if champion is None else asdict(champion.model),
        "obstacle": references.obstacle,
        "foundation": settings.foundation,
        "level": settings.dataset.level_of_theory,
    }


def _versions(client: MlflowClient, results: Results) -> dict[str, dict[int, ModelVersion]]:
    """Versions of this run in this store, by strategy and seed; a run that is not registered here is an error."""
    known = _known(client, results.settings.system)
    found: dict[str, dict[int, ModelVersion]] = {}
    for strategy in results.registered:
        for seed, training in results.trainings[strategy].items():
            model = Model(training.finished.sha256, strategy, seed)
            if model not in known:
                raise RetemperError(
                    f"{strategy}, seed {seed} is not registered in this store.", fix=f"dvc repro -f register@{strategy}"
                )
            found.setdefault(strategy, {})[seed] = known[model]
    return found


# ------------------------------------------------------------------ the verdict, kept and carried out


def _write(root: Path, content: dict[str, Any]) -> None:
    with atomic_folder(root / OUT) as folder:
        _files(folder, content)


def _files(folder: Path, content: dict[str, Any]) -> None:
    write_json(folder / "verdict.json", content)
    (folder / "verdict.md").write_text(verdict.markdown(content), encoding="utf-8")


def _keep(client: MlflowClient, seeds: dict[int, ModelVersion], content: dict[str, Any], name: str) -> None:
    """Tags of the version judged (one a gate, and the sum) and of the other seeds; the verdict beside the weights."""
    one = content["candidates"][name]
    for seed, other in seeds.items():
        if seed != one["seed"]:
            _tag(client, other, {"verdict": f"seed {one['seed']} was judged"})
    version = seeds[one["seed"]]
    tags = {
        "verdict.rank": f"{one['rank']} of {len(content['candidates'])}",
        "verdict.gates": content["gates_digest"],
        "verdict.digest": digest(content),
        **looks.tags(content["look"], content["test_frames"]),
    }
    for number, gate in enumerate(one["gates"], 1):
        state = "passed" if gate["passed"] else "failed"
        text = f"{state}: {gate['rule']}; {verdict.value_text(gate)}; {gate['reason']}"
        tags[f"gate.{number:02d} {gate['metric']}"[:250]] = text
    if version.tags.get("verdict.digest") != tags["verdict.digest"]:
        with tempfile.TemporaryDirectory() as folder:
            _files(Path(folder), content)
            client.log_model_artifacts(attachments.model_id(version), folder, attachments.FOLDER)
    card = str(version.description).split(verdict.HEADING)[0]
    client.update_model_version(version.name, version.version, card + verdict.HEADING + verdict.table(one))
    _tag(client, version, {**tags, "verdict": "passed" if one["passed"] else "failed"})  # last: `sync` looks for it


def _tag(client: MlflowClient, version: ModelVersion, tags: dict[str, str]) -> None:
    """Make `tags` all that the version says of verdict and gates."""
    for tag in version.tags:
        if tag.startswith(("gate.", "verdict")) and tag not in tags:
            client.delete_model_version_tag(version.name, version.version, tag)
    for tag, value in tags.items():
        if version.tags.get(tag) != value:
            client.set_model_version_tag(version.name, version.version, tag, value)


def _move(root: Path, settings: Settings, content: dict[str, Any], champion: Standing | None) -> None:
    """Give the aliases to whom the verdict says. The challenger is taken away from one that passes no more."""
    candidates, of = content["candidates"], digest(content)
    done: list[Move | None] = []
    if content["champion"]:
        version, expected = candidates[content["champion"]]["version"], champion.model if champion else None
        reason = f"best {content['objective']} of the candidates that pass all {len(settings.promotion.gates)} gates"
        done.append(
            aliases.move(root, settings.system, CHAMPION, version, "gates", reason, expected=expected, verdict=of)
        )
    challenger = candidates[content["challenger"]]["version"] if content["challenger"] else None
    reason = f"best {content['objective']} of the others that pass the absolute gates"
    if challenger is None:
        reason = "no other candidate passes the absolute gates"
    done.append(aliases.move(root, settings.system, CHALLENGER, challenger, "gates", reason, verdict=of))
    for moved in done:
        if moved is not None:
            hook.tell(settings.promotion.hook, root, moved)


def override(
    root: str | Path, settings: Settings, system: str, version: str, alias: str, reason: str | None
) -> Move | None:
    """`retemper promote`: with a reason a person's decision, without one what the last verdict allows.

    Raises
    ------
    RetemperError
        Without a reason: no verdict on this version, or one that it does not pass.
    """
    root = Path(root).resolve()
    of: str | None = None
    expected: Model | str | None = aliases.ANYONE
    if not reason:
        content = read_json(root / OUT / "verdict.json") if (root / OUT / "verdict.json").is_file() else {}
        one = _judged(content, system, aliases.model(root, system, version)) if counts_looks(content) else None
        if one is None:
            raise RetemperError(
                f"There is no verdict on {system}/{version} (of each strategy one seed is judged).",
                fix="dvc repro promote, or give a --reason",
            )
        if not (one["passed"] if alias == CHAMPION else one["absolute"]):
            raise RetemperError(
                f"{system}/{version} does not pass the gates:\n  " + "\n  ".join(one["failures"]),
                fix="another version, or give a --reason, which is recorded",
            )
        of = digest(content)
        if alias == CHAMPION:
            before = content["champion_before"]
            expected = None if before is None else Model(**before)
    how: How = "override" if reason else "gates"
    moved = aliases.move(root, system, alias, version, how, reason or "passes the gates", expected=expected, verdict=of)
    if moved is not None:
        hook.tell(settings.promotion.hook, root, moved)
    return moved


def _judged(content: dict[str, Any], system: str, model: Model) -> dict[str, Any] | None:
    """What a verdict says of a model, whatever its version's number is in this store."""
    for strategy, one in content.get("candidates", {}).items():
        if content["model"] == system and Model(one["sha256"], strategy, one["seed"]) == model:
            return dict(one)
    return None


def rollback(root: str | Path, settings: Settings, system: str, reason: str) -> Move:
    """`retemper rollback`: the champion before the present one; gates alone do not promote the present one again."""
    root = Path(root).resolve()
    moved = aliases.rollback(root, system, reason)
    hook.tell(settings.promotion.hook, root, moved)
    return moved
