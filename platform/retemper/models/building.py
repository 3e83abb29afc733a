"""A model built from its description by today's MACE, with its tensors in it."""

from __future__ import annotations

import copy
import functools
import itertools
import re
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from retemper.core.errors import RetemperError
from retemper.models import library
from retemper.models.description import Arguments, Description

if TYPE_CHECKING:
    import torch

# Tensors that models of older MACE releases lack: whether MACE left terms of the contraction out (it did not then).
LATER = ("_zeroed",)
GENERATED = "._compiled_"  # in the names of constants of code that e3nn generates, with the code
IRREPS = re.compile(r"[0-9]{1,6}x([0-9]|1[0-2])[eo](\+[0-9]{1,6}x([0-9]|1[0-2])[eo])*")
OF_TENSORS = {  # arguments of MACE's class that lie among the tensors, under these names
    "atomic_energies": "atomic_energies_fn.atomic_energies",
    "atomic_inter_scale": "scale_shift.scale",
    "atomic_inter_shift": "scale_shift.shift",
}


def build(description: Description, tensors: Mapping[str, torch.Tensor], origin: str) -> torch.nn.Module:
    """The model of a description with `tensors` in it; random states and torch's default dtype are left as they are.

    `origin` is for messages: the file, or "the model". A process builds a description once (seconds: e3nn generates
    code and compiles it) and copies it from then on.

    Raises
    ------
    RetemperError
        A name that MACE's tables lack, or tensors that are not those of the description's model.
    """
    try:
        _require_sizes(description, tensors)
        shapes = tuple(tuple(tensors[name].shape) for name in OF_TENSORS.values())
        plain = description.model_copy(update={"tensors_sha256": "", "retemper": ""})
        model = _copy(_template(plain.model_dump_json(), shapes))
        _fill(model, tensors)
    except (KeyError, ValueError, TypeError, AssertionError, IndexError, AttributeError, RuntimeError) as error:
        text = str(error).strip().splitlines()
        raise RetemperError(
            f"MACE cannot build the model that {origin} describes: {type(error).__name__}: {' '.join(text[:3])[:500]}",
            expected="the tensors of the model that is described",
            fix="restore the file, or make it again with the installed version of MACE",
        ) from error
    return model.eval()


def _copy(model: torch.nn.Module) -> torch.nn.Module:
    """A deep copy. MACE's parameters of terms that are left out do not know how to be copied."""
    left_out = {
        id(parameter): type(parameter)(parameter.data)
        for parameter in model.parameters()
        if type(parameter).__name__ == "EmptyParam"
    }
    return copy.deepcopy(model, left_out)


@functools.lru_cache(maxsize=4)
def _template(text: str, shapes: tuple[tuple[int, ...], ...]) -> torch.nn.Module:
    """A model of the description `text` (JSON) and the shapes of `OF_TENSORS`, with weights of no meaning."""
    library.import_mace()
    import torch
    from mace.modules import ScaleShiftMACE, gate_dict, interaction_classes, readout_classes
    from e3nn import o3  # isort: skip  (after mace: see its weights_only handling)

    description = Description.model_validate_json(text)
    model_class: Callable[..., torch.nn.Module] = ScaleShiftMACE  # its arguments are checked by `Arguments`
    arguments = description.arguments
    content: dict[str, object] = {name: getattr(arguments, name) for name in Arguments.model_fields}
    content |= {
        "interaction_cls": _lookup("interaction", interaction_classes, arguments.interaction_cls),
        "interaction_cls_first": _lookup("interaction", interaction_classes, arguments.interaction_cls_first),
        "readout_cls": _lookup("readout", readout_classes, arguments.readout_cls),
        "gate": _lookup("activation", gate_dict, arguments.gate),
        "num_elements": len(description.atomic_numbers),
        "atomic_numbers": description.atomic_numbers,
        "heads": description.heads,
    }
    if arguments.embedding_specs is not None:
        specs = arguments.embedding_specs.items()
        content["embedding_specs"] = {name: spec.model_dump(exclude_none=True) for name, spec in specs}
    for name in ("hidden_irreps", "MLP_irreps", "edge_irreps"):
        content[name] = None if content[name] is None else o3.Irreps(content[name])
    content |= {argument: np.zeros(shape) for argument, shape in zip(OF_TENSORS, shapes, strict=True)}
    previous = torch.get_default_dtype()
    try:
        torch.set_default_dtype(getattr(torch, description.dtype))
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # TorchScript warns of annotations in e3nn's and MACE's classes
            return model_class(**content)
    finally:
        torch.set_default_dtype(previous)


def _fill(model: torch.nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Put `tensors` into the model; every one fits by name, shape and type, as far as older MACE had it."""
    import torch

    state = model.state_dict()
    later = {
        name: tensor
        for name, tensor in state.items()
        if name not in tensors and (name.endswith(LATER) or GENERATED in name)
    }
    wanted = {**later, **tensors}
    for name, tensor in tensors.items():
        if name in state and state[name].dtype != tensor.dtype and not (tensor == tensor.to(state[name].dtype)).all():
            raise ValueError(f"{name} has type {tensor.dtype}, expected {state[name].dtype}")
    with torch.no_grad():
        model.load_state_dict(wanted, strict=True)


def _require_sizes(description: Description, tensors: Mapping[str, torch.Tensor]) -> None:
    """Raise where a description speaks of more numbers than there are: nothing of that size is made first."""
    arguments = description.arguments
    available = sum(tensor.numel() for tensor in tensors.values())
    irreps = [
        part for part in (arguments.hidden_irreps, arguments.MLP_irreps, arguments.edge_irreps) if part is not None
    ]
    for part in irreps:
        if not IRREPS.fullmatch(part):
            raise ValueError(f"{part[:100]!r} are no irreducible representations")
    counts = [int(count) for part in irreps for count in re.findall(r"(\d+)x", part)]
    widths = [arguments.num_bessel, *arguments.radial_MLP]
    specs = (arguments.embedding_specs or {}).values()
    embedded = [spec.emb_dim * (spec.num_classes or spec.in_dim or 1) for spec in specs]
    products = [(arguments.max_ell + 1) ** (2 * order) for order in arguments.correlation]  # entries of a coupling
    wanted = [
        max(counts, default=0) * len(description.atomic_numbers),
        sum(a * b for a, b in itertools.pairwise(widths)),
        *embedded,
        *products,
    ]
    if max(wanted) > available:
        raise ValueError(f"{max(wanted)} numbers are described, and {available} are there")


def _lookup(kind: str, table: Mapping[str, Any], name: str) -> Any:
    if name not in table:
        raise RetemperError(
            f"The description names an unknown {kind}: {name!r}.", expected=f"one of {', '.join(sorted(table))}"
        )
    return table[name]
