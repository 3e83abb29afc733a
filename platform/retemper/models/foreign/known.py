"""Names of classes and functions that MACE models of any release hold; another one is one that nobody looked at."""

from __future__ import annotations

from collections.abc import Iterable

from retemper.models.foreign.values import Name

CLASSES = {
    "mace.modules.models": """
        AtomicDielectricMACE AtomicDipolesMACE BOTNet EnergyDipolesMACE MACE ScaleShiftBOTNet ScaleShiftMACE""",
    "mace.modules.extensions": "MACELES PolarMACE",
    "mace.modules.blocks": """
        AgnosticNonlinearInteractionBlock AgnosticResidualNonlinearInteractionBlock AtomicEnergiesBlock
        EquivariantProductBasisBlock GeneralNonLinearBiasReadoutBlock LinearDipolePolarReadoutBlock
        LinearDipoleReadoutBlock LinearNodeEmbeddingBlock LinearReadoutBlock NonLinearBiasReadoutBlock
        NonLinearDipolePolarReadoutBlock NonLinearDipoleReadoutBlock NonLinearReadoutBlock RadialEmbeddingBlock
        RealAgnosticAttResidualInteractionBlock RealAgnosticDensityInteractionBlock
        RealAgnosticDensityResidualInteractionBlock RealAgnosticInteractionBlock RealAgnosticResidualInteractionBlock
        RealAgnosticResidualNonLinearInteractionBlock ResidualElementDependentInteractionBlock ScaleShiftBlock
        TensorProductWeightsBlock""",
    "mace.modules.embeddings": "GenericJointEmbedding",
    "mace.modules.gate": "GatedEquivariantBlock",
    "mace.modules.irreps_tools": "reshape_irreps",
    "mace.modules.radial": """
        AgnesiTransform BesselBasis ChebychevBasis GaussianBasis PolynomialCutoff RadialMLP SoftTransform ZBLBasis""",
    "mace.modules.symmetric_contraction": "Contraction SymmetricContraction",
    "e3nn.math._normalize_activation": "normalize2mom",
    "e3nn.math._soft_unit_step": "_SoftUnitStep",
    "e3nn.nn._activation": "Activation",
    "e3nn.nn._extract": "Extract ExtractIr",
    "e3nn.nn._fc": "FullyConnectedNet _Layer",
    "e3nn.nn._gate": "Gate _Sortcut",
    "e3nn.nn._identity": "Identity",
    "e3nn.o3._linear": "Instruction Linear",
    "e3nn.o3._spherical_harmonics": "SphericalHarmonics",
    "e3nn.o3._tensor_product._instruction": "Instruction",
    "e3nn.o3._tensor_product._sub": """
        ElementwiseTensorProduct FullTensorProduct FullyConnectedTensorProduct TensorSquare""",
    "e3nn.o3._tensor_product._tensor_product": "TensorProduct",
    "e3nn.util.codegen._mixin": "CodeGenMixin",
    "torch.fx._symbolic_trace": "Tracer",
    "torch.fx.graph_module": "reduce_graph_module",
    "torch.nn.functional": "gelu leaky_relu relu sigmoid silu softplus tanh",
    "torch.nn.modules.activation": "ReLU SELU SiLU Sigmoid Softplus Tanh",
    "torch.nn.modules.container": "ModuleDict ModuleList ParameterDict ParameterList Sequential",
    "torch.nn.modules.linear": "Identity Linear",
    "torch.nn.modules.normalization": "LayerNorm",
    "torch.nn.modules.sparse": "Embedding",
}
KNOWN = {Name(module, name) for module, names in CLASSES.items() for name in names.split()}


def unknown(names: Iterable[Name]) -> list[str]:
    """Those of `names` that no known MACE model holds."""
    return sorted(str(name) for name in set(names) - KNOWN)
