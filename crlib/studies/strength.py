"""How strong attacks are: what each reports on the same networks, and what it costs.

Two small networks a seed, one undefended and one hardened by adversarial training.
Every attack has the same images and the same budget, so the reports differ by the
attack alone. Layers that mislead attacks stand before or behind each network as well.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from crlib import attacks, data, metrics, train
from crlib.attacks import AttackResult
from crlib.models import MLP
from crlib.studies.engine import Config, Numbers, Study
from crlib.studies.measures import SETS

__all__ = [
    "BUDGETS",
    "LADDER",
    "STEPS",
    "STUDY",
    "build",
    "harden",
    "judge",
    "last_point",
    "plain",
]

# The budget at which each network is attacked: linf, input units.
BUDGETS = {"undefended": 8 / 255, "hardened": 24 / 255}
LADDER: dict[str, Callable[..., AttackResult]] = {
    "noise": attacks.random_noise,
    "one step": attacks.fgsm,
    "PGD, margin": attacks.pgd,
    "PGD, random start": partial(attacks.pgd, random_start=True),
    "PGD, five starts": partial(attacks.pgd, restarts=5),
    "PGD, cross-entropy": partial(attacks.pgd, loss="ce"),
    "APGD, each rival": partial(attacks.apgd, steps=20, n_targets=9),
    "Square": partial(attacks.square, queries=100),
    "quick cascade": partial(attacks.worst_case, budget="quick"),
    "full cascade": attacks.worst_case,
}
STEPS = (1, 2, 4, 8, 16, 32, 64)


def build(seed: int) -> MLP:
    """Return the network of both kinds before it is trained."""
    return MLP((784, 128, 128, 10), bias=True, mean=0.3, std=0.35, seed=seed)


def plain(images: data.Dataset, seed: int, epochs: int = 8) -> MLP:
    """Return a network trained as usual."""
    net: MLP = train.fit(
        build(seed),
        images,
        epochs=epochs,
        lr=2e-3,
        batch_size=256,
        checkpoint="last",
        seed=seed,
        progress=False,
    ).model
    return net


def harden(images: data.Dataset, seed: int, epochs: int = 5) -> MLP:
    """Return a network trained on images that were first moved against it."""
    net = build(seed).to(images.x_train)
    g = torch.Generator().manual_seed(seed)
    adam = torch.optim.AdamW(net.parameters(), 2e-3)
    for _ in range(epochs):
        for rows in torch.randperm(len(images.x_train), generator=g).split(256):
            rows = rows.to(images.x_train.device)
            x, y = images.x_train[rows], images.y_train[rows]
            adam.zero_grad()
            cross_entropy(net(_moved(net, x, y, 16 / 255)), y).backward()
            adam.step()
    return net.eval()


def _moved(net: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
    """Take two steps up the loss: one of full length, one of half."""
    z = x
    for length in (eps, eps / 2):
        z = z.detach().requires_grad_()
        (g,) = torch.autograd.grad(cross_entropy(net(z), y), z)
        z = (z.detach() + length * g.sign()).clamp(x - eps, x + eps).clamp(0, 1)
    return z


def judge(
    net: nn.Module, x: Tensor, y: Tensor, *, eps: float, attacked: int
) -> dict[str, float]:
    """Measure what attacks report on a network.

    Args:
        net: the trained network.
        x: ``(N, ...)`` images in [0, 1].
        y: ``(N,)`` labels.
        eps: linf budget, input units.
        attacked: how many of the images, the first, meet what takes long: attacks for
            the smallest perturbation, and layers that mislead.

    Returns:
        Named numbers: ``robust ...`` is a robust accuracy, ``passes ...`` the forward
        and backward passes a sample.
    """
    with torch.no_grad():
        margins = metrics.margin(net(x), y)
    found = {
        "accuracy": metrics.accuracy(net, x, y),
        "margin": float(margins.mean()),
        "robust default": last_point(net, x, y, eps, 40, eps / 30),
        "robust longer": last_point(net, x, y, eps, 20, eps / 4),
    }
    found |= _ladder(net, x, y, eps)
    for loss in ("ce", "margin"):
        for k in STEPS:
            run = attacks.pgd(net, x, y, eps=eps, loss=loss, steps=k)
            found[f"robust {loss} {k}"] = run.robust_accuracy
    few, labels = x[:attacked], y[:attacked]
    found |= _smallest(net, few, labels)
    return found | _misled(net, few, labels, eps)


def _passes(*results: AttackResult) -> float:
    """Return forward plus backward passes a sample, added over the results."""
    return sum(float((r.n_forward + r.n_backward).double().mean()) for r in results)


def last_point(
    net: nn.Module, x: Tensor, y: Tensor, eps: float, steps: int, length: float
) -> float:
    """Return the report of PGD as many libraries run it.

    From a random start, ``steps`` of one ``length``; only the last point counts.
    """
    g = torch.Generator().manual_seed(0)
    start = torch.rand(x.shape, generator=g, dtype=x.dtype).to(x)
    z = (x + eps * (2 * start - 1)).clamp(0, 1)
    for _ in range(steps):
        z = z.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(cross_entropy(net(z), y), z)
        z = (z.detach() + length * gradient.sign()).clamp(x - eps, x + eps).clamp(0, 1)
    return metrics.accuracy(net, z, y)


def _ladder(net: nn.Module, x: Tensor, y: Tensor, eps: float) -> dict[str, float]:
    """Run every attack; what survives them all is the floor they are measured from."""
    runs = {name: attack(net, x, y, eps=eps) for name, attack in LADDER.items()}
    fooled = torch.stack([run.success for run in runs.values()]).any(0)
    found = {"robust together": float((~fooled).double().mean())}
    for name, run in runs.items():
        found[f"robust {name}"] = run.robust_accuracy
        found[f"passes {name}"] = _passes(run)
    return found


def _smallest(net: nn.Module, x: Tensor, y: Tensor) -> dict[str, float]:
    """Compare attacks for the smallest perturbation, and bisection, and a curve.

    A tail is how far above the least distance of all the worst tenth lies, as a ratio.
    """
    runs = {
        "FMN": attacks.fmn(net, x, y, norm="linf", walk=0, steps=100),
        "DeepFool": attacks.deepfool(net, x, y, norm="linf"),
        "FMN, led": attacks.fmn(net, x, y, norm="linf"),
    }
    found = {}
    least = attacks.minimum_of(*runs.values()).distance
    for name, run in runs.items():
        ratio = (run.distance / least)[least > 0]
        found[f"tail {name}"] = float(ratio.quantile(0.9))
        found[f"passes {name}"] = _passes(run)
    halved = attacks.minimal(net, x, y, eps=0.5, attack=attacks.pgd).distance
    found["bisection ratio"] = float((halved / least)[least > 0].median())
    budgets = [64 * k / 9 / 255 for k in range(10)]
    one_each = [attacks.pgd(net, x, y, eps=budget) for budget in budgets]
    found["passes PGD, ten budgets"] = _passes(*one_each)
    both = attacks.minimum_of(runs["FMN"], runs["DeepFool"]).distance
    above = [
        run.robust_accuracy - float((both > budget).double().mean())
        for run, budget in zip(one_each, budgets, strict=True)
    ]
    return found | {"curve, PGD above": max(above), "curve, PGD below": -min(above)}


class _Changed(nn.Module):
    """A network with something in front of it and something behind it."""

    def __init__(
        self,
        net: nn.Module,
        before: Callable[[Tensor], Tensor] = lambda x: x,
        after: Callable[[Tensor], Tensor] = lambda z: z,
    ) -> None:
        super().__init__()
        self.net, self.before, self.after = net, before, after

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.after(self.net(self.before(x)))
        return logits


def _misled(net: nn.Module, x: Tensor, y: Tensor, eps: float) -> dict[str, float]:
    """Return what attacks report behind loud logits, a rounding and a noise layer."""
    honest = attacks.worst_case(net, x, y, eps=eps, budget="quick")
    checks = attacks.diagnose(net, x[:100], y[:100], eps=eps)
    loud = _Changed(net, after=lambda z: 1000 * z)
    blind = attacks.pgd(loud, x, y, eps=eps, loss="ce")
    return {
        "robust honest": honest.robust_accuracy,
        "failed checks": sum(not check.passed for check in checks),
        "robust loud, cross-entropy": blind.robust_accuracy,
        "loud, no gradient": float(blind.zero_gradient.double().mean()),
        "robust loud, margin": attacks.pgd(loud, x, y, eps=eps).robust_accuracy,
        **_rounded(net, x, y, eps),
        **_noisy(net, x, y, eps),
    }


def _rounded(net: nn.Module, x: Tensor, y: Tensor, eps: float) -> dict[str, float]:
    def coarse(x: Tensor) -> Tensor:
        return (8 * x).round() / 8

    rounded = _Changed(net, before=coarse)
    through = _Changed(net, before=lambda x: x + (coarse(x) - x).detach())
    shown = {
        "straight through": attacks.pgd(through, x, y, eps=eps),
        "transfer": attacks.pgd(net, x, y, eps=eps),
    }
    found = {"rounded accuracy": metrics.accuracy(rounded, x, y)}
    for name, run in shown.items():
        moved = attacks.transfer(run, rounded, x, y)
        found[f"robust rounded, {name}"] = moved.robust_accuracy
    for name, attack in (
        ("quick cascade", partial(attacks.worst_case, budget="quick")),
        ("full cascade", attacks.worst_case),
        ("queries", partial(attacks.square, queries=600)),
    ):
        run = attack(rounded, x, y, eps=eps)
        found[f"robust rounded, {name}"] = run.robust_accuracy
    return found


def _noisy(net: nn.Module, x: Tensor, y: Tensor, eps: float) -> dict[str, float]:
    source = torch.Generator().manual_seed(0)

    def grainy(x: Tensor) -> Tensor:
        return x + 0.3 * torch.randn(x.shape, generator=source, dtype=x.dtype).to(x)

    noisy = _Changed(net, before=grainy)
    fresh = attacks.EOT(noisy, 100)
    found = {}
    for name, attacked in (("one draw", noisy), ("mean draw", attacks.EOT(noisy, 20))):
        run = attacks.pgd(attacked, x, y, eps=eps)
        anew = attacks.transfer(run, fresh, x, y)
        found[f"robust noisy, {name}"] = run.robust_accuracy
        found[f"robust noisy, {name}, anew"] = anew.robust_accuracy
    return found


def _run(config: Config, device: str) -> Numbers:
    images = SETS[config["data"]]().to(device)
    train_it = {"undefended": plain, "hardened": harden}[config["network"]]
    net = train_it(images, config["seed"], config["epochs"])
    x, y = (part[: config["judged"]] for part in (images.x_test, images.y_test))
    eps = BUDGETS[config["network"]]
    return judge(net, x, y, eps=eps, attacked=config["attacked"])


def _grid(seeds: int, **more: Any) -> list[Config]:
    return [
        {"network": network, "seed": seed, "epochs": epochs, **more}
        for network, epochs in (("undefended", 8), ("hardened", 5))
        for seed in range(seeds)
    ]


STUDY = Study(
    name="strength",
    run=_run,
    grids={
        "quick": _grid(5, data="sample", judged=500, attacked=200),
        "full": _grid(10, data="Fashion-MNIST", judged=2000, attacked=500),
    },
    fingerprint=lambda config: SETS[config["data"]]().fingerprint,
    version=2,
)
