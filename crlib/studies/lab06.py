"""Lab 6: how the rank of a network's Jacobian falls with depth, by three counts."""

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from crlib import metrics, train
from crlib.data import Dataset
from crlib.models import MLP
from crlib.studies.engine import Config, Numbers
from crlib.studies.measures import compressibility, nearest, of_sample

__all__ = [
    "DEPTHS",
    "FEW",
    "SETTINGS",
    "STUDY",
    "classification_dimension",
    "deficit",
    "fitted",
    "jacobians",
    "numerical_rank",
    "reduced",
    "run",
    "safe_counts",
]

WIDTH, DEPTHS = 128, (2, 8)
FEW = (1, 3)  # logits that tell another one
SETTINGS: list[Config] = [{"strength": depth} for depth in DEPTHS]


def safe_counts(chain: Sequence[Tensor], tol: float) -> list[int]:
    r"""Count singular values that are large against all that came before.

    .. math:: \#\{k : \sigma_k(A^l \cdots A^1) > \tau \prod_{i \le l} \|A^i\|_2\}

    Args:
        chain: matrices, the first one applied first.
        tol: :math:`\tau`, in (0, 1).
    """
    product, most, found = torch.eye(chain[0].shape[1], dtype=chain[0].dtype), 1.0, []
    for a in chain:
        product, most = a @ product, most * metrics.operator_norm(a)
        found.append(int((torch.linalg.svdvals(product) > tol * most).sum()))
    return found


def numerical_rank(s: Tensor, tol: float = 1e-2) -> Tensor:
    """Count singular values ``(..., n)`` above ``tol`` times the largest one."""
    return (s > tol * s[..., :1]).sum(-1)


def reduced(net: MLP, x: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
    """Return the same network on the row space of its first layer.

    Singular values of Jacobians are those of the whole network, at a sixth of the
    columns.

    Args:
        net: without biases.
        x: images ``(N, 1, 28, 28)``.

    Returns:
        The weights, the first one square; the inputs ``(N, h)``; and the directions
        ``(784, h)`` of their coordinates.
    """
    first, *rest = net.weights
    q, r = torch.linalg.qr(first.T)
    return [r.T, *rest], net.normalize(x).flatten(1) @ q, q


def jacobians(weights: Sequence[Tensor], x: Tensor) -> list[Tensor]:
    """Return the Jacobians ``(N, h, d)`` of the hidden layers at inputs ``(N, d)``."""
    j, found = torch.eye(x.shape[1], dtype=x.dtype), []
    for w in weights[:-1]:
        z = x @ w.T
        j = (z > 0)[:, :, None] * (w @ j)
        x = z.relu()
        found.append(j)
    return found


def _features(net: MLP, x: Tensor) -> list[Tensor]:
    """Return what each hidden layer hands on, ``(N, h)``."""
    a, found = net.normalize(x).flatten(1), []
    for w in net.weights[:-1]:
        a = (a @ w.T).relu()
        found.append(a)
    return found


def classification_dimension(a: Tensor, head: Tensor, y: Tensor) -> int:
    """Return how many principal components keep 95 percent of the accuracy.

    Args:
        a: features ``(N, h)``.
        head: ``(K, h)``.
        y: labels ``(N,)``.
    """
    middle = a.mean(0)
    v = torch.linalg.svd(a - middle, full_matrices=False).Vh.T
    parts = ((a - middle) @ v)[:, :, None] * (v.T @ head.T)  # (N, h, K)
    right = (parts.cumsum(1) + middle @ head.T).argmax(2) == y[:, None]
    accuracy = right.double().mean(0)
    return int((accuracy >= 0.95 * accuracy[-1]).nonzero()[0]) + 1


def deficit(z: Tensor, few: int | None = None) -> float:
    """Return R^2 of a logit from others, a mean over the logits ``(N, K)``.

    Coefficients are those of the first half, and the second half judges.

    Args:
        z: logits.
        few: how many others, for each logit those that tell most of it on the first
            half, of all choices; None for all of them.
    """
    half, count, found = len(z) // 2, z.shape[1], []
    for k in range(count):
        others = [j for j in range(count) if j != k]
        told = [
            _told(z, k, [*some], half)
            for some in itertools.combinations(others, few or len(others))
        ]
        # The least miss on the first half.
        found.append(min(told)[1])
    return sum(found) / len(found)


def _told(z: Tensor, k: int, others: list[int], half: int) -> tuple[float, float]:
    """Return the squared miss on the first half, and R^2 on the second."""
    rest = torch.cat([z[:, others], torch.ones_like(z[:, :1])], 1)
    fit = torch.linalg.lstsq(rest[:half], z[:half, k : k + 1]).solution
    miss = (rest @ fit)[:, 0] - z[:, k]
    told = 1 - float(miss[half:].square().mean() / z[half:, k].var())
    return float(miss[:half].square().sum()), told


def fitted(depth: int, images: Dataset, seed: int) -> train.Fit:
    """Return a network from a start of He at its first epoch of accuracy 0.88."""
    net = MLP((784, *[WIDTH] * depth, 10), mean=0.286, std=0.353).double()
    g = torch.Generator().manual_seed(6000 + seed)
    with torch.no_grad():
        for w in net.weights:
            draw = torch.randn(w.shape, generator=g, dtype=torch.float64)
            w.copy_(draw * math.sqrt(2 / w.shape[1]))
    return train.fit(
        net,
        images.subset(min(4000, len(images.x_train)), 100, seed=seed),
        epochs=10,
        weight_decay=0.0,
        validation=0.0,
        checkpoint="matched",
        match=0.88,
        keep=[0],
        seed=seed,
        progress=False,
    )


def _profile(net: MLP, images: Dataset, when: str) -> dict[str, float]:
    """Return the counts of each hidden layer, means over ten images."""
    weights, x, _ = reduced(net, images.x_test[:10])
    found: dict[str, float] = {}
    ranks = []
    features = _features(net, images.x_test[:500])
    for n, (j, a) in enumerate(zip(jacobians(weights, x), features, strict=True), 1):
        s = torch.linalg.svdvals(j)
        ranks.append(numerical_rank(s))
        found[f"{when} rank {n}"] = float(ranks[-1].double().mean())
        effective = [metrics.effective_rank(row) for row in s]
        found[f"{when} effective {n}"] = sum(effective) / len(effective)
        spread = torch.linalg.svdvals(a - a.mean(0))
        found[f"{when} batch {n}"] = int(numerical_rank(spread))
    rises = (torch.stack(ranks).diff(dim=0) > 0).any(0)
    found[f"{when} rises"] = float(rises.double().mean())
    return found


def run(config: Config, images: Dataset) -> Numbers:
    """Return ranks before and after training, and the distance of one network."""
    depth, seed = config["strength"], config["seed"]
    fit = fitted(depth, images, seed)
    net, head = fit.model, fit.model.weights[-1]
    found = {
        "epoch": float(fit.epoch),
        "clean accuracy": metrics.accuracy(net, images.x_test, images.y_test),
        **_profile(fit.at("epoch 0").model, images, "start"),
        **_profile(net, images, "trained"),
    }
    last = _features(net, images.x_test)[-1]
    found["dimension"] = classification_dimension(last, head, images.y_test)
    found["deficit"] = deficit(last @ head.T)
    found |= {f"deficit, {few}": deficit(last @ head.T, few) for few in FEW}
    x, y = images.x_test[:100], images.y_test[:100]
    right = net(x).argmax(1) == y
    near = nearest(net, x, y, ["l2"], steps=40)["l2"]
    found["l2"] = float(near.distance[right].median())
    chosen = right.nonzero()[:40, 0]
    weights, inside, q = reduced(net, x[chosen])
    top = torch.linalg.svd(jacobians(weights, inside)[-1]).Vh[:, :3]  # (40, 3, h)
    delta = (near.x_adv - x)[chosen].flatten(1)
    seen = (top @ (delta @ q)[:, :, None])[:, :, 0]
    share = seen.square().sum(1) / delta.square().sum(1)
    found["top three"] = float(share.mean())
    found["spectral error"] = compressibility(net.weights[:-1])["spectral error"]
    return found


STUDY = of_sample("lab06", SETTINGS, run, version=2)
