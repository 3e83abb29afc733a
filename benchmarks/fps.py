"""Farthest-point sampling: retemper against the sampler that MACE's selection tool calls.

Picks 500 of 10,000 descriptors of 256 numbers, in CPU time, and compares the radius within
which the picks cover all points. MACE's tool uses fpsample (pip install fpsample).

    python benchmarks/fps.py
"""

from __future__ import annotations

import time

import numpy as np

from retemper.data.selection import coverage_radius, farthest_point, random

N, D, K, REPEATS = 10_000, 256, 500, 5


def descriptors(seed: int = 0) -> np.ndarray:
    """[N, D] clusters of different width, as a pool of many kinds of structures gives."""
    rng = np.random.default_rng(seed)
    clusters = [rng.normal(size=(N // 20, D)) * rng.uniform(0.2, 2.0) + 2.0 * rng.normal(size=D) for _ in range(20)]
    return np.concatenate(clusters).astype(np.float32)


def main() -> None:
    import fpsample

    points = descriptors()
    seconds: dict[str, list[float]] = {"retemper": [], "MACE": []}
    for _ in range(REPEATS):  # in turns, so that a busy machine slows both
        start = time.process_time()
        own = farthest_point(points, K)
        middle = time.process_time()
        theirs = fpsample.fps_npdu_kdtree_sampling(points, K)  # the call in mace.cli.fine_tuning_select
        seconds["retemper"].append(middle - start)
        seconds["MACE"].append(time.process_time() - middle)
    radii = {"retemper": coverage_radius(points, own), "MACE": coverage_radius(points, theirs)}
    radii["random"] = coverage_radius(points, random(N, K))
    print(f"{K} of {N} descriptors of {D} numbers, median of {REPEATS}")
    for name, radius in radii.items():
        took = f"{np.median(seconds[name]):7.3f} s CPU" if name in seconds else " " * 13
        print(f"{name:10s} {took}   coverage radius {radius:.3f}")
    print(f"ratio {np.median(seconds['MACE']) / np.median(seconds['retemper']):.1f} (goal: at least 4)")


if __name__ == "__main__":
    main()
