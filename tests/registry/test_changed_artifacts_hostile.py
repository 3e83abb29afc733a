"""Artifacts that someone changed are not served, and what the registry says is no code."""

from __future__ import annotations

import ast
import runpy
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from marked_pickles import evil, stored

import retemper
from retemper.core.errors import RetemperError
from retemper.registry import artifact, attachments, client, export
from retemper.registry.client import Version
from retemper.registry.versions import resolve
from retemper.tracking.store import connect, tracking_uri

TAGS = {
    "end of a docstring": '"""\nimport pathlib; pathlib.Path("mark").touch()\n"""',
    "end of a string": '"); __import__("pathlib").Path("mark").touch(); ("',
    "single quotes": "'); __import__('pathlib').Path('mark').touch(); ('",
    "new lines": "naive\nimport pathlib\npathlib.Path('mark').touch()\n",
    "carriage return": "naive\rimport pathlib; pathlib.Path('mark').touch()",
    "backslashes": "naive\\",
    "a shell": "$(touch mark) `touch mark` ; touch mark",
    "braces": "{sha256} {0} {about.__class__}",
    "other alphabets": "naïve ☃ \u2028 \x00 \x1b[31m",
}


@pytest.fixture
def tagged(project: Path, tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Set tags of salt/1; they are put back."""
    client: Any = connect(project)
    before = dict(client.get_model_version("salt", "1").tags)

    def write(**tags: str) -> Path:
        for name, value in tags.items():
            client.set_model_version_tag("salt", "1", name, value)
        return project

    yield write
    for name, value in before.items():
        client.set_model_version_tag("salt", "1", name, value)


@pytest.mark.hostile("trust")
@pytest.mark.parametrize("what", TAGS)
def test_a_tag_is_no_code_in_a_script(
    what: str, tagged: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tagged(strategy=TAGS[what], seed=TAGS[what])
    made = export.export(root, "salt/1", "ase", tmp_path / "out")
    (script,) = [path for path in made if path.suffix == ".py"]
    kinds = {type(node) for node in ast.parse(script.read_text(encoding="utf-8")).body}
    assert kinds == {ast.Expr, ast.Import, ast.ImportFrom, ast.Assign, ast.FunctionDef, ast.ClassDef}
    monkeypatch.chdir(tmp_path)
    assert TAGS[what] in runpy.run_path(str(script))["ABOUT"]
    assert not list(tmp_path.rglob("mark"))


@pytest.mark.hostile("trust")
@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"head": 'Default")); import os  # '}, "Unknown head"),
        ({"sha256": "../../../etc/passwd"}, "has no sha256 of its weights"),
        ({"sha256": "0" * 64}, "were not opened"),
        ({"sha256": ""}, "has no sha256 of its weights"),
    ],
)
def test_a_tag_that_cannot_be_is_refused(
    tags: dict[str, str], message: str, tagged: Callable[..., Path], tmp_path: Path
) -> None:
    root = tagged(**tags)
    with pytest.raises(RetemperError, match=message):
        export.export(root, "salt/1", "ase", tmp_path / "out")
    if "sha256" in tags:
        with pytest.raises(RetemperError, match=message):
            retemper.load("salt/1", root=root)


@pytest.mark.hostile("trust")
@pytest.mark.parametrize("name", ["salt;touch mark", "salt $(id)", "salt\nunits real", "../salt", "-salt", "s" * 200])
def test_a_name_that_is_no_file_name_is_refused(name: str) -> None:
    version = Version(system=name, number="1", tags={}, description="", source="", run="")
    with pytest.raises(RetemperError, match="cannot name a file for other programs"):
        export._stem(version)


@pytest.fixture
def opened(project: Path, tmp_path: Path) -> Iterator[Path]:
    """The artifact of salt/2, which a test may change; it is put back."""
    place = stored(project, "2")
    shutil.copytree(place, tmp_path / "kept")
    yield place
    shutil.rmtree(place)
    shutil.copytree(tmp_path / "kept", place)


def of_another_version(place: Path, root: Path) -> None:
    shutil.copy(stored(root, "1") / artifact.WEIGHTS, place / artifact.WEIGHTS)


def whole_of_another_version(place: Path, root: Path) -> None:
    shutil.rmtree(place)
    shutil.copytree(stored(root, "1"), place)


def own_loader(place: Path, root: Path) -> None:
    """Code beside the weights, and an MLmodel that names it."""
    (place / "code").mkdir()
    (place / "code/theirs.py").write_text("from pathlib import Path\nPath('mark').touch()\n")
    about = yaml.safe_load((place / "MLmodel").read_text())
    about["flavors"]["python_function"] |= {"loader_module": "theirs", "code": "code"}
    (place / "MLmodel").write_text(yaml.safe_dump(about))


def appended(name: str, text: str) -> Callable[[Path, Path], None]:
    def change(place: Path, root: Path) -> None:
        with (place / name).open("a") as file:
            file.write(text)

    return change


def pickled_weights(place: Path, root: Path) -> None:
    evil(place / artifact.WEIGHTS, root / "mark")


def link(place: Path, root: Path) -> None:
    (place / "more").symlink_to("/etc/passwd")


CHANGES: dict[str, tuple[Callable[[Path, Path], None], bool]] = {  # and whether MLflow's own way notices
    "weights of another version": (of_another_version, True),
    "everything of another version": (whole_of_another_version, True),
    "a pickle for weights": (pickled_weights, True),
    "a package more": (appended("requirements.txt", "evil-package\n"), True),
    "another environment": (appended("conda.yaml", "\n# x\n"), True),
    "another description": (appended("MLmodel", "\nmetadata: {evil: true}\n"), True),
    "a file more": (appended("sitecustomize.py", "raise SystemExit\n"), True),
    "a link": (link, True),
    "a loader of its own": (own_loader, False),
}


@pytest.mark.hostile("trust")
@pytest.mark.parametrize("what", CHANGES)
def test_a_changed_artifact_is_not_served(
    what: str, opened: Path, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow.pyfunc

    change, noticed = CHANGES[what]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_uri(project))
    mlflow.pyfunc.load_model("models:/salt/2")  # as it was
    change(opened, project)
    (tmp_path / "copy").mkdir()
    with (
        client.open_registry(project) as registry,
        pytest.raises(Exception, match="was not opened|outside the artifact"),
    ):
        attachments.download(registry, resolve(registry, "salt/2"), tmp_path / "copy")
    if noticed:
        with pytest.raises(Exception, match="was not opened|outside the artifact"):
            mlflow.pyfunc.load_model("models:/salt/2")
    assert not (project / "mark").exists()


def test_an_artifact_has_no_code_of_its_own(project: Path) -> None:
    place = stored(project, "1")
    about = yaml.safe_load((place / "MLmodel").read_text())["flavors"]["python_function"]
    assert about["loader_module"] == "retemper.mlflow_model" and about.get("code") is None
    assert not list(place.rglob("*.py")) + list(place.rglob("*.pkl")) + list(place.rglob("*.model"))


def test_weights_without_a_registry_are_read_with_a_note(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import mlflow.pyfunc

    monkeypatch.setattr("mlflow.tracking.is_tracking_uri_set", lambda: False)
    shutil.copytree(stored(project, "1"), tmp_path / "copy")
    mlflow.pyfunc.load_model(str(tmp_path / "copy"))
    assert "is not compared with a registry" in capsys.readouterr().err
