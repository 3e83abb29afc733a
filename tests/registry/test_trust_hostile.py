"""Models, pickles and requirements by someone who means harm: nothing of them runs, nothing passes."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import architectures
import pytest
import yaml
from ase.build import molecule
from conftest import as_trained
from marked_pickles import evil, stored

import retemper
from retemper.cli import main
from retemper.config import foundation_files, foundation_lock, foundations
from retemper.core import weight_files
from retemper.core.errors import RetemperError
from retemper.core.files import sha256
from retemper.models import mace, model_file, model_writing

# ------------------------------------------------------------------ models as files that execute nothing


def test_reading_changes_no_random_numbers(tiny_model: Path, tmp_path: Path) -> None:
    import torch

    path = as_trained(tiny_model, tmp_path / weight_files.NAME)
    torch.manual_seed(5)
    right = torch.rand(3)
    torch.manual_seed(5)
    before = torch.get_default_dtype()
    model_file.read(path)
    model_writing.require_describable(model_file.load(path))
    assert torch.get_default_dtype() == before and (torch.rand(3) == right).all()


def header(content: bytes) -> tuple[dict[str, Any], bytes]:
    length = struct.unpack("<Q", content[:8])[0]
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def packed(head: dict[str, Any], data: bytes) -> bytes:
    text = json.dumps(head).encode()
    return struct.pack("<Q", len(text)) + text + data


def described(**change: Any) -> Callable[[bytes], bytes]:
    """The file with another description: fields by their name, those of the arguments too."""

    def damage(content: bytes) -> bytes:
        head, data = header(content)
        about = json.loads(head["__metadata__"]["retemper"])
        for name, value in change.items():
            (about["arguments"] if name in about["arguments"] else about)[name] = value
        head["__metadata__"]["retemper"] = json.dumps(about)
        return packed(head, data)

    return damage


def flipped(content: bytes) -> bytes:
    return content[:-100] + bytes([content[-100] ^ 1]) + content[-99:]


def without_description(content: bytes) -> bytes:
    head, data = header(content)
    del head["__metadata__"]
    return packed(head, data)


def renamed_tensor(content: bytes) -> bytes:
    head, data = header(content)
    head["evil"] = head.pop("r_max")
    return packed(head, data)


DAMAGED: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda content: b"", "is no model file"),
    "text": (lambda content: b"import os; os.system('true')", "is no model file"),
    "cut off": (lambda content: content[: len(content) // 2], "is damaged"),
    "header cut off": (lambda content: content[:100], "is no model file"),
    "one bit of a weight": (flipped, "its tensors are not those that were written"),
    "no description": (without_description, "has no description"),
    "a tensor renamed": (renamed_tensor, "its tensors are not those that were written"),
    "header of 10 GB": (lambda content: struct.pack("<Q", 10**10) + content[8:], "is no model file"),
    "header nested deeply": (lambda content: struct.pack("<Q", 10**5) + b"[" * 10**5, "has no description"),
    "another class": (described(architecture="EnergyDipolesMACE"), "does not describe a model: architecture"),
    "a class by its path": (described(architecture="os.system"), "does not describe a model: architecture"),
    "an unknown field": (described(code="import os"), "does not describe a model: code"),
    "another format": (described(format="retemper MACE 99"), "does not describe a model: format"),
    "an unknown block": (described(interaction_cls="os.system"), "unknown interaction: 'os.system'"),
    "an unknown readout": (described(readout_cls="builtins.eval"), "unknown readout: 'builtins.eval'"),
    "an unknown activation": (described(gate="__import__('os').abort"), "unknown activation"),
    "no irreps": (described(hidden_irreps="rubbish"), "MACE cannot build the model"),
    "other irreps": (described(hidden_irreps="16x0e"), "MACE cannot build the model"),
    "other elements": (described(atomic_numbers=[1, 6]), "MACE cannot build the model"),
    "no element": (described(atomic_numbers=[200]), "does not describe a model: atomic_numbers.0"),
    "another head more": (described(heads=["Default", "evil"]), "MACE cannot build the model"),
    "a cut-off that is no number": (described(r_max="4"), "does not describe a model: arguments.r_max"),
    "a negative cut-off": (described(r_max=-4.0), "does not describe a model: arguments.r_max"),
    "a huge basis": (described(num_bessel=10**9), "does not describe a model: arguments.num_bessel"),
    "a huge angular momentum": (described(max_ell=50), "does not describe a model: arguments.max_ell"),
    "a number for a switch": (described(use_so3=1), "does not describe a model: arguments.use_so3"),
}


@pytest.fixture(scope="module")
def sound(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return as_trained(tiny_model, tmp_path_factory.mktemp("sound") / weight_files.NAME).read_bytes()


@pytest.mark.hostile("trust")
@pytest.mark.parametrize("how", DAMAGED)
def test_a_damaged_file_is_not_opened(how: str, sound: bytes, tmp_path: Path) -> None:
    damage, message = DAMAGED[how]
    path = tmp_path / weight_files.NAME
    path.write_bytes(damage(sound))
    with pytest.raises(RetemperError, match=message):
        mace.load(path)


@pytest.mark.hostile("trust")
def test_a_pickle_in_the_place_of_a_trained_model_is_not_opened(tmp_path: Path) -> None:
    path = evil(tmp_path / weight_files.NAME, tmp_path / "mark")
    with pytest.raises(RetemperError, match="is no model file and was not opened"):
        mace.load(path)
    assert not (tmp_path / "mark").exists()


@pytest.mark.hostile("trust")
def test_what_cannot_be_described_is_refused_before_training(tiny_model: Path) -> None:
    import torch

    model = model_file.load(tiny_model)
    model.readouts[-1].non_linearity.acts[0].f = torch.nn.functional.softplus  # type: ignore[union-attr, index]
    with pytest.raises(RetemperError, match="cannot be described in .*: MACE has no name for softplus"):
        model_writing.require_describable(model)


# ------------------------------------------------------------------ pickles of others


@pytest.fixture
def catalogue(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """A project whose catalogue has one foundation, with what is given of its entry."""

    def write(content: bytes | None = None, **entry: Any) -> Path:
        about = dict.fromkeys(("about", "level_of_theory", "licence", "citation"), "tiny")
        (tmp_path / "foundations").mkdir(exist_ok=True)
        (tmp_path / "foundations/tiny.model").write_bytes(tiny_model.read_bytes() if content is None else content)
        (tmp_path / "foundations/foundations.yaml").write_text(yaml.safe_dump({"tiny": about | entry}))
        (tmp_path / "params.yaml").touch()
        return tmp_path

    monkeypatch.chdir(tmp_path)
    return write


@pytest.mark.hostile("trust")
def test_weights_are_what_they_were_at_first_use(catalogue: Callable[..., Path], tmp_path: Path) -> None:
    """By the entry's sha256, else by the lock of the project. Nothing is opened to find out."""
    bad = evil(tmp_path / "bad.model", tmp_path / "mark")
    root = catalogue(bad.read_bytes(), file="foundations/tiny.model")
    entry = foundations.find("tiny", root)
    assert sha256(foundation_files.weights(entry, root)) == sha256(bad)
    assert foundation_lock.read(root).foundations["tiny"].sha256 == sha256(bad)
    (root / str(entry.file)).write_bytes(bad.read_bytes() + b"\0")
    with pytest.raises(RetemperError, match="It was not opened") as raised:
        foundation_files.weights(entry, root)
    assert sha256(bad) in str(raised.value.expected) and sha256(root / str(entry.file)) in str(raised.value.got)
    root = catalogue(bad.read_bytes(), file="foundations/tiny.model", sha256="0" * 64)
    with pytest.raises(RetemperError, match="It was not opened"):
        foundation_files.weights(foundations.find("tiny", root), root)
    assert not (tmp_path / "mark").exists()


@pytest.mark.hostile("trust")
@pytest.mark.parametrize("flags", [[], ["--sha256", "0" * 64]])
@pytest.mark.parametrize("command", ["evaluate", "convert"])
def test_a_model_by_someone_runs_nothing(
    command: str, flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = evil(tmp_path / "theirs.model", tmp_path / "mark")
    more = ["--metrics", "physics"] if command == "evaluate" else [str(tmp_path / "out.safetensors")]
    with pytest.raises(SystemExit):
        main.main([command, str(bad), *more, *flags])
    assert "was not opened" in capsys.readouterr().err
    assert not (tmp_path / "mark").exists() and not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize("flagged", [False, True])
def test_a_sound_model_is_converted(flagged: bool, tiny_model: Path, tmp_path: Path) -> None:
    flags = ["--sha256", sha256(tiny_model).upper()] if flagged else []
    main.main(["convert", str(tiny_model), str(tmp_path / "out.safetensors"), *flags])
    main.main(["convert", str(tmp_path / "out.safetensors"), str(tmp_path / "back.model")])
    one, two = (architectures.answers(architectures.run(path)) for path in (tiny_model, tmp_path / "back.model"))
    assert all((a == b).all() for a, b in zip(one, two, strict=True))


# ------------------------------------------------------------------ what a version requires


def test_requirements_are_public_versions_that_are_installed(project: Path) -> None:
    from importlib.metadata import version

    lines = (stored(project, "1") / "requirements.txt").read_text().split()
    pins = dict(line.split("==") for line in lines)
    assert {"mlflow", "torch", "mace-torch", "ase", "numpy", "safetensors"} <= set(pins)
    assert not [line for line in lines if "+" in line]
    assert {name: version(name).partition("+")[0] for name in pins} == pins


def test_pip_finds_what_a_version_requires(project: Path, tmp_path: Path) -> None:
    """Against the index that pip is set up with; skipped where none answers, and not when it lacks something."""
    place = stored(project, "1")
    pip = [shutil.which("pip") or pytest.skip("pip is not installed"), "--disable-pip-version-check"]
    there = subprocess.run([*pip, "download", "--no-deps", "-d", str(tmp_path), "six"], capture_output=True, text=True)
    if there.returncode:
        pytest.skip("no package index answers")
    command = [*pip, "install", "--dry-run", "--no-deps", "--ignore-installed", "-r", "requirements.txt"]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_package_beside_a_model_opens_it(project: Path, tmp_path: Path) -> None:
    """The wheel that environments are built with, alone: the served answer is the one from here."""
    place = stored(project, "1")
    (wheel,) = (place / "wheels").glob("*.whl")
    assert yaml.safe_load((place / "python_env.yaml").read_text())["dependencies"][-1] == f"wheels/{wheel.name}"
    shutil.unpack_archive(wheel, tmp_path / "installed", "zip")
    code = (
        "import sys, json, retemper, pandas, mlflow.pyfunc\n"
        "assert retemper.__file__.startswith(sys.argv[2]), retemper.__file__\n"
        "model = mlflow.pyfunc.load_model(sys.argv[1])\n"
        "row = {'numbers': [8, 1, 1], 'positions': [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]]}\n"
        "print(json.dumps(model.predict(pandas.DataFrame([row]))['energy'][0]))\n"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_TRACKING")}
    environment["PYTHONPATH"] = str(tmp_path / "installed")
    command = [sys.executable, "-W", "ignore", "-c", code, str(place), str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    water = molecule("H2O")
    water.positions = [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]]
    right = retemper.load("salt/1", device="cpu", root=project).get_potential_energy(water)
    assert json.loads(done.stdout.splitlines()[-1]) == pytest.approx(right, abs=1e-9)
