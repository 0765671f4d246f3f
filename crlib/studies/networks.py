"""Fully connected networks, made compressible in one way after the other.

Everything is equal but the way: data, width, optimiser, epochs, seeds. One training is
judged at three checkpoints, because each tells its own story.
"""

from typing import Any

import torch
from torch import Tensor

from crlib import attacks, certify, compress, data, metrics, train
from crlib.models import MLP
from crlib.studies.engine import Config, Numbers, Study

__all__ = ["STUDY", "build", "judge"]

# way: what the strength means
WAYS = (
    "plain",
    "rank",
    "width",
    "rows, scale-invariant",
    "group lasso",
    "nuclear, scale-invariant",
    "l1",
    "Frobenius",
    "spectral dial",
    "row dial",
)
SETS = {"sample": data.fashion_mnist_sample, "Fashion-MNIST": data.fashion_mnist}
CHECKPOINTS = ("validation", "matched", "last")
MATCH = 0.85
FROBENIUS = 10.0


def build(way: str, strength: float, seed: int) -> tuple[MLP, dict[str, Any]]:
    """Return a network and the options of :func:`crlib.train.fit` that make it so.

    Args:
        way: one of ``WAYS``.
        strength: its rank, width, penalty strength or exponent; ignored for plain.
        seed: of the initialisation.

    Raises:
        ValueError: an unknown way.
    """
    if way not in WAYS:
        raise ValueError(f"way is {way!r}: choose one of {', '.join(WAYS)}.")
    width = int(strength) if way == "width" else 256
    net = MLP(
        (784, width, width, width, 10),
        rank=int(strength) if way == "rank" else None,
        mean=0.286,
        std=0.353,
        seed=seed,
    )
    penalties = {
        "rows, scale-invariant": compress.group_lasso(strength, scale_invariant=True),
        "group lasso": compress.group_lasso(strength),
        "nuclear, scale-invariant": compress.nuclear_norm(
            strength, scale_invariant=True
        ),
        "l1": compress.l1(strength),
        "Frobenius": compress.squared_frobenius(strength),
    }
    dials = {
        "spectral dial": (compress.spectral_dial(strength, frobenius=FROBENIUS), 10),
        "row dial": (compress.row_dial(strength, frobenius=FROBENIUS), 1),
    }
    if way in penalties:
        return net, {"penalty": penalties[way]}
    if way in dials:
        constraint, every = dials[way]
        # Decay would pull against a scale that is fixed.
        return net, {
            "constraint": constraint,
            "constrain_every": every,
            "weight_decay": 0.0,
        }
    return net, {}


def judge(net: MLP, x: Tensor, y: Tensor, *, seed: int = 0) -> dict[str, float]:
    """Measure compressibility, accuracy, distances and universal fooling of a network.

    Args:
        net: the trained network.
        x: ``(N, 784)``-like test images in [0, 1].
        y: ``(N,)`` labels.
        seed: of the random directions and the universal perturbations.

    Returns:
        Named numbers. Distances are medians over the images labelled right; robust
        accuracies count all images; errors are means over the hidden layers.
    """
    right = net(x).argmax(1) == y
    found: dict[str, float] = {"accuracy": float(right.double().mean())}
    delta = None
    for norm, eps in (("l2", 0.5), ("linf", 0.03)):
        near = attacks.minimum_of(
            attacks.deepfool(net, x, y, norm=norm),
            attacks.fmn(net, x, y, norm=norm, steps=50),
        )
        found[norm] = float(near.distance[right].median())
        found[f"robust {norm}"] = float((near.distance > eps).double().mean())
        if norm == "l2":
            delta = (near.x_adv - x)[right & near.success]
    hidden = net.weights[:-1]
    tenth = [max(1, round(0.1 * min(w.shape))) for w in hidden]
    spectra = [metrics.singular_values(w) for w in hidden]
    rows = [metrics.row_norms(w) for w in hidden]
    count = len(hidden)
    found["spectral error"] = (
        sum(metrics.best_k_error(s, k) for s, k in zip(spectra, tenth, strict=True))
        / count
    )
    found["row error"] = (
        sum(metrics.best_k_error(r, k) for r, k in zip(rows, tenth, strict=True))
        / count
    )
    found["top share"] = sum(float(s[0] / s.norm()) for s in spectra) / count
    found["certificate"] = float(certify.lipschitz_radius(net, x, y)[right].median())
    top = torch.linalg.svd(net.weights[0].double(), full_matrices=False).Vh[:10].T
    g = torch.Generator().manual_seed(seed)
    noise = torch.randn(x.shape, generator=g)
    pairs = x - x[torch.randperm(len(x), generator=g)]
    moving = pairs.flatten(1).norm(dim=1) > 0
    assert delta is not None
    for name, directions in (
        ("attack", delta),
        ("difference", pairs[moving]),
        ("noise", noise),
    ):
        share = metrics.energy_share(directions.double(), top)
        found[f"{name} in top ten"] = float(share.mean())
    for norm, eps in (("linf", 20 / 255), ("l2", 1.5)):
        own = max(
            attacks.universal(
                net,
                x,
                y,
                eps=eps,
                norm=norm,
                generator=torch.Generator().manual_seed(seed + restart),
            ).fooling_rate
            for restart in range(3)
        )
        found[f"universal {norm}"] = own
    one = attacks.top_direction(net, x, y, eps=1.5)
    found["top direction l2"] = one.fooling_rate
    blind = 1.5 * noise / noise.flatten(1).norm(dim=1).view(-1, *[1] * (x.ndim - 1))
    moved = net((x + blind).clamp(0, 1)).argmax(1) != net(x).argmax(1)
    found["noise l2"] = float(moved.double().mean())
    return found


def _run(configs: list[Config], device: str) -> list[Numbers]:
    """Train once; judge at each checkpoint asked for."""
    first = configs[0]
    images = SETS[first["data"]]().to(device)
    net, options = build(first["way"], first["strength"], first["seed"])
    fitted = train.fit(
        net.to(device),
        images,
        epochs=first["epochs"],
        checkpoint="last",
        match=MATCH,
        seed=first["seed"],
        progress=False,
        **options,
    )
    rows = torch.randperm(
        len(images.x_test), generator=torch.Generator().manual_seed(0)
    )[: first["attacked"]]
    x, y = images.x_test[rows], images.y_test[rows]
    results: list[Numbers] = []
    for config in configs:
        rule = config["checkpoint"]
        if rule not in fitted.kept:
            # Training never reached the fit to be matched: that is a result too.
            results.append({"epoch": 0, "met": False})
            continue
        at = fitted.at(rule)
        met: dict[str, float] = {"epoch": at.epoch, "met": True}
        met["train accuracy"] = at.history[at.epoch - 1].train_accuracy
        met["test accuracy"] = metrics.accuracy(at.model, images.x_test, images.y_test)
        results.append(met | judge(at.model, x, y, seed=config["seed"]))
    return results


def _one(config: Config, device: str) -> Numbers:
    return _run([config], device)[0]


def _grid(seeds: int, **more: Any) -> list[Config]:
    strengths: dict[str, tuple[float, ...]] = {
        "plain": (0,),
        "rank": (64, 16, 8, 4),
        "width": (128, 64, 32, 16),
        "rows, scale-invariant": (0.03, 0.1, 0.2),
        "group lasso": (0.001, 0.003),
        "nuclear, scale-invariant": (0.03, 0.1),
        "l1": (1e-4,),
        "Frobenius": (0.003,),
        "spectral dial": (0, 0.25, 0.5, 1),
        "row dial": (0, 0.5, 1),
    }
    return [
        {"way": way, "strength": s, "seed": seed, "checkpoint": rule, **more}
        for way, own in strengths.items()
        for s in own
        for seed in range(seeds)
        for rule in CHECKPOINTS
    ]


STUDY = Study(
    name="networks",
    run=_one,
    run_many=_run,
    group=lambda config: {k: v for k, v in config.items() if k != "checkpoint"},
    grids={
        "quick": _grid(5, data="sample", epochs=20, attacked=300),
        "full": _grid(10, data="Fashion-MNIST", epochs=20, attacked=1000),
    },
    fingerprint=lambda config: SETS[config["data"]]().fingerprint,
)
