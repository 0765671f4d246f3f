"""Randomised smoothing."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from scipy import stats
from torch import Tensor

from crlib import checks
from crlib.asking import ask, evaluating


@dataclass(frozen=True)
class Smoothed:
    """What randomised smoothing certifies.

    Attributes:
        label: ``(N,)`` label of the smoothed model; -1 where it abstains.
        radius: ``(N,)`` certified l2 radius in float64; 0 where it abstains.
        p_low: ``(N,)`` lower confidence bound on the probability of the label.
    """

    label: Tensor
    radius: Tensor
    p_low: Tensor


def smooth_certify(
    model: Callable[[Tensor], Tensor],
    x: Tensor,
    *,
    sigma: float,
    n0: int = 100,
    n: int = 1000,
    alpha: float = 1e-3,
    batch_size: int = 1024,
    generator: torch.Generator | None = None,
) -> Smoothed:
    r"""Certify the smoothed model in l2 by sampling (Cohen et al. 2019, CERTIFY).

    The smoothed model returns the label that ``model`` gives most often to
    :math:`x + \mathcal N(0, \sigma^2 I)`. If that label has probability at least
    :math:`p > 1/2`, it is the same within the radius :math:`\sigma \Phi^{-1}(p)`.
    ``n0`` draws guess the label, ``n`` others bound its probability from below
    (Clopper and Pearson). For each input alone, the statement fails with probability
    at most ``alpha`` over the draws. It is a statement about the smoothed model, not
    about ``model``. Noisy inputs are not clipped to [0, 1].

    Args:
        model: maps ``(N, ...)`` to logits ``(N, K)``; any model.
        x: ``(N, ...)`` in [0, 1].
        sigma: standard deviation of the noise, in input units.
        n0: draws for the guess.
        n: draws for the bound; the largest radius it can certify is
            :math:`\sigma \Phi^{-1}(\alpha^{1/n})`.
        alpha: probability of failure, in (0, 1).
        batch_size: noisy inputs in one forward pass.
        generator: source of the noise; None means a new one of seed 0.

    Raises:
        ValueError: bad input, or a model that returns a NaN or fewer than two logits.

    Example:
        >>> import torch
        >>> from crlib import certify
        >>> x = torch.tensor([[1.0, 0.0]])
        >>> found = certify.smooth_certify(torch.nn.Identity(), x, sigma=0.05)
        >>> found.label, found.radius.round(decimals=3)
        (tensor([0]), tensor([0.1230], dtype=torch.float64))
    """
    checks.inputs(x)
    if not 0 < sigma < math.inf or not 0 < alpha < 1:
        raise ValueError(
            f"sigma is {sigma}, alpha {alpha}: a positive number, and one in (0, 1)."
        )
    checks.at_least(1, n0=n0, n=n, batch_size=batch_size)
    source = checks.chance(generator)
    x = x.detach()
    label = torch.full((len(x),), -1, dtype=torch.int64, device=x.device)
    p_low = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    with evaluating(model), torch.no_grad():
        for i, image in enumerate(x):
            guess = _votes(model, image, sigma, n0, batch_size, source).argmax()
            votes = _votes(model, image, sigma, n, batch_size, source)
            hits = int(votes[guess]) if guess < len(votes) else 0
            p_low[i] = stats.beta.ppf(alpha, hits, n - hits + 1) if hits else 0.0
            label[i] = guess if p_low[i] > 0.5 else -1
    radius = sigma * torch.special.ndtri(p_low.clamp_min(0.5))
    return Smoothed(label, radius, p_low)


def _votes(
    model: Callable[[Tensor], Tensor],
    image: Tensor,
    sigma: float,
    n: int,
    batch_size: int,
    source: torch.Generator,
) -> Tensor:
    """Count the labels of ``n`` noisy copies of one input."""
    labels = []
    for start in range(0, n, batch_size):
        size = (min(batch_size, n - start), *image.shape)
        noise = torch.randn(
            size, generator=source, device=source.device, dtype=image.dtype
        )
        logits = ask(model, image + sigma * noise.to(image.device))
        checks.logits(logits, len(noise))
        labels.append(logits.argmax(1))
    return torch.cat(labels).bincount()
