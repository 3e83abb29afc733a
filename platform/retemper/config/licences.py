"""Licences of weights that have to be accepted: by a user, once, in words; never assumed."""

from __future__ import annotations

import datetime
import os
from pathlib import Path

from retemper.config.settings import Section
from retemper.core import downloads
from retemper.core.errors import RetemperError
from retemper.core.files import read_json, write_json


class Licence(Section):
    """Terms under which weights are published. `name` is its key in the catalogue."""

    name: str
    title: str
    url: str
    about: str | None = None
    accept: bool = False  # whether a user must have accepted it before weights are fetched or used


def _record(licence: Licence) -> Path:
    """One file a user and licence: the cache may be shared among users."""
    return downloads.cache() / f"licences/{os.getuid()}-{licence.name}.json"


def accepted(licence: Licence) -> bool:
    """Whether the user of this process has accepted it at the address that it has now; true where nobody has to."""
    path = _record(licence)
    return not licence.accept or (path.is_file() and read_json(path).get("url") == licence.url)


def accept(licence: Licence) -> None:
    """Note that the user of this process accepts it."""
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    write_json(_record(licence), {"licence": licence.title, "url": licence.url, "accepted": today})


def require(licence: Licence, name: str) -> None:
    """Raise where the licence of foundation `name` must be accepted and was not."""
    if not accepted(licence):
        terms = f" ({licence.about})" if licence.about else ""
        raise RetemperError(
            f"The licence of {name} was not accepted: {licence.title}, {licence.url}{terms}.",
            expected="its terms read and accepted, once for each user",
            fix=f"retemper foundations get {name} --accept-licence",
        )
