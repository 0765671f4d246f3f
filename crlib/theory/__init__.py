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
from crlib.theory.layers import (
    Bounds,
    row_norm_bounds,
    spectral_norm_bounds,
    top_entry_bounds,
)
from crlib.theory.linear import linear_minimal

__all__ = [
    "Bounds",
    "BridgeAttack",
    "bridge_attack",
    "bridge_radius",
    "linear_minimal",
    "row_norm_bounds",
    "spectral_norm_bounds",
    "surviving_fraction",
    "top_entry_bounds",
    "two_probe_radius",
]
