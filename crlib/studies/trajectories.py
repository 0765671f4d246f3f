"""Plain training with SGD, watched: what step, batch, decay and depth do by themselves.

Nothing asks for compressibility here. One training is judged at many epochs.
"""

import torch
from torch import Tensor

from crlib import attacks, certify, metrics, train
from crlib.models import MLP
from crlib.studies.engine import Config, Numbers
from crlib.studies.measures import (
    SETS,
    at_checkpoints,
    compressibility,
    judged_trainings,
    nearest,
    right_directions,
    robustness,
)

__all__ = ["STUDY", "judge"]

EPOCHS = (0, 1, 2, 4, 8, 16, 32)
CHECKPOINTS = ("validation", "matched", *(f"epoch {e}" for e in EPOCHS))
MATCH = 0.88
EPS = {"l2": 0.5, "linf": 0.03}


def judge(net: MLP, x: Tensor, y: Tensor, *, attacked: int = 200) -> dict[str, float]:
    """Measure accuracy, compressibility, tails and distances of a network.

    Args:
        net: the network at some epoch.
        x: ``(N, ...)`` test images in [0, 1].
        y: ``(N,)`` labels.
        attacked: how many of them, the first, are attacked one by one.

    Returns:
        Named numbers. Tail indices are Hill's, from the largest two hundredths of the
        entries and the largest tenth of the singular values, means over hidden layers.
        The normalised margin is the median margin over the product of all operator
        norms, the scale-free part of a Lipschitz certificate.
    """
    hidden = net.weights[:-1]
    with torch.no_grad():
        logits = net(x)
    right = (logits.argmax(1) == y)[:attacked]
    found = {"accuracy": float((logits.argmax(1) == y).double().mean())}
    found |= compressibility(hidden)
    entries = [w.flatten() for w in hidden]
    spectra = [metrics.singular_values(w) for w in hidden]
    for name, values, share in (("entries", entries, 0.02), ("spectrum", spectra, 0.1)):
        tails = [metrics.hill_estimator(v, round(share * len(v))) for v in values]
        found[f"tail of {name}"] = sum(tails) / len(tails)
    norms = [float(metrics.singular_values(w)[0]) for w in net.weights]
    scale = torch.tensor(norms, dtype=torch.float64).prod()
    found["Frobenius"] = sum(float(w.norm()) for w in hidden) / len(hidden)
    found["Lipschitz product"] = float(scale)
    found["normalised margin"] = float(metrics.margin(logits, y).median() / scale)

    few, labels = x[:attacked], y[:attacked]
    near = nearest(net, few, labels, EPS, steps=40)
    if right.any():
        found |= robustness(near, right, EPS)
        radius = certify.lipschitz_radius(net, few, labels)
        found["certificate"] = float(radius[right].median())
        hit = right & near["l2"].success
        delta = (near["l2"].x_adv - few)[hit].double()
        inside = metrics.energy_share(delta, right_directions(net.weights[0], 10))
        found["attack in top ten"] = float(inside.mean())
    found["universal linf"] = attacks.universal(
        net, x, y, eps=20 / 255, norm="linf"
    ).fooling_rate
    return found


def _run(configs: list[Config], device: str) -> list[Numbers]:
    first = configs[0]
    images = SETS[first["data"]]().to(device)
    net = MLP(
        (784, *[256] * first["hidden"], 10), mean=0.286, std=0.353, seed=first["seed"]
    )
    fitted = train.fit(
        net.to(device),
        images,
        epochs=EPOCHS[-1],
        optimiser="sgd",
        lr=first["lr"],
        batch_size=first["batch"],
        weight_decay=first["decay"],
        checkpoint="last",
        match=MATCH,
        keep=EPOCHS,
        seed=first["seed"],
        progress=False,
    )
    x, y = (part[: first["judged"]] for part in (images.x_test, images.y_test))

    def judged(at: train.Fit) -> dict[str, float]:
        found = judge(at.model, x, y, attacked=first["attacked"])
        if not at.epoch:
            return found
        return {"validation loss": at.history[at.epoch - 1].validation_loss, **found}

    return at_checkpoints(fitted, configs, judged)


def _grid(seeds: int, **more: object) -> list[Config]:
    usual = {"lr": 0.05, "batch": 128, "decay": 0.0, "hidden": 3}
    changes: dict[str, tuple[float, ...]] = {
        "lr": (0.005, 0.01, 0.02, 0.05, 0.1),
        "batch": (32, 512),
        "decay": (0.001, 0.005),
        "hidden": (1, 2, 5),
    }
    return [
        {**usual, name: value, "seed": seed, "checkpoint": rule, **more}
        for name, values in changes.items()
        for value in values
        for seed in range(seeds)
        for rule in CHECKPOINTS
    ]


STUDY = judged_trainings(
    "trajectories",
    _run,
    {
        "quick": _grid(5, data="sample", judged=500, attacked=200),
        "full": _grid(10, data="Fashion-MNIST", judged=10_000, attacked=1000),
    },
    lambda config: SETS[config["data"]]().fingerprint,
    version=2,
)
