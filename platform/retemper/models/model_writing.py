"""Writing model files: a model is written when its twin, built from the description, gives the same numbers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from ase.data import covalent_radii

from retemper.core import weight_files
from retemper.core.errors import RetemperError
from retemper.core.files import atomic_write
from retemper.models import building, describing
from retemper.models.description import Description
from retemper.models.model_file import KEY, _digest, load, write_pickle

if TYPE_CHECKING:
    import torch


AGREE = 1e-9  # eV and eV/A: what a model built by an older MACE or e3nn may differ by, from the order of sums


ROUNDINGS = 64  # of the largest value: what the same sums differ by when arrays lie elsewhere in memory


def write(model: torch.nn.Module, path: str | Path) -> None:
    """Write a model, whole or not at all, after its twin built from the description gave the same energies and forces.

    Parameters
    ----------
    model
        A ScaleShiftMACE without adapters, on any device.

    Raises
    ------
    RetemperError
        An architecture that cannot be described (`require_describable`), or a full disk.
    """
    from safetensors.torch import save

    twin, description = _twin(model)
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in twin.state_dict().items()}
    description = description.model_copy(update={"tensors_sha256": _digest(tensors)})
    content = save(tensors, metadata={KEY: description.model_dump_json()})
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)


def require_describable(model: torch.nn.Module) -> None:
    """Raise a `RetemperError` with the reason where `write` would not be able to write this model."""
    _twin(model)


def convert(path: Path, out: Path) -> None:
    """Write a model as a file of the kind that the name of `out` says."""
    model = load(path)
    if weight_files.described(out):
        write(model, out)
    else:
        write_pickle(model, out)


def _twin(model: torch.nn.Module) -> tuple[torch.nn.Module, Description]:
    """The model built from its description, compared with the model itself on two small structures."""
    description = describing.describe(model)
    tensors = describing.state(model)
    twin = building.build(description, tensors, "the model")
    exact = all(name in tensors and tensors[name].dtype == tensor.dtype for name, tensor in twin.state_dict().items())
    answers, of_twin = _answers(model, description), _answers(twin, description)
    largest = max(1.0, *(float(np.abs(answer).max(initial=0.0)) for answer in answers))
    rounding = ROUNDINGS * float(np.finfo(description.dtype).eps) * largest
    bound = rounding if exact else max(rounding, AGREE * (1.0 if description.dtype == "float64" else 1e6))
    off = max(
        float(np.abs(answer - twin_answer).max(initial=0.0))
        for answer, twin_answer in zip(answers, of_twin, strict=True)
    )
    if not off <= bound:
        raise RetemperError(
            "The model's architecture cannot be described in a file without code: built again it gives other energies.",
            expected=f"differences of at most {bound:g} eV and eV/A",
            got=f"{off:.3g}",
            fix="report this with the foundation's name",
        )
    return twin, description


def _answers(model: torch.nn.Module, description: Description) -> list[np.ndarray]:
    """Energies and forces of every head for two small structures."""
    from retemper.models import mace
    from retemper.models.architecture import addition

    answers: list[np.ndarray] = []
    device = next(model.parameters()).device
    training = model.training
    with mace.default_dtype(description.dtype), addition(model):
        model.eval()
        for head in description.heads:
            for _, batch in mace.batches(model, probes(description.atomic_numbers), head, str(device)):
                output: Any = model(batch, training=False, compute_force=True)
                answers += [output[name].detach().cpu().numpy() for name in ("energy", "forces")]
        model.train(training)
    return answers


def probes(elements: list[int]) -> list[Atoms]:
    """Small structures of a model's elements: a cluster of five atoms and a periodic cell of four."""
    random = np.random.default_rng(0)
    numbers = [elements[k % len(elements)] for k in range(5)]
    bond = 2.2 * float(np.mean([covalent_radii[z] for z in numbers]))
    grid = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]], dtype=float)
    cluster = Atoms(numbers, bond * grid + random.normal(0.0, 0.05, (5, 3)))
    fcc = np.array([[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])
    cell = Atoms(numbers[:4], cell=np.eye(3) * 1.5 * bond, pbc=True, scaled_positions=fcc)
    cell.positions += random.normal(0.0, 0.05, (4, 3))
    return [cluster, cell]
