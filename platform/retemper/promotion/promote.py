"""The stage promote: judge this run's candidates, keep the verdict, move the aliases it allows.

Each strategy is judged by one version (`verdict.pick_seed`). The verdict is
``runs/promote/verdict.json`` and ``.md``, tags of every version judged, and a file beside its weights.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from retemper.config.project import Project
from retemper.core import experiment
from retemper.core.errors import RetemperError
from retemper.core.files import atomic_folder, digest
from retemper.promotion import hook, looks, text, verdict
from retemper.promotion.baselines import reference_measures
from retemper.records.runs import Results, read_results
from retemper.records.trained_model import TrainedModel
from retemper.records.verdict import Verdict
from retemper.registry import aliases, attachments, history, measurements
from retemper.registry.aliases import CHALLENGER, CHAMPION, Standing
from retemper.registry.client import Registry, Version, open_registry
from retemper.registry.history import How, Move, barred_models
from retemper.registry.measurements import Measured


def run(project: Project) -> Verdict | None:
    """Judge, write the verdict, move the aliases.

    Returns
    -------
    Verdict or None
        `None` in an experiment of DVC, which may never be kept: the folder says so, and nothing moves.

    Raises
    ------
    RetemperError
        Nothing is registered, the store does not answer, or another process moved the champion
        while this one judged.
    """
    name = experiment.name()
    if name is not None:
        with atomic_folder(project.promotion) as folder:
            (folder / "verdict.md").write_text(f"# No verdict\n\n{experiment.keep(name)}\n", encoding="utf-8")
        return None
    root, settings = project.root, project.settings
    results = read_results(project)
    if not results.registered:
        raise RetemperError("No models are registered.", fix="dvc repro register")
    system = settings.system
    with open_registry(root) as registry:
        moves = aliases.settle_locked(registry, root, system)
        versions = _versions(registry, results)
        candidates: dict[str, Measured] = {}
        reasons: dict[str, str] = {}
        for strategy, by_seed in versions.items():
            measures = {seed: measurements.collect(results, strategy, seed) for seed in by_seed}
            for seed, version in by_seed.items():
                attachments.keep(registry, version, results, measures[seed])
            losses = {seed: results.trainings[strategy][seed].finished.valid_loss for seed in by_seed}
            seed, reasons[strategy] = verdict.pick_seed(measures, losses, settings.promotion)
            candidates[strategy] = measures[seed]
        champion = aliases.standing(registry, moves, system, CHAMPION)
        references = replace(
            reference_measures(registry, results, candidates, champion), by_person=history.by_person(moves, CHAMPION)
        )
        contenders = {
            name: candidate
            for name, candidate in candidates.items()
            if champion is None or candidate.model != champion.model
        }
        judged_versions = [versions[name][candidate.seed] for name, candidate in contenders.items()]
        test_frames = next(iter(candidates.values())).identity["target"]
        look = 0 if champion is None else looks.number(registry.versions(system), judged_versions, test_frames)
        decision = verdict.decide(
            contenders, references, candidates, settings.promotion, barred_models(moves, CHAMPION), look
        )
        numbers = {name: versions[name][candidate.seed].number for name, candidate in candidates.items()}
        objective, gates = settings.promotion.objective, settings.promotion.gates
        record = Verdict(
            model=system,
            objective=objective,
            gates=gates,
            gates_digest=digest([objective, [gate.model_dump(exclude_defaults=True) for gate in gates]]),
            before=_words(system, champion),
            champion_before=None if champion is None else champion.model,
            obstacle=references.obstacle,
            foundation=settings.foundation,
            level=settings.dataset.level_of_theory,
            look=look,
            test_frames=test_frames,
            foundation_level=project.foundation.level_of_theory,
            challenger=decision.challenger,
            champion=decision.champion,
            candidates=verdict.candidates(decision.assessments, objective, numbers, reasons),
        )
        with atomic_folder(project.promotion) as folder:
            _write(folder, record)
        for name in decision.assessments:
            _keep(registry, versions[name], record, name)
    _move(project, record)
    return record


def describe(verdict: Verdict | None) -> str:
    """What a stage that ended decided, in lines."""
    if verdict is None:
        return experiment.keep(str(experiment.name()))
    return "\n".join([*text.outcomes(verdict), *text.decision(verdict)])


def sync(project: Project) -> None:
    """Put the verdict of the file into a store that has none on its versions."""
    root, settings = project.root, project.settings
    results = read_results(project)
    verdict = results.verdict
    if verdict is None or verdict.model != settings.system or not results.registered:
        return
    with open_registry(root) as registry:
        versions = _known(registry, settings.system)
        for name, candidate in verdict.candidates.items():
            trainings = results.trainings.get(name, {}).items()
            models = [TrainedModel(training.finished.sha256, name, seed) for seed, training in trainings]
            seeds = {model.seed: versions[model] for model in models if model in versions}
            judged_model = TrainedModel(candidate.sha256, name, candidate.seed)
            if judged_model in models and judged_model.seed in seeds and "verdict" not in seeds[judged_model.seed].tags:
                _keep(registry, seeds, verdict, name)


def _known(registry: Registry, system: str) -> dict[TrainedModel, Version]:
    return {version.model: version for version in reversed(registry.versions(system))}


def _words(system: str, champion: Standing | None) -> str | None:
    """The champion before this verdict."""
    if champion is None:
        return None
    model = champion.model
    version = f"`{system}/{champion.version}` " if champion.version else "a model that is not registered here, "
    return f"{version}({model.strategy}, seed {model.seed}, {model.sha256[:12]})"


def _versions(registry: Registry, results: Results) -> dict[str, dict[int, Version]]:
    """Versions of this run in this store, by strategy and seed; a run that is not registered here is an error."""
    registered = _known(registry, results.settings.system)
    versions: dict[str, dict[int, Version]] = {}
    for strategy in results.registered:
        for seed, training in results.trainings[strategy].items():
            model = TrainedModel(training.finished.sha256, strategy, seed)
            if model not in registered:
                raise RetemperError(
                    f"{strategy}, seed {seed} is not registered in this store.", fix=f"dvc repro -f register@{strategy}"
                )
            versions.setdefault(strategy, {})[seed] = registered[model]
    return versions


# ------------------------------------------------------------------ the verdict, kept and carried out


def _write(folder: Path, verdict: Verdict) -> None:
    verdict.write(folder / "verdict.json")
    (folder / "verdict.md").write_text(text.markdown(verdict), encoding="utf-8")


def _digest(verdict: Verdict) -> str:
    return digest(verdict.model_dump(mode="json"))


def _keep(registry: Registry, seeds: dict[int, Version], verdict: Verdict, name: str) -> None:
    """Tags of the version judged (one a gate, and the sum) and of the other seeds; the verdict beside the weights."""
    candidate = verdict.candidates[name]
    for seed, other_version in seeds.items():
        if seed != candidate.seed:
            _tag(registry, other_version, {"verdict": f"seed {candidate.seed} was judged"})
    version = seeds[candidate.seed]
    tags = {
        "verdict.rank": f"{candidate.rank} of {len(verdict.candidates)}",
        "verdict.gates": verdict.gates_digest,
        "verdict.digest": _digest(verdict),
        **looks.tags(verdict.look, verdict.test_frames),
    }
    for number, gate in enumerate(candidate.gates, 1):
        state = "passed" if gate.passed else "failed"
        tags[f"gate.{number:02d} {gate.metric}"[:250]] = f"{state}: {gate.rule}; {text.value(gate)}; {gate.reason}"
    if version.tags.get("verdict.digest") != tags["verdict.digest"]:
        with tempfile.TemporaryDirectory() as folder:
            _write(Path(folder), verdict)
            registry.attach(version, Path(folder))
    card = version.description.split(text.HEADING)[0]
    registry.describe(version, card + text.HEADING + text.table(candidate))
    _tag(
        registry, version, {**tags, "verdict": "passed" if candidate.passed else "failed"}
    )  # last: `sync` looks for it


def _tag(registry: Registry, version: Version, tags: dict[str, str]) -> None:
    """Make `tags` all that the version says of verdict and gates."""
    for tag in version.tags:
        if tag.startswith(("gate.", "verdict")) and tag not in tags:
            registry.untag(version, tag)
    registry.tag(version, tags)


def _move(project: Project, verdict: Verdict) -> None:
    """Give the aliases to whom the verdict says. The challenger is taken away from one that passes no more."""
    root, system, options = project.root, verdict.model, project.settings.promotion
    verdict_digest, moves = _digest(verdict), []
    if verdict.champion:
        version, expected = verdict.candidates[verdict.champion].version, verdict.champion_before
        reason = f"best {verdict.objective} of the candidates that pass all {len(options.gates)} gates"
        moves.append(
            aliases.move(root, system, CHAMPION, version, "gates", reason, expected=expected, verdict=verdict_digest)
        )
    challenger, reason = None, "no other candidate passes the absolute gates"
    if verdict.challenger:
        challenger = verdict.candidates[verdict.challenger].version
        reason = f"best {verdict.objective} of the others that pass the absolute gates"
    moves.append(aliases.move(root, system, CHALLENGER, challenger, "gates", reason, verdict=verdict_digest))
    for move in moves:
        if move is not None:
            hook.tell(options.hook, root, move)


def override(project: Project, system: str, version: str, alias: str, reason: str | None) -> Move | None:
    """`retemper promote`: with a reason a person's decision, without one what the last verdict allows.

    Raises
    ------
    RetemperError
        Without a reason: no verdict on this version, or one that it does not pass.
    """
    root = project.root
    verdict_digest: str | None = None
    expected: TrainedModel | str | None = aliases.ANYONE
    if not reason:
        model = aliases.model(root, system, version)
        verdict = Verdict.read(project.verdict) if project.verdict.is_file() else None
        candidate = None if verdict is None else verdict.candidate_of(system, model)
        if verdict is None or candidate is None:
            raise RetemperError(
                f"There is no verdict on {system}/{version} (of each strategy one seed is judged).",
                fix="dvc repro promote, or give a --reason",
            )
        if not (candidate.passed if alias == CHAMPION else candidate.absolute):
            raise RetemperError(
                f"{system}/{version} does not pass the gates:\n  " + "\n  ".join(candidate.failures),
                fix="another version, or give a --reason, which is recorded",
            )
        verdict_digest = _digest(verdict)
        if alias == CHAMPION:
            expected = verdict.champion_before
    how: How = "override" if reason else "gates"
    move = aliases.move(
        root, system, alias, version, how, reason or "passes the gates", expected=expected, verdict=verdict_digest
    )
    if move is not None:
        hook.tell(project.settings.promotion.hook, root, move)
    return move


def rollback(project: Project, system: str, reason: str) -> Move:
    """`retemper rollback`: the champion before the present one; gates alone do not promote the present one again."""
    move = aliases.rollback(project.root, system, reason)
    hook.tell(project.settings.promotion.hook, project.root, move)
    return move
