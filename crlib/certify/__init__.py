r"""Certificates: radii within which a label provably cannot change.

For a model with logits :math:`z`, an input x and its label y, the distance to the
nearest input of the box :math:`[0,1]^d` that is labelled otherwise lies between what
this room proves and what an attack finds:
**certificate <= exact distance <= attack**.

The bounds read the network: they know :class:`~crlib.models.MLP`,
:class:`~crlib.models.ResNet` and nestings of ``nn.Sequential`` and
:class:`~crlib.models.Residual` with fully connected layers and convolutions with any
padding (both low-rank ones too), ReLU and LeakyReLU, GELU, SiLU, tanh and sigmoid, max
and average pooling, flattening, layers that pad, normalisation, batch normalisation
with its running statistics, and dropout, which is off. :func:`exact_distance` alone
knows no sum, no max pooling and of the activations only ReLU. Any other module is
refused by name. What was read is compared with the model's own logits: a hook or a
patched ``forward`` that changes them is refused too. They compute in float64 with the
model's weights; rounding is not counted.
"""

from crlib.certify.exact import ExactDistance, exact_distance
from crlib.certify.lipschitz import lipschitz_bound, lipschitz_radius
from crlib.certify.relaxation import certified_radius, crown_bounds, interval_bounds
from crlib.certify.smoothing import Smoothed, smooth_certify

__all__ = [
    "ExactDistance",
    "Smoothed",
    "certified_radius",
    "crown_bounds",
    "exact_distance",
    "interval_bounds",
    "lipschitz_bound",
    "lipschitz_radius",
    "smooth_certify",
]
