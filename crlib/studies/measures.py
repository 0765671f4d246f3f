"""What several studies do and measure in the same way."""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from crlib import attacks, compress, data, metrics
from crlib.attacks import AttackResult
from crlib.data import Dataset
from crlib.models import LowRankConv2d, LowRankLinear, weight_layers
from crlib.studies.engine import Config, Numbers, Study
from crlib.train import Fit

__all__ = [
    "SETS",
    "at_checkpoints",
    "cascaded",
    "compressibility",
    "differences",
    "halved",
    "judged_trainings",
    "nearest",
    "of_sample",
    "photographs",
    "right_directions",
    "robustness",
    "row_space",
    "small",
    "start_principal",
    "surviving",
]

# The committed tables are of the sample, in float64: there a network is the same on
# every processor, so a page can train it again and find its row.
SETS: dict[str, Callable[[], Dataset]] = {
    "sample": lambda: data.fashion_mnist_sample().double(),
    "Fashion-MNIST": data.fashion_mnist,
}


def halved(images: Dataset) -> Dataset:
    """Return images of half the side: means over squares of two by two pixels."""
    pool = torch.nn.functional.avg_pool2d
    return replace(
        images, x_train=pool(images.x_train, 2), x_test=pool(images.x_test, 2)
    )


@functools.cache
def photographs(count: int) -> Dataset:
    """Return a part of CIFAR-10 of half the side, in float64; a thousand images judge.

    Args:
        count: of the images to train on.
    """
    return halved(data.cifar10(progress=False).subset(count, 1000)).double()


@functools.cache
def small(name: str, count: int) -> Dataset:
    """Return a part of a data set, of half the side; a thousand images judge.

    Args:
        name: ``"CIFAR-10"``, or one of ``SETS``; in float64.
        count: of the images to train on.
    """
    if name in SETS:
        return halved(SETS[name]().subset(count, 1000)).double()
    return photographs(count)


def of_sample(
    name: str,
    settings: Sequence[Config],
    run: Callable[[Config, Dataset], Numbers],
    version: int = 1,
) -> Study:
    """Return a study of some settings on the embedded sample, in float64.

    Args:
        name: of the study.
        settings: the configurations, without seed and data.
        run: from one of them, with its seed, and the images to its numbers.
        version: a new one makes kept runs old.
    """

    def grid(seeds: int) -> list[Config]:
        return [
            {**setting, "seed": seed, "data": "sample"}
            for setting in settings
            for seed in range(seeds)
        ]

    return Study(
        name=name,
        run=lambda config, device: run(config, SETS[config["data"]]().to(device)),
        grids={"quick": grid(5), "full": grid(10)},
        fingerprint=lambda config: SETS[config["data"]]().fingerprint,
        version=version,
    )


def judged_trainings(
    name: str,
    run: Callable[[list[Config], str], list[Numbers]],
    grids: Mapping[str, list[Config]],
    fingerprint: Callable[[Config], str],
    version: int = 1,
) -> Study:
    """Return a study whose configurations that differ in ``checkpoint`` share a job.

    Args:
        name: of the study.
        run: trains once and judges at the checkpoint of each configuration.
        grids: the configurations of each profile.
        fingerprint: of the data of a configuration.
        version: a new one makes kept runs old.
    """
    return Study(
        name=name,
        run=lambda config, device: run([config], device)[0],
        run_many=run,
        group=lambda config: {k: v for k, v in config.items() if k != "checkpoint"},
        grids=grids,
        fingerprint=fingerprint,
        version=version,
    )


def at_checkpoints(
    fitted: Fit, configs: Sequence[Config], judge: Callable[[Fit], Numbers]
) -> list[Numbers]:
    """Judge one training at the checkpoint of each configuration.

    A rule that no epoch met is a result too: ``met`` is False, and nothing is judged.
    """
    results: list[Numbers] = []
    for config in configs:
        if config["checkpoint"] not in fitted.kept:
            results.append({"epoch": 0, "met": False})
            continue
        at = fitted.at(config["checkpoint"])
        found: dict[str, Any] = {"epoch": at.epoch, "met": True}
        if at.epoch:
            found["train accuracy"] = at.history[at.epoch - 1].train_accuracy
        results.append({**found, **judge(at)})
    return results


def cascaded(
    net: Any, x: Tensor, y: Tensor, budgets: Mapping[str, float]
) -> dict[str, float]:
    """Return, for each norm, the robust accuracy that the quick cascade leaves."""
    return {
        norm: attacks.worst_case(
            net, x, y, eps=eps, norm=norm, budget="quick"
        ).robust_accuracy
        for norm, eps in budgets.items()
    }


def nearest(
    net: Any, x: Tensor, y: Tensor, norms: Iterable[str], *, steps: int
) -> dict[str, AttackResult]:
    """Return, for each norm, the smaller answer of DeepFool and of FMN."""
    return {
        norm: attacks.minimum_of(
            attacks.deepfool(net, x, y, norm=norm),
            # From x: DeepFool has walked already.
            attacks.fmn(net, x, y, norm=norm, steps=steps, walk=0),
        )
        for norm in norms
    }


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


def row_space(net: Any) -> Tensor:
    """Return an orthonormal basis ``(m, r)`` of what the first layer can see."""
    first = net.layers[0]
    # The right factor has the row space that is meant, without roundings.
    w = getattr(first, "right", first.weight).detach()  # (r, m)
    return right_directions(w, len(w))


def start_principal(net: nn.Module, x: Tensor) -> None:
    """Let every low-rank layer start in the directions of what reaches it.

    Args:
        net: changed in place; a layer sees what those before it, started already, make
            of the images.
        x: ``(N, C, H, W)`` images.
    """

    def start(layer: nn.Module, given: tuple[Tensor]) -> None:
        seen = given[0]  # (N, c, H, W), or tokens (N, L, d), each one a sample
        tokens = isinstance(layer, LowRankLinear)
        compress.principal_start(layer, seen.flatten(0, -2) if tokens else seen)

    hooks = [
        layer.register_forward_pre_hook(start)
        for layer in weight_layers(net)
        if isinstance(layer, LowRankConv2d | LowRankLinear)
    ]
    try:
        # Batch normalisation has no statistics of its own yet.
        with torch.no_grad():
            net.train()(x)
    finally:
        for hook in hooks:
            hook.remove()


def differences(x: Tensor, y: Tensor) -> Tensor:
    """Return differences ``(n, m)`` of images of unlike labels, paired at random."""
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    return (x - x[order]).flatten(1)[y != y[order]]


def surviving(net: Any, pairs: Tensor) -> float:
    """Return the root mean square surviving fraction of differences ``(n, m)``."""
    return float(metrics.energy_share(pairs, row_space(net)).mean().sqrt())


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
