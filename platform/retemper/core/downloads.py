"""Files from the network: whole or not there, gone on with after a break, fetched once for all projects of a user.

=====================  =========================================================================================
``RETEMPER_CACHE``     folder of what was fetched; default ``$XDG_CACHE_HOME/retemper``, ``~/.cache/retemper``
``RETEMPER_MIRROR``    other places to fetch from: ``https://github.com=https://mirror.example.org/github``, several
                       with spaces between; an address alone stands for every host
``RETEMPER_OFFLINE``   ``1``: nothing is asked of the network
``HTTPS_PROXY``, ...   as `requests` knows them, with ``NO_PROXY`` and ``REQUESTS_CA_BUNDLE``
=====================  =========================================================================================
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from retemper.core.errors import RetemperError
from retemper.core.files import atomic_write, disk_errors, locked, require_space
from retemper.core.output import log, progress
from retemper.core.version import __version__

if TYPE_CHECKING:
    import requests

CACHE, MIRROR, OFFLINE = "RETEMPER_CACHE", "RETEMPER_MIRROR", "RETEMPER_OFFLINE"
TIMEOUT = (20.0, 120.0)  # s to connect, and without a byte
TRIES = 3  # in a row that bring nothing new
PAUSE = 1.0  # s before the second try, twice that before the third
CHUNK = 1 << 16  # bytes
BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})  # answers that may be others a moment later

Check = Callable[[Path], None]  # raises where a file is not what was wanted


class _BrokenError(Exception):
    """A try that may go better the next time."""


def cache() -> Path:
    """Folder of what was fetched and accepted, for all projects of a user."""
    if named := os.environ.get(CACHE):
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "retemper"


def kept(url: str) -> Path:
    """Where the file of an address lies once it is fetched."""
    name = urlsplit(url).path.rsplit("/", 1)[-1] or "file"
    return cache() / "files" / hashlib.sha256(url.encode()).hexdigest()[:16] / name


def offline() -> bool:
    """Whether the network is left alone."""
    return os.environ.get(OFFLINE, "").lower() not in ("", "0", "false", "no")


def mirrored(url: str) -> str:
    """The address from which `url` is fetched: its host as ``RETEMPER_MIRROR`` has it.

    Raises
    ------
    RetemperError
        A mirror that is no address.
    """
    for mirror in os.environ.get(MIRROR, "").split():
        first, equals, second = mirror.partition("=")
        prefix, place = (first, second) if equals else ("{0.scheme}://{0.netloc}".format(urlsplit(url)), first)
        if urlsplit(place).scheme not in ("http", "https") or not urlsplit(place).netloc:
            raise RetemperError(
                f"{MIRROR} has {mirror!r}.",
                expected="https://mirror.example.org, or https://github.com=https://mirror.example.org/github",
            )
        if url == prefix or url.startswith(prefix.rstrip("/") + "/"):
            return place.rstrip("/") + "/" + url[len(prefix.rstrip("/")) :].lstrip("/")
    return url


def fetch(url: str, path: Path, check: Check) -> None:
    """Bring the file of `url` to `path`, unless it is there. What a break left is gone on with, here or later.

    Several processes may ask at once: one fetches, the others wait.

    Parameters
    ----------
    check
        Is given the whole file before it gets its name; what it raises is the end, and the file goes.

    Raises
    ------
    RetemperError
        Offline, no network, an address that is not there, a page in the place of the file, a full disk, a file that
        does not come to its end. There is nothing at `path` then.
    """
    if path.is_file():
        return
    if offline():
        raise RetemperError(
            f"{url} was not fetched: {OFFLINE} is set.",
            expected=f"the file at {path}",
            fix=f"unset {OFFLINE}; or fetch it on a machine with a network, and copy the folder {cache()} here",
        )
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path.with_name(f"{path.name}.lock"), f"fetches {url}"):
            if path.is_file():
                return
            part = path.with_name(f"{path.name}.part")
            _all_of_it(url, part)
            try:
                check(part)
            except RetemperError:
                _forget(part)
                raise
            os.replace(part, path)
            _note(part).unlink(missing_ok=True)


def _all_of_it(url: str, part: Path) -> None:
    """Fetch until `part` is whole, or tries bring nothing new."""
    address, most, tries = mirrored(url), _size(part), 0
    said = address if address == url else f"{url} (from {address})"
    while True:
        try:
            return _go_on(address, said, part)
        except _BrokenError as error:
            tries = 0 if _size(part) > most else tries + 1
            most = max(most, _size(part))
            if tries >= TRIES:
                raise RetemperError(
                    f"{said} could not be fetched: {error}",
                    expected=f"a network connection to {urlsplit(address).hostname}",
                    got=f"{most / 1e6:.1f} MB, which are kept" if most else None,
                    fix="run again: it goes on where it stopped"
                    if most
                    else f"check the network, or set HTTPS_PROXY, {MIRROR} or {OFFLINE} (docs/foundations.md)",
                ) from error
            time.sleep(PAUSE * (1 + tries))


@dataclass(frozen=True)
class _Note:
    """What the first answer said of a file: a later one must be about the same."""

    address: str
    validator: str  # ETag, or the date of the last change
    size: int | None  # bytes


def _note(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _begun(part: Path, address: str) -> _Note | None:
    """What is known of a part that can be gone on with."""
    try:
        note = _Note(**json.loads(_note(part).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    return note if note.address == address and note.validator and part.is_file() else None


def _size(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _note(part).unlink(missing_ok=True)


def _go_on(address: str, said: str, part: Path) -> None:
    """One request: all of the file, or what `part` lacks."""
    note = _begun(part, address)
    have = _size(part) if note else 0
    if note and have == note.size:
        return
    headers = {"Accept-Encoding": "identity", "User-Agent": f"retemper/{__version__}"}
    if note and have:
        headers |= {"Range": f"bytes={have}-", "If-Range": note.validator}
    with _answer(address, said, headers) as answer:
        validator = _validator(answer)
        goes_on = answer.status_code == 206 and _start(answer) == have and (not note or note.validator == validator)
        if not goes_on and answer.status_code in (206, 416):
            _forget(part)
            raise _BrokenError("the server does not go on where the file stopped")
        have = have if goes_on else 0
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length and length.isdigit() else None
        require_space(part.parent, (total or 0) - have)
        with atomic_write(_note(part)) as temporary:
            temporary.write_text(json.dumps(asdict(_Note(address, validator, total))), encoding="utf-8")
        _write(answer, part, have, total)
    if total is not None and _size(part) != total:
        raise _BrokenError(f"it ended after {_size(part)} of {total} bytes")


@contextlib.contextmanager
def _answer(address: str, said: str, headers: dict[str, str]) -> Iterator[requests.Response]:
    """The server's answer, if it is about the file."""
    import requests

    try:
        answer = requests.get(address, headers=headers, stream=True, timeout=TIMEOUT)
    except requests.exceptions.SSLError as error:
        raise RetemperError(
            f"{said}: the server's certificate is not accepted: {error}", fix="set REQUESTS_CA_BUNDLE to your network's"
        ) from error
    except (requests.exceptions.ConnectionError, requests.exceptions.Timeout) as error:
        raise _BrokenError(str(error)) from error
    except requests.exceptions.RequestException as error:
        raise RetemperError(f"{said} could not be fetched: {error}", fix="check the address") from error
    with answer:
        if answer.status_code in BUSY:
            raise _BrokenError(f"the server answers {answer.status_code} {answer.reason}")
        if answer.status_code >= 400 and answer.status_code != 416:
            raise RetemperError(
                f"{said} could not be fetched: the server answers {answer.status_code} {answer.reason}.",
                fix="check the address; where the file needs an account, fetch it by hand and give its path",
            )
        if address.startswith("https:") and not answer.url.startswith("https:"):
            raise RetemperError(
                f"{said} leads to {answer.url}, which anyone on the way can change.", expected="an https address"
            )
        if answer.headers.get("Content-Type", "").startswith("text/html"):
            raise RetemperError(
                f"{said} is a page, not a file.",
                got=f"text/html from {answer.url}",
                fix="give the address of the file itself (on GitHub behind `Raw`, on Hugging Face hf://org/repo/file)",
            )
        yield answer


def _validator(answer: requests.Response) -> str:
    """By what a later answer is known to be about the same file: its ETag, else the date of its last change."""
    etag = answer.headers.get("ETag", "")
    return etag if etag and not etag.startswith("W/") else answer.headers.get("Last-Modified", "")


def _start(answer: requests.Response) -> int:
    """Where the range of an answer begins; -1 where it does not say."""
    text = answer.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0].strip()
    return int(text) if text.isdigit() else -1


def _write(answer: requests.Response, part: Path, have: int, total: int | None) -> None:
    import requests

    name = part.name.removesuffix(".part")
    size = f", {total / 1e6:.1f} MB" if total else ""
    log.info(f"fetching {name}{size}" + (f", the first {have / 1e6:.1f} MB are here" if have else ""))
    try:
        with part.open("ab" if have else "wb") as file, progress(total or 0) as tell:
            for chunk in answer.iter_content(CHUNK):
                file.write(chunk)
                have += len(chunk)
                tell(have, f"{name}: {have / 1e6:.1f}" + (f" of {total / 1e6:.1f} MB" if total else " MB"))
    except requests.exceptions.RequestException as error:
        raise _BrokenError(str(error)) from error
