"""Downloads: whole or not there, gone on with after a break, whatever the server and other processes do."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import file_server
import pytest
from file_server import FileServer
from servers import free_ports

from retemper.core import downloads
from retemper.core.errors import RetemperError

CONTENT = random.Random(1).randbytes(400_000)
OTHER = random.Random(2).randbytes(400_000)
PATH = "/releases/x.model"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.setenv(downloads.CACHE, str(tmp_path / "cache"))
    for name in (downloads.MIRROR, downloads.OFFLINE, "HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(downloads, "PAUSE", 0.05)
    with file_server.running() as running:
        running.files[PATH] = CONTENT
        yield running


def anything(path: Path) -> None:
    """A check that every file passes."""


def fetched(url: str) -> bytes:
    downloads.fetch(url, downloads.kept(url), anything)
    return downloads.kept(url).read_bytes()


def left(url: str) -> set[str]:
    """Names of what lies where the file should be."""
    folder = downloads.kept(url).parent
    return {path.name for path in folder.iterdir() if path.suffix != ".lock"} if folder.is_dir() else set()


def test_a_file_comes_once_and_through_redirects(server: FileServer) -> None:
    server.redirects["/latest"] = "/moved"
    server.redirects["/moved"] = server.address + PATH
    url = f"{server.address}/latest"
    assert fetched(url) == CONTENT and fetched(url) == CONTENT
    assert server.asked(PATH) == [0] and left(url) == {"latest"}


@pytest.mark.hostile("network")
def test_a_break_in_the_middle_is_gone_on_with(server: FileServer) -> None:
    url = server.address + PATH
    server.breaks[PATH] = [150_000, 300_000]
    assert fetched(url) == CONTENT
    first, second, third = server.asked(PATH)
    assert first == 0 and 0 < second <= 150_000 < third <= 300_000


@pytest.mark.hostile("network")
def test_what_never_comes_to_its_end_is_an_error_and_a_later_call_goes_on(server: FileServer) -> None:
    url = server.address + PATH
    server.breaks[PATH] = [200_000] * (downloads.TRIES + 1)
    with pytest.raises(RetemperError) as raised:
        fetched(url)
    assert "goes on where it stopped" in str(raised.value.fix) and not downloads.kept(url).exists()
    assert fetched(url) == CONTENT
    assert server.asked(PATH)[-1] > 100_000 and left(url) == {"x.model"}


@pytest.mark.hostile("network")
def test_a_file_that_changed_meanwhile_is_not_mixed(server: FileServer) -> None:
    url = server.address + PATH
    server.breaks[PATH] = [200_000] * (downloads.TRIES + 1)
    with pytest.raises(RetemperError):
        fetched(url)
    server.files[PATH] = OTHER
    assert fetched(url) == OTHER


@pytest.mark.hostile("network")
@pytest.mark.parametrize("lacks", ["ranges", "tags"])
def test_a_server_that_cannot_go_on_gives_all_of_it_again(server: FileServer, lacks: str) -> None:
    setattr(server, lacks, False)
    server.breaks[PATH] = [200_000]
    assert fetched(server.address + PATH) == CONTENT


@pytest.mark.hostile("network")
def test_a_busy_server_is_asked_again(server: FileServer) -> None:
    server.answers[PATH] = [503, 429]
    assert fetched(server.address + PATH) == CONTENT and len(server.requests) == 3


@pytest.mark.hostile("network")
@pytest.mark.parametrize(("status", "requests"), [(404, 1), (403, 1), (500, downloads.TRIES)])
def test_an_answer_that_is_no_file(server: FileServer, status: int, requests: int) -> None:
    server.answers[PATH] = [status] * 10
    with pytest.raises(RetemperError, match=str(status)):
        fetched(server.address + PATH)
    assert len(server.requests) == requests and left(server.address + PATH) == set()


@pytest.mark.hostile("network")
def test_a_page_is_no_file(server: FileServer) -> None:
    server.types[PATH] = "text/html; charset=utf-8"
    with pytest.raises(RetemperError, match="is a page"):
        fetched(server.address + PATH)
    assert left(server.address + PATH) == set()


@pytest.mark.hostile("network")
def test_what_a_check_refuses_is_not_kept(server: FileServer) -> None:
    url = server.address + PATH

    def check(path: Path) -> None:
        assert path.read_bytes() == CONTENT
        raise RetemperError("not this one")

    with pytest.raises(RetemperError, match="not this one"):
        downloads.fetch(url, downloads.kept(url), check)
    assert left(url) == set()


@pytest.mark.hostile("network")
def test_no_network(server: FileServer) -> None:
    url = f"http://127.0.0.1:{free_ports(1)[0]}/x.model"
    began = time.monotonic()
    with pytest.raises(RetemperError, match="could not be fetched"):
        fetched(url)
    assert time.monotonic() - began < 10 and left(url) == set()


@pytest.mark.hostile("network")
def test_offline_nothing_is_asked(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    url = server.address + PATH
    monkeypatch.setenv(downloads.OFFLINE, "1")
    with pytest.raises(RetemperError, match=downloads.OFFLINE):
        fetched(url)
    assert server.requests == []
    monkeypatch.setenv(downloads.OFFLINE, "0")
    fetched(url)
    monkeypatch.setenv(downloads.OFFLINE, "1")
    assert fetched(url) == CONTENT  # what is here needs no network


def test_mirrors(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one host, with a folder of its own; of every host; others are left."""
    server.files["/github/releases/x.model"] = OTHER
    monkeypatch.setenv(downloads.MIRROR, f"https://github.com={server.address}/github/ https://hf.co={server.address}")
    assert fetched("https://github.com/releases/x.model") == OTHER
    assert fetched(f"https://hf.co{PATH}") == CONTENT
    assert downloads.mirrored("https://github.com.example.org/x") == "https://github.com.example.org/x"
    monkeypatch.setenv(downloads.MIRROR, server.address)
    assert fetched(f"https://anywhere.example.org{PATH}") == CONTENT
    for wrong in ("mirror.example.org", "https://github.com=", "ftp://example.org"):
        monkeypatch.setenv(downloads.MIRROR, wrong)
        with pytest.raises(RetemperError, match=downloads.MIRROR):
            fetched("https://github.com/other.model")


def test_a_proxy_of_the_environment_is_used(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", server.address)
    monkeypatch.setenv("NO_PROXY", "")
    server.files["http://weights.invalid/x.model"] = OTHER
    assert fetched("http://weights.invalid/x.model") == OTHER


FETCH = """
import sys
from pathlib import Path
from retemper.core import downloads
downloads.fetch(sys.argv[1], downloads.kept(sys.argv[1]), lambda path: None)
"""


def process(url: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", FETCH, url], env=dict(os.environ), stdout=subprocess.DEVNULL)


@pytest.mark.hostile("users")
def test_two_processes_fetch_once(server: FileServer) -> None:
    url = server.address + PATH
    server.second = 1.0
    both = [process(url) for _ in range(2)]
    assert [one.wait(60) for one in both] == [0, 0]
    assert server.asked(PATH) == [0] and fetched(url) == CONTENT


@pytest.mark.hostile("kills")
def test_a_killed_process_leaves_no_file_and_the_next_goes_on(server: FileServer) -> None:
    url = server.address + PATH
    server.breaks[PATH] = [200_000]
    part = downloads.kept(url).with_name("x.model.part")
    killed = process(url)
    while not part.is_file() or part.stat().st_size < 100_000:  # it waits a moment before it asks again
        assert killed.poll() is None
        time.sleep(0.01)
    killed.kill()
    killed.wait()
    assert not downloads.kept(url).exists()
    assert fetched(url) == CONTENT and server.asked(PATH)[-1] >= 100_000
