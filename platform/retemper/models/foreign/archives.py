"""Files that `torch.save` writes, read without torch: a zip of one pickle and its numbers, or the form before 2020."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Mapping

import numpy as np

from retemper.core.errors import RetemperError
from retemper.models.foreign import pickles
from retemper.models.foreign.values import Name, PickleError, Storage, Tensor

ENTRY = b"PK\x01\x02"  # how each entry of a zip's list begins
MOST_ENTRIES = 100_000  # a model has some 100
MAGIC = 0x1950A86A20F9469CFC6C  # of the form before 2020
LEGACY = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
EXPECTED = "a model as mace_run_train writes it (*.model), or one that retemper wrote"


class Archive:
    """The value in a file, and the numbers of its tensors."""

    def __init__(self, value: object, names: set[Name], records: Mapping[str, bytes | memoryview]):
        self.value, self.names = value, names
        self._records = records
        self.size = sum(map(len, records.values()))  # bytes of numbers

    def numbers(self, tensor: Tensor) -> np.ndarray:
        """A copy of the tensor's numbers.

        Raises
        ------
        PickleError
            The file lacks them, or has another number of them.
        """
        storage = tensor.storage
        dtype = np.dtype(storage.dtype)
        content = self._records.get(storage.key)
        if content is None or len(content) != storage.count * dtype.itemsize:
            raise PickleError(f"its numbers {storage.key[:50]!r} are not {storage.count} of {dtype}")
        flat = np.frombuffer(content, dtype)[tensor.offset :]
        strides = tuple(step * dtype.itemsize for step in tensor.strides)
        return np.array(np.lib.stride_tricks.as_strided(flat, tensor.shape, strides, writeable=False))


def read(content: bytes, origin: str) -> Archive:
    """What is in a file.

    Raises
    ------
    RetemperError
        A file of another kind, a damaged one, or one that holds what no model needs.
    """
    try:
        if content[:2] == b"PK":
            return _zip(content, origin)
        if content.startswith(LEGACY):
            return _legacy(content)
    except PickleError as error:
        raise refused(origin, error) from error
    raise RetemperError(
        f"{origin} is no model file and was not opened.",
        expected=EXPECTED,
        got=_looks_like(content),
        fix="fetch the file again; git lfs pull, where git keeps it elsewhere",
    )


def refused(origin: str, error: PickleError) -> RetemperError:
    """For who opened the file, what a `PickleError` says of it."""
    return RetemperError(
        f"{origin} was not opened: {error}.", expected=EXPECTED, fix="fetch the file again, from who made it"
    )


def _looks_like(content: bytes) -> str:
    head = content[:200].lstrip().lower()
    if not content:
        return "an empty file"
    if head.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS to the file"
    if head.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a page of a web site"
    if head.startswith(b"\x80"):
        return "a pickle that torch did not write"
    return "a file of another kind, or cut off"


def _zip(content: bytes, origin: str) -> Archive:
    if content.count(ENTRY) > MOST_ENTRIES:
        raise PickleError(f"it has more than {MOST_ENTRIES} parts")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if any(name.partition("/")[2].startswith("code/") for name in archive.namelist()):
                raise RetemperError(
                    f"{origin} is a program (TorchScript) and was not opened.",
                    expected=EXPECTED,
                    got="a compiled model, as for LAMMPS",
                    fix="give the *.model file that it was compiled from",
                )
            entries = _entries(archive, len(content))
            pickle = [name for name in entries if name.endswith("/data.pkl") and name.count("/") == 1]
            if len(pickle) != 1:
                raise PickleError(f"it holds {len(pickle)} pickles that torch would have written")
            prefix = pickle[0].partition("/")[0]
            if entries[pickle[0]].file_size > pickles.LONGEST:
                raise PickleError(f"its pickle is longer than {pickles.LONGEST} bytes")
            order = entries.get(f"{prefix}/byteorder")
            if order is not None and archive.read(order)[:10] != b"little":
                raise PickleError("it was written on a machine with the other byte order")
            value, names = pickles.read(archive.read(entries[pickle[0]]))
            start = f"{prefix}/data/"
            records = {
                name.removeprefix(start): archive.read(info) for name, info in entries.items() if name.startswith(start)
            }
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError, OverflowError, struct.error) as error:
        raise PickleError(f"it is damaged, or cut off ({str(error)[:100]})") from error
    return Archive(value, names, records)


def _entries(archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """The parts of a zip by name: each once, stored as it is, and together no larger than the file."""
    entries: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        if info.filename in entries:
            raise PickleError(f"it holds {info.filename[:100]!r} twice")
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            raise PickleError(f"{info.filename[:100]!r} is compressed or encrypted, which torch does not do")
        entries[info.filename] = info
    if sum(info.file_size for info in entries.values()) > size:
        raise PickleError("its parts are larger than the file")
    return entries


def _legacy(content: bytes) -> Archive:
    """Four pickles (a number, a version, the machine, the model), the keys of the storages, and their numbers."""
    stream = io.BytesIO(content)
    magic, _ = pickles.read(stream)
    version, _ = pickles.read(stream)
    machine, _ = pickles.read(stream)
    if magic != MAGIC or version != 1001 or not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise PickleError("it is of a form that torch did not write, or of a machine with the other byte order")
    storages: dict[str, Storage] = {}
    value, names = pickles.read(stream, storages)
    keys, _ = pickles.read(stream)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or sorted(keys) != sorted(storages):
        raise PickleError("its numbers are not those that it refers to")
    records: dict[str, bytes | memoryview] = {}
    rest = memoryview(content)
    at = stream.tell()
    for key in keys:
        length = storages[key].count * np.dtype(storages[key].dtype).itemsize
        if int.from_bytes(rest[at : at + 8], "little") != storages[key].count or at + 8 + length > len(content):
            raise PickleError("it is damaged, or cut off")
        records[key] = rest[at + 8 : at + 8 + length]
        at += 8 + length
    return Archive(value, names, records)
