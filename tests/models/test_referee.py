"""Which frames are compared with torch, what is allowed, and what follows: with numbers in the place of both."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from ase import Atoms
from ase.data import covalent_radii

from retemper.models import referee
from retemper.models.predictions import Predictions


def crystals(number: int) -> list[Atoms]:
    rng = np.random.default_rng(0)
    return [Atoms("Na2", rng.random((2, 3)), cell=np.eye(3) * 4, pbc=True) for _ in range(number)]


def numbers(frames: list[Atoms], force: float = 0.5, stress: float = 0.01) -> Predictions:
    forces = [np.full((len(atoms), 3), force) for atoms in frames]
    return Predictions(np.ones(len(frames)), forces, np.full((len(frames), 3, 3), stress), "symmetrix")


class Torch:
    """The right numbers of whatever is asked for, and how much was."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, frames: list[Atoms]) -> Predictions:
        self.asked += len(frames)
        return numbers(frames)


def apart(frames: list[Atoms]) -> np.ndarray:
    return np.linspace(1.0, 2.0, len(frames))


def test_little_is_compared_where_all_is_well() -> None:
    frames, torch = crystals(300), Torch()
    settled, wrong = referee.settle(frames, numbers(frames), apart(frames), torch)
    assert (torch.asked, wrong, settled.backend) == (round(referee.SHARE * 300), 0, "symmetrix")


@pytest.mark.parametrize("quantity", ["energy", "forces", "stress", "not finite"])
def test_a_frame_that_is_off_is_sent_back_alone(quantity: str) -> None:
    """The first frame has the nearest atoms and is looked at; one that is not finite is, wherever it stands."""
    frames, torch = crystals(100), Torch()
    fast = numbers(frames)
    if quantity == "energy":
        fast.energy[0] += 1e-5
    elif quantity == "forces":
        fast.forces[0][1, 2] += 1e-4
    elif quantity == "stress":
        fast.stress[0, 1, 1] += 1e-5
    else:
        fast.forces[70][0, 0] = np.nan
    settled, wrong = referee.settle(frames, fast, apart(frames), torch)
    assert (wrong, settled.backend) == (1, "symmetrix")
    assert torch.asked in (6, 7, 8)  # twice the sample: with the second half all is well
    for i in range(len(frames)):
        np.testing.assert_allclose(settled.forces[i], 0.5)
    np.testing.assert_allclose(settled.stress, 0.01)
    np.testing.assert_allclose(settled.energy, 1.0)


def test_atoms_nearer_than_the_model_was_compared_at_are_torchs() -> None:
    frames, torch = crystals(100), Torch()
    fast, closest = numbers(frames), apart(frames)
    closest[40:60] = 0.9 * referee.NEAREST
    for i in range(40, 60):
        fast.forces[i] += 1.0
    settled, _ = referee.settle(frames, fast, closest, torch)
    assert all((values == 0.5).all() for values in settled.forces) and torch.asked < 60


def test_torch_does_everything_where_all_are_off() -> None:
    frames, torch = crystals(100), Torch()
    settled, wrong = referee.settle(frames, numbers(frames, force=0.6), apart(frames), torch)
    assert (settled.backend, wrong, torch.asked) == ("torch", 100, 100)


def test_differences_are_judged_by_the_size_of_forces_and_stress() -> None:
    frames = crystals(1)
    for force, stress in ((0.5, 0.01), (500.0, 10.0)):
        right = numbers(frames, force, stress)
        for share, expected in ((0.5, 0.5), (2.0, 2.0)):
            allowed = referee.STRESS + referee.STRESS_RELATIVE * stress
            for fast in (
                numbers(frames, force + share * referee.FORCES * (1 + force), stress),
                numbers(frames, force, stress + share * allowed),
            ):
                assert referee.differences(frames, fast, right)[0] == pytest.approx(expected, rel=1e-3)
    assert referee.differences(frames, numbers(frames, np.nan), numbers(frames))[0] == np.inf
    assert referee.differences(frames, numbers(frames), numbers(frames, np.nan))[0] == 0.0


def test_faults_in_random_frames_are_found_as_often_as_is_said() -> None:
    """A fraction f of the frames is off, at random: (1 - f)^m of the times it is not noticed."""
    rng = np.random.default_rng(1)
    size, fraction, times = 200, 0.2, 400
    found = 0
    for _ in range(times):
        frames = [Atoms("H2", rng.random((2, 3))) for _ in range(size)]
        fast = numbers(frames, stress=np.nan)
        off = rng.random(size) < fraction
        for i in np.flatnonzero(off):
            fast.forces[i] += 1.0
        order, wanted = referee.sample(frames, numbers(frames, stress=np.nan), rng.random(size) + 1)
        found += bool(off[order[:wanted]].any())
    random = round(referee.SHARE * size) // 2  # every second frame of the sample is a random one
    said = 1 - (1 - fraction) ** random
    assert found / times > said - 3 * np.sqrt(said * (1 - said) / times)


def test_the_same_frames_give_the_same_sample() -> None:
    frames = crystals(50)
    one, two = (referee.sample(frames, numbers(frames), apart(frames)) for _ in range(2))
    assert one == two and sorted(one[0]) == list(range(50))


@pytest.mark.parametrize("elements", [(11,), (1, 8), (1, 6, 7, 8, 9, 17), tuple(range(1, 23))])
def test_every_pair_of_elements_is_met_near_and_far(elements: tuple[int, ...]) -> None:
    cutoff = 4.5
    made = referee.trials(elements, cutoff)
    distances: dict[tuple[int, int], list[float]] = {}
    for atoms in made:
        ratios = atoms.get_all_distances() / (covalent_radii[atoms.numbers][:, None] + covalent_radii[atoms.numbers])
        for i, j in itertools.combinations(range(len(atoms)), 2):
            pair = tuple(sorted((int(atoms.numbers[i]), int(atoms.numbers[j]))))
            distances.setdefault(pair, []).append(atoms.get_distance(i, j))  # type: ignore[arg-type]
            assert ratios[i, j] >= referee.NEAREST
    pairs = list(itertools.combinations_with_replacement(elements, 2))
    assert set(distances) == set(pairs)
    assert min(sum(d < cutoff for d in values) for values in distances.values()) >= 1
    assert {bool(atoms.pbc.all()) for atoms in made} == {True, False}
    assert [a.positions.tolist() for a in made] == [a.positions.tolist() for a in referee.trials(elements, cutoff)]
