"""Labelling: the right labels, once each, whatever hangs, dies, raises or is killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from conftest import ROOT
from copper_clusters import clusters, direct
from labelling import count, options

from retemper.active import label, lock
from retemper.config.settings import Acquire, Plugin
from retemper.core.errors import RetemperError
from retemper.core.files import read_json
from retemper.data.charge import state_of
from retemper.data.frames import ENERGY, FORCES, STRESS


def test_labels_are_the_oracles_and_made_once(tmp_path: Path) -> None:
    note = tmp_path / "note"
    own = options(f"Traced(log={str(note)!r})")
    frames = clusters()
    labelled, failed = label.label_all(frames, own, tmp_path)
    assert failed == []
    assert [atoms.info["pick"] for atoms in labelled] == [2, 3, 4, 5, 6]
    for atoms in labelled:
        energy, forces = direct(atoms)
        assert atoms.info[ENERGY] == pytest.approx(energy, abs=1e-12)
        np.testing.assert_allclose(atoms.arrays[FORCES], forces, atol=1e-8)
    more = [*clusters(6), frames[0]]
    again, _ = label.label_all(more, own, tmp_path)
    assert [a.info[ENERGY] for a in again[:5]] == [a.info[ENERGY] for a in labelled]
    assert count(note, "begin") == dict.fromkeys(range(2, 8), 1)


def test_periodic_structures_get_stress(tmp_path: Path) -> None:
    cell = bulk("Cu", a=3.7, cubic=True)
    (found,), _ = label.label_all([cell], options("Traced()"), tmp_path)
    work = cell.copy()
    work.calc = EMT()
    np.testing.assert_allclose(found.info[STRESS].reshape(3, 3), work.get_stress(voigt=False), atol=1e-10)


@pytest.mark.parametrize(
    ("how", "kind", "reason"),
    [("raises", "error", "no convergence"), ("dies", "died", "exit code 7"), ("hangs", "timeout", "more than 4 s")],
)
def test_a_failure_costs_one_structure(how: str, kind: str, reason: str, tmp_path: Path) -> None:
    note = tmp_path / "note"
    own = options(f"Traced(log={str(note)!r}, bad=4, how={how!r})", timeout=4.0, workers=1)
    labelled, failed = label.label_all(clusters(), own, tmp_path)
    assert [len(atoms) for atoms in labelled] == [2, 3, 5, 6]
    assert [len(atoms) for atoms in failed] == [4]
    assert kind in failed[0].info["reason"] and reason in failed[0].info["reason"]
    assert count(note, "begin")[4] == own.retries + 1
    label.label_all(clusters(), own, tmp_path)  # never for ever
    assert count(note, "begin") == {2: 1, 3: 1, 4: 2, 5: 1, 6: 1}
    for pid in count(note, "child"):  # what the oracle had started is gone with it
        assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_settings_that_allow_more_try_failures_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a label nor a failure is made again for nothing."""
    program = tmp_path / "program"
    monkeypatch.setenv("UNNAMED_FILE", str(program))

    def attempts(retries: int) -> list[str]:
        own = options("Unnamed()", workers=1, retries=retries)
        label.label_all(clusters(1), own, tmp_path)
        path = tmp_path / label.CACHE / f"{label.key_of(clusters(1)[0], own.oracle)}.json"
        return [attempt["kind"] for attempt in read_json(path)["attempts"]]

    assert attempts(1) == ["error", "error"]  # no such program
    program.write_text("0")
    assert attempts(1) == ["error", "error"]
    assert attempts(2) == ["error", "error", "done"]
    assert attempts(5) == ["error", "error", "done"]


def test_a_longer_time_tries_what_overran_again(tmp_path: Path) -> None:
    own = {"retries": 0, "workers": 1}
    call = "Traced(seconds=4.0)"
    _, (failed,) = label.label_all(clusters(1), options(call, timeout=0.1, **own), tmp_path)
    assert "more than 0.1 s" in failed.info["reason"]
    _, (failed,) = label.label_all(clusters(1), options(call, timeout=0.1, **own), tmp_path)
    record = tmp_path / label.CACHE / f"{failed.info['label']}.json"
    assert len(read_json(record)["attempts"]) == 1
    (_,), _ = label.label_all(clusters(1), options(call, timeout=60.0, **own), tmp_path)
    assert [attempt["kind"] for attempt in read_json(record)["attempts"]] == ["timeout", "done"]


def test_labels_that_are_not_finite_are_failures(tmp_path: Path) -> None:
    _, failed = label.label_all(clusters(1), options("NotFinite()", retries=0), tmp_path)
    assert "not finite" in failed[0].info["reason"]


def test_what_the_oracle_refuses_is_not_tried_again(tmp_path: Path) -> None:
    own = Acquire(oracle=Plugin(name="xtb"), workers=1, retries=5)
    (_,), (failed,) = label.label_all(
        [Atoms("H2", [[0, 0, 0], [0, 0, 0.74]]), bulk("NaCl", "rocksalt", 5.6)], own, tmp_path
    )
    record = read_json(tmp_path / label.CACHE / f"{failed.info['label']}.json")
    assert [attempt["kind"] for attempt in record["attempts"]] == ["refused"]
    assert "8.5 A" in failed.info["reason"]


SCRIPT = """
import sys; sys.path[:0] = {paths!r}
from pathlib import Path
if __name__ == "__main__":
    from copper_clusters import clusters
    from labelling import options
    from retemper.active import label
    own = options("Traced(log={note!r}, seconds=0.3)", retries=0)
    label.label_all(clusters(12), own, Path({root!r}))
"""


@pytest.mark.parametrize("kills", [1, pytest.param(5, marks=pytest.mark.slow)])
def test_kills_change_nothing(kills: int, tmp_path: Path) -> None:
    """Killed at random: every structure ends with its label, none was labelled twice."""
    note, script = tmp_path / "note", tmp_path / "script.py"
    paths = [str(ROOT / "platform"), str(ROOT / "tests"), str(ROOT / "tests/active")]
    script.write_text(SCRIPT.format(paths=paths, note=str(note), root=str(tmp_path)))
    rng = random.Random(0)
    for _ in range(kills):
        done = len(count(note, "end"))
        child = subprocess.Popen([sys.executable, str(script)])
        end = time.monotonic() + 60
        while len(count(note, "end")) <= done + rng.randint(0, 1) and time.monotonic() < end and child.poll() is None:
            time.sleep(0.02)
        time.sleep(rng.random() * 0.3)
        child.send_signal(signal.SIGKILL)
        child.wait()
        time.sleep(1.5)  # its workers see that it is gone
    subprocess.run([sys.executable, str(script)], check=True)
    labelled, failed = label.label_all(
        clusters(12), options(f"Traced(log={str(note)!r}, seconds=0.3)", retries=0), tmp_path
    )
    assert failed == []
    for atoms in labelled:
        assert atoms.info[ENERGY] == pytest.approx(direct(atoms)[0], abs=1e-12)
    kept = {len(atoms) for atoms in labelled}
    assert kept == set(range(2, 14))
    records = [read_json(path) for path in (tmp_path / label.CACHE).glob("*.json")]
    done = [attempt["kind"] for record in records for attempt in record["attempts"] if attempt["kind"] == "done"]
    assert len(done) == 12


# ------------------------------------------------------------------ level of theory, charge, spin


def test_another_level_of_theory_is_refused() -> None:
    assert label.require_level(Plugin(name="xtb"), "gfn2-xTB") == "GFN2-xTB"
    with pytest.raises(RetemperError, match="another level of theory"):
        label.require_level(Plugin(name="xtb", options={"method": "GFN1-xTB"}), "GFN2-xTB")


def test_labels_that_are_not_reproduced_are_refused(tmp_path: Path) -> None:
    train = []
    for atoms in clusters(4):
        energy, forces = direct(atoms)
        train.append(label.put(atoms.copy(), energy, forces, None))
    found = label.verify(train, options("Traced()"), tmp_path)
    assert found.number == 2 and found.energy < 1e-9 and found.forces < 1e-7
    with pytest.raises(RetemperError, match="0.1 eV/atom"):
        label.verify(train, options("Shifted()"), tmp_path)
    with pytest.raises(RetemperError, match="cannot label"):
        label.verify(train, options("Traced(bad=2, how='raises')"), tmp_path)


def test_every_check_asks_the_oracle_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An oracle that changed is noticed, one that was mended is believed; labels from before stay."""
    (train,) = clusters(1)
    label.put(train, *direct(train), None)
    program = tmp_path / "program"
    monkeypatch.setenv("UNNAMED_FILE", str(program))
    own = options("Unnamed()", verify=1, workers=1, retries=0)
    with pytest.raises(RetemperError, match="cannot label"):
        label.verify([train], own, tmp_path)
    program.write_text("0")
    assert label.verify([train], own, tmp_path).energy < 1e-9
    label.label_all(clusters(1), own, tmp_path)
    program.write_text("5")
    with pytest.raises(RetemperError, match="does not reproduce"):
        label.verify([train], own, tmp_path)
    program.write_text("0")
    assert label.verify([train], own, tmp_path).energy < 1e-9
    assert len(list((tmp_path / label.CACHE).glob("*.json"))) == 1


def test_a_check_that_was_killed_goes_on(tmp_path: Path) -> None:
    """What it had labelled is not labelled again; the next check is another."""
    frames, note = clusters(1), tmp_path / "note"
    train = [label.put(frames[0].copy(), *direct(frames[0]), None)]
    own = options(f"Traced(log={str(note)!r})", verify=1, workers=1)
    label.label_all(frames, own, tmp_path, label.CHECKED)  # as far as the killed one came
    label.verify(train, own, tmp_path)
    assert count(note, "begin") == {2: 1}
    label.verify(train, own, tmp_path)
    assert count(note, "begin") == {2: 2}


def test_a_charge_that_is_missing_is_noticed(tmp_path: Path) -> None:
    """Chloride labelled as neutral chlorine: the oracle's label is another one."""
    from retemper.systems.xtb import calculator

    ion = Atoms("CH3ClCl", [[0, 0, 0], [1.03, 0, 0], [-0.51, 0.89, 0], [-0.51, -0.89, 0], [0, 0, 2.3], [0, 0, -2.3]])
    work = ion.copy()
    work.calc = calculator(1, charge=-1)
    label.put(ion, work.get_potential_energy(), work.get_forces(), None)
    own = Acquire(oracle=Plugin(name="xtb"), workers=1, verify=1)
    with pytest.raises(RetemperError, match="does not reproduce"):
        label.verify([ion], own, tmp_path)
    ion.info["charge"] = -1
    assert label.verify([ion], own, tmp_path).energy < 1e-6


def test_charge_and_spin() -> None:
    assert state_of(Atoms("OH2")).multiplicity == 1
    assert state_of(Atoms("OH")).multiplicity == 2
    assert state_of(Atoms("OH", info={"charge": -1})).multiplicity == 1
    assert state_of(Atoms("O2", info={"spin": 3})).multiplicity == 3
    with pytest.raises(RetemperError, match="multiplicity of 1, 3"):
        state_of(Atoms("OH2", info={"spin": 2}))


# ------------------------------------------------------------------ one at a time


def test_a_second_campaign_is_refused_and_a_killed_one_leaves_nothing(tmp_path: Path) -> None:
    code = f"""
import sys, time; sys.path.insert(0, {str(ROOT / "platform")!r})
from pathlib import Path
from retemper.active.lock import alone
with alone(Path({str(tmp_path)!r})):
    print("held", flush=True); time.sleep(60)
"""
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None and child.stdout.readline() == "held\n"
    with pytest.raises(RetemperError, match=f"process {child.pid}, since"), lock.alone(tmp_path):
        pass
    child.kill()
    child.wait()
    with lock.alone(tmp_path):
        assert str(os.getpid()) in (tmp_path / lock.LOCK).with_suffix(".holder").read_text()


# ------------------------------------------------------------------ on a cluster


@pytest.mark.slow
def test_labels_on_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same labels; an actor that dies and one that hangs cost their structure."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "platform"), str(ROOT / "tests")]))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    for how, kind in (("dies", "died"), ("hangs", "timeout")):
        note = tmp_path / how
        call = f"Traced(log={str(note)!r}, bad=3, how={how!r})"
        own = options(call, ray=True, workers=1, retries=0, timeout=30.0)
        labelled, failed = label.label_all(clusters(3), own, tmp_path)
        assert [len(atoms) for atoms in labelled] == [2, 4]
        assert labelled[0].info[ENERGY] == pytest.approx(direct(labelled[0])[0], abs=1e-12)
        assert [len(atoms) for atoms in failed] == [3] and kind in failed[0].info["reason"]
