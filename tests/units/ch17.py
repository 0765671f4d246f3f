"""Chapter 17: mutations of its theorems, wrong answers, its code from scratch."""

import torch

from crlib import models, train
from tests.units import Mutation
from tests.units.cells import defined
from tests.units.every import *

MUTATIONS = [
    # The norm of the perturbation in place of its dual.
    Mutation(
        "thm-at-gauss",
        "setup",
        'np.abs(w).sum() if p == "linf"',
        'np.abs(w).max() if p == "linf"',
    ),
    # The budget squared, as in a penalty.
    Mutation("thm-at-gauss", "setup", "eps * dual", "eps**2 * dual"),
    # The share of the energy in place of that of the length.
    Mutation(
        "thm-at-rowspace",
        "setup",
        "reach = chi * np.linalg.norm(mu)",
        "reach = chi**2 * np.linalg.norm(mu)",
    ),
    # All images counted, not those labelled right.
    Mutation("prop-at-ratio", "setup", "(r[right] > eps)", "(r > eps)"),
]

WRONG = {
    # The deviation in place of the variance.
    "ex-at-soft": """
def robust_weights(mu, s, eps):
    return mu.sign() * (mu.abs() - eps).clamp(min=0) / s
""",
    # The budget taken for the ridge.
    "ex-at-ridge": """
def robust_ridge(mu, cov, eps):
    return torch.linalg.solve(cov + eps * torch.eye(len(mu)).to(cov), mu)
""",
    # The head alone is trained, behind a row space that stays as it was drawn.
    "ex-at-learnt": [
        """
def learnt_behind(mu, eps, norm, a, W):
    a = a.clone().requires_grad_(True)
    climb = torch.optim.Adam([a], lr=0.02)
    for _ in range(500):
        w = W.T @ a
        dual = w.abs().sum() if norm == "linf" else w.norm()
        climb.zero_grad()
        ((eps * dual - w @ mu) / w.norm()).backward()
        climb.step()
    return a.detach(), W
""",
        # No adversary: that is the best answer in l2 only.
        """
def learnt_behind(mu, eps, norm, a, W):
    W = W.clone()
    W[0] = mu
    return torch.eye(len(a), dtype=a.dtype)[0], W
""",
    ],
    # The divergence the other way round.
    "ex-at-trades": [
        """
def trades_loss(clean, moved, y, beta):
    p, q = clean.log_softmax(1), moved.log_softmax(1)
    away = (q.exp() * (q - p)).sum(1).mean()
    return functional.cross_entropy(clean, y) + beta * away
""",
        # The sum over the batch in place of the mean.
        """
def trades_loss(clean, moved, y, beta):
    p, q = clean.log_softmax(1), moved.log_softmax(1)
    return functional.cross_entropy(clean, y) + beta * (p.exp() * (p - q)).sum()
""",
    ],
}


def test_the_inner_attack_is_that_of_training() -> None:
    (worst,) = defined("ch17", "worst")
    for seed, eps, steps in ((0, 0.05, 1), (1, 0.1, 4), (2, 0.7, 3)):
        net = models.MLP((12, 9, 4), seed=seed).double()
        g = torch.Generator().manual_seed(seed)
        x = torch.rand(20, 12, generator=g, dtype=torch.float64)
        y = torch.arange(20) % 4
        draw = torch.rand(x.shape, generator=g.manual_seed(7), dtype=x.dtype)
        start = torch.lerp((x - eps).clamp(0, 1), (x + eps).clamp(0, 1), draw)
        adversary = train.pgd_adversary(eps=eps, steps=steps)
        theirs = adversary(net, x, y, g.manual_seed(7))
        assert torch.allclose(worst(net, x, y, start, eps, steps), theirs, atol=1e-12)
