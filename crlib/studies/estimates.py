"""Which cheap number says how far an attack must go: networks of seven kinds.

All are trained in float64 on a part of the embedded sample, so that a network trained
again is its row of the table. Of each the distances that attacks find stand beside
numbers that cost a few passes, or none.
"""

from typing import Any

import torch
from scipy import stats
from torch import Tensor

from crlib import attacks, certify, metrics, train
from crlib.data import Dataset
from crlib.models import MLP
from crlib.studies import networks
from crlib.studies.engine import Config, Numbers
from crlib.studies.measures import compressibility, differences, of_sample

__all__ = ["STUDY", "judge", "trained"]

IMAGES, EPOCHS, ATTACKED, STEPS = 1500, 4, 100, 15
ADVERSARIAL = "adversarial"
# The ways of the study ``networks``, and one more: its strength is a budget in linf.
SETTINGS: list[Config] = [
    {"way": way, "strength": strength}
    for way, strength in (
        ("plain", 0.0),
        ("rank", 16.0),
        ("rank, principal", 16.0),
        ("rank, both", 16.0),
        ("rows, scale-invariant", 0.1),
        ("spectral dial", 1.0),
        (ADVERSARIAL, 0.03),
    )
]


def trained(config: Config, images: Dataset) -> MLP:
    """Train the network of a configuration on a part of the images."""
    way, strength, seed = config["way"], config["strength"], config["seed"]
    part = images.subset(IMAGES, 1000)
    kind = "plain" if way == ADVERSARIAL else way
    net, options = networks.build(kind, strength, seed, part)
    if way == ADVERSARIAL:
        options["adversary"] = train.pgd_adversary(eps=strength, steps=3)
    fitted = train.fit(
        net,
        part,
        epochs=EPOCHS,
        validation=0,
        checkpoint="last",
        seed=seed,
        progress=False,
        **options,
    )
    found: MLP = fitted.model
    return found


def judge(net: MLP, x: Tensor, y: Tensor) -> dict[str, float]:
    """Measure distances, and what might have told them in advance.

    Args:
        net: the network.
        x: ``(N, ...)`` images in [0, 1]; those labelled right count.
        y: ``(N,)`` labels.

    Returns:
        Medians over the images: distances ``l2`` and ``linf`` by FMN, their
        ``estimate`` from one linearisation at all rivals and at the ``runner-up``,
        margin, slope (l2 norm of its gradient) and l2 certificate. Means over the
        hidden layers: compressibility and stable rank. The contrast of the first
        layer. And image by image: how estimate and margin rank the distances, and the
        quantiles of distance over estimate.
    """
    right = net(x).argmax(1) == y
    every, x, y = x, x[right], y[right]
    z = x.clone().requires_grad_()
    margin = metrics.margin(net(z), y)
    (slope,) = torch.autograd.grad(margin.sum(), z)
    certificate = certify.lipschitz_radius(net, x, y, norm="l2")
    hidden = [w.detach() for w in net.weights[:-1]]
    ranks = [metrics.stable_rank(metrics.singular_values(w)) for w in hidden]
    found: dict[str, Any] = {
        "labelled right": len(x) / len(every),
        "margin": float(margin.detach().median()),
        "slope": float(slope.flatten(1).norm(dim=1).median()),
        "certificate": float(certificate.median()),
        "stable rank": sum(ranks) / len(ranks),
        "contrast": _contrast(hidden[0], differences(x, y)),
        **compressibility(hidden),
    }
    for norm in ("l2", "linf"):
        far = attacks.fmn(net, x, y, norm=norm, steps=STEPS).distance
        guess = metrics.first_order(net, x, y, norm=norm)
        runner = metrics.first_order(net, x, y, norm=norm, rivals=1)
        found |= {
            norm: float(far.median()),
            f"estimate {norm}": float(guess.median()),
            f"runner-up {norm}": float(runner.median()),
            f"ranked by estimate {norm}": _order(guess, far),
            f"ranked by margin {norm}": _order(margin.detach(), far),
        }
        for q in (0.1, 0.5, 0.9):
            found[f"ratio {q} {norm}"] = float((far / guess).quantile(q))
    return found


def _order(guess: Tensor, far: Tensor) -> float:
    return float(stats.spearmanr(guess.numpy(), far.numpy()).statistic)


def _contrast(w: Tensor, pairs: Tensor) -> float:
    """Largest gain of a layer over its root mean square gain of differences."""
    gain = (pairs @ w.T).square().sum(1) / pairs.square().sum(1)
    return float(torch.linalg.matrix_norm(w, 2) / gain.mean().sqrt())


def run(config: Config, images: Dataset) -> Numbers:
    """Train once and judge on the first test images."""
    net = trained(config, images)
    return judge(net, images.x_test[:ATTACKED], images.y_test[:ATTACKED])


STUDY = of_sample("estimates", SETTINGS, run)
