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
    "Bounds",
    "Moments",
    "Premises",
    "RankOne",
    "gain_ratio",
    "linear_minimal",
    "mask_amplification",
    "radius_premises",
    "random_head_moments",
    "rank_one_optimal",
    "row_norm_bounds",
    "spectral_norm_bounds",
    "top_entry_bounds",
]
