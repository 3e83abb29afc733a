"""Farthest-point sampling against its definition, coverage, element matching."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk, molecule

from retemper.core.errors import RetemperError
from retemper.data import selection


def by_definition(points: np.ndarray, k: int, start: int) -> list[int]:
    """Farthest-point sampling with every distance written out, float64."""
    distance = np.linalg.norm(points[:, None, :] - points[None, :, :], axis=-1)
    chosen = [start]
    while len(chosen) < k:
        chosen.append(int(distance[chosen].min(axis=0).argmax()))
    return chosen


@pytest.fixture(scope="module")
def points() -> np.ndarray:
    rng = np.random.default_rng(0)
    clusters = [rng.normal(size=(100, 12)) * scale + rng.normal(size=12) * 5 for scale in (0.1, 0.5, 2.0)]
    return np.concatenate(clusters) + 100.0  # far from the origin


def test_farthest_point_is_the_greedy_choice(points: np.ndarray) -> None:
    assert selection.farthest_point(points, 40, start=7).tolist() == by_definition(points, 40, 7)


def test_the_default_start_is_the_central_point(points: np.ndarray) -> None:
    central = int(np.linalg.norm(points - points.mean(axis=0), axis=1).argmin())
    assert selection.farthest_point(points, 30).tolist() == by_definition(points, 30, central)


def test_duplicates_are_not_chosen_before_everything_else_is() -> None:
    points = np.array([[0.0, 0], [0, 0], [3, 0], [3, 0], [0, 5]])
    chosen = selection.farthest_point(points, 5, start=0).tolist()
    assert chosen[:3] == [0, 4, 2]
    assert sorted(chosen) == [0, 1, 2, 3, 4]


def test_coverage_radius(points: np.ndarray) -> None:
    chosen = [3, 150, 290]
    expected = np.linalg.norm(points[:, None, :] - points[chosen][None, :, :], axis=-1).min(axis=1).max()
    assert selection.coverage_radius(points, chosen) == pytest.approx(expected, rel=1e-9)
    farthest = selection.coverage_radius(points, selection.farthest_point(points, 30))
    by_chance = [selection.coverage_radius(points, selection.random(len(points), 30, seed)) for seed in range(5)]
    assert farthest < min(by_chance)


def test_same_coverage_as_fpsample(points: np.ndarray) -> None:
    """The sampler that MACE uses, where it is installed."""
    fpsample = pytest.importorskip("fpsample")
    theirs = fpsample.fps_sampling(points.astype(np.float32), 30, start_idx=7)
    assert selection.farthest_point(points, 30, start=7).tolist() == list(map(int, theirs))


def test_more_than_there_are(points: np.ndarray) -> None:
    with pytest.raises(RetemperError, match="Cannot choose 301 of 300"):
        selection.farthest_point(points, 301)
    with pytest.raises(RetemperError, match="Cannot choose 4 of 3"):
        selection.random(3, 4)


def test_random_is_fixed_by_its_seed() -> None:
    first = selection.random(50, 10, seed=4)
    assert len(set(first.tolist())) == 10
    np.testing.assert_array_equal(first, selection.random(50, 10, seed=4))
    assert first.tolist() != selection.random(50, 10, seed=5).tolist()


def test_element_match() -> None:
    frames = [molecule("H2O"), molecule("CH4"), bulk("NaCl", "rocksalt", a=5.6), bulk("Cu"), molecule("O2")]
    assert selection.element_match(frames, ["H", "O", "Na"]).tolist() == [2, 1, 1, 0, 2]
