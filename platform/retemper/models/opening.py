"""Opening a model file of another program: read as data, described, built by today's MACE; nothing of it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retemper.config import foundations
from retemper.core.errors import RetemperError
from retemper.models import building, describing
from retemper.models.foreign import archives, known
from retemper.models.foreign.tree import Module, differences
from retemper.models.foreign.values import PickleError, Record

if TYPE_CHECKING:
    import torch

MODELS = ("mace.modules.models", "mace.modules.extensions")


def tree(content: bytes, origin: str) -> tuple[Module, list[str]]:
    """The modules of a MACE model in a file, and the names in it that nobody knows.

    Raises
    ------
    RetemperError
        A file of another kind, a damaged one, or one that holds no MACE model.
    """
    archive = archives.read(content, origin)
    value = archive.value
    if not isinstance(value, Record) or value.kind.module not in MODELS:
        names = known.unknown(archive.names)
        got = str(value.kind) if isinstance(value, Record) else f"a {type(value).__name__}"
        raise RetemperError(
            f"{origin} is not a MACE model and was not opened.",
            expected=archives.EXPECTED,
            got=got + (f", with {', '.join(names[:10])}" if names else ""),
            fix="give the *.model file, not a checkpoint (*.pt)",
        )
    return Module(value, archive), known.unknown(archive.names)


def open_model(content: bytes, origin: str) -> torch.nn.Module:
    """The model of a file that MACE's own programs wrote, in its own precision.

    Raises
    ------
    RetemperError
        What `tree` says; classes that are unknown; a model that today's MACE cannot build from what the file says, or
        builds otherwise.
    """
    try:
        modules, names = tree(content, origin)
        require_known(modules, names, origin)
        description = describing.describe(modules, origin)
        model = building.build(description, describing.state(modules), origin)
    except PickleError as error:
        raise archives.refused(origin, error) from error
    if off := differences(modules, model):
        raise RetemperError(
            f"{origin} was not opened: today's MACE builds another model from what the file says.",
            expected="the classes and settings of the file",
            got="; ".join(off[:5]),
            fix="write the file again with the release of MACE that made it and a present one, or ask for support",
        )
    return model


def require_served(content: bytes, origin: str) -> None:
    """Raise where a pickle is a model of a class that is not served; what else is in it is not looked at."""
    value = archives.read(content, origin).value
    if isinstance(value, Record) and value.kind.module in MODELS and value.kind.name not in foundations.SERVED:
        raise foundations.unserved(value.kind.name, origin)


def require_known(modules: Module, names: list[str], origin: str) -> None:
    """Raise where a model is of a kind that is not served, or names what nobody knows."""
    kind = modules.kind.name
    if kind not in foundations.SERVED:
        raise foundations.unserved(kind, origin)
    if names:
        raise RetemperError(
            f"{origin} was not opened: it names what no known MACE model holds.",
            expected="classes of mace-torch, e3nn and torch that MACE models consist of",
            got=", ".join(names[:20]),
            fix="a class of a newer MACE: update retemper; anything else: do not trust who made the file",
        )
