"""The description and the tensors of a model: of a live one, or of one that was read as data (`models/foreign`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from retemper.config.foundations import SERVED
from retemper.core.errors import RetemperError
from retemper.models.description import Description
from retemper.models.foreign.tree import Module
from retemper.models.foreign.values import Name

if TYPE_CHECKING:
    import torch

TRANSFORMS = {"None": "None", "AgnesiTransform": "Agnesi", "SoftTransform": "Soft"}
BASES = {"BesselBasis": "bessel", "GaussianBasis": "gaussian", "ChebychevBasis": "chebyshev"}


def describe(model: torch.nn.Module | Module, origin: str = "the model") -> Description:
    """What MACE needs to build `model` again: a live one, or one that was read as data; `origin` is for messages.

    A MACE without scale and shift is described as one that has them: 1 and 0 change nothing (see `state`).

    Raises
    ------
    RetemperError
        An architecture that cannot be named: another class, an activation or block that MACE's tables lack.
    """
    try:
        kind = _kind(model)
        if kind not in SERVED:
            raise ValueError(f"it is a {kind}")
        return Description.model_validate(_content(model))
    except ValidationError as error:
        first = error.errors()[0]
        why = f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
    except (AttributeError, TypeError, ValueError, IndexError, KeyError) as error:
        why = str(error)
    raise RetemperError(
        f"The architecture of {origin} cannot be described in a file without code: {why}.",
        expected="a ScaleShiftMACE of blocks that mace-torch names",
        fix="use a foundation of such an architecture; or ask for this one to be supported",
    )


def _content(model: Any) -> dict[str, object]:
    """The fields of a `Description`. What releases of MACE before today's lack is what it was then."""
    radial, first, readout = model.radial_embedding, model.interactions[0], model.readouts[-1]
    if getattr(model, "cueq_config", None) is not None:
        raise ValueError("it was converted to cuEquivariance")
    heads = [_text(head) for head in getattr(model, "heads", None) or ["Default"]]
    hidden = _text(model.products[0].linear.irreps_out)
    specs = getattr(model, "embedding_specs", None)
    edge = getattr(model, "edge_irreps", None)
    arguments = {
        "r_max": float(model.r_max),
        "num_bessel": int(radial.out_dim),
        "num_polynomial_cutoff": int(radial.cutoff_fn.p),
        "max_ell": int(model.spherical_harmonics._lmax),
        "interaction_cls": _kind(model.interactions[-1]),
        "interaction_cls_first": _kind(first),
        "num_interactions": int(model.num_interactions),
        "hidden_irreps": hidden,
        "MLP_irreps": f"{max(1, _scalars(getattr(readout, 'hidden_irreps', '1x0e')) // len(heads))}x0e",
        "edge_irreps": None if edge is None else _text(edge),
        "avg_num_neighbors": float(first.avg_num_neighbors),
        "correlation": _correlations(model),
        "gate": _activation(readout),
        "readout_cls": _kind(readout),
        "pair_repulsion": hasattr(model, "pair_repulsion_fn"),
        "apply_cutoff": getattr(model, "apply_cutoff", True),
        "use_reduced_cg": getattr(model, "use_reduced_cg", False),
        "use_so3": getattr(model, "use_so3", False),
        "use_agnostic_product": getattr(model, "use_agnostic_product", False),
        "use_last_readout_only": getattr(model, "use_last_readout_only", False),
        "use_embedding_readout": hasattr(model, "embedding_readout"),
        "use_edge_irreps_first": getattr(model, "use_edge_irreps_first", False),
        "keep_last_layer_irreps": _keeps_last_layer(model, hidden),
        "distance_transform": TRANSFORMS[_kind(getattr(radial, "distance_transform", None))],
        "radial_type": BASES[_kind(radial.bessel_fn)],
        "radial_MLP": _widths(first),
        "embedding_specs": None if specs is None else {name: dict(spec) for name, spec in specs.items()},
    }
    return {
        "dtype": _dtype(model),
        "heads": heads,
        "atomic_numbers": [int(z) for z in model.atomic_numbers],
        "arguments": arguments,
    }


def state(model: torch.nn.Module | Module) -> dict[str, torch.Tensor]:
    """The tensors that belong to `describe(model)`, on the CPU."""
    import torch

    if isinstance(model, Module):
        tensors = {name: torch.from_numpy(array) for name, array in model.state.items()}
    else:
        tensors = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    if _kind(model) == "MACE":
        energies = tensors["atomic_energies_fn.atomic_energies"]
        heads = [len(energies)] if energies.ndim == 2 else []
        tensors |= {"scale_shift.scale": energies.new_ones(heads), "scale_shift.shift": energies.new_zeros(heads)}
    return tensors


def _kind(thing: object) -> str:
    """The class of a part of MACE, by its name; a class of the same name from elsewhere is not meant."""
    if thing is None:
        return "None"
    kind = thing.kind if isinstance(thing, Module) else type(thing)
    module = kind.module if isinstance(kind, Name) else kind.__module__
    name = kind.name if isinstance(kind, Name) else kind.__name__
    if not module.startswith("mace."):
        raise ValueError(f"MACE has no name for {module}.{name}")
    return name


def _activation(readout: Any) -> str:
    """The name in MACE's table of the function between the layers of a readout."""
    acts = getattr(getattr(readout, "non_linearity", None), "acts", None)
    if acts is None or not len(acts):
        return "None"
    function = acts[0].f
    if isinstance(function, Name):
        name = function.name if function.module in ("torch", "torch.nn.functional") else str(function)
    else:
        import torch

        name = getattr(function, "__name__", type(function).__name__)
        if function not in (torch.abs, torch.tanh, torch.nn.functional.silu):
            raise ValueError(f"MACE has no name for {name}")
    if name not in ("abs", "tanh", "silu"):
        raise ValueError(f"MACE has no name for {name}")
    return name


def _text(value: object) -> str:
    """A name or irreducible representations as text; what nests is neither."""
    if isinstance(value, str) or type(value).__name__ == "Irreps":
        return str(value)
    raise ValueError(f"a {type(value).__name__} in place of a name")


def _scalars(irreps: object) -> int:
    """How many numbers of even parity that do not turn: ``128x0e+128x1o`` has 128."""
    terms = [term.strip().partition("x") for term in _text(irreps).split("+")]
    return sum(int(count) for count, _, kind in terms if kind == "0e")


def _widths(interaction: Any) -> list[int]:
    """Widths of the hidden layers of the network of distances."""
    weights = interaction.conv_tp_weights
    if hasattr(weights, "hs"):
        return [int(width) for width in weights.hs[1:-1]]
    norms = [layer for layer in weights.net if hasattr(layer, "normalized_shape")]
    return [int(norm.normalized_shape[0]) for norm in norms]


def _dtype(model: Any) -> str:
    if isinstance(model, Module):
        types = [module.tensors[name].storage.dtype for _, module in model.walk() for name in module.parameters]
        return {"f4": "float32", "f8": "float64"}.get(types[0], types[0])
    return str(next(model.parameters()).dtype).removeprefix("torch.")


def _correlations(model: Any) -> list[int]:
    """Body order of each layer, which MACE's own extraction takes from the first alone."""
    orders = []
    for product in model.products:
        contractions = product.symmetric_contractions
        orders.append(
            len(contractions.contractions[0].weights) + 1
            if hasattr(contractions, "contractions")
            else int(contractions.contraction_degree)
        )
    return orders


def _keeps_last_layer(model: Any, hidden: str) -> bool:
    return len(model.products) > 1 and _text(model.products[-1].linear.irreps_out) == hidden and "+" in hidden
