"""The catalogue: what settings may call a foundation, fetching it, what is remembered of it, and its licence."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import file_server
import pytest
import yaml
from conftest import as_trained
from file_server import FileServer

from retemper.cli import main
from retemper.config import foundation_files, foundation_lock, foundations, licences
from retemper.core import downloads, weight_files
from retemper.core.errors import RetemperError
from retemper.core.files import sha256

STRUCTURES = b"1\nProperties=species:S:1:pos:R:3:forces:R:3 energy=-1.0\nH 0 0 0 0 0 0\n"
MIT, ASL = "mace-mp-0-small", "mace-mh-1"


def path_of(name: str) -> str:
    """Path of a released model on its host, which the server plays."""
    return "/" + str(foundations.shipped()[name].url).split("/", 3)[3]


@pytest.fixture
def server(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """Every host, with a tiny model in the place of the released ones, and its cache of a user."""
    monkeypatch.setenv(downloads.CACHE, str(tmp_path / "cache"))
    monkeypatch.delenv(downloads.OFFLINE, raising=False)
    monkeypatch.setattr(downloads, "PAUSE", 0.05)
    with file_server.running() as running:
        monkeypatch.setenv(downloads.MIRROR, running.address)
        for name in foundations.shipped():
            running.files[path_of(name)] = tiny_model.read_bytes()
        for published in foundations.structures().values():
            running.files["/" + published.url.split("/", 3)[3]] = STRUCTURES
        yield running


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project, which is the working directory."""
    root = tmp_path / "project"
    root.mkdir()
    (root / "params.yaml").touch()
    monkeypatch.chdir(root)
    return root


def weights(name: str, root: Path) -> Path:
    return foundation_files.weights(foundations.find(name, root), root)


def entry(**more: Any) -> dict[str, Any]:
    return {**dict.fromkeys(("about", "level_of_theory", "licence", "citation"), "own"), **more}


def own(root: Path, **entries: dict[str, Any]) -> None:
    (root / "foundations").mkdir(exist_ok=True)
    (root / foundations.CATALOGUE).write_text(yaml.safe_dump(entries))


# ------------------------------------------------------------------ fetching, and what is remembered


def test_the_first_use_fetches_and_remembers(server: FileServer, project: Path, tiny_model: Path) -> None:
    path = weights(MIT, project)
    assert sha256(path) == sha256(tiny_model) and server.asked(path_of(MIT)) == [0]
    locked = foundation_lock.read(project).foundations[MIT]
    assert (locked.sha256, locked.size) == (sha256(tiny_model), tiny_model.stat().st_size)
    assert locked.source == foundations.shipped()[MIT].url
    assert weights(MIT, project) == path and len(server.requests) == 1


def test_all_projects_share_what_was_fetched(server: FileServer, project: Path, tmp_path: Path) -> None:
    first = weights(MIT, project)
    (tmp_path / "other").mkdir()
    assert weights(MIT, tmp_path / "other") == first and len(server.requests) == 1
    assert foundation_lock.read(tmp_path / "other") == foundation_lock.read(project)


@pytest.mark.hostile("network")
def test_a_file_that_is_another_one_now_is_refused(server: FileServer, project: Path, tiny_model: Path) -> None:
    """In the cache, and where it is fetched again; both messages have both hashes, and nothing is kept of it."""
    path = weights(MIT, project)
    path.write_bytes(tiny_model.read_bytes() + b"\0")
    with pytest.raises(RetemperError) as raised:
        weights(MIT, project)
    assert sha256(tiny_model) in str(raised.value.expected) and sha256(path) in str(raised.value.got)
    path.unlink()
    server.files[path_of(MIT)] = tiny_model.read_bytes() + b"\0"
    with pytest.raises(RetemperError) as raised:
        weights(MIT, project)
    assert sha256(tiny_model) in str(raised.value.expected) and not path.exists()
    assert foundation_lock.read(project).foundations[MIT].sha256 == sha256(tiny_model)


PAGE = b"<!DOCTYPE html><html><body>Sign in</body></html>"
WRONG: dict[str, Callable[[bytes], bytes]] = {
    "a page without its type": lambda content: PAGE,
    "half a file": lambda content: content[: len(content) // 2],
    "nothing": lambda content: b"",
    "a pointer of Git LFS": lambda content: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
}


@pytest.mark.hostile("network")
@pytest.mark.parametrize("what", WRONG)
def test_what_is_no_file_of_weights_is_not_remembered(server: FileServer, project: Path, what: str) -> None:
    """Also where the server does not say how long it should be."""
    server.lengths = False
    server.files[path_of(MIT)] = WRONG[what](server.files[path_of(MIT)])
    with pytest.raises(RetemperError):
        weights(MIT, project)
    assert not foundation_files.place(foundations.find(MIT, project), project).exists()
    assert not (project / foundation_lock.LOCK).exists()


@pytest.mark.hostile("network")
def test_offline_uses_what_is_here(server: FileServer, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = weights(MIT, project)
    monkeypatch.setenv(downloads.OFFLINE, "1")
    assert weights(MIT, project) == path
    with pytest.raises(RetemperError, match=downloads.OFFLINE):
        weights("mace-mp-0-large", project)


@pytest.mark.hostile("users")
def test_two_processes_remember_one_content(server: FileServer, project: Path, tiny_model: Path) -> None:
    server.second = 1.0
    command = [sys.executable, "-m", "retemper", "foundations", "get"]
    both = [subprocess.Popen([*command, name], cwd=project) for name in (MIT, MIT, "mace-mpa-0-medium")]
    assert [one.wait(100) for one in both] == [0, 0, 0]
    locked = foundation_lock.read(project)
    assert {name: one.sha256 for name, one in locked.foundations.items()} == dict.fromkeys(
        (MIT, "mace-mpa-0-medium"), sha256(tiny_model)
    )
    assert server.asked(path_of(MIT)) == [0] and set(locked.structures) == {"mp"}


# ------------------------------------------------------------------ what settings may call a foundation


def test_a_file_of_the_users(project: Path, tiny_model: Path) -> None:
    (project / "models").mkdir()
    path = project / "models/mine.model"
    path.write_bytes(tiny_model.read_bytes())
    assert weights("models/mine.model", project) == path
    assert weights(str(path), project) == path
    path.write_bytes(tiny_model.read_bytes()[:-1])
    for name in ("models/mine.model", str(path)):
        with pytest.raises(RetemperError) as raised:
            weights(name, project)
        assert sha256(tiny_model) in str(raised.value.expected) and sha256(path) in str(raised.value.got)
    path.unlink()
    with pytest.raises(RetemperError, match="does not exist"):
        weights("models/mine.model", project)


def test_an_address(server: FileServer, project: Path, tiny_model: Path) -> None:
    """With its sha256, and without where it is https; of Hugging Face, at a revision too."""
    server.files["/org/repo/resolve/main/a/x.model"] = tiny_model.read_bytes()
    server.files["/org/repo/resolve/v2/x.model"] = tiny_model.read_bytes() + b"\0"
    server.files["/x.model"] = tiny_model.read_bytes()
    known = sha256(tiny_model)
    assert sha256(weights("hf://org/repo/a/x.model", project)) == known
    assert sha256(weights("hf://org/repo@v2/x.model", project)) != known
    assert sha256(weights("https://example.org/x.model", project)) == known
    assert set(foundation_lock.read(project).foundations) == {
        "hf://org/repo/a/x.model",
        "hf://org/repo@v2/x.model",
        "https://example.org/x.model",
    }
    assert sha256(weights(f"http://example.org/x.model#sha256={known.upper()}", project)) == known
    with pytest.raises(RetemperError) as raised:
        weights(f"hf://org/repo@v2/x.model#sha256={known}", project)
    assert known in str(raised.value.expected)


@pytest.mark.hostile("settings")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mace-mp-0-smal", "did you mean 'mace-mp-0-small'"),
        ("http://example.org/x.model", "anyone on the way"),
        ("https://example.org/x.model#sha256=abc", "64 digits"),
        ("https://example.org/x.model#md5=" + "0" * 64, "64 digits"),
        ("hf://repo/x.model", "hf://organisation/repository"),
        ("ftp://example.org/x.model", "no address"),
        ("file:///etc/passwd", "no address"),
    ],
)
def test_a_wrong_name(name: str, message: str, project: Path) -> None:
    with pytest.raises(RetemperError, match=message):
        foundations.find(name, project)


@pytest.mark.hostile("settings")
@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (MIT, entry(file="x.model"), "comes with retemper"),
        ("mine", entry(), "exactly one of file and url"),
        ("mine", entry(file="x.model", url="https://example.org/x.model"), "exactly one of file and url"),
        ("mine", entry(file="x.model", sha256="abc"), "sha256 is wrong"),
        ("mine", entry(loader="mace_mp", model="small"), "no setting any more"),
    ],
)
def test_a_wrong_entry_of_the_project(name: str, content: dict[str, Any], message: str, project: Path) -> None:
    own(project, **{name: content})
    with pytest.raises(RetemperError, match=message):
        foundations.find("mine", project)


def test_entries_of_a_project_stand_beside_the_released_ones(
    server: FileServer, project: Path, tiny_model: Path
) -> None:
    server.files["/mine.model"] = tiny_model.read_bytes()
    own(project, mine=entry(url="https://example.org/mine.model", replay="mp", sha256=sha256(tiny_model)))
    assert set(foundations.catalogue(project)) == {"mine", *foundations.shipped()}
    assert sha256(weights("mine", project)) == sha256(tiny_model)
    assert not (project / foundation_lock.LOCK).exists()  # the entry says what it is
    published = foundations.published(foundations.find("mine", project))
    assert published is not None and published.level_of_theory == "PBE+U"
    own(project, mine=entry(url="https://example.org/mine.model", replay="mpp"))
    with pytest.raises(RetemperError, match="did you mean 'mp'"):
        foundations.published(foundations.find("mine", project))


@pytest.mark.hostile("settings")
def test_a_broken_lock_is_said(server: FileServer, project: Path) -> None:
    weights(MIT, project)
    path = project / foundation_lock.LOCK
    path.write_text(path.read_text().replace("sha256:", "sha265:"))
    with pytest.raises(RetemperError, match=r"foundations/lock\.yaml: .*sha256 is missing"):
        weights(MIT, project)


# ------------------------------------------------------------------ licences


@pytest.mark.hostile("trust")
def test_a_licence_that_was_not_accepted_stops_before_anything_is_asked(server: FileServer, project: Path) -> None:
    for _ in range(2):
        with pytest.raises(RetemperError) as raised:
            weights(ASL, project)
        assert f"retemper foundations get {ASL} --accept-licence" in str(raised.value.fix)
    assert server.requests == [] and not (project / foundation_lock.LOCK).exists()
    main.main(["foundations", "get", ASL, "--accept-licence"])
    assert weights(ASL, project).is_file() and weights("mace-off-small", project).is_file()  # once, for the licence


@pytest.mark.hostile("trust")
def test_weights_that_another_user_fetched_need_the_licence_too(server: FileServer, project: Path) -> None:
    main.main(["foundations", "get", ASL, "--accept-licence"])
    for note in (downloads.cache() / "licences").iterdir():
        note.unlink()
    with pytest.raises(RetemperError, match="was not accepted"):
        weights(ASL, project)


@pytest.mark.hostile("trust")
def test_a_licence_at_another_address_is_asked_for_again(server: FileServer, project: Path) -> None:
    terms = foundations.licence(foundations.shipped()[ASL])
    assert terms is not None and not licences.accepted(terms)
    licences.accept(terms)
    assert licences.accepted(terms)
    assert not licences.accepted(terms.model_copy(update={"url": "https://example.org/other"}))


@pytest.mark.hostile("trust")
@pytest.mark.parametrize(("answer", "status"), [("y", 0), ("n", 1), ("", 1)])
def test_a_person_is_asked_in_the_terminal(server: FileServer, project: Path, answer: str, status: int) -> None:
    """The question names the licence and its address; anything but yes is no."""
    outside, inside = pty.openpty()
    command = [sys.executable, "-m", "retemper", "foundations", "get", ASL]
    asked = subprocess.Popen(command, stdin=inside, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    os.write(outside, f"{answer}\n".encode())
    said, _ = asked.communicate(timeout=60)
    os.close(outside), os.close(inside)
    assert asked.returncode == status, said
    assert "https://github.com/gabor1/ASL" in said
    assert (server.asked(path_of(ASL)) == [0]) == (status == 0)


@pytest.mark.hostile("trust")
def test_a_script_is_not_asked_and_does_not_accept(server: FileServer, project: Path) -> None:
    command = [sys.executable, "-m", "retemper", "foundations", "get", ASL]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 1 and "--accept-licence" in done.stderr and server.requests == []


# ------------------------------------------------------------------ structures for replay, and the command


def test_structures_for_replay(server: FileServer, project: Path) -> None:
    main.main(["foundations", "get", MIT])
    published = foundations.published(foundations.shipped()[MIT])
    assert published is not None
    path = foundation_files.structures(published, project)
    assert path.read_bytes() == STRUCTURES
    assert foundation_lock.read(project).structures["mp"].sha256 == sha256(path)
    path.write_bytes(STRUCTURES.replace(b"-1.0", b"-2.0"))
    with pytest.raises(RetemperError) as raised:
        foundation_files.structures(published, project)
    assert sha256(path) in str(raised.value.got)
    path.unlink()
    server.files["/" + published.url.split("/", 3)[3]] = b"Not found"
    (project / foundation_lock.LOCK).unlink()
    with pytest.raises(RetemperError, match="no extended xyz"):
        foundation_files.structures(published, project)


def test_get_outside_of_a_project(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache serves every project; there is no lock to write."""
    monkeypatch.chdir(tmp_path)
    main.main(["foundations", "get", MIT, "--weights-only"])
    assert downloads.kept(str(foundations.shipped()[MIT].url)).is_file()
    assert not list(tmp_path.rglob("lock.yaml")) and len(server.requests) == 1
    with pytest.raises(SystemExit):
        main.main(["foundations", "get", "mini"])


def test_the_list(server: FileServer, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights(MIT, project)
    main.main(["foundations"])
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert set(foundations.shipped()) <= set(lines)
    assert " MB " in lines[MIT] and " no " in lines[ASL] and "(accept)" in lines[ASL]


def test_what_a_file_is(
    server: FileServer, project: Path, tiny_multihead: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By its path, and by the name of a foundation; heads, elements and E0s are the file's."""
    server.files[path_of(MIT)] = tiny_multihead.read_bytes()
    for name in (str(tiny_multihead), MIT):
        main.main(["foundations", "inspect", name])
        lines = capsys.readouterr().out.splitlines()
        rows = {line.split()[0]: line.split()[1:] for line in lines if line}
        assert rows["sha256"] == [sha256(tiny_multihead)]
        assert rows["heads"] == ["pt_head,", "Default"] and rows["elements"] == "6: H C N O Na Cl".split()
        assert [float(number) for number in rows["H"]] == [-30.0, -29.5]
        assert [float(number) for number in rows["Cl"]] == [-1.0, -0.5]
    (project / "notes.model").write_text("no model")
    with pytest.raises(SystemExit):
        main.main(["foundations", "inspect", "notes.model"])


# ------------------------------------------------------------------ whole or not, by the look of it


@pytest.mark.hostile("network")
@pytest.mark.parametrize("kind", ["torch", "safetensors"])
def test_half_a_file_is_told_from_a_whole_one(kind: str, tiny_model: Path, tmp_path: Path) -> None:
    path = tiny_model if kind == "torch" else as_trained(tiny_model, tmp_path / weight_files.NAME)
    content = path.read_bytes()
    assert weight_files.whole(path)
    for length in (0, 1, 8, 100, *range(0, len(content), len(content) // 40), len(content) - 1):
        (tmp_path / "part").write_bytes(content[:length])
        assert not weight_files.whole(tmp_path / "part")
    (tmp_path / "part").write_bytes(content[: len(content) // 2] + b"\xff" * 64 + content[len(content) // 2 + 64 :])
    assert weight_files.whole(tmp_path / "part") == (kind == "safetensors")  # which has no checksums
