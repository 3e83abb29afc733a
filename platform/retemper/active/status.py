"""``retemper campaign status``: rounds, labels, what the uncertainty was worth, the learning curve."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from retemper.active import campaign, stopping
from retemper.config.settings import load_settings
from retemper.core.files import project_root
from retemper.data import rounds

PLOT = Path("runs/campaign.png")


def show(root: Path, against: Path | None = None) -> str:
    """All of it as text; the learning curve, with another campaign's beside it, as a plot in ``runs/``."""
    settings = load_settings(root / "params.yaml")
    history = campaign.read_history(root)
    made = len(rounds.numbers(root))
    lines = [f"campaign {settings.system}: {made} rounds, {campaign.spent(root)} structures labelled or failed"]
    begun = campaign.unfinished(root)
    if begun is not None:
        lines.append(f"round {begun} has begun and is not finished: retemper round --resume")
    lines.append(
        f"{'round':>5s} {'labels':>6s} {'used':>6s} {'failed':>6s} {'train':>6s}  "
        f"{'force RMSE, meV/A':22s} {'gates':>6s}  strategy"
    )
    lines += [row(entry) for entry in history["rounds"]]
    for entry in history["rounds"]:
        if entry.get("used", entry["labelled"]) < entry["labelled"]:
            lines.append(f"round {entry['round']}: {campaign.used(entry)}")
    for number in rounds.numbers(root):
        about = rounds.about(root, number)
        name = about["settings"]["uncertainty"]["name"]
        for what, when in (("calibration", "held-out"), ("prospective", "on its labels")):
            found = about[what]
            mark = "" if found["informative"] else "  NOT INFORMATIVE"
            of = f" in {found['groups']} group(s)" if "groups" in found else ""  # rounds of before have none
            lines.append(
                f"round {number} {name} {when}: rank correlation {found['spearman']:.2f} "
                f"[{found['spearman_low']:.2f}, {found['spearman_high']:.2f}], AUROC {found['auroc']:.2f}, "
                f"miscalibration {found['miscalibration']:.2f}, {found['frames']} frames{of}{mark}"
            )
        for reason in sorted({entry["reason"] for entry in about["failed"]}):
            lines.append(f"round {number} failed: {reason}")
    if len(history["rounds"]) >= stopping.POINTS:
        gain = stopping.predicted_gain(history["rounds"], settings.acquire.labels)
        if gain is not None:
            lines.append(f"{settings.acquire.labels} more labels promise {100 * gain:.1f} % less force error")
    if history["stopped"]:
        lines.append(f"stopped: {history['stopped']}")
    curves = {selector(history): history["rounds"]}
    if against is not None:
        other = project_root(against)
        lines += ["", compared(history, campaign.read_history(other))]
        curves[f"{selector(campaign.read_history(other))} ({other.name})"] = campaign.read_history(other)["rounds"]
    points = {name: [point(e) for e in entries if e["force_rmse"]] for name, entries in curves.items()}
    if any(len(of) > 1 for of in points.values()):
        from retemper.active import figures

        figures.learning_png(points, root / PLOT)
        lines.append(f"learning curve: {PLOT}")
    return "\n".join(lines)


def row(entry: dict[str, Any]) -> str:
    """A round as a line of the table."""
    error = entry["force_rmse"]
    text = "–" if error is None else f"{error['mean']:.1f}"
    if error is not None and error["low"] is not None:  # one group of test structures has no interval
        text += f" [{error['low']:.1f}, {error['high']:.1f}]"
    held = [outcome["passed"] for outcome in entry["gates"]["outcomes"]]
    taken = entry.get("used", entry["labelled"])
    gates = f"{sum(held)}/{len(held)}" if held else "–"
    return (
        f"{entry['round']:5d} {entry['labelled']:6d} {taken:6d} {entry['failed']:6d} "
        f"{entry['train']:6d}  {text:22s} {gates:>6s}  {entry['strategy']}{' (champion)' if entry['champion'] else ''}"
    )


def point(entry: dict[str, Any]) -> tuple[float, float, float, float]:
    """Training structures; mean and interval of the force RMSE, meV/A; the mean alone where there is no interval."""
    error = entry["force_rmse"]
    bounds = [error["mean"] if error[side] is None else error[side] for side in ("low", "high")]
    return float(entry["train"]), error["mean"], bounds[0], bounds[1]


def selector(history: dict[str, Any]) -> str:
    """By which the last round chose."""
    chosen = [entry["selector"] for entry in history["rounds"] if entry["selector"]]
    return chosen[-1] if chosen else "no round yet"


def compared(own: dict[str, Any], other: dict[str, Any]) -> str:
    """How many structures another campaign needed for the error that this one has reached."""
    mine = [point(e) for e in own["rounds"] if e["force_rmse"]]
    theirs = [point(e) for e in other["rounds"] if e["force_rmse"]]
    if len(mine) < 2 or len(theirs) < 2:
        return "the other campaign and this one need two rounds each to be compared"
    if {e["test"] for e in own["rounds"]} != {e["test"] for e in other["rounds"]}:
        return "the other campaign was tested on other structures: it cannot be compared"
    n, error = mine[-1][:2]
    reached = next((k for k, p in enumerate(theirs) if p[1] <= error), None)
    far = "has not come there with" if reached is None else "needed"
    needed = f"{far} {theirs[-1 if reached is None else reached][0]:.0f}"
    words = f"for {error:.1f} meV/A {selector(own)} needed {n:.0f} structures, {selector(other)} {needed}"
    return f"{words}; one campaign each: repeats of one differ, compare several seeds"
