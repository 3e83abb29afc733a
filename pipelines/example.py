"""Make an embedded example data set again: ``python -m pipelines.example nacl --out data/raw/nacl.extxyz.xz``."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m pipelines.example", description=__doc__)
    parser.add_argument("system", help="nacl or molecules")
    parser.add_argument("--out", type=Path, required=True, help="extxyz file to write (.xz compresses)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    os.environ["OMP_NUM_THREADS"] = "1"  # small matrices: more threads are slower; read by tblite when it loads
    from retemper.errors import RetemperError
    from retemper.examples import generate
    from retemper.frames import write_frames

    try:
        frames = generate(arguments.system, seed=arguments.seed, report=lambda line: print(line, flush=True))
        write_frames(arguments.out, frames)
    except RetemperError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{arguments.out}: {len(frames)} frames, {arguments.out.stat().st_size / 1e3:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
