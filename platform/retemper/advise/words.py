"""Advice and its check as people read them, and the lines for params.yaml."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from retemper.advise import evidence
from retemper.advise.recommend import Advice
from retemper.config.settings import WEIGHT
from retemper.config.strategies import Value

if TYPE_CHECKING:
    import pandas as pd


def text(advice: Advice) -> str:
    """The advice as people read it, and the lines for params.yaml."""
    facts = advice.facts
    lines = [
        f"{facts.name}: {facts.train} training structures ({_counts(facts.sets)}), {' '.join(facts.elements)}, "
        f"{facts.level_of_theory}; scope {advice.scope}",
        "",
    ]
    for choice in advice.choices:
        rests = f", rests on {choice.runs} runs" if choice.runs else ""
        lines += [
            f"{choice.subject}: {choice.value}  ({choice.sure}{rests})",
            *(f"  - {reason}" for reason in choice.reasons),
        ]
    for title, entries in (("in the way", advice.obstacles), ("extrapolated", advice.extrapolations)):
        if entries:
            lines += ["", f"{title}:", *(f"  - {entry}" for entry in entries)]
    return "\n".join([*lines, "", "for params.yaml:", "", params(advice)])


def _counts(sets: dict[str, int]) -> str:
    return ", ".join(f"{number} {name}" for name, number in sets.items() if name != "train" and number)


def params(advice: Advice) -> str:
    """YAML for params.yaml."""
    import yaml

    dataset = advice.facts.dataset.model_dump(exclude_defaults=True)
    dataset.pop("rounds", None)
    e0s: dict[str, object] = {"method": advice.value("e0s")}
    if advice.facts.needed:
        e0s["force"] = True
    foundation = advice.value("foundation")
    content: dict[str, object] = {
        "foundation": foundation,
        **({"head": advice.facts.heads[foundation]} if foundation in advice.facts.heads else {}),
        "strategies": [advice.value("strategy")],
        "dataset": dataset,
        "e0s": e0s,
    }
    if advice.settings:
        content["finetune"] = {"overrides": {axis: _plain(value) for axis, value in advice.settings.items()}}
    else:
        content["sweep"] = {"trials": 16, "scope": advice.scope}
    return yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=110)


def _plain(value: Value) -> Value:
    """A number as Python's own, whole where it is whole; anything else as it is."""
    if isinstance(value, str | bool) or value is None:
        return value
    number = float(value)
    return int(number) if number.is_integer() else number


def check(table: pd.DataFrame, scopes: Sequence[str] = tuple(WEIGHT)) -> str:
    """How far behind the best the advice is on systems that it has not seen, beside fixed rules; by scope."""
    lines = []
    for scope in scopes:
        regrets = evidence.leave_one_out(table, scope)
        if not regrets:
            lines.append(f"{scope}: the runs have no two systems on which strategies can be compared")
            continue
        means, cases = evidence.mean_regret(regrets), [regret for regret in regrets if regret.regret]
        rules = ", ".join(
            f"{'this advice' if rule == 'advice' else 'always ' + rule} {evidence.percent(v)}"
            for rule, v in means.items()
        )
        lines.append(
            f"{scope}: behind the best on a system left out, mean over {len({regret.system for regret in cases})} "
            "systems "
            f"({len(cases)} of {len(regrets)} cases, those where what it chose was run): {rules}"
        )
        for regret in regrets:
            behind = ", ".join(f"{rule} {evidence.percent(value)}" for rule, value in regret.regret.items())
            lines.append(
                f"  {regret.system}, {regret.size:g} structures: chosen {regret.chosen}, best {regret.best}; "
                + (f"behind: {behind}" if behind else "the choice was not run")
            )
    return "\n".join(lines)
