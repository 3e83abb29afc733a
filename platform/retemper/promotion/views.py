"""What `retemper models`, `show`, `compare` and `lineage` print."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from retemper.config import metric_names
from retemper.core.errors import RetemperError
from retemper.core.output import table
from retemper.evaluation.statistics import FEWEST_GROUPS, two_sided
from retemper.promotion import compare, robust
from retemper.promotion.gates import has_frames, other_frames
from retemper.promotion.text import HEADING
from retemper.records.measures import Number
from retemper.registry import aliases, attachments, data_revisions, history
from retemper.registry.aliases import CHAMPION
from retemper.registry.client import Registry, Version, open_registry
from retemper.registry.measurements import Measured
from retemper.registry.versions import resolve

HEADLINES = (
    ("target.force_rmse", "target F"),
    ("target.energy_rmse", "target E"),
    ("retention.force_rmse", "retention F"),
    ("forgetting_ratio", "forgetting"),
    ("drift.force_rmse", "drift F"),
)
SHORTEST_HASH = 6  # digits
LINEAGE = ("sha256", "key", "git_commit")  # tags that name what a version came from, beside data.* and dvc.*


def models(root: Path, system: str | None = None) -> str:
    """Versions of every registered model (or of one) with aliases, verdict and headline metrics."""
    with open_registry(root, existing=True) as registry:
        names = [name for name in registry.systems() if system in (None, name)]
        blocks = [_versions(registry, name, aliases.settle_locked(registry, root, name)) for name in names]
    if not blocks:
        raise RetemperError(f"No model {system or ''} is registered.".replace("  ", " "), fix="dvc repro register")
    return "\n\n".join(blocks)


def _versions(registry: Registry, name: str, moves: Sequence[history.Move]) -> str:
    aliases_of: dict[str, list[str]] = {}
    for alias, number in registry.entry(name).aliases.items():
        aliases_of.setdefault(number, []).append(alias)
    versions = list(reversed(registry.versions(name)))
    measured = [(key, title) for key, title in HEADLINES if any(metric_names.tag(v.tags, key) for v in versions)]
    rows = [["version", "strategy", "seed", *(title for _, title in measured), "gates", "rank", "aliases"]]
    for version in versions:
        tags = version.tags
        figures = [_figure(metric_names.tag(tags, key)) for key, _ in measured]
        row = [version.name, tags.get("strategy", "–"), tags.get("seed", "–"), *figures]
        verdict = [tags.get("verdict", "–"), tags.get("verdict.rank", "–")]
        rows.append([*row, *verdict, ", ".join(sorted(aliases_of.get(version.number, [])))])
    lines = [table(rows, rule=True), "F: force RMSE, meV/Å   E: energy RMSE, meV/atom   lower is better"]
    champion = aliases.standing(registry, moves, name, CHAMPION)
    if champion is not None and champion.version is None:
        model = champion.model
        lines.append(f"the champion ({model.strategy}, seed {model.seed}, {model.sha256[:12]}) is not registered here")
    return "\n".join(lines)


def _figure(text: str | None) -> str:
    """A tag's number in four digits; what somebody wrote there by hand as it is."""
    try:
        return "–" if text is None else f"{float(text):.4g}"
    except ValueError:
        return text or "–"


def show(root: Path, name: str) -> str:
    """The card of one version: lineage, metrics with intervals, gate by gate, and the history of its aliases."""
    with open_registry(root, existing=True) as registry:
        version = resolve(registry, name)
        moves = aliases.settle_locked(registry, root, version.system)
        measures = attachments.fetch(registry, version)
        aliases_by_name = registry.entry(version.system).aliases
    tags = version.tags
    names = " ".join(f"@{alias}" for alias, number in aliases_by_name.items() if number == version.number)
    lines = [f"{version.name}  {names}".rstrip(), ""]
    lines.append(version.description.split(HEADING)[0].strip())
    hashes = data_revisions.data_hashes(tags)
    if hashes:
        commit = data_revisions.newest_commits(root, [hashes]).get(hashes)
        lines.append(
            f"- data kept by: {f'dvc.lock of commit {commit}' if commit else 'no commit yet (git add dvc.lock)'}"
        )
    if measures is not None:
        rows = [["metric", "value", "interval"]]
        rows += [[metric, *_number(number)] for metric, number in measures.numbers.items()]
        lines += ["", "## Measures", "", table(rows, rule=True)]
    gates = {tag.removeprefix("gate."): text for tag, text in sorted(tags.items()) if tag.startswith("gate.")}
    lines += ["", "## Gates", ""]
    if gates:
        lines += [f"{tags['verdict']}, rank {tags['verdict.rank']}, gates {tags['verdict.gates']}"]
        lines += [f"{gate}: {text}" for gate, text in gates.items()]
    else:
        lines.append(tags.get("verdict", "not judged (dvc repro promote)"))
    promotions = [move for move in moves if move.to == version.model]
    lines += ["", "## Promotions", ""]
    lines += [f"{m.time[:19]}  {m.alias:10s} {m.how:8s} {m.by}: {m.reason}" for m in promotions] or ["none"]
    return "\n".join(lines)


def _number(number: Number) -> list[str]:
    if number.value is None:
        return [f"– ({number.reason})", ""]
    bounded = number.low is not None and number.high is not None
    interval = f"{number.low:.4g} to {number.high:.4g} ({100 * number.level:g} %)" if bounded else ""
    return [f"{number.value:.4g} {number.unit}".rstrip(), interval]


def compare_versions(root: Path, first: str, second: str) -> str:
    """Two versions side by side, with the ratio of their errors on the same frames and whether it is significant."""
    with open_registry(root, existing=True) as registry:
        pair = [resolve(registry, name) for name in (first, second)]
        measures = [attachments.fetch(registry, version) for version in pair]
    titles = [version.name for version in pair]
    for title, entry in zip(titles, measures, strict=True):
        if entry is None:
            raise RetemperError(f"No measures are kept with {title}.", fix="dvc repro register")
    a, b = (entry for entry in measures if entry is not None)
    rows = [["metric", *titles, "second / first", "95 % interval", ""]]
    notes = []
    for metric in dict.fromkeys([*a.numbers, *b.numbers]):
        numbers = [entry.number(metric) for entry in (a, b)]
        texts = ["–" if number.value is None else f"{number.value:.4g} {number.unit}".rstrip() for number in numbers]
        rows.append([metric, *texts, *_ratio(a, b, metric)])
        notes += [f"{metric} of {t}: {n.reason}" for t, n in zip(titles, numbers, strict=True) if n.value is None]
    headings = [f"{title}: {version.tags.get('strategy')}, seed {version.tags.get('seed')}, sha256 {entry.sha256[:12]}"
             for title, version, entry in zip(titles, pair, (a, b), strict=True)]  # fmt: skip
    explanation = (
        "ratios: of these two models, paired over groups of the frames both were measured on; other seeds of their "
        "strategies may differ otherwise (runs/report); empty where there are no errors by frame"
    )
    return "\n".join([*headings, "", table(rows, rule=True), *notes, explanation])


def _ratio(a: Measured, b: Measured, metric: str) -> list[str]:
    """Ratio, interval and verdict of a metric with errors by frame; empty cells for others."""
    if metric.startswith(robust.PREFIX):
        return robust.cells(a, b, metric)
    part, _, quantity = metric.partition(".")
    first, second = a.errors(part), b.errors(part)
    if quantity not in compare.QUANTITIES or not has_frames(part) or first is None or second is None:
        return ["", "", ""]
    if other_frames(a, b, part) is not None or len(first.energy) != len(second.energy):
        return ["", "", "other frames"]
    if not any(second.group):  # kept by an earlier version, which did not name the groups of these frames
        second = replace(second, group=first.group)
    ratio = compare.over_groups(second, first, quantity, two_sided(0.95))
    word = "second is better" if ratio.high < 1.0 else "first is better" if ratio.low > 1.0 else "not distinguished"
    if ratio.groups < FEWEST_GROUPS:
        return [f"{ratio.value:.3f}", "", f"{ratio.groups} group(s): too few to tell"]
    return [f"{ratio.value:.3f}", f"{ratio.low:.3f} to {ratio.high:.3f} ({ratio.groups} groups)", word]


def lineage(root: Path, hash_prefix: str) -> str:
    """Every version that came of a hash: data set or file, foundation, weights, configuration, or git commit."""
    hash_prefix = hash_prefix.lower()
    if len(hash_prefix) < SHORTEST_HASH:
        raise RetemperError(f"{hash_prefix!r} is too short for a hash.", expected=f"at least {SHORTEST_HASH} digits")
    with open_registry(root, existing=True) as registry:
        versions = registry.versions()
    rows = [["version", "strategy", "seed", "as", "hash", "git commit"]]
    for version in sorted(versions, key=lambda v: (v.system, int(v.number))):
        for tag, value in sorted(_origins(version).items()):
            if value.lower().startswith(hash_prefix):
                tags = version.tags
                row = [version.name, tags.get("strategy", "–"), tags.get("seed", "–"), tag]
                rows.append([*row, value[:16], tags.get("git_commit", "–")[:10]])
    if len(rows) == 1:
        raise RetemperError(
            f"No registered version came of {hash_prefix}.",
            expected="md5 of a data file or DVC folder, sha256 of weights, a foundation's hash, or a git commit",
            fix="retemper show NAME/VERSION prints those of a version",
        )
    data = {v.name: data_revisions.data_hashes(v.tags) for v in reversed(versions)}
    return "\n".join([table(rows, rule=True), "", *data_revisions.spare(root, data)]).rstrip()


def _origins(version: Version) -> dict[str, str]:
    return {k: v for k, v in version.tags.items() if k in LINEAGE or k.startswith(("data.", "dvc."))}
