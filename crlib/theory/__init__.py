"""Bounds and closed forms of the book, each as a function of both sides.

Statements are named as in the book. Weights are ``W`` of shape ``(h, m)``: m inputs, h
outputs. What is computed here is computed in float64.
"""

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
from crlib.theory.linear import linear_minimal

__all__ = [
    "Bounds",
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
