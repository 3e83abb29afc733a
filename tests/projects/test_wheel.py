"""The wheel is the whole product: it works from any folder, and a project of the example runs with it."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import pytest
import yaml
from ase.io import read
from conftest import ROOT
from relabelled import relabelled

from retemper.core import template


def test_what_it_holds(installed) -> None:
    with zipfile.ZipFile(installed.wheel) as wheel:
        names = set(wheel.namelist())
    assert installed.wheel.stat().st_size < 20e6
    package = ROOT / "platform/retemper"
    sources = [path for kind in ("py", "yaml", "html", "css", "typed") for path in package.rglob(f"*.{kind}")]
    assert {f"retemper/{path.relative_to(package)}" for path in sources} <= names
    kept = template.files(*template.MACHINERY, *template.MINI, *template.EXAMPLE, *template.SYSTEMS)
    assert {f"retemper/template/{name}" for name in kept} == {n for n in names if n.startswith("retemper/template/")}
    assert "retemper/template/pipelines/pretrain.py" not in names


def test_it_is_what_runs(installed, tmp_path: Path) -> None:
    where = installed.run(tmp_path, "python", "-c", "import retemper; print(retemper.__file__)")
    assert Path(where.strip()).is_relative_to(installed.bin.parent)


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("--help", "make a project"),
        ("strategies", "pseudolabel-replay"),
        ("systems", "Li6PS5Cl"),
        ("foundations", "mace-mpa-0-medium"),
        ("metrics", "rss_strict"),
    ],
)
def test_commands_that_need_no_project(installed, tmp_path: Path, command: str, expected: str) -> None:
    assert expected in installed.run(tmp_path, "retemper", command)


@pytest.mark.parametrize("command", ["table", "models", "sync", "sweep status", "round", "campaign status", "advise"])
@pytest.mark.hostile("messages")
def test_commands_that_need_one_say_so(installed, tmp_path: Path, command: str) -> None:
    said = installed.run(tmp_path, "retemper", *command.split(), status=1)
    assert "No project here" in said and "retemper init" in said and "Traceback" not in said


def test_the_example_runs_from_nothing(installed, tmp_path: Path) -> None:
    """The E0s of the example, by DVC, with nothing but the wheel; the same sets of frames as in the repository."""
    said = installed.run(tmp_path, "retemper", "init", "mine", "--example")
    project = tmp_path / "mine"
    assert "cd mine && dvc repro" in said
    assert installed.run(project, "git", "status", "--porcelain") == ""
    assert (project / "params.yaml").read_bytes() == (ROOT / "params.yaml").read_bytes()
    assert "reestimate" in installed.dvc(project, "repro", "dataset", "e0s")
    assert set(yaml.safe_load((project / "dvc.lock").read_text())["stages"]) == {"inputs", "dataset", "e0s"}
    assert installed.run(project, "git", "status", "--porcelain").split() == ["??", "dvc.lock"]


@pytest.mark.slow
def test_own_data_become_a_champion(installed, tmp_path: Path) -> None:
    """From a file under another code's keys to a promoted model, with nothing changed but what costs time."""
    relabelled("nacl", tmp_path / "data.xyz")
    few = ("--seeds", "1", "--strategies", "naive")
    installed.run(tmp_path, "retemper", "init", "mine", "--data", "data.xyz", "--level", "GFN2-xTB", *few)
    project = tmp_path / "mine"
    text = (project / "params.yaml").read_text().replace("max_train: null", "max_train: 40")
    (project / "params.yaml").write_text(re.sub(r"epochs: \d+", "epochs: 8", text))
    installed.dvc(project, "repro")
    assert "champion" in installed.run(project, "retemper", "models")
    assert "naive" in installed.run(project, "retemper", "table")
    code = "import retemper, ase.io; frame = ase.io.read('data/raw/data.xyz', -1); "
    code += "frame.calc = retemper.load('mine@champion'); print(frame.get_potential_energy())"
    energy = float(installed.run(project, "python", "-c", code).split()[-1])
    last = read(tmp_path / "data.xyz", -1)
    assert energy == pytest.approx(last.info["dft_energy"], abs=0.05 * len(last))
