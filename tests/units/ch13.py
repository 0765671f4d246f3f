"""Chapter 13: mutations of its theorems, wrong answers, its code from scratch."""

import torch

from crlib import compress, models
from tests.units import Mutation
from tests.units.cells import defined
from tests.units.every import *

MUTATIONS = [
    # A step by signs, as of Adam: it leaves the span of the data.
    Mutation("prop-few-unseen", "setup", "- rate * gw", "- rate * gw.sign()"),
    # The decay counted once, not in every step.
    Mutation("prop-few-unseen", "check", "(1 - 0.3 * 0.1) ** 40", "(1 - 0.3 * 0.1)"),
    # All dimensions counted as free.
    Mutation("prop-few-unseen", "check", "stats.chi2(12 - 5)", "stats.chi2(12)"),
]

WRONG = {
    # The profile's own norm forgotten.
    "ex-few-dial": """
def dialled(w, alpha):
    u, s, vh = torch.linalg.svd(w, full_matrices=False)
    return u * (w.norm() * torch.arange(1, len(s) + 1, dtype=w.dtype) ** -alpha) @ vh
""",
    # The inputs taken for orthonormal.
    "ex-few-unseen": [
        """
def cleared(w, x):
    x = x / x.norm(dim=1, keepdim=True)
    return w @ x.T @ x
""",
        # What the inputs see taken out, and the rest kept.
        """
def cleared(w, x):
    return w - w @ torch.linalg.pinv(x) @ x
""",
    ],
    # Energies added up before they are divided: long vectors count more.
    "ex-few-twice": [
        """
def concentration(w, delta, x, k):
    v = torch.linalg.svd(w, full_matrices=False).Vh[:k].T
    i, j = torch.triu_indices(len(x), len(x), 1)
    shares = [(d @ v).square().sum() / d.square().sum() for d in (delta, x[i] - x[j])]
    return float(shares[0] / shares[1])
""",
        # Lengths in place of their squares.
        """
def concentration(w, delta, x, k):
    v = torch.linalg.svd(w, full_matrices=False).Vh[:k].T
    i, j = torch.triu_indices(len(x), len(x), 1)
    seen = [(d @ v).norm(dim=1) / d.norm(dim=1) for d in (delta, x[i] - x[j])]
    return float(seen[0].mean() / seen[1].mean())
""",
    ],
}


def test_the_spectral_dial() -> None:
    (turned,) = defined("ch13", "turned")
    for seed, alpha in enumerate((0, 0.5, 2)):
        net = models.MLP((12, 20, 9, 4), seed=seed).double()
        before = [w.clone() for w in net.weights[:-1]]
        compress.spectral_dial(alpha, frobenius=7)(net)
        for w, v in zip(before, net.weights[:-1], strict=True):
            assert torch.allclose(turned(w, alpha, 7), v, atol=1e-12)
