"""Advice with released foundations that were fetched, and with several heads: what is at hand, and from which head."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from architectures import MH1_HEADS, build_mh1, build_omol
from trainings import molecules

from retemper.advise import facts, recommend, words
from retemper.cli import main
from retemper.config import foundation_files, foundations, licences
from retemper.config.project import Project
from retemper.config.settings import Settings
from retemper.core import downloads
from retemper.core.errors import RetemperError
from retemper.data.frames import write_frames
from retemper.models import heads

PROSE = dict.fromkeys(("about", "level_of_theory", "licence", "citation"), "own")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project without foundations of its own, with labelled molecules; the cache of its user is empty."""
    monkeypatch.setenv(downloads.CACHE, str(tmp_path / "cache"))
    monkeypatch.setenv(downloads.OFFLINE, "1")
    root = tmp_path / "project"
    (root / "foundations").mkdir(parents=True)
    (root / "params.yaml").touch()
    write_frames(root / "data.extxyz", molecules())
    monkeypatch.chdir(root)
    return root


def fetched(name: str, root: Path) -> None:
    """Put a twin where `get` would put a released foundation."""
    place = foundation_files.place(foundations.shipped()[name], root)
    place.parent.mkdir(parents=True, exist_ok=True)
    (build_omol if name == "mace-omol" else build_mh1)(place)


def accept(name: str) -> None:
    terms = foundations.licence(foundations.shipped()[name])
    assert terms is not None
    licences.accept(terms)


def own(root: Path, **entries: dict[str, Any]) -> None:
    (root / foundations.CATALOGUE).write_text(yaml.safe_dump({key: {**PROSE, **e} for key, e in entries.items()}))


def gather(root: Path) -> facts.Facts:
    return facts.gather(str(root / "data.extxyz"), root, "GFN2-xTB")


def test_what_was_fetched_and_accepted_is_at_hand(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And nothing else: no weights are fetched, and no licence is accepted on the way."""
    with pytest.raises(RetemperError, match="No foundation is at hand") as raised:
        gather(project)
    assert "retemper foundations get" in str(raised.value.fix)
    fetched("mace-mh-1", project)
    with pytest.raises(RetemperError, match="No foundation is at hand"):
        gather(project)
    accept("mace-mh-1")
    main.main(["advise", "--system", "data.extxyz", "--level", "GFN2-xTB"])
    text = capsys.readouterr().out
    assert "foundation: mace-mh-1" in text and "mace-mh-1 has several heads: training starts from omat_pbe" in text
    advised = yaml.safe_load(text.partition("for params.yaml:")[2])
    assert (advised["foundation"], advised["head"]) == ("mace-mh-1", "omat_pbe")
    settings = Settings.model_validate({"system": "mine", "seeds": [1], **advised})
    assert heads.of_foundation(Project(project, settings)) == "omat_pbe"


def test_elements_that_no_entry_lists_are_those_of_the_file(project: Path) -> None:
    fetched("mace-omol", project)
    accept("mace-omol")
    assert foundations.shipped()["mace-omol"].elements is None
    found = gather(project)
    assert (found.able, found.heads, found.lacking) == (("mace-omol",), {}, {})


def test_a_head_is_chosen_by_a_person_where_there_are_several(project: Path) -> None:
    """Without one the foundation is named and left out; alone, it is an error that lists its heads."""
    build_mh1(project / "mine.model")
    own(project, mine={"file": "mine.model"})
    with pytest.raises(RetemperError) as raised:
        gather(project)
    assert all(head in str(raised.value.got) for head in MH1_HEADS) and "head of its entry" in str(raised.value.fix)
    fetched("mace-omol", project)
    accept("mace-omol")
    found = gather(project)
    assert found.able == ("mace-omol",) and set(found.undecided) == {"mine"}
    text = words.text(recommend.advise(found, "family", None))
    assert "Foundation mine has 3 heads, and none is chosen" in text and "\nhead:" not in text
    own(project, mine={"file": "mine.model", "head": MH1_HEADS[1]})
    found = gather(project)
    assert found.heads == {"mine": MH1_HEADS[1]} and found.undecided == {} and "mine" in found.able
    own(project, mine={"file": "mine.model", "head": "spce"})
    assert "spce" in gather(project).undecided["mine"]
