r"""Attacks: find an input near ``x`` that the model labels wrongly.

One convention for all. ``model`` maps ``x``, ``(N, ...)`` in [0, 1], to logits
``(N, K)``; normalisation is its first layer. ``y``, ``(N,)`` int64, is always the true
label; ``target``, ``(N,)``, holds labels to reach. ``norm`` is ``"linf"``, ``"l2"``,
``"l1"`` or, for some, ``"l0"``, which counts coordinates. ``eps`` is the radius in
input units (write ``8/255``), a number or one a sample. ``generator`` is the source of
chance; None means a new one of seed 0. Bad input raises a ValueError that says what to
do.

An attack runs in evaluation mode, takes gradients of the input only, leaves torch's
own randomness alone and the model as it was. Every attack returns an
:class:`AttackResult`. A sample that is labelled wrongly from the start is returned
unchanged, as a success at distance 0; with a target so is one labelled as the target.

A model is asked with a copy of its input, outside ``torch.inference_mode()``. Behind a
function or an object its modules are looked for and put into evaluation mode. A model
whose answer for a sample depends on the rest of the batch is refused, and so is one
that returns no logits: :func:`crlib.models.logits` takes them out of a tuple, a
dictionary, an object or one column. If no gradient is ever other than zero, a
:class:`Doubt` warns.

=====================  ============================================================
Fixed budget           :func:`fgsm`, :func:`pgd`, :func:`apgd`, :func:`square`,
                       :func:`random_noise`, :func:`patch`
Stochastic models      any of them on an :class:`EOT`
Smallest perturbation  :func:`deepfool`, :func:`fmn`, :func:`sigma_zero`,
                       :func:`minimal`, :func:`minimum_of`
One for all inputs     :func:`universal`, :func:`top_direction`
To report              :func:`worst_case`, :func:`robustness_curve`,
                       :func:`evaluate`, :func:`transfer`, :func:`diagnose`,
                       :func:`as_images`
=====================  ============================================================
"""

from crlib.asking import Doubt
from crlib.attacks.ascent import apgd, fgsm, pgd, random_noise
from crlib.attacks.balls import project
from crlib.attacks.base import EOT, AttackResult
from crlib.attacks.diagnosis import Check, Diagnosis, diagnose
from crlib.attacks.images import as_images
from crlib.attacks.judging import (
    Curve,
    evaluate,
    robustness_curve,
    transfer,
    worst_case,
)
from crlib.attacks.patches import patch
from crlib.attacks.query import square
from crlib.attacks.smallest import deepfool, fmn, minimal, minimum_of, sigma_zero
from crlib.attacks.universal import UniversalResult, top_direction, universal

__all__ = [
    "EOT",
    "AttackResult",
    "Check",
    "Curve",
    "Diagnosis",
    "Doubt",
    "UniversalResult",
    "apgd",
    "as_images",
    "deepfool",
    "diagnose",
    "evaluate",
    "fgsm",
    "fmn",
    "minimal",
    "minimum_of",
    "patch",
    "pgd",
    "project",
    "random_noise",
    "robustness_curve",
    "sigma_zero",
    "square",
    "top_direction",
    "transfer",
    "universal",
    "worst_case",
]
