"""How well re-estimation and averaging recover free-atom energies that they are not shown.

    python -m benchmarks.e0_recovery mini [--data FOLDER]

Reads sets with free atoms of their own, hides the atoms, fits E0s to the other frames, and prints the mean
absolute error (eV) against the atoms. arXiv:2606.12704 reports 0.33 (re-estimated) and 3.13 eV (averaged) on
SPICE. FOLDER (default: $RETEMPER_DATA) holds real/ and generated/; without it the embedded examples are used.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

EMBEDDED = {
    "NaCl droplets (GFN2-xTB)": "data/raw/nacl.extxyz.xz",
    "molecules (GFN2-xTB)": "data/raw/molecules.extxyz.xz",
}
OPTIONAL = {
    "SPICE-like (GFN2-xTB)": "generated/spice_gfn2.extxyz",
    "3BPA 300 K (wB97X)": "real/3bpa_300K.extxyz",
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.e0_recovery", description=__doc__)
    parser.add_argument("foundation", nargs="?", default="mini", help="a foundation, as in params.yaml")
    parser.add_argument("--data", type=Path, default=os.environ.get("RETEMPER_DATA"), help="folder of more sets")
    arguments = parser.parse_args()

    from retemper.config.foundation_files import weights
    from retemper.config.foundations import find
    from retemper.core.errors import RetemperError
    from retemper.core.files import project_root
    from retemper.data.frames import is_isolated_atom, read_frames
    from retemper.models.mace import elements
    from retemper.prepare.e0_methods import isolated_energies, recovery

    try:
        sets = {name: project_root() / path for name, path in EMBEDDED.items()}
        if arguments.data is not None:
            sets |= {name: Path(arguments.data) / path for name, path in OPTIONAL.items()}
        foundation = find(arguments.foundation)
        model = weights(foundation)
        known = set(elements(model))
        columns = ("frames", "elements", "rank", "hidden", "re-estimated", "averaged", "foundation")
        print(f"{'mean absolute error (eV)':<26}" + "".join(f"{column:>14}" for column in columns))
        for name, path in sets.items():
            frames = [atoms for atoms in read_frames(path) if known.issuperset(atoms.numbers.tolist())]
            isolated = isolated_energies([atoms for atoms in frames if is_isolated_atom(atoms)])
            rest = [atoms for atoms in frames if not is_isolated_atom(atoms)]
            result = recovery(model, rest, isolated, head=foundation.head)
            sizes = [str(value) for value in (result.frames, result.n_elements, result.rank, result.hidden)]
            errors = [f"{result.mae(method):.3f}" for method in ("reestimate", "average", "foundation")]
            print(f"{name:<26}" + "".join(f"{value:>14}" for value in (*sizes, *errors)), flush=True)
    except RetemperError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
