"""Why each setting is proposed, in words for a person."""

from __future__ import annotations

from retemper.config import foundations
from retemper.evaluation.statistics import FEWEST_GROUPS
from retemper.projects.foundation_choice import MINI, Choice
from retemper.projects.survey import Survey


def keys(survey: Survey) -> str:
    """Of ``dataset.keys``."""
    others = [f"{', '.join(names)} ({label})" for label, names in survey.labelled.other_keys.items()]
    text = "as the frames have them"
    if others:
        text += f"; not taken, though they could be labels: {'; '.join(others)}"
    if survey.labelled.rejected:
        text += f"; {survey.labelled.rejected} frames have no usable label there and are left out, with the reason"
    return text


def units(survey: Survey) -> str:
    """Of ``dataset.energy_unit`` and ``length_unit``."""
    if survey.unit_reason:
        return f"told by the labels themselves. {survey.unit_reason}"
    if survey.untested:
        return f"assumed, check them: {'; '.join(survey.untested)}"
    return "of energies and forces; the labels fit them (forces against energies, bonds, free atoms)"


def level(survey: Survey, given: str | None) -> str:
    """Of ``dataset.level_of_theory``."""
    if given:
        return "as you said"
    if survey.level:
        return "as the frames say"
    return "write what made the labels, such as PBE+D3: nothing in the files says it"


def group(survey: Survey, given: str | None) -> str:
    """Of ``dataset.group``."""
    groups = len(set(survey.grouping.groups))
    rule = survey.grouping.rule
    if given or rule.startswith("info key"):
        text = f"frames of one {rule.removeprefix('info key ')} stay in one set: {groups} groups"
    elif rule == "composition":
        text = f"frames of one composition stay in one set: {groups} groups"
    else:
        text = f"no key names trajectories or molecules, so consecutive frames stay together: {groups} blocks"
    return text


def shares(survey: Survey) -> str:
    """Of ``dataset.valid`` and ``test``."""
    groups = survey.test[1]
    text = f"of {len(survey.frames)} structures, by whole groups: {groups} in the test set"
    if groups < FEWEST_GROUPS:
        text += f"; fewer than {FEWEST_GROUPS} compare nothing and give no interval: label more groups"
    return text + "; a test set of your own: test_files: [FILE]"


def foundation(survey: Survey, choice: Choice, asked: bool) -> str:
    """Of ``foundation``."""
    entry, symbols = choice.entry, " ".join(survey.elements)
    work = f"; for work: {choice.best}" if choice.best else ""
    if entry.name == MINI:
        return f"the embedded miniature knows {symbols} and runs at once: it is for trying out{work}"
    where = "" if choice.here else ", fetched at first use"
    if asked and entry.licence == foundations.NOT_SAID:
        return f"as you said{where}; of what level of theory it is, retemper does not know"
    if asked:
        return f"as you said; {entry.level_of_theory}, licence {entry.licence}{where}"
    kind = "molecules" if survey.molecular else "periodic structures"
    return (
        f"the smallest released one that knows {symbols}, for {kind}; "
        f"{entry.level_of_theory}, licence {entry.licence}{where}"
    )


def strategies(choice: Choice) -> str:
    """Of ``strategies``."""
    pool = "its pretraining set" if choice.entry.pool else "structures made of its elements, with its own labels,"
    return f"the data alone, and the data with {pool} beside them against forgetting"


def charges(survey: Survey) -> str | None:
    """What is to be said about charge and spin; `None`: nothing."""
    sentences = []
    if survey.charged or survey.says_spin:
        listing = ", ".join(f"{charge:+g} in {number}" for charge, number in survey.charges.most_common(5))
        aware = [e.name for e in foundations.shipped().values() if e.served and "reads charge" in e.about]
        sentences.append(
            f"charges that the frames say: {listing}. Ions count as structures of their own; a foundation that does "
            f"not read charge cannot tell them from neutral ones ({', '.join(aware)} reads it)"
        )
    if survey.unread:
        sentences.append(
            f"{', '.join(survey.unread)} in the frames may mean charge or spin and is not read: write it as "
            "total_charge (e) and total_spin (2S + 1) if so"
        )
    return ". ".join(sentences) or None


def e0s(survey: Survey) -> str:
    """Of ``e0s.method``."""
    there = [symbol for symbol in survey.elements if symbol in survey.free]
    text = "corrects the foundation's E0s by what the frames ask for"
    if there:
        return f"{text}; free atoms of {' '.join(there)} in the data settle what compositions leave open"
    return f"{text}; the data have no free atoms" + ("" if survey.needed else ", and compositions tell all elements")


def force(survey: Survey) -> str:
    """Of ``e0s.force``."""
    atoms = ", ".join(survey.needed)
    return (
        f"goes on though compositions do not tell the E0s apart. Energies of such frames are unharmed; those of other "
        f"ratios, free atoms or reactions would be arbitrary. Better: add free atoms of {atoms} to the data, and "
        "delete this line"
    )


def force_gate(error: tuple[float, int] | None) -> str:
    """Of the gate on the force error."""
    if error is None:
        return (
            "no limit in meV/A yet: the foundation's weights are not here, so its error on the data is not known. "
            "Later: - {metric: target.force_rmse, max: 50}"
        )
    return (
        f"half of the foundation's own error, {error[0]:.0f} meV/A on {error[1]} of your structures: set what you need"
    )
