"""Settings proposed from what labelled structures say, each with its reason: the text of ``params.yaml``."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from retemper.evaluation.statistics import FEWEST_GROUPS
from retemper.projects import reasons
from retemper.projects.foundation_choice import Choice
from retemper.projects.survey import VALID, Survey

TEMPLATE = Path(__file__).with_name("params.yaml.jinja")
WIDTH = 116  # characters of a line
SMALL = 200  # structures below which batches are small
NOT_STATED = "not stated"
SEEDS = (1, 2)
TWO_SEEDS = "two trainings of each strategy: with one alone nothing says what chance did"
EPOCHS, STEPS = (30, 200), 1500  # as many epochs as give these steps, within bounds
# Text that YAML reads as itself, without quotes.
PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9_./+()-]*([ ][A-Za-z0-9_./+()-]+)*")
WORDS = {"null", "true", "false", "yes", "no", "on", "off", "y", "n"}


@dataclass(frozen=True)
class Wishes:
    """What the user has said; `None`: propose it."""

    foundation: str | None = None
    head: str | None = None
    level: str | None = None
    group: str | None = None
    strategies: Sequence[str] | None = None
    seeds: Sequence[int] | None = None


@dataclass(frozen=True)
class Proposal:
    """Settings and why, by what they are called in the messages."""

    values: Mapping[str, object]
    why: dict[str, str]

    def shown(self, key: str) -> str:
        """The value of a setting as the file has it; empty for what is no setting of one value."""
        if key == "units":
            return f"{self.values['energy_unit']}, {self.values['length_unit']}"
        fixed = {"e0s": "reestimate", "force": "true", "weights": "use"}
        value = fixed.get(key, self.values.get(key))
        if isinstance(value, dict):
            return _mapping(value)
        if isinstance(value, list):
            return ", ".join(map(str, value))
        return "" if value is None else f"{value:g} meV/A" if isinstance(value, float) else str(value)

    def text(self) -> str:
        """The file params.yaml."""
        import jinja2

        environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True, autoescape=False)
        environment.filters |= {"comment": _comment, "plain": _plain, "mapping": _mapping}
        template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
        return template.render(self.values, why={"charge": None, "weights": None, "force": None} | self.why)


def propose(
    name: str, survey: Survey, choice: Choice, force_error: tuple[float, int] | None, wishes: Wishes, device: str
) -> Proposal:
    """Propose settings.

    Parameters
    ----------
    name
        Of the system.
    force_error
        The foundation's own error on a sample of the structures (meV/A), and the size of that; `None`: not known.
    """
    dataset, entry = survey.dataset, choice.entry
    few = len(survey.frames) < SMALL
    batch = 4 if few else 8
    default = ("naive", "replay" if entry.pool else "pseudolabel-replay")
    seeds = list(wishes.seeds or SEEDS)
    values = {
        "name": name,
        "foundation": entry.file if entry.file and entry.name == entry.file else entry.name,
        "head": wishes.head,
        "strategies": list(wishes.strategies or default),
        "seeds": seeds,
        "over": "" if len(seeds) > 1 else ", over: [frames]",
        "files": dataset.files,
        "level": wishes.level or survey.level or NOT_STATED,
        "keys": dataset.keys.model_dump(),
        "energy_unit": dataset.energy_unit,
        "length_unit": dataset.length_unit,
        "weighted": survey.weighted,
        "group": _group(survey, wishes.group),
        "valid": VALID,
        "test": survey.test[0],
        "force": bool(survey.needed),
        "epochs": _epochs(survey, batch),
        "batch_size": batch,
        "comparable": survey.test[1] >= FEWEST_GROUPS,
        "device": device,
        "force_gate": None if force_error is None else float(f"{force_error[0] / 2:.2g}"),
        "retention": entry.retention is not None,
    }
    why = {
        "foundation": reasons.foundation(survey, choice, wishes.foundation is not None),
        "strategies": "as you said" if wishes.strategies else reasons.strategies(choice),
        "seeds": "as you said" if wishes.seeds else TWO_SEEDS,
        "level": reasons.level(survey, wishes.level),
        "keys": reasons.keys(survey),
        "units": reasons.units(survey),
        "group": reasons.group(survey, wishes.group),
        "shares": reasons.shares(survey),
        "e0s": reasons.e0s(survey),
        "epochs": f"passes through the training set, {EPOCHS[0]} to {EPOCHS[1]}: {STEPS:,} steps where that is between",
        "batch": "structures in a step" + (": small, as there are few" if few else ""),
        "device": "no GPU that torch can use is here" if device == "cpu" else "torch can use a GPU here",
        "force_gate": reasons.force_gate(force_error),
    }
    if survey.weighted:
        why["weights"] = "frames carry weights of their own, which MACE would use; ignore: it would not"
    if survey.needed:
        why["force"] = reasons.force(survey)
    if (charges := reasons.charges(survey)) is not None:
        why["charge"] = charges
    return Proposal(values, why)


def _epochs(survey: Survey, batch: int) -> int:
    """Epochs of a set: small ones need more."""
    steps = max(1.0, len(survey.frames) * (1 - VALID - survey.test[0]) / batch)
    return round(min(max(STEPS / steps, EPOCHS[0]), EPOCHS[1]))


def _group(survey: Survey, given: str | None) -> str:
    rule = survey.grouping.rule
    if given:
        return given
    return rule.removeprefix("info key ") if rule.startswith("info key ") or rule == "composition" else "auto"


def _comment(text: str, indent: int = 0) -> str:
    """Lines of a comment; the first one stands where the template is."""
    start = " " * indent + "# "
    return textwrap.fill(" ".join(text.split()), WIDTH, initial_indent=start, subsequent_indent=start).lstrip(" ")


def _plain(value: object) -> str:
    """A text as YAML, in quotes where it could be read as something else."""
    text = str(value)
    return text if PLAIN.fullmatch(text) and text.lower() not in WORDS else json.dumps(text, ensure_ascii=False)


def _mapping(values: Mapping[str, str | None]) -> str:
    """Names and texts on one line; virial where there is one."""
    shown = {key: value for key, value in values.items() if value is not None or key != "virial"}
    parts = [f"{key}: {'null' if value is None else _plain(value)}" for key, value in shown.items()]
    return "{" + ", ".join(parts) + "}"
