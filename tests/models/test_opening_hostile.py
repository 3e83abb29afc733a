"""Model files by someone who means harm, damaged ones, and those of tomorrow: refused by name, and nothing runs."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import resource
import stat
import struct
import time
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from architectures import answers, run

from retemper.core.errors import RetemperError
from retemper.models import inspection, model_file

GIGABYTE = 1_000_000  # in the kB that the system counts


class Calls:
    """An object of which the pickle asks for a call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any):
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


class Builds:
    """An object of which the pickle gives a state to what a call gives."""

    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...], state: Any):
        self.all = function, arguments, state

    def __reduce__(self) -> tuple[Any, ...]:
        return self.all


def packed(content: bytes, **more: bytes) -> bytes:
    """As torch keeps a pickle."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, part in {"data.pkl": content, "version": b"3\n", "byteorder": b"little", **more}.items():
            archive.writestr(f"model/{name}", part)
    return file.getvalue()


def saved(value: Any, protocol: int = 2) -> bytes:
    return packed(pickle.dumps(value, protocol))


# ------------------------------------------------------------------ code: torch.load runs each of these


CODE: dict[str, Callable[[Path], bytes]] = {
    "a command": lambda mark: saved(Calls(os.system, f"touch {mark}")),
    "a command, protocol 4": lambda mark: saved(Calls(os.system, f"touch {mark}"), 4),
    "an expression": lambda mark: saved(Calls(eval, f"open({str(mark)!r}, 'w').close()")),
    "a method of an allowed class": lambda mark: saved(Calls(Path.touch, mark)),
    "an attribute": lambda mark: saved(Calls(getattr(os, "mkdir"), str(mark))),  # noqa: B009
    "a chain of attributes": lambda mark: packed(
        b"c__builtin__\ngetattr\n(c__builtin__\n__import__\n(Vos\ntRVmkdir\ntR(V" + str(mark).encode() + b"\ntR."
    ),
    "within an allowed call": lambda mark: saved(Calls(OrderedDict, [("a", Calls(os.mkdir, str(mark)))])),
    "within a list": lambda mark: saved([{"a": (1, Calls(os.mkdir, str(mark)))}]),
    "after the value": lambda mark: packed(b"cos\nmkdir\n(V" + str(mark).encode() + b"\ntR0N."),
    "by an old operation": lambda mark: packed(b"(V" + str(mark).encode() + b"\nios\nmkdir\n."),
    "by another old operation": lambda mark: packed(b"(cos\nmkdir\nV" + str(mark).encode() + b"\no."),
    "before 2020": lambda mark: legacy(Calls(os.mkdir, str(mark))),
}


def legacy(value: Any) -> bytes:
    import torch

    file = io.BytesIO()
    torch.save(value, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


@pytest.mark.hostile("trust")
@pytest.mark.parametrize("what", CODE)
def test_code_does_nothing(what: str, tmp_path: Path) -> None:
    path, mark = tmp_path / "their.model", tmp_path / "mark"
    path.write_bytes(CODE[what](mark))
    for opener in (model_file.load, inspection.inspect):
        with pytest.raises(RetemperError):
            opener(path)
    assert not mark.exists() and [file.name for file in tmp_path.iterdir()] == ["their.model"]
    with contextlib.suppress(AttributeError):  # what was made is no model; by then the code has run
        run(path)
    assert mark.exists()


@pytest.mark.hostile("trust")
def test_code_in_a_model_does_nothing(tiny_model: Path, tmp_path: Path) -> None:
    """A sound model, with compiled code in it that writes a file when unpacked; and one with a call for a number."""
    import torch

    class Writes(torch.nn.Module):
        def __init__(self, mark: str):
            super().__init__()
            self.mark = mark

        @torch.jit.export
        def __getstate__(self) -> tuple[str, bool]:
            return (self.mark, self.training)

        @torch.jit.export
        def __setstate__(self, state: tuple[str, bool]) -> None:
            self.mark = state[0]
            self.training = state[1]
            torch.save(torch.zeros(1), self.mark)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    mark, path = tmp_path / "mark", tmp_path / "their.model"
    model = run(tiny_model)
    right = answers(model)
    model.node_embedding.linear._compiled_main = torch.jit.script(Writes(str(mark)))
    torch.save(model, path)
    mark.unlink(missing_ok=True)
    opened = answers(model_file.load(path))
    assert inspection.inspect(path).served
    assert not mark.exists() and all((one == two).all() for one, two in zip(right, opened, strict=True))
    run(path)
    assert mark.exists()
    mark.unlink()
    model = run(tiny_model)
    model.interactions[0].avg_num_neighbors = Calls(os.mkdir, str(mark))
    torch.save(model, path)
    with pytest.raises(RetemperError) as raised:
        model_file.load(path)
    assert "posix.mkdir" in str(raised.value.got) and not mark.exists()
    about = inspection.inspect(path)
    assert not about.served and "posix.mkdir" in str(about.reason) and not mark.exists()


# ------------------------------------------------------------------ pickles and archives that no writer makes

RECORD = b"cmace.modules.models\nScaleShiftMACE\n)\x81"
STORAGE = b"(Vstorage\nctorch\nFloatStorage\nV0\nVcpu\nI%d\ntQ"
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n("
IRREPS = b"ce3nn.o3._irreps\nIrreps\n(("
ENDLESS = b"cmace.modules.models\nScaleShiftMACE\n)\x81q\x00}V_modules\n}Va\nh\x00ssb."


def tensor(count: int, offset: int, shape: bytes, strides: bytes, content: bytes = bytes(16)) -> bytes:
    """A model with one tensor."""
    pieces = (REBUILD, STORAGE % count, b"I%d\n" % offset, shape, strides, b"I00\nNtR")
    state = b"}(V_buffers\n}Vatomic_numbers\n" + b"".join(pieces) + b"sV_modules\n}ub."
    return packed(RECORD + state, **{"data/0": content})


def nested(inner: bytes, before: bytes, after: bytes, depth: int) -> bytes:
    return packed(before * depth + inner + after * depth + b".")


def archive(*entries: tuple[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as whole:
        for name, content in entries:
            whole.writestr(name, content)
    return file.getvalue()


def linked() -> bytes:
    """The pickle as a symbolic link to a file of the system."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as whole:
        info = zipfile.ZipInfo("model/data.pkl")
        info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        whole.writestr(info, "/etc/passwd")
    return file.getvalue()


def overlapping() -> bytes:
    """Many entries, each of which claims the same bytes."""
    content = bytearray(archive(*((f"model/data/{k}", bytes(1000) if k == 0 else b"") for k in range(500))))
    entry, first = 0, content.index(b"PK\x01\x02")
    at = first
    while content[at : at + 4] == b"PK\x01\x02":
        sizes, name = struct.unpack_from("<2L", content, at + 20), struct.unpack_from("<3H", content, at + 28)
        if entry:
            content[at + 20 : at + 28] = struct.pack("<2L", 1000, 1000)
            content[at + 42 : at + 46] = struct.pack("<L", 0)
        assert sizes[0] in (0, 1000)
        at += 46 + sum(name)
        entry += 1
    return bytes(content)


def script() -> bytes:
    import torch

    file = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), file)
    return file.getvalue()


ODD: dict[str, Callable[[], bytes]] = {
    "nothing": lambda: b"",
    "a page": lambda: b"<!DOCTYPE html><html>not found</html>",
    "a pointer": lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n",
    "a plain pickle": lambda: pickle.dumps({"a": 1}),
    "a state": lambda: saved({"model": {"a": 1}}),
    "a list in place of a model": lambda: saved([1, 2]),
    "a program": script,
    "half an archive": lambda: saved([1] * 1000)[:500],
    "half a pickle": lambda: packed(pickle.dumps([1] * 1000, 2)[:50]),
    "no pickle": lambda: archive(("model/version", b"3")),
    "a pickle twice": lambda: archive(("a/data.pkl", b"N."), ("b/data.pkl", b"N.")),
    "a path upwards": lambda: archive(("../../data.pkl", b"N.")),
    "an absolute path": lambda: archive(("/etc/data.pkl", b"N.")),
    "a link": linked,
    "entries on each other": overlapping,
    "a compressed pickle": lambda: archive(("model/data.pkl", b"N" * 10**8), compression=zipfile.ZIP_DEFLATED),
    "an unknown operation": lambda: packed(b"\xff."),
    "an extension": lambda: packed(b"\x82\x01."),
    "a buffer out of band": lambda: packed(b"\x80\x05\x97."),
    "arguments by name": lambda: packed(b"\x80\x04cmace.modules.models\nMACE\n)}\x92."),
    "a number of a million digits": lambda: packed(b"I" + b"9" * 10**6 + b"\n."),
    "a text of which the length lies": lambda: packed(b"\x8d" + struct.pack("<Q", 2**62) + b"a."),
    "a place in the memory far away": lambda: packed(b"Nr" + struct.pack("<L", 2**32 - 1) + b"h\x01."),
    "a state for a name": lambda: packed(b"cmace.modules.models\nMACE\n}Va\nI1\nsb."),
    "a state for a dictionary": lambda: packed(b"}}V__class__\nI1\nsb."),
    "a state twice": lambda: packed(RECORD + b"}b}b."),
    "a state that is a text": lambda: packed(RECORD + b"Vabc\nb."),
    "a call of a text": lambda: packed(b"Vos.system\n(tR."),
    "items of a model": lambda: packed(RECORD + b"Va\nI1\ns."),
    "a key that nests": lambda: packed(b"}" + b")" + b"\x85" * 300_000 + b"Ns."),
    "a tuple a million deep": lambda: packed(b")" + b"\x85" * 300_000 + b"."),
    "a list a million deep": lambda: packed(b"]" * 300_000 + b"a" * 299_999 + b"."),
    "modules a thousand deep": lambda: nested(RECORD, RECORD + b"}V_modules\n}Va\n", b"ssb", 1000),
    "a module twice in each": lambda: packed(
        RECORD + b"q\x00" + (b"0" + RECORD + b"}V_modules\n}Va\nh\x00sVb\nh\x00ssbq\x00") * 25 + b"."
    ),
    "a module in itself": lambda: packed(ENDLESS),
    "a text doubled sixty times": lambda: packed(
        IRREPS + b"V1x0e\nV1x0e\nttRq\x00" + (b"0" + IRREPS + b"h\x00h\x00ttRq\x00") * 60 + b"."
    ),
    "a long text again and again": lambda: packed(
        b"V" + b"a" * 10**6 + b"\nq\x000" + b"c_codecs\nencode\n(h\x00Vlatin1\ntR" * 10**4 + b"."
    ),
    "another encoding": lambda: packed(b"c_codecs\nencode\n(Va\nVrot13\ntR."),
    "numbers of a strange type": lambda: packed(b"(Vstorage\ncos\nsystem\nV0\nVcpu\nI4\ntQ."),
    "numbers by a text": lambda: packed(b"Vstorage\nQ."),
    "numbers that are not there": lambda: tensor(4, 0, b"(I4\nt", b"(I1\nt", b""),
    "numbers fewer than said": lambda: tensor(10**9, 0, b"(I4\nt", b"(I1\nt"),
    "a tensor beyond its numbers": lambda: tensor(4, 2, b"(I4\nt", b"(I1\nt"),
    "a tensor before its numbers": lambda: tensor(4, -1, b"(I4\nt", b"(I1\nt"),
    "a tensor of a step backwards": lambda: tensor(4, 0, b"(I4\nt", b"(I-1\nt"),
    "a tensor of 10^18 numbers": lambda: tensor(4, 0, b"(I1000000000\nI1000000000\nt", b"(I0\nI0\nt"),
    "a model of nothing": lambda: packed(RECORD + b"."),
}


@pytest.mark.hostile("trust")
@pytest.mark.parametrize("what", ODD)
def test_what_is_no_model_is_refused_soon(what: str, tmp_path: Path) -> None:
    path = tmp_path / "their.model"
    path.write_bytes(ODD[what]())
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    for opener in (model_file.load, inspection.inspect) if what != "a model of nothing" else (model_file.load,):
        with pytest.raises(RetemperError):
            opener(path)
    assert time.process_time() - start < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < GIGABYTE
    assert [file.name for file in tmp_path.iterdir()] == ["their.model"]
