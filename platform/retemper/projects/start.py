"""``retemper init`` as a whole: look at the data, ask what they do not say, propose, write."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from retemper.config import foundations
from retemper.core.output import log
from retemper.data.frames import elements
from retemper.projects import create, foundation_choice, proposal, survey
from retemper.projects.foundation_choice import Choice
from retemper.projects.proposal import Proposal, Wishes
from retemper.projects.survey import Labelled

Ask = Callable[[str, str], str]  # question and default -> answer
SHOWN = (  # of a proposal, on the terminal: setting, value, reason
    *(("foundation", "foundation"), ("strategies", "strategies"), ("seeds", "seeds")),
    *(("level_of_theory", "level"), ("keys", "keys"), ("units", "units"), ("group", "group"), ("test", "shares")),
    *(("weights", "weights"), ("charge", "charge"), ("e0s.method", "e0s"), ("e0s.force", "force")),
    *(("device", "device"), ("largest force error", "force_gate")),
)


def init(
    folder: Path,
    data: Sequence[Path],
    wishes: Wishes,
    keys: Mapping[str, str | None],
    units: Mapping[str, str],
    ask: Ask | None = None,
) -> None:
    """Make a project for labelled structures.

    Parameters
    ----------
    folder
        The project; its name is that of the system.
    data
        Files, which are copied.
    keys, units
        What is given of ``dataset.keys``, and of ``energy_unit`` and ``length_unit``.
    ask
        How to ask the user; `None`: defaults are taken, and said.

    Raises
    ------
    RetemperError
        The folder, the data or an answer cannot be used; nothing was written.
    """
    create.require_new(folder)
    create.require_data(data)
    files = {f"{create.RAW}/{path.name}": path for path in data}
    labelled = survey.read(files, keys, {**units, **({"group": wishes.group} if wishes.group else {})})
    log.info(_what(labelled))
    level = survey.stated_level(labelled.frames)
    if wishes.level is None and level is None and ask is not None:
        answer = ask("Level of theory of the labels, such as PBE+D3", proposal.NOT_STATED)
        wishes = replace(wishes, level=None if answer == proposal.NOT_STATED else answer)
    choice = _foundation(labelled, wishes, wishes.level or level, ask)
    predict = foundation_choice.ask(choice)
    found = survey.look(labelled, predict)
    if wishes.group is None and ask is not None:
        rule = found.grouping.rule
        answer = ask(f"Info key of trajectory or molecule, composition, or auto, which takes {rule}", "auto")
        if answer != "auto":
            wishes, found = replace(wishes, group=answer), survey.grouped(found, answer)
    error = None if predict is None else foundation_choice.force_error(predict, found.labelled)
    proposed = proposal.propose(folder.name, found, choice, error, wishes, _device())
    notes = create.write(folder, proposed.text(), data, mini=choice.entry.name == foundation_choice.MINI)
    _say(folder, proposed, choice, notes)


def _what(labelled: Labelled) -> str:
    """The data in a line."""
    sizes = sorted({len(frame) for frame in labelled.frames})
    atoms = f"{sizes[0]} atoms" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]} atoms"
    line = f"{len(labelled.frames)} labelled structures of {atoms}, {' '.join(elements(labelled.frames))}"
    line += f"; {len(labelled.free)} free atoms" if labelled.free else ""
    line += f"; {labelled.rejected} frames without usable labels" if labelled.rejected else ""
    return line + (f"; of each file the first {survey.MOST} frames were looked at" if labelled.more else "")


def _foundation(labelled: Labelled, wishes: Wishes, level: str | None, ask: Ask | None) -> Choice:
    symbols = elements(labelled.frames)
    molecular = not any(frame.pbc.any() for frame in labelled.frames)
    if wishes.foundation is None and ask is not None:
        default = foundation_choice.choose(None, symbols, level=level, molecular=molecular)
        best = f"; {default.best} fits best" if default.best not in (None, default.entry.name) else ""
        name = default.entry.name
        about = "for trying out, runs at once" if name == foundation_choice.MINI else "fetched at first use"
        answer = ask(f"Foundation: {name} ({about}){best}; or any of `retemper foundations`", name)
        if answer == name:
            return default
        return foundation_choice.choose(answer, symbols, level=level, molecular=molecular)
    return foundation_choice.choose(wishes.foundation, symbols, level=level, molecular=molecular, head=wishes.head)


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _say(folder: Path, proposed: Proposal, choice: Choice, notes: Sequence[str]) -> None:
    """What was chosen and why, and what to do next."""
    for setting, key in SHOWN:
        if (why := proposed.why.get(key)) is not None:
            value = proposed.shown(key)
            line = f"{setting}: {value} ({why})" if value else f"{setting}: {why}"
            log.info(textwrap.fill(line, 110, initial_indent="  ", subsequent_indent="      "))
    for note in notes:
        log.info(f"note: {note}")
    log.info(f"{folder} is a project; params.yaml has every setting with its reason.")
    if choice.entry.url is not None and not choice.here:
        terms = foundations.licence(choice.entry)
        accept = " --accept-licence, once you have read it," if terms is not None and terms.accept else ""
        log.info(f"next: retemper foundations get {choice.entry.name}{accept} fetches the foundation")
    log.info(f"next: cd {os.path.relpath(folder)} && dvc repro (before it, retemper doctor says what would fail)")
