"""``retemper campaign status``: rounds, labels, what the uncertainty was worth, the learning curve."""

from __future__ import annotations

from retemper.active import campaign, stopping
from retemper.config.project import Project
from retemper.core.output import table
from retemper.data import rounds
from retemper.records.campaign import Campaign, RoundResult
from retemper.records.round import Calibration, Round

PLOT = "campaign.png"  # in runs


def show(project: Project, against: Project | None = None) -> str:
    """All of it as text; the learning curve, with another campaign's beside it, as a plot in ``runs/``."""
    history = campaign.read_history(project)
    records = [rounds.read(project.rounds, number) for number in rounds.numbers(project.rounds)]
    system = project.settings.system
    lines = [f"campaign {system}: {len(records)} rounds, {campaign.spent(project)} structures labelled or failed"]
    open_round = campaign.unfinished(project)
    if open_round is not None:
        lines.append(f"round {open_round} has begun and is not finished: retemper round --resume")
    titles = ("round", "labels", "used", "failed", "train", "force RMSE, meV/A", "gates", "strategy")
    lines.append(table([titles, *(_row(result) for result in history.rounds)], numbers=True))
    lines += [f"round {result.round}: {result.labels()}" for result in history.rounds if result.used < result.labelled]
    lines += [line for entry in records for line in _about(entry)]
    if len(history.rounds) >= stopping.POINTS:
        labels = project.settings.acquire.labels
        gain = stopping.predicted_gain(history.rounds, labels)
        if gain is not None:
            lines.append(f"{labels} more labels promise {100 * gain:.1f} % less force error")
    if history.stopped:
        lines.append(f"stopped: {history.stopped}")
    curves = {history.selector: points(history)}
    if against is not None:
        other_campaign = campaign.read_history(against)
        lines += ["", comparison(history, other_campaign)]
        curves[f"{other_campaign.selector} ({against.root.name})"] = points(other_campaign)
    if any(len(curve) > 1 for curve in curves.values()):
        from retemper.active import figures

        figures.learning_png(curves, project.runs / PLOT)
        lines.append(f"learning curve: runs/{PLOT}")
    return "\n".join(lines)


def _about(record: Round) -> list[str]:
    """What a round's uncertainty was worth, and why structures failed."""
    start = f"round {record.round} {record.settings.uncertainty.name}"
    reasons = sorted({failed.reason for failed in record.failed})
    return [
        f"{start} held-out: {_in_words(record.calibration)}",
        f"{start} on its labels: {_in_words(record.prospective)}",
        *(f"round {record.round} failed: {reason}" for reason in reasons),
    ]


def _in_words(calibration: Calibration) -> str:
    groups = "" if calibration.groups is None else f" in {calibration.groups} group(s)"
    return (
        f"rank correlation {calibration.spearman:.2f} "
        f"[{calibration.spearman_low:.2f}, {calibration.spearman_high:.2f}], AUROC {calibration.auroc:.2f}, "
        f"miscalibration {calibration.miscalibration:.2f}, {calibration.frames} frames{groups}"
        f"{'' if calibration.informative else '  NOT INFORMATIVE'}"
    )


def _row(result: RoundResult) -> list[str]:
    """A round as a row of the table."""
    error, outcomes = result.force_rmse, result.gates.outcomes
    text = "–" if error is None else f"{error.mean:.1f}"
    if error is not None and error.low is not None:  # one group of test structures has no interval
        text += f" [{error.low:.1f}, {error.high:.1f}]"
    gates = f"{sum(outcome.passed for outcome in outcomes)}/{len(outcomes)}" if outcomes else "–"
    numbers = map(str, (result.round, result.labelled, result.used, result.failed, result.train))
    return [*numbers, text, gates, f"{result.strategy}{' (champion)' if result.champion else ''}"]


def points(history: Campaign) -> list[tuple[float, float, float, float]]:
    """By round: training structures, force RMSE in meV/A, its interval; the mean alone where there is no interval."""
    curve = []
    for result in history.rounds:
        error = result.force_rmse
        if error is not None:
            low, high = (error.mean if bound is None else bound for bound in (error.low, error.high))
            curve.append((float(result.train), error.mean, low, high))
    return curve


def comparison(first: Campaign, second: Campaign) -> str:
    """How many structures another campaign needed for the error that this one has reached."""
    curve, other_curve = points(first), points(second)
    if len(curve) < 2 or len(other_curve) < 2:
        return "the other campaign and this one need two rounds each to be compared"
    if {result.test for result in first.rounds} != {result.test for result in second.rounds}:
        return "the other campaign was tested on other structures: it cannot be compared"
    n, error = curve[-1][:2]
    reached = next((k for k, point in enumerate(other_curve) if point[1] <= error), None)
    outcome = "has not come there with" if reached is None else "needed"
    needed = f"{outcome} {other_curve[-1 if reached is None else reached][0]:.0f}"
    words = f"for {error:.1f} meV/A {first.selector} needed {n:.0f} structures, {second.selector} {needed}"
    return f"{words}; one campaign each: repeats of one differ, compare several seeds"
