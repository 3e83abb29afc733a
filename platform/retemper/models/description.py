"""A MACE model in words and numbers, from which MACE builds it again: what a file without code needs beside tensors.

Classes and functions are named, and looked up in MACE's own tables: a description cannot name anything else.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from retemper.core.errors import RetemperError
from retemper.core.version import __version__
from retemper.models import library

if TYPE_CHECKING:
    import torch

FORMAT = "retemper MACE 1"
Small = Annotated[int, Field(ge=0, le=12)]
Size = Annotated[int, Field(ge=1, le=100_000)]
Name = Annotated[str, Field(min_length=1, max_length=200)]
# Tensors that models of older MACE releases lack: whether MACE left terms of the contraction out (it did not then).
LATER = ("_zeroed",)
OF_TENSORS = {  # arguments of MACE's class that lie among the tensors, under these names
    "atomic_energies": "atomic_energies_fn.atomic_energies",
    "atomic_inter_scale": "scale_shift.scale",
    "atomic_inter_shift": "scale_shift.shift",
}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Embedding(_Strict):
    """How charge, spin or another property of a structure enters the model; MACE's ``embedding_specs``."""

    type: Literal["categorical", "continuous"]
    per: Literal["graph", "node"]
    emb_dim: Size
    num_classes: Size | None = None
    in_dim: Size | None = None
    offset: int | None = None
    use_bias: bool | None = None


class Arguments(_Strict):
    """Arguments of MACE's model class, by its names; those that are tensors lie among the tensors."""

    r_max: Annotated[float, Field(gt=0, le=100)]  # A
    num_bessel: Size
    num_polynomial_cutoff: Annotated[int, Field(ge=1, le=100)]
    max_ell: Small
    interaction_cls: Name
    interaction_cls_first: Name
    num_interactions: Annotated[int, Field(ge=1, le=12)]
    hidden_irreps: Name
    MLP_irreps: Name
    edge_irreps: Name | None
    avg_num_neighbors: Annotated[float, Field(gt=0)]
    correlation: Annotated[list[Annotated[int, Field(ge=1, le=6)]], Field(min_length=1, max_length=12)]
    gate: Name
    readout_cls: Name
    pair_repulsion: bool
    apply_cutoff: bool
    use_reduced_cg: bool
    use_so3: bool
    use_agnostic_product: bool
    use_last_readout_only: bool
    use_embedding_readout: bool
    use_edge_irreps_first: bool
    keep_last_layer_irreps: bool
    distance_transform: Literal["None", "Agnesi", "Soft"]
    radial_type: Literal["bessel", "gaussian", "chebyshev"]
    radial_MLP: Annotated[list[Size], Field(max_length=12)]
    embedding_specs: dict[Name, Embedding] | None


class Description(_Strict):
    """Everything of a model but its tensors."""

    format: Literal["retemper MACE 1"] = "retemper MACE 1"
    retemper: str = __version__  # what wrote it
    architecture: Literal["ScaleShiftMACE"] = "ScaleShiftMACE"
    dtype: Literal["float32", "float64"]
    heads: Annotated[list[Name], Field(min_length=1, max_length=1000)]
    atomic_numbers: Annotated[list[Annotated[int, Field(ge=0, le=118)]], Field(min_length=1, max_length=119)]
    arguments: Arguments
    tensors_sha256: str = ""  # of names, types, shapes and values


def parse(text: str, origin: str) -> Description:
    """A description from its JSON; what is not one is a `RetemperError` that names the field."""
    try:
        return Description.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the description"
        raise RetemperError(
            f"{origin} does not describe a model: {where}: {first['msg']}.",
            expected=f"a file that retemper wrote (format {FORMAT!r})",
            fix="restore the file, or make it again",
        ) from None


def describe(model: torch.nn.Module) -> Description:
    """What MACE needs to build `model` again.

    Raises
    ------
    RetemperError
        An architecture that cannot be named: another class, an activation or block that MACE's tables lack.
    """
    library.import_mace()
    from mace.modules import gate_dict, interaction_classes, readout_classes
    from mace.tools.scripts_utils import extract_config_mace_model

    kind = type(model).__name__
    if kind != "ScaleShiftMACE":
        raise _undescribable(f"it is a {kind}")
    try:
        arguments: dict[str, object] = extract_config_mace_model(model)
    except AttributeError as error:
        raise _undescribable(str(error)) from error
    of = SimpleNamespace(**arguments)
    if arguments.pop("cueq_config") is not None:
        raise _undescribable("it was converted to cuEquivariance")
    heads = [str(head) for head in getattr(model, "heads", None) or ["Default"]]
    numbers = [int(z) for z in of.atomic_numbers]
    for name in (
        "heads",
        "atomic_numbers",
        "num_elements",
        "atomic_energies",
        "atomic_inter_scale",
        "atomic_inter_shift",
    ):
        arguments.pop(name)
    arguments |= {
        "interaction_cls": _called(interaction_classes, of.interaction_cls),
        "interaction_cls_first": _called(interaction_classes, of.interaction_cls_first),
        "readout_cls": _called(readout_classes, of.readout_cls),
        "gate": _called(gate_dict, of.gate),
        "avg_num_neighbors": float(of.avg_num_neighbors),
        "r_max": float(of.r_max),
        "num_polynomial_cutoff": int(of.num_polynomial_cutoff),
        "correlation": _correlations(model),
        "keep_last_layer_irreps": _keeps_last_layer(model, str(of.hidden_irreps)),
        "distance_transform": of.distance_transform or "None",
        "radial_MLP": [int(width) for width in of.radial_MLP],
    }
    for name in ("hidden_irreps", "MLP_irreps", "edge_irreps"):
        arguments[name] = None if arguments[name] is None else str(arguments[name])
    if of.embedding_specs is not None:
        arguments["embedding_specs"] = {name: dict(spec) for name, spec in of.embedding_specs.items()}
    dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
    try:
        return Description.model_validate(
            {"dtype": dtype, "heads": heads, "atomic_numbers": numbers, "arguments": arguments}
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise _undescribable(f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}") from None


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
        shapes = tuple(tuple(tensors[name].shape) for name in OF_TENSORS.values())
        plain = description.model_copy(update={"tensors_sha256": "", "retemper": ""})
        model = copy.deepcopy(_template(plain.model_dump_json(), shapes))
        _fill(model, tensors)
    except (KeyError, ValueError, TypeError, AssertionError, IndexError, AttributeError, RuntimeError) as error:
        text = str(error).strip().splitlines()
        raise RetemperError(
            f"MACE cannot build the model that {origin} describes: {type(error).__name__}: {' '.join(text[:3])[:500]}",
            expected="the tensors of the model that is described",
            fix="restore the file, or make it again with the installed version of MACE",
        ) from error
    return model.eval()


@functools.lru_cache(maxsize=4)
def _template(text: str, shapes: tuple[tuple[int, ...], ...]) -> torch.nn.Module:
    """A model of the description `text` (JSON) and the shapes of `OF_TENSORS`, with weights of no meaning."""
    library.import_mace()
    import torch
    from mace.modules import ScaleShiftMACE, gate_dict, interaction_classes, readout_classes
    from e3nn import o3  # isort: skip  (after mace: see its weights_only handling)

    description = Description.model_validate_json(text)
    made: Callable[..., torch.nn.Module] = ScaleShiftMACE  # its arguments are checked by `Arguments`
    given = description.arguments
    content: dict[str, object] = {name: getattr(given, name) for name in Arguments.model_fields}
    content |= {
        "interaction_cls": _found("interaction", interaction_classes, given.interaction_cls),
        "interaction_cls_first": _found("interaction", interaction_classes, given.interaction_cls_first),
        "readout_cls": _found("readout", readout_classes, given.readout_cls),
        "gate": _found("activation", gate_dict, given.gate),
        "num_elements": len(description.atomic_numbers),
        "atomic_numbers": description.atomic_numbers,
        "heads": description.heads,
    }
    if given.embedding_specs is not None:
        specs = given.embedding_specs.items()
        content["embedding_specs"] = {name: spec.model_dump(exclude_none=True) for name, spec in specs}
    for name in ("hidden_irreps", "MLP_irreps", "edge_irreps"):
        content[name] = None if content[name] is None else o3.Irreps(content[name])
    content |= {argument: np.zeros(shape) for argument, shape in zip(OF_TENSORS, shapes, strict=True)}
    previous = torch.get_default_dtype()
    try:
        torch.set_default_dtype(getattr(torch, description.dtype))
        with torch.random.fork_rng(devices=[]):
            return made(**content)
    finally:
        torch.set_default_dtype(previous)


def _fill(model: torch.nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Put `tensors` into the model; every one fits by name, shape and type, as far as older MACE had it."""
    import torch

    own = model.state_dict()
    later = {name: tensor for name, tensor in own.items() if name not in tensors and name.endswith(LATER)}
    wanted = {**later, **tensors}
    for name, tensor in tensors.items():
        if name in own and own[name].dtype != tensor.dtype and not (tensor == tensor.to(own[name].dtype)).all():
            raise ValueError(f"{name} has type {tensor.dtype}, expected {own[name].dtype}")
    with torch.no_grad():
        model.load_state_dict(wanted, strict=True)


def _undescribable(why: str) -> RetemperError:
    return RetemperError(
        f"The model's architecture cannot be described in a file without code: {why}.",
        expected="a ScaleShiftMACE of blocks that mace-torch names",
        fix="use a foundation of such an architecture; or ask for this one to be supported",
    )


def _called(table: Mapping[str, Any], thing: Any) -> str:
    """The name of a block or function in one of MACE's tables."""
    name = next((name for name, known in table.items() if known is thing), None)
    if name is None:
        raise _undescribable(f"MACE has no name for {getattr(thing, '__name__', thing)}")
    return name


def _found(kind: str, table: Mapping[str, Any], name: str) -> Any:
    if name not in table:
        raise RetemperError(
            f"The description names an unknown {kind}: {name!r}.", expected=f"one of {', '.join(sorted(table))}"
        )
    return table[name]


def _correlations(model: Any) -> list[int]:
    """Body order of each layer, which MACE's own extraction takes from the first alone."""
    found = []
    for product in model.products:
        own = product.symmetric_contractions
        found.append(
            len(own.contractions[0].weights) + 1 if hasattr(own, "contractions") else int(own.contraction_degree)
        )
    return found


def _keeps_last_layer(model: Any, hidden: str) -> bool:
    return len(model.products) > 1 and str(model.products[-1].linear.irreps_out) == hidden and "+" in hidden
