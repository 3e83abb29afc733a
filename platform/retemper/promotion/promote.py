"""The stage promote: judge this run's candidates, keep the verdict, move the aliases it allows.

Each strategy is judged by one version (`verdict.pick_seed`). The verdict is
``runs/promote/verdict.json`` and ``.md``, tags of every version judged, and a file beside its weights.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retemper import evaluate
from retemper.errors import RetemperError
from retemper.files import atomic_folder, digest, read_json, write_json
from retemper.mlflow_store import connect, store_errors
from retemper.promotion import aliases, hook, kept, measures, verdict
from retemper.promotion.aliases import CHALLENGER, CHAMPION, Standing
from retemper.promotion.gates import References
from retemper.promotion.history import How, Model, Move, barred
from retemper.promotion.lock import locked
from retemper.promotion.measures import Errors, Measured
from retemper.results import FOUNDATION, Results, read_results
from retemper.settings import Settings

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

OUT = Path("runs/promote")
CACHE = Path(".cache/promotion")


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
        for strategy, by_seed in versions.items():
            measured = {seed: measures.collect(results, strategy, seed) for seed in by_seed}
            for seed, version in by_seed.items():
                kept.keep(client, version, results, measured[seed])
            losses = {seed: float(results.trainings[strategy][seed].outcome["valid_loss"]) for seed in by_seed}
            candidates[strategy] = measured[verdict.pick_seed(measured, losses, settings.promotion)]
        champion = aliases.standing(client, moves, system, CHAMPION)
        references = _references(client, results, candidates, champion)
        others = {n: c for n, c in candidates.items() if champion is None or c.model != champion.model}
        found = verdict.decide(others, references, candidates, settings.promotion, barred(moves, CHAMPION))
        numbers = {name: str(versions[name][one.seed].version) for name, one in candidates.items()}
        content = verdict.as_dict(found, numbers, _about(settings, champion, references))
        _write(root, content)
        for name, judged in found.judged.items():
            _keep(client, versions[name][judged.candidate.seed], content, name)
    _move(root, settings, content, champion)
    return content


def _about(settings: Settings, champion: Standing | None, references: References) -> dict[str, Any]:
    before = None
    if champion is not None:
        where = (
            f"`{settings.system}/{champion.version}` " if champion.version else "a model that is not registered here, "
        )
        before = f"{where}({champion.model.strategy}, seed {champion.model.seed}, {champion.model.sha256[:12]})"
    return {
        "model": settings.system,
        "objective": settings.promotion.objective,
        "before": before,
        "obstacle": references.obstacle,
        "foundation": settings.foundation,
    }


def _versions(client: MlflowClient, results: Results) -> dict[str, dict[int, ModelVersion]]:
    """Versions of this run in this store, by strategy and seed; a run that is not registered here is an error."""
    known = {aliases.model_of(version): version for version in aliases.versions(client, results.settings.system)}
    found: dict[str, dict[int, ModelVersion]] = {}
    for strategy in results.registered:
        for seed, training in results.trainings[strategy].items():
            model = Model(training.outcome["sha256"], strategy, seed)
            if model not in known:
                raise RetemperError(
                    f"{strategy}, seed {seed} is not registered in this store.", fix=f"dvc repro -f register@{strategy}"
                )
            found.setdefault(strategy, {})[seed] = known[model]
    return found


# ------------------------------------------------------------------ what candidates are compared with


def _references(
    client: MlflowClient, results: Results, candidates: dict[str, Measured], champion: Standing | None
) -> References:
    foundation = measures.collect(results, FOUNDATION, 0) if FOUNDATION in results.evaluations else None
    if champion is None:
        return References(foundation, None)
    for one in candidates.values():
        if one.model == champion.model:
            return References(foundation, one)
    if champion.version is None:
        return References(
            foundation, None, f"the champion ({champion.model.sha256[:12]}) is not registered in this store"
        )
    version = client.get_model_version(results.settings.system, champion.version)
    measured = kept.fetch(client, results.root, version)
    if measured is None:
        return References(foundation, None, f"no measures are kept with the champion, version {champion.version}")
    first = next(iter(candidates.values()))
    if any(measured.identity.get(key) != first.identity.get(key) for key in ("target", "retention")):
        measured = remeasure(client, results, version, measured)
    return References(foundation, measured)


def remeasure(client: MlflowClient, results: Results, version: ModelVersion, before: Measured) -> Measured:
    """Evaluate an earlier version on the frames of this run; its other seeds are not there any more.

    What cannot be measured again here (robustness) keeps its numbers. The result is cached by
    the weights and the frames.
    """
    here = evaluate.context(results.settings, results.root)
    identity = evaluate.identity(here)
    path = results.root / CACHE / f"{digest([before.sha256, identity])}.json"
    if path.is_file():
        content = read_json(path)
    else:
        print(f"promote: {version.name}/{version.version} was measured on other frames: measuring it again", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            parts = evaluate.fine_tuned(here, kept.weights(client, results.root, version, Path(folder)))
        content = {
            part: {
                "report": measured.report,
                "energy": measured.errors.energy.tolist(),
                "force_sq": measured.errors.force_sq.tolist(),
            }
            for part, measured in parts.items()
        }
        write_json(path, content)
    numbers = {name: number for name, number in before.numbers.items() if name.startswith("robustness.")}
    numbers |= measures.from_reports({part: entry["report"] for part, entry in content.items()})
    frames = {before.seed: {part: Errors.of(entry["energy"], entry["force_sq"]) for part, entry in content.items()}}
    return Measured(before.strategy, before.seed, before.sha256, identity, numbers, frames)


# ------------------------------------------------------------------ the verdict, kept and carried out


def _write(root: Path, content: dict[str, Any]) -> None:
    with atomic_folder(root / OUT) as folder:
        _files(folder, content)


def _files(folder: Path, content: dict[str, Any]) -> None:
    write_json(folder / "verdict.json", content)
    (folder / "verdict.md").write_text(verdict.markdown(content), encoding="utf-8")


def _keep(client: MlflowClient, version: ModelVersion, content: dict[str, Any], name: str) -> None:
    """Tags of the version (one a gate, and the sum), and the verdict beside its weights."""
    one = content["candidates"][name]
    tags = {"verdict": "passed" if one["passed"] else "failed", "verdict.digest": digest(content)}
    for number, gate in enumerate(one["gates"], 1):
        state = "passed" if gate["passed"] else "failed"
        text = f"{state}: {gate['rule']}; {verdict.value_text(gate)}; {gate['reason']}"
        tags[f"gate.{number:02d} {gate['metric']}"[:250]] = text
    stale = [tag for tag in version.tags if tag.startswith("gate.") and tag not in tags]
    for tag in stale:
        client.delete_model_version_tag(version.name, version.version, tag)
    if version.tags.get("verdict.digest") != tags["verdict.digest"]:
        with tempfile.TemporaryDirectory() as folder:
            _files(Path(folder), content)
            client.log_model_artifacts(kept.model_id(version), folder, kept.FOLDER)
    for tag, value in tags.items():
        if version.tags.get(tag) != value:
            client.set_model_version_tag(version.name, version.version, tag, value)


def _move(root: Path, settings: Settings, content: dict[str, Any], champion: Standing | None) -> None:
    """Give the aliases to whom the verdict says. The challenger is taken away from one that passes no more."""
    candidates, of = content["candidates"], digest(content)
    done: list[Move | None] = []
    if content["champion"]:
        version, expected = candidates[content["champion"]]["version"], champion.model if champion else None
        reason = f"lowest {content['objective']} of the candidates that pass all {len(settings.promotion.gates)} gates"
        done.append(
            aliases.move(root, settings.system, CHAMPION, version, "gates", reason, expected=expected, verdict=of)
        )
    challenger = candidates[content["challenger"]]["version"] if content["challenger"] else None
    reason = f"lowest {content['objective']} of the others that pass the absolute gates"
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
    of = None
    if not reason:
        content = read_json(root / OUT / "verdict.json") if (root / OUT / "verdict.json").is_file() else {}
        one = next(
            (
                c
                for c in content.get("candidates", {}).values()
                if content["model"] == system and c["version"] == version
            ),
            None,
        )
        if one is None:
            raise RetemperError(
                f"There is no verdict on {system}/{version}.", fix="dvc repro promote, or give a --reason"
            )
        if not (one["passed"] if alias == CHAMPION else one["absolute"]):
            raise RetemperError(
                f"{system}/{version} does not pass the gates:\n  " + "\n  ".join(one["failures"]),
                fix="another version, or give a --reason, which is recorded",
            )
        of = digest(content)
    how: How = "override" if reason else "gates"
    moved = aliases.move(root, system, alias, version, how, reason or "passes the gates", verdict=of)
    if moved is not None:
        hook.tell(settings.promotion.hook, root, moved)
    return moved


def rollback(root: str | Path, settings: Settings, system: str, reason: str) -> Move:
    """`retemper rollback`: the champion before the present one; gates alone do not promote the present one again."""
    root = Path(root).resolve()
    moved = aliases.rollback(root, system, reason)
    hook.tell(settings.promotion.hook, root, moved)
    return moved
