"""``studies/<name>/``: the table, what it says of each claim, means by strategy, and plots."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from retemper.core.files import atomic_write
from retemper.study import claims, table
from retemper.study.plan import Run
from retemper.study.spec import OWN, Study
from retemper.study.verdicts import Judgement

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = {
    "target_energy_rmse": "target energy",
    "target_force_rmse": "target forces",
    "retention_force_rmse": "retention forces",
    "forgetting_ratio": "forgetting",
    "replay_head_force_rmse": "replay head",
    "drift_force_rmse": "drift of forces",
    "drift_replay_head_force_rmse": "drift, replay head",
}


def write(study: Study, runs: Sequence[Run], root: Path) -> str:
    """Write table, report and plots of what is there; returns where they are.

    The report is a function of the table and of the study's file alone.
    """
    content = table.make(study, runs)
    path = table.place(study, root)
    folder = path.parent
    waiting = bool((content["state"] == table.WAITING).all())
    stale = waiting and path.is_file() and len(table.finished_rows(table.read(path))) > 0
    if stale:
        content = table.read(path)
    else:
        table.write(content, path)
    rows, selection = central_rows(content, study)
    figures = []
    if len(rows):
        from retemper.study import figures as draw

        names = sorted(set(rows["strategy"]))
        if rows.groupby("system")["train"].nunique().max() > 1:
            draw.learning_png(rows, names, folder / "learning.png", f"{study.name}, {selection}")
            figures.append("learning.png")
        for kept in ("retention_force_rmse", "drift_force_rmse"):
            if kept in rows and rows[kept].notna().all():
                title = f"{study.name}, largest size, {selection}"
                draw.pareto_png(largest(rows), kept, names, folder / "pareto.png", title)
                figures.append("pareto.png")
    with atomic_write(folder / "report.md") as temporary:
        temporary.write_text(text(study, content, figures, stale=stale))
    return f"report: {folder.relative_to(root)}/report.md; table: {path.relative_to(root)}"


def central_rows(content: pd.DataFrame, study: Study) -> tuple[pd.DataFrame, str]:
    """The finished rows to show by strategy: those with everything else at the centre, or all where these are few."""
    rows = table.finished_rows(content)
    rows["strategy"] = rows["strategy"].astype(str)
    middle = {axis: table.text(level) for axis, level in study.middle().items()}
    fixed = [axis for axis in table.axes_of(content) if axis not in ("system", "strategy", "size", "seed")]
    central = rows[np.logical_and.reduce([rows[axis] == middle[axis] for axis in fixed])] if fixed else rows
    if central["strategy"].nunique() < 2 <= rows["strategy"].nunique():
        return rows, f"over all levels of {', '.join(axis for axis in fixed if rows[axis].nunique() > 1)}"
    words = [f"{axis} {middle[axis]}" for axis in fixed if middle[axis] != OWN]
    return central, ", ".join(words)


def largest(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of each system with the most training structures."""
    return rows[rows["train"] == rows.groupby("system")["train"].transform("max")]


def text(study: Study, content: pd.DataFrame, figures: Sequence[str], *, stale: bool = False) -> str:
    """The report as Markdown; of a `stale` table it says that it is one."""
    states = Counter(content["state"])
    seconds = float(content.get("cpu_seconds", np.zeros(0)).sum())
    lines = [f"# {study.name}", "", *([study.about, ""] if study.about else [])]
    lines += [
        f"{len(content)} runs: {', '.join(f'{n} {state}' for state, n in sorted(states.items()))}. "
        f"The finished and failed ones took {seconds / 3600:.2f} hours of one core, "
        "stages that they share not counted.",
        *(["The table is of other settings or versions than the study would run with now."] if stale else []),
        "",
        "## Claims",
        "",
        "Everything else equal, by pairs of runs; 95 % intervals. What the words mean: `docs/study.md`.",
        "",
        "| claim | verdict | effect | of what | from |",
        "|---|---|---|---|---|",
    ]
    judgements = claims.judgements(content)
    for name, judgement in judgements.items():
        lines += _verdict(claims.load(name).CLAIM, judgement)
    details = [f"- {claims.load(name).CLAIM}: {j.details}" for name, j in judgements.items() if j.details]
    lines += ["", *details, ""] if details else [""]
    rows, selection = central_rows(content, study)
    if len(rows):
        caption = (
            f"Largest size of each system; {selection}. Geometric means over runs; energies meV/atom, forces meV/Å."
        )
        lines += ["## By strategy", "", caption, "", *by_strategy(largest(rows), study), ""]
    lines += [part for name in figures for part in (f"![{name.removesuffix('.png')}]({name})", "")]
    failed = content[content["state"] == table.FAILED]
    if len(failed):
        axes = table.axes_of(content)
        lines += ["## Failed runs", "", "| " + " | ".join(axes) + " | reason |", "|" + "---|" * (len(axes) + 1)]
        lines += [
            f"| {' | '.join(table.text(row[a]) for a in axes)} | {row['reason']} |" for _, row in failed.iterrows()
        ]
        lines.append("")
    return "\n".join(lines)


def _verdict(claim: str, judgement: Judgement) -> list[str]:
    """Rows of the table of claims: the claim and its first condition, then the others."""
    rows = []
    for number, part in enumerate(judgement.parts):
        first = [claim, f"**{judgement.verdict}**"] if number == 0 else ["", part.verdict]
        if number == 0 and len(judgement.parts) > 1:
            first[1] += f" ({part.verdict})"
        rows.append("| " + " | ".join([*first, part.effect, part.words, part.note]) + " |")
    return rows


def by_strategy(rows: pd.DataFrame, study: Study) -> list[str]:
    """A table a system: geometric means of errors, arithmetic means of robustness, by strategy."""
    columns = {name: words for name, words in COLUMNS.items() if name in rows and rows[name].notna().any()}
    metrics = [name for name in study.metrics if name in rows and rows[name].notna().any()]
    head = ["system", "strategy", "runs", *columns.values(), *metrics, "CPU-s"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for (system, strategy), group in rows.groupby(["system", "strategy"]):
        cells = [str(system), str(strategy), str(len(group))]
        for name in columns:
            values = group[name].dropna().to_numpy(float)
            cells.append(f"{np.exp(np.log(values).mean()):.3g}" if len(values) else "")
        cells += [f"{group[name].mean():.3g}" if group[name].notna().any() else "" for name in metrics]
        lines.append("| " + " | ".join([*cells, f"{group['cpu_seconds'].mean():.0f}"]) + " |")
    return lines
