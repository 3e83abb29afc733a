"""The description of a registered version, in Markdown: what it is, how good, and where it comes from."""

from __future__ import annotations

from collections.abc import Iterable

from retemper.config.foundations import find
from retemper.config.metric_names import DRIFT_OF, of_kept, set_of
from retemper.records.evaluation import Estimate
from retemper.records.runs import Results
from retemper.tracking import lineage

ROWS = (
    ("Target, energy RMSE (meV/atom)", "target.energy_rmse"),
    ("Target, force RMSE (meV/Å)", "target.force_rmse"),
    ("Target, stress RMSE (meV/Å³)", "target.stress_rmse"),
    ("Retention, energy RMSE (meV/atom)", "retention.energy_rmse"),
    ("Retention, force RMSE (meV/Å)", "retention.force_rmse"),
    ("Retention with the replay head, force RMSE (meV/Å)", "retention_replay_head.force_rmse"),
    ("Forgetting ratio, target head", "forgetting_ratio"),
    ("Forgetting ratio, replay head", "forgetting_ratio_replay_head"),
    ("Drift from the foundation, energy RMSE (meV/atom)", "drift.energy_rmse"),
    ("Drift from the foundation, force RMSE (meV/Å)", "drift.force_rmse"),
    ("Drift from the foundation with the replay head, force RMSE (meV/Å)", "drift_replay_head.force_rmse"),
)


def write(results: Results, strategy: str, seed: int, tags: dict[str, str]) -> str:
    """Model card of one seed. `tags` are those of its version; only facts found in the files are stated."""
    settings, foundation = results.settings, find(results.settings.foundation, results.root)
    training = results.trainings[strategy][seed]
    lines = [
        f"# {settings.system}: {strategy}, seed {seed}",
        "",
        f"MACE model fine-tuned by retemper with the strategy `{strategy}`. Output head: `{tags['head']}`.",
        "",
        f"- Level of theory: {settings.dataset.level_of_theory}",
        f"- Foundation: {foundation.name} ({foundation.level_of_theory}; licence {foundation.licence}); "
        f"{foundation.citation}",
    ]
    counts = ", ".join(f"{n} {name}" for name, n in results.counts().items())
    if counts:
        lines.append(f"- Target structures: {counts}")
    outcome = training.finished
    lines.append(
        f"- Training: {outcome.epochs} epochs, best {outcome.best_epoch + 1}, {outcome.seconds:.0f} s, "
        f"{settings.finetune.dtype} on {settings.finetune.device}"
    )
    proof = "what ran is what was asked for" if training.proven else "not proven to be what was asked for"
    lines += [f"- Effective configuration: {proof}", "", *_errors(results, strategy, seed), "## Lineage", ""]
    lines.append(f"- sha256 of the weights: `{tags['sha256']}`")
    lines.append(f"- key of the configuration: `{tags['key']}`")
    if "git_commit" in tags:
        dirty = ", with changes that were not committed" if tags.get("git_dirty") == "true" else ""
        lines.append(f"- git commit: `{tags['git_commit']}`{dirty}")
    lines += [f"- {name.removeprefix('data.')}: md5 `{value}`" for name, value in tags.items() if name[:5] == "data."]
    lines += [
        f"- {name.removeprefix('dvc.')}: DVC `{value}`" for name, value in tags.items() if name.startswith("dvc.")
    ]
    if "machine" in tags:
        lines.append(f"- trained on: {tags['machine']}")
    lines.append("- `retemper/dvc.lock` and `retemper/params.yaml` among the artifacts: all hashes and settings")
    versions = ", ".join(f"{name} {version}" for name, version in lineage.versions().items())
    return "\n".join([*lines, f"- registered with {versions}", ""])


def _interval(estimate: Estimate) -> str:
    bounded = estimate.low is not None and estimate.high is not None
    return f"{estimate.low:.4g} to {estimate.high:.4g}" if bounded else "one group: not known"


def _of_kept(names: Iterable[str]) -> list[tuple[str, str]]:
    """Rows of the heads that are kept alive."""
    of_forces = [name for name in names if of_kept(name) and name.endswith(".force_rmse")]
    label = "Drift of head {} from the foundation's, force RMSE (meV/Å)"
    return [(label.format(set_of(name).removeprefix(DRIFT_OF)), name) for name in of_forces]


def _errors(results: Results, strategy: str, seed: int) -> list[str]:
    """Table of errors with their intervals over test frames."""
    level = f"{100 * results.settings.evaluate.confidence:g} % interval"
    lines = ["## Errors", "", f"| on test frames | value | {level} |", "|---|---|---|"]
    numbers = results.numbers(strategy, seed)
    lines += [
        f"| {label} | {numbers[name].value:.4g} | {_interval(numbers[name])} |"
        for label, name in (*ROWS, *_of_kept(numbers))
        if name in numbers
    ]
    return [
        *lines,
        "",
        "Retention is measured on held-out structures of the foundation's pretraining distribution; the forgetting "
        "ratio is its force RMSE over the foundation's own on the same structures. Without labels there, drift is the "
        "difference from the foundation's own predictions on structures kept apart from replay. Intervals: over "
        "groups of frames.",
        "",
    ]
