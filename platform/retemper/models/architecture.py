"""The foundation's architecture: a model of it with random weights, and what MACE forgets where it embeds charges.

MACE's command line cannot name every architecture (readouts with biases have no flag), so a model that starts
from random weights is built from the foundation itself, in the place where MACE would build it from its flags.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from retemper.core.errors import RetemperError
from retemper.models import describing

EMBEDDED = ("joint_embedding", "embedding_readout")  # of total charge, spin and the like: part of the embedding


def config(foundation: torch.nn.Module) -> dict[str, object]:
    """Arguments of MACE's model class that give the foundation's architecture.

    Raises
    ------
    RetemperError
        A model of these arguments has not the foundation's parameters and buffers, by name and shape.
    """
    from mace.tools.scripts_utils import extract_config_mace_model

    described = describing.describe(foundation).arguments
    arguments: dict[str, object] = extract_config_mace_model(foundation)
    arguments |= {"correlation": described.correlation, "keep_last_layer_irreps": described.keep_last_layer_irreps}
    off = differences(type(foundation)(**arguments), foundation)
    if off:
        raise RetemperError(
            "The foundation's architecture cannot be copied: a model built of what can be read from it differs "
            f"({'; '.join(off[:3])}).",
            expected="a ScaleShiftMACE that MACE can build again",
            fix="use another foundation; or report this with its name",
        )
    return arguments


def differences(first: torch.nn.Module, second: torch.nn.Module) -> list[str]:
    """Parameters and buffers of which name or shape differ, in words."""
    shapes = [{name: tuple(t.shape) for name, t in model.state_dict().items()} for model in (first, second)]
    names = sorted(set(shapes[0]) | set(shapes[1]))
    return [
        f"{name}: {shapes[0].get(name, 'none')}, {shapes[1].get(name, 'none')}"
        for name in names
        if shapes[0].get(name) != shapes[1].get(name)
    ]


def flags(arguments: dict[str, object]) -> dict[str, str | float | bool | None]:
    """MACE's flags for a `config`, as far as it has flags; see `unflagged`."""
    from mace.modules import gate_dict

    architecture = SimpleNamespace(**arguments)
    gates = {function: name for name, function in gate_dict.items()}
    return {
        "model": "ScaleShiftMACE",
        "r_max": float(architecture.r_max),
        "num_radial_basis": int(architecture.num_bessel),
        "num_cutoff_basis": int(architecture.num_polynomial_cutoff),
        "max_ell": int(architecture.max_ell),
        "interaction": architecture.interaction_cls.__name__,
        "interaction_first": architecture.interaction_cls_first.__name__,
        "num_interactions": int(architecture.num_interactions),
        "hidden_irreps": str(architecture.hidden_irreps),
        "edge_irreps": None if architecture.edge_irreps is None else str(architecture.edge_irreps),
        "MLP_irreps": str(architecture.MLP_irreps),
        "gate": gates.get(architecture.gate, "silu"),
        "correlation": max(architecture.correlation),
        "radial_type": str(architecture.radial_type),
        "radial_MLP": str(list(architecture.radial_MLP)),
        "distance_transform": str(architecture.distance_transform),
        "pair_repulsion": bool(architecture.pair_repulsion),
        "apply_cutoff": bool(architecture.apply_cutoff),
        "use_reduced_cg": bool(architecture.use_reduced_cg),
        "use_so3": bool(architecture.use_so3),
        "use_edge_irreps_first": bool(architecture.use_edge_irreps_first),
        "use_agnostic_product": bool(architecture.use_agnostic_product),
        "use_last_readout_only": bool(architecture.use_last_readout_only),
        "use_embedding_readout": bool(architecture.use_embedding_readout),
        "embedding_specs": None if architecture.embedding_specs is None else str(architecture.embedding_specs),
        "scaling": "rms_forces_scaling",
    }


def unflagged(arguments: dict[str, object]) -> list[str]:
    """What of a `config` MACE's command line has no flag for."""
    from mace.modules import gate_dict

    architecture = SimpleNamespace(**arguments)
    readout, gate = architecture.readout_cls.__name__, architecture.gate
    lacking = [] if readout == "NonLinearReadoutBlock" else [f"readouts of class {readout}"]
    lacking += (
        [f"body orders {architecture.correlation}, one a layer"] if len(set(architecture.correlation)) > 1 else []
    )
    lacking += ["equivariant features after the last layer"] if architecture.keep_last_layer_irreps else []
    return lacking if gate in gate_dict.values() else [*lacking, f"the activation {gate}"]


def builder(arguments: dict[str, object]) -> Callable[..., torch.nn.Module]:
    """In place of MACE's `_build_model`: the architecture of `config`, one head, statistics of the training data."""
    from mace.modules import ScaleShiftMACE

    model_class: Callable[..., torch.nn.Module] = ScaleShiftMACE  # its arguments are read from MACE itself

    def build(args: Any, model_config: dict[str, object], _: Any, heads: list[str]) -> torch.nn.Module:
        data_arguments = {
            name: model_config[name] for name in ("atomic_energies", "avg_num_neighbors", "atomic_numbers")
        }
        scales = {"atomic_inter_scale": np.atleast_1d(args.std), "atomic_inter_shift": np.atleast_1d(args.mean)}
        return model_class(**{**arguments, **data_arguments, **scales, "heads": heads})

    return build


def freeze_embeddings(model: torch.nn.Module) -> None:
    """Freeze what embeds charge and spin, and its readout: with ``--freeze`` MACE goes on training them."""
    for name in EMBEDDED:
        if hasattr(model, name):
            for parameter in getattr(model, name).parameters():
                parameter.requires_grad = False


@contextlib.contextmanager
def addition(model: Any) -> Iterator[None]:
    """Within the block a model that embeds charge and spin adds them to the embedding of the elements.

    MACE adds in place, into what TorchScript returned. Where that is a view, torch 2.13 refuses: from the second
    step on, and only for some numbers of elements and channels. A copy is added to instead. Models without such
    an embedding are left as they are.
    """
    if not hasattr(model, "joint_embedding"):
        yield
        return
    hook = model.node_embedding.register_forward_hook(lambda module, arguments, output: output.clone())
    try:
        yield
    finally:
        hook.remove()
