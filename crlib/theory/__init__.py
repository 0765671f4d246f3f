"""Bounds and closed forms of the book, each as a function of both sides.

Statements are named as in the book. Weights are ``W`` of shape ``(h, m)``: m inputs, h
outputs. What is computed here is computed in float64.
"""

from crlib.theory.layers import (
    Bounds,
    row_norm_bounds,
    spectral_norm_bounds,
    top_entry_bounds,
)
from crlib.theory.linear import linear_minimal
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
    "NetworkLipschitz",
    "interlayer_alignment",
    "linear_minimal",
    "logistic_gap_bounds",
    "network_lipschitz",
    "optimal_pairing",
    "row_norm_bounds",
    "spectral_norm_bounds",
    "top_entry_bounds",
]
