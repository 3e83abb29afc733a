"""What a model file is, read without running it and without importing torch or MACE."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from retemper.core.errors import RetemperError
from retemper.models import describing, model_file, opening
from retemper.models.description import Description
from retemper.models.foreign.archives import refused
from retemper.models.foreign.values import PickleError

ADDED = (  # attributes of a model that releases of MACE added one after the other
    *("heads", "apply_cutoff", "edge_irreps", "use_reduced_cg", "use_so3", "use_agnostic_product"),
    *("use_last_readout_only", "use_edge_irreps_first", "lammps_mliap"),
)


@dataclasses.dataclass(frozen=True)
class Inspection:
    """A model file. What cannot be read in a model that is not served is None or empty, and `reason` says why."""

    path: Path
    bytes: int
    sha256: str
    form: Literal["pickle", "description"]  # of MACE's own programs, or as retemper writes it
    kind: str  # MACE's class
    lacks: tuple[str, ...]  # attributes that today's MACE gives a model: a file without them is of an earlier release
    elements: tuple[int, ...]
    heads: tuple[str, ...]
    e0s: Mapping[str, Mapping[int, float]]  # eV, by head and element
    parameters: int  # numbers that training may change
    description: Description | None  # None where the architecture cannot be described
    reason: str | None  # why the model is not served; None where it is

    @property
    def served(self) -> bool:
        """Whether the platform predicts with it and trains it. Building it is the last proof (`model_file.load`)."""
        return self.reason is None

    @property
    def cutoff(self) -> float | None:
        """In Å."""
        return None if self.description is None else self.description.arguments.r_max

    @property
    def reads(self) -> tuple[str, ...]:
        """What of a structure beside atoms and cell its energy depends on, by MACE's names: charge, spin."""
        embedded = None if self.description is None else self.description.arguments.embedding_specs
        return tuple(embedded or ())

    @property
    def architecture(self) -> list[str]:
        """The architecture in words, a line each."""
        if self.description is None:
            return [self.kind]
        described = self.description.arguments
        layers = f"{described.num_interactions} layer" + ("s" if described.num_interactions > 1 else "")
        orders = sorted(set(described.correlation))
        first = (
            described.interaction_cls_first if described.interaction_cls_first != described.interaction_cls else None
        )
        lines = [
            f"{self.kind}, {layers} of {described.hidden_irreps}, cut-off {described.r_max:g} A, "
            f"{self.description.dtype}",
            f"spherical harmonics to l = {described.max_ell}, products of up to {' and '.join(map(str, orders))}",
            f"interactions: {described.interaction_cls}" + (f", the first {first}" if first else ""),
            f"readouts: {described.readout_cls} of {described.MLP_irreps}, {described.gate}",
            f"distances: {described.num_bessel} of {described.radial_type}"
            + ("" if described.distance_transform == "None" else f", {described.distance_transform} transform")
            + (", ZBL repulsion" if described.pair_repulsion else ""),
        ]
        if self.reads:
            lines.append(f"reads {', '.join(self.reads)}")
        return lines


def inspect(path: str | Path) -> Inspection:
    """What a model file is. Nothing in it is executed, and what is no model, or damaged, is refused.

    Raises
    ------
    RetemperError
        A missing file, one of another kind, a damaged one, or one that holds no MACE model.
    """
    path = Path(path)
    content = model_file.content_of(path)
    if model_file.is_pickle(content):
        try:
            return _of_pickle(path, content)
        except PickleError as error:
            raise refused(str(path), error) from error
    return _of_description(path, content)


def _of_pickle(path: Path, content: bytes) -> Inspection:
    modules, names = opening.tree(content, str(path))
    description, reason = None, None
    try:
        opening.require_known(modules, names, str(path))
        description = describing.describe(modules, str(path))
    except RetemperError as error:
        reason = str(error)
    tensors = modules.state
    named = modules.attributes.get("heads") or ["Default"]
    heads = tuple(head for head in named if isinstance(head, str)) if isinstance(named, list | tuple) else ()
    elements = tuple(int(z) for z in tensors.get("atomic_numbers", ()))
    count = sum(int(np.prod(module.tensors[name].shape)) for _, module in modules.walk() for name in module.parameters)
    return Inspection(
        path=path,
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        form="pickle",
        kind=modules.kind.name,
        lacks=tuple(name for name in ADDED if name not in modules.attributes),
        elements=elements,
        heads=heads,
        e0s=_e0s(tensors, heads, elements),
        parameters=count,
        description=description,
        reason=reason,
    )


def _of_description(path: Path, content: bytes) -> Inspection:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    description = model_file.description_of(content, str(path))
    try:
        tensors = load(content)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise model_file.damaged(str(path), error) from error
    heads, elements = tuple(description.heads), tuple(description.atomic_numbers)
    return Inspection(
        path=path,
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        form="description",
        kind=description.architecture,
        lacks=(),
        elements=elements,
        heads=heads,
        e0s=_e0s(tensors, heads, elements),
        parameters=sum(array.size for name, array in tensors.items() if _trains(name, array)),
        description=description,
        reason=None,
    )


def _trains(name: str, array: np.ndarray) -> bool:
    """Whether a tensor is a parameter, by MACE's and e3nn's names: weights, biases, and what weighs densities."""
    path, _, last = name.rpartition(".")
    if last.isdigit():
        last = path.rpartition(".")[2]
    fixed = path.endswith("distance_transform")
    return array.dtype.kind == "f" and not fixed and last.startswith(("weight", "bias", "alpha", "beta"))


def _e0s(
    tensors: Mapping[str, np.ndarray], heads: tuple[str, ...], elements: tuple[int, ...]
) -> dict[str, dict[int, float]]:
    energies = tensors.get("atomic_energies_fn.atomic_energies")
    if energies is None:
        return {}
    rows = np.atleast_2d(energies)
    if rows.shape != (len(heads), len(elements)):
        return {}
    return {head: dict(zip(elements, map(float, row), strict=True)) for head, row in zip(heads, rows, strict=True)}
