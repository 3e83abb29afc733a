"""Tasks: kept, resumed, spread over processes; calculators that fail or die."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from faulty import slow

from retemper.core.errors import RetemperError
from retemper.evaluation.robustness.metrics import physics
from retemper.models import evaluators
from retemper.simulation import dynamics, engine, relaxation
from retemper.simulation.points import single_points

EMT = evaluators.describe("ase:ase.calculators.emt:EMT()")


def task(note: Path, k: int = 0, **options: Any) -> engine.Task:
    atoms = Atoms("Cu2", [[0, 0, 0], [2.0 + 0.1 * k, 0, 0]])
    return engine.Task(slow, EMT, {"atoms": atoms, "seconds": 0.05, "note": str(note)}, f"pair {k}", **options)


def test_a_result_is_computed_once(tmp_path: Path) -> None:
    note, cache = tmp_path / "note", tmp_path / "cache"
    first = engine.run([task(note), task(note, 1), task(note)], workers=1, cache=cache)
    again = engine.run([task(note, 1)], workers=1, cache=cache)
    assert len(note.read_text().splitlines()) == 2
    assert first[0] == first[2] != first[1] == again[0]


def test_what_decides_the_result_decides_the_key(tmp_path: Path) -> None:
    one = task(tmp_path / "a")
    assert one.key == task(tmp_path / "a", weight=9.0).key
    others = [task(tmp_path / "b"), task(tmp_path / "a", 1)]
    others.append(engine.Task(slow, evaluators.describe("ase:planted:Pairwise()"), one.arguments, "x"))
    assert len({one.key, *(other.key for other in others)}) == 4


def test_a_broken_store_is_computed_again(tmp_path: Path) -> None:
    note, cache = tmp_path / "note", tmp_path / "cache"
    engine.run([task(note)], workers=1, cache=cache)
    stored = next((cache / "tasks").glob("*.result"))
    stored.write_bytes(stored.read_bytes()[:20])
    result = engine.run([task(note)], workers=1, cache=cache)[0]
    assert b"energy" in stored.read_bytes() and result["energy"] != 0
    assert len(note.read_text().splitlines()) == 2


def test_processes_share_the_work(tmp_path: Path) -> None:
    note = tmp_path / "note"
    tasks = [task(note, k) for k in range(8)]
    spread = engine.run(tasks, workers=2, cache=tmp_path / "one")
    assert os.getpid() not in {int(line) for line in note.read_text().splitlines()}
    assert spread == engine.run(tasks, workers=1, cache=tmp_path / "two")


def test_a_failure_is_a_result_and_is_tried_again(tmp_path: Path) -> None:
    broken = engine.Task(slow, EMT, {"atoms": molecule("H2O"), "seconds": "x", "note": "y"}, "broken")
    results = engine.run([broken, task(tmp_path / "note")], workers=1, cache=tmp_path / "cache")
    assert isinstance(results[0], engine.Failure) and "TypeError" in results[0].reason
    assert not isinstance(results[1], engine.Failure)
    assert len(list((tmp_path / "cache/tasks").iterdir())) == 1


def test_a_process_that_dies_takes_its_task_alone(tmp_path: Path) -> None:
    deadly = evaluators.describe("ase:planted:Deadly()")
    frames = [Atoms("Cu2", [[0, 0, 0], [2.2, 0, 0]])]
    tasks = [engine.Task(single_points, deadly, {"frames": frames}, "deadly", 9.0)]
    tasks += [task(tmp_path / "note", k) for k in range(3)]
    results = engine.run(tasks, workers=2, cache=tmp_path / "cache")
    assert isinstance(results[0], engine.Failure) and "died" in results[0].reason
    assert not any(isinstance(result, engine.Failure) for result in results[1:])


def test_a_measurement_of_time_is_never_kept(tmp_path: Path) -> None:
    timed = engine.Task(single_points, EMT, {"frames": [Atoms("Cu")]}, "cost", alone=True)
    assert engine.run([timed], cache=tmp_path)[0].reasons == [""]
    assert not (tmp_path / "tasks").exists()


def test_a_calculator_that_raises_gives_its_reason(tmp_path: Path) -> None:
    found = EMT.open()([Atoms("Cu2", [[0, 0, 0], [2.2, 0, 0]]), molecule("CH3Cl"), Atoms("Cu", [[float("nan"), 0, 0]])])
    assert found.reasons[0] == "" and "Cl" in found.reasons[1] and "not finite" in found.reasons[2]


@pytest.mark.parametrize(
    "spec",
    ["ase:no.such.module:X()", "ase:ase.calculators.emt:Missing()", "ase:ase.calculators.emt", "ase:os:getcwd(1)"],
)
def test_a_calculator_that_cannot_be_made(spec: str) -> None:
    with pytest.raises(RetemperError, match="cannot be made"):
        evaluators.describe(spec)


NO_CALCULATORS = {  # what is named, and what the answer says
    "os:system(command='touch {mark}')": "is no calculator",
    "os:popen(cmd='touch {mark}')": "is no calculator",
    "subprocess:Popen(args=['touch', '{mark}'])": "is no calculator",
    "subprocess:run(args=['touch', '{mark}'])": "is no calculator",
    "builtins:open(file='{mark}', mode='w')": "is no calculator",
    "builtins:exec(source='1')": "is no calculator",
    "pathlib:Path()": "is no calculator",
    "ase.io:write(filename='{mark}', images=[])": "is no calculator",
    "ase.calculators.emt:parameters": "is no calculator",
    "makers:unsaid(mark='{mark}')": "is no calculator",
    "makers:wrong()": "is no calculator",
    "ase.calculators.emt:EMT(asap_cutoff=__import__('os').system('touch {mark}'))": "cannot be made",
    "ase.calculators.emt:EMT(**{{'asap_cutoff': True}})": "cannot be made",
    "ase.calculators.emt:EMT(True)": "cannot be made",
    "ase.calculators.emt:EMT.__init__(self=1)": "cannot be made",
    "os.path:os.system(command='touch {mark}')": "cannot be made",
    "makers:raising()": "cannot be made: no licence",
}
MAKERS = """
from typing import Union
from pathlib import Path
from ase.calculators.emt import EMT
def unsaid(mark): Path(mark).touch(); return EMT()
def said() -> EMT: return EMT()
def either() -> Union[EMT, dict]: return EMT()
def wrong() -> EMT: return {}
def raising() -> EMT: raise RuntimeError("no licence")
"""


@pytest.mark.hostile("trust")
@pytest.mark.parametrize("call", NO_CALCULATORS)
def test_nothing_but_a_calculator_is_called(call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a command, nor a function that does not say that it makes calculators, nor an expression."""
    (tmp_path / "makers.py").write_text(MAKERS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "makers", raising=False)
    with pytest.raises(RetemperError, match=NO_CALCULATORS[call]):
        evaluators.describe("ase:" + call.format(mark=tmp_path / "mark"))
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("call", ["makers:said()", "makers:either", "retemper.systems.xtb:calculator(charge=-1)"])
def test_a_function_that_says_that_it_makes_calculators(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "makers.py").write_text(MAKERS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "makers", raising=False)
    assert evaluators.describe("ase:" + call).kind == "ase"


@pytest.mark.hostile("caches")
@pytest.mark.parametrize("far", [1e4, 1e6, 1e9, 1e12, -1e300])
@pytest.mark.parametrize("periodic", [False, True])
def test_atoms_out_of_reach_have_a_reason(far: float, periodic: bool, tiny_model: Path) -> None:
    """At once, where a list of neighbours would take all memory or minutes."""
    atoms = Atoms("OH", [[0, 0, 0], [far, 0, 0]], cell=[9, 9, 9], pbc=periodic)
    found = evaluators.describe(str(tiny_model)).open()([atoms, Atoms("OH", [[0, 0, 0], [1, 0, 0]])])
    assert "out of reach" in found.reasons[0] and found.reasons[1] == "" and np.isnan(found.energy[0])


@pytest.mark.hostile("stress")
def test_a_cluster_that_does_not_answer_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    start = time.monotonic()
    with pytest.raises(RetemperError, match="No Ray cluster answers at 127.0.0.1:1"):
        engine.run([task(tmp_path / "note")], cache=tmp_path / "cache", ray=True)
    assert time.monotonic() - start < 60


# ------------------------------------------------------------------ what a calculator rests on


def energy_of(spec: str, cache: Path) -> float:
    """As a metric gets it: through the store of results."""
    frames = [Atoms("Cu2", [[0, 0, 0], [2.2, 0, 0]])]
    points = engine.Task(single_points, evaluators.describe(spec), {"frames": frames}, "x")
    return float(engine.run([points], workers=1, cache=cache)[0].energy[0])


def test_another_model_at_the_same_path_is_computed(tmp_path: Path) -> None:
    model = tmp_path / "model"
    found = []
    for shift in ("0", "5", "0"):
        model.write_text(shift)
        found.append(energy_of(f"ase:faulty:Elsewhere(file={str(model)!r})", tmp_path / "cache"))
    assert np.diff(found) == pytest.approx([5, -5])
    assert len(list((tmp_path / "cache/tasks").iterdir())) == 2  # the third is the first


UPGRADED = """
import sys
sys.path[:0] = [{site!r}, {tests!r}]
from pathlib import Path
from simulation.test_engine import energy_of
print(energy_of("ase:potential:Potential()", Path({cache!r})))
"""
POTENTIAL = """
from pathlib import Path
from ase.calculators.emt import EMT
class Potential(EMT):
    def calculate(self, *arguments, **keywords):
        super().calculate(*arguments, **keywords)
        self.results["energy"] += float(Path(__file__).with_name("table").read_text())
"""


def test_an_upgraded_package_is_computed(tmp_path: Path) -> None:
    """The class stays as it is; what it reads in its package changes with the version."""
    site = tmp_path / "site"
    (site / "potential").mkdir(parents=True)
    (site / "potential/__init__.py").write_text(POTENTIAL)
    found = []
    for version, shift in (("1.0", "0"), ("2.0", "5"), ("2.0", "9")):
        (site / "potential/table").write_text(shift)
        for old in site.glob("*.dist-info"):
            shutil.rmtree(old)
        about = site / f"potential-{version}.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: potential\nVersion: {version}\n")
        (about / "top_level.txt").write_text("potential\n")
        script = UPGRADED.format(site=str(site), tests=str(Path(__file__).parents[1]), cache=str(tmp_path / "cache"))
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        found.append(float(done.stdout.split()[-1]))
    assert np.diff(found) == pytest.approx([5, 0])  # without a new version it is the same calculator


def test_what_a_calculator_writes_is_not_part_of_it(tmp_path: Path) -> None:
    log = tmp_path / "log"
    names = set()
    for text in ("", "something"):
        log.write_text(text)
        names.add(evaluators.describe(f"ase:faulty:Traced(log={str(log)!r})").identity)
    assert len(names) == 1


def test_files_that_wildcards_name_belong_to_a_calculator(tmp_path: Path) -> None:
    """MACE's own calculator takes such paths; the results of one model are not those of the next."""
    names = set()
    for text in ("one", "two"):
        (tmp_path / "a.model").write_text(text)
        names.add(evaluators.describe(f"ase:faulty:Traced(how='{tmp_path}/*.model')").identity)
    assert len(names) == 2


def test_what_is_kept_comes_back_as_what_it_was(tmp_path: Path) -> None:
    """Trajectories, lists of minima and checks by name, out of the cache as out of the function."""
    frames = [Atoms("Cu2", [[0, 0, 0], [2.3 + 0.1 * k, 0, 0]], cell=[6.0] * 3, pbc=True) for k in range(2)]
    how = {"ensemble": "nve", "steps": 4, "timestep": 1.0, "temperature": 100.0, "stride": 2}
    where = {"pressure": 0.0, "rounds": 1, "steps": 2, "fmax": 0.05, "rattle": 0.1, "seed": 0}
    tasks = [
        engine.Task(dynamics.trajectory, EMT, {"start": frames[0], **how}, "md"),
        engine.Task(relaxation.search, EMT, {"starts": frames, **where}, "search"),
        engine.Task(physics.symmetry, EMT, {"atoms": frames[0], "seed": 0}, "symmetry"),
        engine.Task(single_points, EMT, {"frames": frames}, "points"),
    ]
    made = engine.run(tasks, workers=1, cache=tmp_path)
    assert not any(isinstance(result, engine.Failure) for result in made)
    kept = engine.run(tasks, workers=1, cache=tmp_path)
    assert [type(result) for result in kept] == [dynamics.Trajectory, list, physics.Symmetry, evaluators.Evaluated]
    assert kept[0] is not made[0] and repr(kept) == repr(made)
