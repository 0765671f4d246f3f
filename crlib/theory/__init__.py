"""Bounds and closed forms of the book, each as a function of both sides.

Statements are named as in the book. Weights are ``W`` of shape ``(h, m)``: m inputs, h
outputs. What is computed here is computed in float64.
"""

from crlib.theory.features import (
    CubeRadii,
    OneHotAttack,
    PathIdentity,
    ProductFactor,
    Radii,
    bottleneck_radii,
    interpolation_radii,
    one_hot_attack,
    path_identity,
    product_factor,
    prototype_radii,
    ridge_radii,
    sign_cube_radii,
)
from crlib.theory.layers import (
    Bounds,
    Errors,
    StructureTimesScale,
    flatness_bounds,
    neuron_implies_spectral,
    row_norm_bounds,
    sharp_spectral_bounds,
    sharp_spectral_interval,
    spectral_floor,
    spectral_norm_bounds,
    structure_times_scale,
    top_entry_bounds,
)
from crlib.theory.linear import (
    linear_minimal,
)
from crlib.theory.networks import (
    Alignment,
    NetworkLipschitz,
    interlayer_alignment,
    logistic_gap_bounds,
    network_lipschitz,
    optimal_pairing,
)

__all__ = [
    "Alignment",
    "Bounds",
    "CubeRadii",
    "NetworkLipschitz",
    "OneHotAttack",
    "PathIdentity",
    "ProductFactor",
    "Radii",
    "bottleneck_radii",
    "interlayer_alignment",
    "interpolation_radii",
    "linear_minimal",
    "logistic_gap_bounds",
    "network_lipschitz",
    "one_hot_attack",
    "optimal_pairing",
    "path_identity",
    "product_factor",
    "prototype_radii",
    "ridge_radii",
    "row_norm_bounds",
    "sign_cube_radii",
    "Errors",
    "StructureTimesScale",
    "flatness_bounds",
    "linear_minimal",
    "neuron_implies_spectral",
    "row_norm_bounds",
    "sharp_spectral_bounds",
    "sharp_spectral_interval",
    "spectral_floor",
    "spectral_norm_bounds",
    "structure_times_scale",
    "top_entry_bounds",
]
