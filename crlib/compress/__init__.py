r"""Making networks compressible while they train, and compressing them afterwards.

Three kinds of functions. A *penalty* maps a model to a number to add to the loss
(``train.fit(..., penalty=...)``). A *constraint* changes the weights in place after a
step (``constraint=...``). A *compression* returns a new, smaller or sparser model.

All act on the hidden layers: every layer of :func:`crlib.models.weight_layers` but the
head, which is the one that runs last. A layer whose weight is computed from other
parameters (spectral or weight normalisation, the masks of torch) is refused, except by
penalties, and so is one of another kind, such as ``nn.Conv1d``. A kernel of a
convolution counts as its matrix ``(h, c k^2)``, one row a filter; a low-rank layer as
the product of its factors.
"""

from crlib.compress.compressions import (
    Size,
    factorise,
    narrow,
    prune,
    prune_to_error,
    quantise,
    recentre,
    renew_statistics,
    size,
    truncate,
)
from crlib.compress.constraints import (
    clip_spectrum,
    fixed_frobenius,
    keep_zeros,
    orthonormal_factors,
    row_dial,
    spectral_dial,
)
from crlib.compress.penalties import (
    alignment,
    group_lasso,
    l1,
    nuclear_norm,
    squared_frobenius,
    top_spread,
    total,
)

__all__ = [
    "Size",
    "alignment",
    "clip_spectrum",
    "factorise",
    "fixed_frobenius",
    "group_lasso",
    "keep_zeros",
    "l1",
    "narrow",
    "nuclear_norm",
    "orthonormal_factors",
    "prune",
    "prune_to_error",
    "quantise",
    "recentre",
    "renew_statistics",
    "row_dial",
    "size",
    "spectral_dial",
    "squared_frobenius",
    "top_spread",
    "total",
    "truncate",
]
