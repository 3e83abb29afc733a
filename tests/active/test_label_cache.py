"""Which labels are kept and found again: by oracle, setting, weights and structure; spoilt ones never."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from copper_clusters import clusters
from labelling import count, options, oracle

from retemper.active import label
from retemper.config.settings import Plugin
from retemper.core.files import read_json, write_json
from retemper.data.frames import ENERGY, FORCES


def test_another_setting_is_another_label(tmp_path: Path) -> None:
    atoms = clusters(1)[0]
    keys = {label.key_of(atoms, oracle(call)) for call in ("Traced()", "Traced(seconds=0.1)")}
    charged = atoms.copy()
    charged.info["charge"] = 1
    keys.add(label.key_of(charged, oracle("Traced()")))
    assert len(keys) == 3


def test_labels_are_found_again_by_their_keys() -> None:
    """Keys as they were: a label that somebody paid for stays valid. Hashes of the options as they are written."""
    options = {"level_of_theory": "PBE", "simple_input": "PBE def2-SVP", "command": "no-such-program"}
    ion = Atoms("OH", [[0, 0, 0], [0, 0, 0.97]], info={"charge": -1})
    assert label.key_of(ion, Plugin(name="orca", options=options)) == "e8085e58c6dee984"
    ion.info = {"total_charge": -1.0}
    assert label.key_of(ion, Plugin(name="orca", options=options)) == "e8085e58c6dee984"


def test_what_an_oracle_names_belongs_to_a_label(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another content of a program, a model, a basis or a pseudopotential is another label; of another element not."""
    named = {name: tmp_path / name for name in ("run", "model", "basis", "O.upf", "Na.upf", "08_O_default")}
    named["POTCAR"] = tmp_path / "potpaw_PBE/O/POTCAR"
    named["POTCAR"].parent.mkdir(parents=True)
    for path in named.values():
        path.write_text("0")
    monkeypatch.setenv("VASP_PP_PATH", str(tmp_path))
    base = {"level_of_theory": "x", "command": f"sh {named['run']}"}
    pseudo = {"pseudo_dir": str(tmp_path), "pseudopotentials": {"O": "O.upf", "Na": "Na.upf"}}
    oracles = {
        "ase": ({"calculator": f"faulty:Elsewhere(file={str(named['model'])!r})", "level_of_theory": "x"}, ["model"]),
        "espresso": (base | pseudo, ["run", "O.upf"]),
        "aims": (base | {"species_dir": str(tmp_path)}, ["run", "08_O_default"]),
        "cp2k": (base | {"parameters": {"basis_set_file": str(named["basis"])}}, ["run", "basis"]),
        "orca": (base | {"simple_input": "PBE", "blocks": f'%basis GTOName "{named["basis"]}" end'}, ["run", "basis"]),
        "vasp": (base | {"parameters": {"xc": "PBE"}}, ["run", "POTCAR"]),
        "pyscf": ({"basis": str(named["basis"])}, ["basis"]),
    }
    atoms = Atoms("O2", [[0, 0, 0], [0, 0, 1.2]], cell=[9.0] * 3, pbc=True)
    for name, (own, files) in oracles.items():
        for file, path in named.items():
            before = label.key_of(atoms, Plugin(name=name, options=own))
            path.write_text(path.read_text() + "1")
            after = label.key_of(atoms, Plugin(name=name, options=own))
            assert (before != after) == (file in files), (name, file)


def test_another_model_at_the_same_path_labels_anew(tmp_path: Path) -> None:
    model = tmp_path / "model"
    own = options(f"Elsewhere(file={str(model)!r})", workers=1)
    energies = []
    for shift in ("0", "5", "0"):
        model.write_text(shift)
        (found,), _ = label.label_all(clusters(1), own, tmp_path)
        energies.append(found.info[ENERGY])
    assert np.diff(energies) == pytest.approx([5, -5])
    assert len(list((tmp_path / label.CACHE).glob("*.json"))) == 2  # the third is the first


def test_other_weights_of_a_foundation_label_anew(
    tiny_model: Path, tiny_multihead: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import run_files

    keys = set()
    for number, model in enumerate((tiny_model, tiny_multihead, tiny_model)):
        run_files.write_project(tmp_path / str(number), model)
        monkeypatch.setenv("RETEMPER_ROOT", str(tmp_path / str(number)))
        keys.add(label.key_of(clusters(1)[0], Plugin(name="foundation", options={"name": "tiny"})))
    assert len(keys) == 2


def turned(path: Path) -> None:
    """One digit of the energy."""
    text = path.read_text()
    place = text.index('"energy": ') + len('"energy": ') + 3
    path.write_text(text[:place] + str((int(text[place]) + 1) % 10) + text[place + 1 :])


SPOILT = {
    "a digit": turned,
    "cut off": lambda path: path.write_text(path.read_text()[:40]),
    "emptied": lambda path: path.write_text(""),
    "another's": lambda path: None,  # see below
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
}


@pytest.mark.hostile("caches")
def test_spoilt_labels_are_made_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each label spoilt in its own way: the labels are those of before, and each is said."""
    own, frames = options("Traced()"), clusters(1 + len(SPOILT))
    before, _ = label.label_all(frames, own, tmp_path)
    paths = [tmp_path / label.CACHE / f"{label.key_of(atoms, own.oracle)}.json" for atoms in frames]
    paths[list(SPOILT).index("another's")].write_bytes(paths[0].read_bytes())
    for path, spoil in zip(paths, SPOILT.values(), strict=False):
        spoil(path)
    capsys.readouterr()
    after, failed = label.label_all(frames, own, tmp_path)
    assert failed == []
    assert [atoms.info[ENERGY] for atoms in after] == [atoms.info[ENERGY] for atoms in before]
    assert all(np.array_equal(a.arrays[FORCES], b.arrays[FORCES]) for a, b in zip(after, before, strict=True))
    assert capsys.readouterr().out.count("put aside as") == len(SPOILT)


@pytest.mark.hostile("caches")
def test_labels_of_an_earlier_version_are_kept(tmp_path: Path) -> None:
    """Without a checksum, but of this structure: they may have taken days. Those of another are not taken."""
    note = tmp_path / "note"
    own, frames = options(f"Traced(log={str(note)!r})"), clusters()
    label.label_all(frames, own, tmp_path)
    paths = [tmp_path / label.CACHE / f"{label.key_of(atoms, own.oracle)}.json" for atoms in frames]
    for path in paths:
        content = read_json(path)
        del content["seal"]
        write_json(path, content)
    paths[0].write_bytes(paths[1].read_bytes())
    label.label_all(frames, own, tmp_path)
    assert sum(count(note, "begin").values()) == len(frames) + 1
