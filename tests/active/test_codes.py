"""Oracles whose program is not here, by the inputs they write and outputs they read.

A program that stands in keeps its input and prints what the code would print, in the code's format.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ase.test
import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.io import read
from oracle_programs import WATER, label, program

from retemper.active import plugins, workers
from retemper.config.settings import Plugin
from retemper.core.errors import RetemperError
from retemper.data.charge import state_of

ORCA_OUT = """
Number of atoms                             ...      3

---------------------------------
CARTESIAN COORDINATES (ANGSTROEM)
---------------------------------
  O      0.000000    0.000000    0.000000
  H      0.958400    0.000000    0.000000
  H     -0.240000    0.927900    0.000000

-------
TIMINGS
-------
-------------------------   --------------------
FINAL SINGLE POINT ENERGY       {energy}
-------------------------   --------------------
                             ****ORCA TERMINATED NORMALLY****
"""
ORCA_GRADIENT = """#
# Number of atoms
#
 3
#
# The current total energy in Eh
#
    -76.322436201230
#
# The current gradient in Eh/bohr
#
       0.010000000000
      -0.020000000000
       0.000000000000
      -0.010000000000
       0.005000000000
       0.000000000000
       0.000000000000
       0.015000000000
       0.000000000000
#
# The atomic numbers and current coordinates in Bohr
#
   8     0.0000000    0.0000000    0.0000000
   1     1.8111136    0.0000000    0.0000000
   1    -0.4535343    1.7534769    0.0000000
"""


def test_orca(tmp_path: Path) -> None:
    body = f"shutil.copy(sys.argv[1], keep); print({ORCA_OUT.format(energy='-76.322436201230')!r})\n"
    body += f"Path('orca.engrad').write_text({ORCA_GRADIENT!r})"
    ion = WATER.copy()
    ion.info["charge"] = 1
    options = {"level_of_theory": "x", "simple_input": "wB97X-D3 def2-SVP TightSCF"}
    options["command"] = program(tmp_path / "orca.py", body)
    answer = label("orca", options, ion, tmp_path / "work")
    assert answer.label is not None, answer.reason
    found = answer.label
    assert found.energy == pytest.approx(-76.322436201230 * units.Hartree)
    assert found.forces[0] == pytest.approx(np.array([-0.01, 0.02, 0.0]) * units.Hartree / units.Bohr)
    lines = (tmp_path / "orca.inp").read_text().splitlines()
    assert lines[0].split() == ["!", "wB97X-D3", "def2-SVP", "TightSCF", "EnGrad"]
    assert "*xyz 1 2" in lines[2]  # a cation of water is a doublet
    body = body.replace("-76.322436201230\\n", "-76.3 (Wavefunction not fully converged!)\\n")
    options["command"] = program(tmp_path / "orca.py", body)
    assert "not finite" in label("orca", options, ion, tmp_path / "work").reason


def test_aims(tmp_path: Path) -> None:
    """Output: the single point of a water molecule that comes with ASE."""
    sample = Path(ase.test.__file__).parent / "testdata/aims/singlepoint.out"
    species = tmp_path / "species"
    species.mkdir()
    for name in ("08_O", "01_H"):
        (species / f"{name}_default").write_text(f"  species        {name[3:]}\n")
    body = f"shutil.copy('control.in', keep); shutil.copy('geometry.in', keep); print(open({str(sample)!r}).read())"
    options = {"level_of_theory": "x", "species_dir": str(species), "parameters": {"xc": "pbe"}}
    options["command"] = program(tmp_path / "aims.py", body)
    found = label("aims", options, WATER, tmp_path / "work").label
    assert found is not None
    assert found.forces[0] == pytest.approx([-4.78299830661005, -6.16960341437854, 0.0])
    assert found.energy == pytest.approx(read(sample, format="aims-output").get_potential_energy())
    control = (tmp_path / "control.in").read_text()
    assert "compute_forces" in control and "xc" in control and "species        O" in control
    np.testing.assert_allclose(read(tmp_path / "geometry.in").positions, WATER.positions, atol=1e-8)


ESPRESSO_OUT = """
     Program PWSCF v.7.2 starts on 23Nov2026 at 10: 0: 0

     bravais-lattice index     =            0
     lattice parameter (alat)  =      18.8973  a.u.
     unit-cell volume          =    6748.3344 (a.u.)^3
     number of atoms/cell      =            3
     number of atomic types    =            2

     celldm(1)=  18.897260  celldm(2)=   0.000000  celldm(3)=   0.000000

     crystal axes: (cart. coord. in units of alat)
               a(1) = (   1.000000   0.000000   0.000000 )
               a(2) = (   0.000000   1.000000   0.000000 )
               a(3) = (   0.000000   0.000000   1.000000 )

   Cartesian axes

     site n.     atom                  positions (alat units)
         1           O   tau(   1) = (   0.0000000   0.0000000   0.0000000  )
         2           H   tau(   2) = (   0.0958400   0.0000000   0.0000000  )
         3           H   tau(   3) = (  -0.0240000   0.0927900   0.0000000  )

     number of k points=     1
                       cart. coord. in units 2pi/alat
        k(    1) = (   0.0000000   0.0000000   0.0000000), wk =   2.0000000

     End of self-consistent calculation

          k = 0.0000 0.0000 0.0000 (  9000 PWs)   bands (ev):

   -25.0000 -13.0000  -9.0000  -7.0000

     highest occupied level (ev):    -7.0000

!    total energy              =     -34.50000000 Ry

     convergence has been achieved in  10 iterations

     Forces acting on atoms (cartesian axes, Ry/au):

     atom    1 type  1   force =     0.01000000   -0.02000000    0.00000000
     atom    2 type  2   force =    -0.01000000    0.00500000    0.00000000
     atom    3 type  2   force =     0.00000000    0.01500000    0.00000000

     Total force =     0.030000     Total SCF correction =     0.000001

     Computing stress (Cartesian axis) and pressure

          total   stress  (Ry/bohr**3)                   (kbar)     P=       -1.47
  -0.00001000   0.00000000   0.00000000           -1.47        0.00        0.00
   0.00000000  -0.00001000   0.00000000            0.00       -1.47        0.00
   0.00000000   0.00000000  -0.00001000            0.00        0.00       -1.47

     JOB DONE.
"""


def test_espresso(tmp_path: Path) -> None:
    boxed = Atoms(WATER.numbers, WATER.positions, cell=[10.0] * 3, pbc=True, info={"charge": 1, "spin": 2})
    body = f"shutil.copy(sys.argv[2], keep); print({ESPRESSO_OUT!r})"
    options: dict[str, Any] = {"level_of_theory": "x", "pseudo_dir": str(tmp_path)}
    options |= {"pseudopotentials": {"O": "O.upf", "H": "H.upf"}, "input_data": {"system": {"ecutwfc": 60}}}
    for name in ("O.upf", "H.upf"):
        (tmp_path / name).write_text("")
    options["command"] = program(tmp_path / "pw.py", body)
    answer = label("espresso", options, boxed, tmp_path / "work")
    assert answer.label is not None, answer.reason
    found = answer.label
    assert found.energy == pytest.approx(-34.5 * units.Ry, rel=1e-6)
    assert found.forces[0] == pytest.approx(np.array([0.01, -0.02, 0.0]) * units.Ry / units.Bohr, rel=1e-6)
    pressure = -np.trace(found.stress) / 3  # pw.x prints pressures, positive when compressed
    assert pressure == pytest.approx(-1.0e-5 * units.Ry / units.Bohr**3, rel=1e-3)
    text = (tmp_path / "espresso.pwi").read_text()
    for setting in ("tot_charge", "tprnfor", "tstress", "ecutwfc", "nspin", "tot_magnetization"):
        assert setting in text
    np.testing.assert_allclose(read(tmp_path / "espresso.pwi").positions, WATER.positions, atol=1e-8)
    del boxed.info["spin"]
    label("espresso", options, boxed, tmp_path / "work")
    assert "magnet" not in (tmp_path / "espresso.pwi").read_text()


COBALT = Atoms("Co3Cu", [[0, 0, 0], [2.5, 0, 0], [0, 2.5, 0], [0, 0, 2.5]], cell=[5, 5, 5], pbc=True)  # 110 electrons
COPPER = Atoms("Cu3", COBALT.positions[:3], cell=[5, 5, 5], pbc=True)  # 87 electrons


def espresso_input(atoms: Atoms, system: dict[str, Any], root: Path) -> list[str]:
    """Lines of the input that tell of spins."""
    for name in ("Co.upf", "Cu.upf"):
        (root / name).write_text("")
    options = {"level_of_theory": "x", "pseudo_dir": str(root), "pseudopotentials": {"Cu": "Cu.upf", "Co": "Co.upf"}}
    options |= {"input_data": {"system": {"ecutwfc": 60, "occupations": "smearing", **system}}}
    module, own = plugins.load("oracles", Plugin(name="espresso", options=options))
    made = module.calculator(own, atoms, state_of(atoms), root / "work")
    made.write_inputfiles(atoms, ["energy", "forces"])
    lines = (root / "work/espresso.pwi").read_text().splitlines()
    return ["".join(line.split()) for line in lines if "nspin" in line or "magnet" in line]


def test_espresso_takes_spins_from_the_settings(tmp_path: Path) -> None:
    """An odd number of electrons in a cell says nothing of its moment."""
    assert espresso_input(COPPER, {}, tmp_path) == []
    magnetic = {"nspin": 2, "starting_magnetization": {"Co": 0.6}}
    found = ["nspin=2", "starting_magnetization(1)=0.6", "starting_magnetization(2)=0.0"]
    assert espresso_input(COBALT, magnetic, tmp_path) == found
    with pytest.raises(RetemperError, match="by element"):
        espresso_input(COBALT, {"nspin": 2, "starting_magnetization(1)": 0.6}, tmp_path)


def test_aims_guesses_the_moment_of_molecules_alone(tmp_path: Path) -> None:
    options = {"level_of_theory": "x", "species_dir": str(tmp_path), "parameters": {"spin": "none"}}
    module, own = plugins.load("oracles", Plugin(name="aims", options=options))
    molecule = Atoms(COPPER.numbers, COPPER.positions)
    named = COPPER.copy()
    named.info["spin"] = 4
    moments = []
    for atoms in (COPPER, molecule, named):
        parameters = module.calculator(own, atoms, state_of(atoms), tmp_path).parameters
        moments.append((parameters["spin"], parameters.get("fixed_spin_moment")))
    assert moments == [("none", None), ("collinear", 1), ("collinear", 3)]


VASP_XML = """<?xml version="1.0" encoding="ISO-8859-1"?>
<modeling>
 <generator><i name="program" type="string">vasp</i><i name="version" type="string">6.4.2</i></generator>
 <incar><i type="int" name="ISPIN">1</i></incar>
 <kpoints><varray name="kpointlist"><v>0.0 0.0 0.0</v></varray><varray name="weights"><v>1.0</v></varray></kpoints>
 <parameters><separator name="electronic"><i type="int" name="ISPIN">1</i></separator></parameters>
 <atominfo>
  <array name="atoms"><set><rc><c>Na</c><c>1</c></rc><rc><c>Cl</c><c>2</c></rc></set></array>
 </atominfo>
 <structure name="initialpos">
  <crystal><varray name="basis"><v>0.0 2.8 2.8</v><v>2.8 0.0 2.8</v><v>2.8 2.8 0.0</v></varray></crystal>
  <varray name="positions"><v>0.0 0.0 0.0</v><v>0.5 0.5 0.5</v></varray>
 </structure>
 <calculation>
  <scstep>
   <energy><i name="e_fr_energy">-6.7</i><i name="e_wo_entrp">-6.7</i><i name="e_0_energy">-6.7</i></energy>
  </scstep>
  <structure>
   <crystal><varray name="basis"><v>0.0 2.8 2.8</v><v>2.8 0.0 2.8</v><v>2.8 2.8 0.0</v></varray></crystal>
   <varray name="positions"><v>0.0 0.0 0.0</v><v>0.5 0.5 0.5</v></varray>
  </structure>
  <varray name="forces"><v>0.1 0.2 0.3</v><v>-0.1 -0.2 -0.3</v></varray>
  <varray name="stress"><v>10.0 0.0 0.0</v><v>0.0 10.0 0.0</v><v>0.0 0.0 10.0</v></varray>
  <energy><i name="e_fr_energy">-6.7</i><i name="e_wo_entrp">-6.7</i><i name="e_0_energy">-6.7</i></energy>
 </calculation>
</modeling>
"""
VASP_OUTCAR = """ vasp.6.4.2 20Jul23
   NELM   =     60;   NELMIN=  2
   NKPTS =      1   k-points in BZ     NKDIM =      1   number of bands    NBANDS=      8
   EDIFF  = 0.1E-03   stopping-criterion for ELM
{end}
"""
REACHED = "------------------------ aborting loop because EDIFF is reached ----------------------------------------"
UNREACHED = "----------------------- aborting loop EDIFF was not reached (unconverged)  ----------------------------"


def test_vasp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for symbol in ("Na", "Cl"):
        folder = tmp_path / "pp/potpaw_PBE" / symbol
        folder.mkdir(parents=True)
        (folder / "POTCAR").write_text(f"  PAW_PBE {symbol}\n")
    monkeypatch.setenv("VASP_PP_PATH", str(tmp_path / "pp"))
    salt = bulk("NaCl", "rocksalt", 5.6)
    options: dict[str, Any] = {"level_of_theory": "x", "parameters": {"xc": "PBE", "encut": 400, "gamma": True}}

    def run(end: str) -> workers.Answer:
        body = "[shutil.copy(n, keep) for n in ('INCAR', 'POSCAR', 'POTCAR', 'KPOINTS')]\n"
        body += f"Path('vasprun.xml').write_text({VASP_XML!r})\n"
        body += f"Path('OUTCAR').write_text({VASP_OUTCAR.format(end=end)!r})"
        body += "\nshutil.copy('POSCAR', 'CONTCAR')"
        options["command"] = program(tmp_path / "vasp.py", body)
        return label("vasp", options, salt, tmp_path / "work")

    answer = run(REACHED)
    assert answer.label is not None, answer.reason
    assert answer.label.energy == pytest.approx(-6.7)
    assert answer.label.forces[0] == pytest.approx([0.1, 0.2, 0.3])
    assert np.trace(answer.label.stress) / 3 == pytest.approx(-1.0 * units.GPa)  # kbar, positive when compressed
    incar = (tmp_path / "INCAR").read_text()
    assert "NSW = 0" in incar and "ISIF = 2" in incar and "ENCUT = 400" in incar
    charged = salt.copy()
    charged.info["charge"] = 1
    assert label("vasp", options, charged, tmp_path / "work").kind == "refused"
    assert "did not converge" in run(UNREACHED).reason


CP2K_SHELL = r"""
n = 0
def say(*lines):
    for line in lines: print(line, flush=True)
say("* READY")
for line in sys.stdin:
    words = line.split()
    if words[0] == "VERSION": say("CP2K Shell Version: 7.0", "* READY")
    elif words[0] == "WRITE_FILE":
        name, text = sys.stdin.readline(), []
        while (line := sys.stdin.readline()) != "*END\n": text.append(line)
        (keep / "cp2k.inp").write_text("".join(text[1:])); say("* READY")
    elif words[0] == "LOAD": say("1", "* READY")
    elif words[0] == "SET_CELL": [sys.stdin.readline() for _ in range(3)]; say("* READY")
    elif words[0] == "SET_POS":
        n = int(sys.stdin.readline()) // 3
        while "*END" not in sys.stdin.readline(): pass
        say("0.0", "* READY")
    elif words[0] == "GET_E": say("-468.5", "* READY")
    elif words[0] == "GET_F": say(str(3 * n), *["0.1 0.2 0.3"] * n, "* END", "* READY")
    elif words[0] == "GET_STRESS": say("0.01 0 0 0 0.01 0 0 0 0.01", "* READY")
    elif words[0] == "EXIT": break
    else: say("* READY")
"""


def test_cp2k(tmp_path: Path) -> None:
    boxed = Atoms(WATER.numbers, WATER.positions, cell=[10.0] * 3, pbc=True, info={"charge": 1})
    options: dict[str, Any] = {"level_of_theory": "x", "parameters": {"xc": "PBE", "cutoff": 400 * units.Rydberg}}
    options["command"] = program(tmp_path / "shell.py", CP2K_SHELL)
    answer = label("cp2k", options, boxed, tmp_path / "work")
    assert answer.label is not None, answer.reason
    assert answer.label.energy == -468.5
    assert answer.label.forces.tolist() == [[0.1, 0.2, 0.3]] * 3
    assert np.trace(answer.label.stress) == pytest.approx(-0.03)
    text = (tmp_path / "cp2k.inp").read_text()
    for setting in (
        "CHARGE 1",
        "MULTIPLICITY 2",
        "UNRESTRICTED_KOHN_SHAM",
        "&XC_FUNCTIONAL",
        "STRESS_TENSOR ANALYTICAL",
    ):
        assert setting in text
