"""What several studies measure in the same way."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from crlib import metrics
from crlib.attacks import AttackResult

__all__ = ["compressibility", "right_directions", "robustness"]


def compressibility(weights: Sequence[Tensor]) -> dict[str, float]:
    """Return measures of compressibility, each a mean over the weights.

    Args:
        weights: matrices ``(h, m)``, kernels flattened.

    Returns:
        Best-k errors of spectrum and rows with a tenth kept, and the share of the
        Frobenius norm in the operator norms (l2 and linf).
    """
    spectra = [metrics.singular_values(w) for w in weights]
    rows = [metrics.row_norms(w) for w in weights]

    def error(values: list[Tensor]) -> float:
        return _mean(
            metrics.best_k_error(v, max(1, round(0.1 * len(v)))) for v in values
        )

    return {
        "spectral error": error(spectra),
        "row error": error(rows),
        "top share": _mean(float(s[0] / s.norm()) for s in spectra),
        "row share": _mean(
            metrics.operator_norm(w, norm="linf") / float(w.norm()) for w in weights
        ),
    }


def right_directions(weight: Tensor, k: int) -> Tensor:
    """Return the first ``k`` right singular vectors ``(m, k)`` of ``(h, m)``."""
    return torch.linalg.svd(weight.double(), full_matrices=False).Vh[:k].T


def robustness(
    nearest: Mapping[str, AttackResult], right: Tensor, eps: Mapping[str, float]
) -> dict[str, float]:
    """Return median distances and robust accuracies.

    Args:
        nearest: for each norm, the result of a minimal-norm attack on N inputs.
        right: ``(N,)``, whether the input is labelled right: medians are over these.
        eps: for each norm, the budget of the robust accuracy, over all N.
    """
    found = {}
    for norm, near in nearest.items():
        found[norm] = float(near.distance[right].median())
        survives = near.distance > eps[norm]
        found[f"robust {norm}"] = float(survives.double().mean())
    return found


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed)
