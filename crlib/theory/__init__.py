"""Bounds and closed forms of the book, each as a function of both sides.

Statements are named as in the book. Weights are ``W`` of shape ``(h, m)``: m inputs, h
outputs. What is computed here is computed in float64.
"""

from crlib.theory.bridge import (
    BridgeAttack,
    bridge_attack,
    bridge_radius,
    surviving_fraction,
    two_probe_radius,
)
from crlib.theory.composition import (
    Alignment,
    NetworkLipschitz,
    interlayer_alignment,
    logistic_gap_bounds,
    network_lipschitz,
    optimal_pairing,
)
from crlib.theory.curved import CurvedBridge, curved_bridge
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
from crlib.theory.sensitivity import (
    Moments,
    Premises,
    RankOne,
    gain_ratio,
    mask_amplification,
    radius_premises,
    random_head_moments,
    rank_one_optimal,
)

__all__ = [
    "Alignment",
    "Bounds",
    "BridgeAttack",
    "CubeRadii",
    "CurvedBridge",
    "Errors",
    "Moments",
    "NetworkLipschitz",
    "OneHotAttack",
    "PathIdentity",
    "Premises",
    "ProductFactor",
    "Radii",
    "RankOne",
    "StructureTimesScale",
    "bottleneck_radii",
    "bridge_attack",
    "bridge_radius",
    "curved_bridge",
    "flatness_bounds",
    "gain_ratio",
    "interlayer_alignment",
    "interpolation_radii",
    "linear_minimal",
    "logistic_gap_bounds",
    "mask_amplification",
    "network_lipschitz",
    "neuron_implies_spectral",
    "one_hot_attack",
    "optimal_pairing",
    "path_identity",
    "product_factor",
    "prototype_radii",
    "radius_premises",
    "random_head_moments",
    "rank_one_optimal",
    "ridge_radii",
    "row_norm_bounds",
    "sharp_spectral_bounds",
    "sharp_spectral_interval",
    "sign_cube_radii",
    "spectral_floor",
    "spectral_norm_bounds",
    "structure_times_scale",
    "surviving_fraction",
    "top_entry_bounds",
    "two_probe_radius",
]
