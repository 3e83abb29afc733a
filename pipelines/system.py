"""Make or convert the labelled structures of a system: ``python -m pipelines.system nacl``.

Writes the file that ``systems/<name>.yaml`` names, or ``--out``. Not a stage of the graph: what it
writes is raw data.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pipelines.system", description=__doc__)
    parser.add_argument("system", help="a name that `retemper systems` lists")
    parser.add_argument("--out", type=Path, help="folder to write under instead of the project")
    parser.add_argument("--seed", type=int, default=0, help="of a generator; the kept files have 0")
    arguments = parser.parse_args()

    os.environ["OMP_NUM_THREADS"] = "1"  # small matrices: more threads are slower; read by tblite when it loads
    from retemper.core.ending import handle_errors
    from retemper.core.files import project_root
    from retemper.systems import find
    from retemper.systems.listing import size
    from retemper.systems.make import make

    with handle_errors():
        root = project_root()
        system = find(arguments.system, root)
        path = make(
            system, root, arguments.out or root, seed=arguments.seed, report=lambda line: print(line, flush=True)
        )
        frames, atoms = size(path)
        print(f"{path}: {frames} frames, {atoms} atoms, {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
