"""Models that today's MACE does not build as they are: refused by name, never opened as others."""

from __future__ import annotations

import resource
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from architectures import answers, run
from conftest import build_tiny

from retemper.core.errors import RetemperError
from retemper.models import inspection, model_file

GIGABYTE = 1_000_000  # in the kB that the system counts


def with_pickle(path: Path, out: Path, old: bytes, new: bytes) -> Path:
    """A copy of a model in which something of the pickle is replaced."""
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(out, "w") as copy:
        for name in source.namelist():
            content = source.read(name)
            if name.endswith("/data.pkl"):
                assert old in content
                content = content.replace(old, new)
            copy.writestr(name, content)
    return out


@pytest.mark.hostile("trust")
@pytest.mark.parametrize(
    ("old", "new", "name"),
    [
        (b"cmace.modules.blocks\nLinearNodeEmbeddingBlock", b"cmace.modules.blocks\nTomorrowBlock", "TomorrowBlock"),
        (b"cmace.modules.models\nScaleShiftMACE", b"cmy_models\nMyMACE", "my_models.MyMACE"),
        (b"cmace.modules.models\nScaleShiftMACE", b"cmace.modules.extensions\nPolarMACE", "PolarMACE"),
        (b"cmace.modules.models\nScaleShiftMACE", b"cmace.modules.models\nEnergyDipolesMACE", "EnergyDipolesMACE"),
        (
            b"cmace.modules.blocks\nNonLinearReadoutBlock",
            b"cmace.modules.blocks\nLinearReadoutBlock",
            "LinearReadoutBlock",
        ),
        (b"ctorch.nn.functional\nsilu", b"ctorch.nn.functional\ngelu", "gelu"),
        (b"ctorch.nn.functional\nsilu", b"csubprocess\nrun", "subprocess.run"),
    ],
)
def test_a_model_of_tomorrow_is_refused_by_name(
    old: bytes, new: bytes, name: str, tiny_model: Path, tmp_path: Path
) -> None:
    path = with_pickle(tiny_model, tmp_path / "their.model", old, new)
    with pytest.raises(RetemperError, match=name):
        model_file.load(path)


def changed_neighbors(model: Any) -> None:
    model.interactions[1].avg_num_neighbors = 3.0


def changed_path_weights(model: Any) -> None:
    old = model.readouts[0].linear.instructions
    model.readouts[0].linear.instructions = [item._replace(path_weight=0.5) for item in old]


def laughs(value: Any) -> Any:
    """Ten lists of ten lists, and so on: a text of it would fill the memory."""
    for _ in range(20):
        value = [value] * 10
    return value


def endless_heads(model: Any) -> None:
    model.heads = laughs("a")


def endless_setting(model: Any) -> None:
    model.interactions[0].linear.instructions = laughs(1)


def endless_irreps(model: Any) -> None:
    model.products[0].linear.irreps_out = laughs(1)


def endless_activation(model: Any) -> None:
    model.readouts[-1].non_linearity.acts[0].f = laughs(1)


def huge_readout(model: Any) -> None:
    from e3nn import o3

    model.readouts[-1].hidden_irreps = o3.Irreps("900000x0e")


def not_finite(model: Any) -> None:
    model.interactions[0].avg_num_neighbors = float("nan")


def no_tensor(model: Any) -> None:
    del model.interactions[0].linear.weight


def converted(model: Any) -> None:
    model.cueq_config = {"enabled": True}


@pytest.mark.hostile("trust")
@pytest.mark.parametrize(
    "change",
    [
        changed_neighbors,
        changed_path_weights,
        huge_readout,
        not_finite,
        no_tensor,
        converted,
        endless_heads,
        endless_irreps,
        endless_activation,
    ],
)
def test_a_model_that_would_be_another_is_refused(
    change: Callable[[Any], None], tiny_model: Path, tmp_path: Path
) -> None:
    """Settings that today's MACE would build otherwise, and those that would fill the memory."""
    import torch

    model = run(tiny_model)
    change(model)
    torch.save(model, tmp_path / "their.model")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(RetemperError):
        model_file.load(tmp_path / "their.model")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < GIGABYTE


@pytest.mark.hostile("trust")
def test_a_setting_without_end_is_left_alone(tiny_model: Path, tmp_path: Path) -> None:
    import torch

    model = run(tiny_model)
    endless_setting(model)
    torch.save(model, tmp_path / "their.model")
    start = time.process_time()
    assert (model_file.load(tmp_path / "their.model").atomic_numbers == model.atomic_numbers).all()
    assert time.process_time() - start < 20


def test_half_a_model_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    content = tiny_model.read_bytes()
    for part in (0.01, 0.5, 0.99):
        (tmp_path / "half.model").write_bytes(content[: int(part * len(content))])
        for opener in (model_file.load, inspection.inspect):
            with pytest.raises(RetemperError):
                opener(tmp_path / "half.model")


@pytest.mark.hostile("trust")
def test_a_changed_weight_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    """The archive's own checksums are compared, as torch does not."""
    content = bytearray(tiny_model.read_bytes())
    with zipfile.ZipFile(tiny_model) as source:
        largest = max(source.infolist(), key=lambda info: info.file_size if "/data/" in info.filename else 0)
        start = largest.header_offset + 200
    content[start] ^= 1
    (tmp_path / "changed.model").write_bytes(content)
    with pytest.raises(RetemperError):
        model_file.load(tmp_path / "changed.model")


def test_other_readers_get_a_file_that_was_written_here(tmp_path: Path) -> None:
    """And not the one by others, whatever is in it."""
    given = build_tiny(tmp_path / "their.model", ["Default"])
    with model_file.pickled(given) as written:
        assert written != given and written.parent != given.parent
        model = run(written)
    assert all((one == two).all() for one, two in zip(answers(model), answers(run(given)), strict=True))
