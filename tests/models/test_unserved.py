"""Models of classes that are not served: refused by name, with one reason, before anything is fetched or computed."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import file_server
import prepared
import pytest
import yaml
from architectures import run
from conftest import build_tiny

from retemper.cli import main
from retemper.config import foundation_files, foundations
from retemper.config.project import Project
from retemper.core import downloads
from retemper.core.errors import RetemperError
from retemper.models import inspection, model_file
from retemper.prepare import dataset, e0s, inputs

PARTS = {"PolarMACE": ("graph_longrange.features", "Features"), "MACELES": ("les.module", "Les")}  # what they import
REFUSED = "is a {kind}, which retemper neither trains nor predicts with: {reason}."


def build(kind: str, path: Path, patch: pytest.MonkeyPatch) -> Path:
    """A file as MACE writes it of `kind`: its class, and a part of a package that is not installed here.

    The part has one of its methods as an attribute, as MACE-POLAR's electrostatic features have.
    """
    import torch
    from mace.modules import extensions

    module, name = PARTS[kind]

    def periodic(self: Any) -> None:
        """A method."""

    part = type(name, (torch.nn.Module,), {"__module__": module, "periodic": periodic})
    packages = {module.partition(".")[0]: types.ModuleType(module.partition(".")[0]), module: types.ModuleType(module)}
    setattr(packages[module], name, part)
    model = run(build_tiny(path, ["Default"]))
    model.__class__ = getattr(extensions, kind)
    model.electrostatics = part()
    model.electrostatics.chosen = model.electrostatics.periodic
    with patch.context() as context:
        for package, content in packages.items():
            context.setitem(sys.modules, package, content)
        torch.save(model, path)
    return path


def sentence(kind: str) -> str:
    reason = yaml.safe_load(foundations.SHIPPED.read_text())["unserved"][kind]
    return REFUSED.format(kind=kind, reason=reason)


@pytest.mark.hostile("trust")
@pytest.mark.parametrize("kind", PARTS)
def test_a_file_is_refused_with_one_reason_everywhere(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = build(kind, tmp_path / "their.model", monkeypatch)
    assert PARTS[kind][0].encode() in path.read_bytes()
    about = inspection.inspect(path)
    assert (about.kind, about.served, about.elements) == (kind, False, (1, 6, 7, 8, 11, 17)) and about.parameters > 0
    main.main(["foundations", "inspect", str(path)])
    assert sentence(kind) in capsys.readouterr().out
    named = prepared.project(tmp_path, path)
    (tmp_path / "some.extxyz").touch()
    by_file = Project(tmp_path, named.settings.model_copy(update={"foundation": str(path)}))
    works: list[Callable[[], object]] = [lambda: model_file.load(path)]
    for project in (named, by_file):
        for stage in (inputs, dataset, e0s):
            works.append(lambda stage=stage, project=project: stage.run(project))
    for work in works:
        with pytest.raises(RetemperError) as raised:
            work()
        assert raised.value.what.endswith(sentence(kind)) and "retemper foundations" in str(raised.value.fix)
    assert not (tmp_path / "runs/dataset").exists() and not (tmp_path / "runs/inputs").exists()
    assert not {"graph_longrange", "les"} & set(sys.modules)


@pytest.mark.parametrize("name", [name for name, entry in foundations.shipped().items() if not entry.served])
def test_a_released_one_is_refused_before_it_is_fetched(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(downloads.CACHE, str(tmp_path / "cache"))
    project = prepared.project(tmp_path, build_tiny(tmp_path / "any.model", ["Default"]))
    project = Project(tmp_path, project.settings.model_copy(update={"foundation": name}))
    with file_server.running() as server:
        monkeypatch.setenv(downloads.MIRROR, server.address)
        for work in (inputs.run, e0s.run, lambda project: project.weights):
            with pytest.raises(RetemperError) as raised:
                work(project)
            assert raised.value.what == f"{name} {sentence('PolarMACE')}"
        for command in ("get", "inspect"):
            with pytest.raises(SystemExit):
                main.main(["foundations", command, name])
            assert sentence("PolarMACE") in capsys.readouterr().err
    assert server.requests == [] and "MACE-POLAR" in foundations.shipped()[name].about
    main.main(["foundations"])
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith(f"{name} ")]
    assert line.endswith("not served")


@pytest.mark.hostile("trust")
def test_a_served_class_with_a_method_of_another_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The method is named; it is one that nobody looked at."""
    import torch

    model = run(build_tiny(tmp_path / "their.model", ["Default"]))
    model.radial_embedding.chosen = model.radial_embedding.extra_repr
    torch.save(model, tmp_path / "their.model")
    with pytest.raises(RetemperError) as raised:
        model_file.load(tmp_path / "their.model")
    assert "RadialEmbeddingBlock.extra_repr" in str(raised.value.got)
    assert "RadialEmbeddingBlock.extra_repr" in str(inspection.inspect(tmp_path / "their.model").reason)


def test_a_class_without_a_reason_is_named_too() -> None:
    error = foundations.unserved("EnergyDipolesMACE", "x.model")
    assert error.what == "x.model is a EnergyDipolesMACE, which retemper neither trains nor predicts with."
    with pytest.raises(RetemperError, match="EnergyDipolesMACE"):
        entry = foundations.shipped()["mace-omol"].model_copy(update={"kind": "EnergyDipolesMACE"})
        foundation_files.require_served(entry)
