"""The attacks under comparison, each as a function that returns perturbed inputs.

What is known to be wrong with one, in the pinned version, stands beside it.
"""

import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from unittest import mock

import torch
from torch import Tensor, nn

from crlib import attacks
from crlib.attacks.balls import BALLS, L2Ball
from crlib.attacks.base import per_row
from crlib.geometry import norm_of

# adv-lib imports these to draw and to load pictures, which no attack needs.
for name in ("torchvision", "torchvision.models", "visdom"):
    sys.modules.setdefault(name, ModuleType(name))
sys.modules["torchvision"].models = sys.modules["torchvision.models"]
warnings.filterwarnings("ignore")

import adv_lib.attacks as adv_lib  # noqa: E402
import foolbox  # noqa: E402
import pyautoattack  # noqa: E402
import torchattacks  # noqa: E402
from judge import ORDERS  # noqa: E402
from pyautoattack.autopgd_base import APGDAttack  # noqa: E402
from pyautoattack.fab_pt import FABAttack_PT  # noqa: E402

logging.getLogger("auto-attack").setLevel(logging.ERROR)

CAPITAL = {"linf": "Linf", "l2": "L2", "l1": "L1"}
STEPS = 20
# Length of a PGD step, as a share of the budget.
STEP = 0.25
Attack = Callable[[nn.Module, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Contestant:
    library: str
    name: str
    run: Attack
    note: str = ""
    # A short form, to load what the first call loads; None: the attack itself.
    warm_up: Attack | None = None


def fool(attack: foolbox.Attack, eps: float | None = None) -> Attack:
    """Return a foolbox attack as a function; None asks for the smallest norm."""

    def run(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device=x.device)
        _raw, clipped, _success = attack(wrapped, x, y, epsilons=eps)
        return clipped

    return run


class Watched(nn.Module):
    """A model that keeps the first point of each sample that it labels wrongly."""

    def __init__(self, model: nn.Module, x: Tensor, y: Tensor) -> None:
        super().__init__()
        self.model, self.y, self.first = model, y, x.clone()
        self.fooled = torch.zeros_like(y, dtype=torch.bool)

    def forward(self, z: Tensor) -> Tensor:
        logits: Tensor = self.model(z)
        new = (logits.argmax(1) != self.y) & ~self.fooled
        self.first[new] = z.detach()[new]
        self.fooled |= new
        return logits


def on_the_way(attack: Attack) -> Attack:
    """Count a sample that is fooled at some step, not only at the last."""

    def run(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        watched = Watched(model, x, y).eval()
        watched(attack(watched, x, y))
        return watched.first

    return run


class Clipped(L2Ball):
    """foolbox's way: the whole gradient; rescale to the ball, then clip to the box."""

    def nearest(self, v: Tensor) -> Tensor:
        low = -self.x.flatten(1)
        scale = (self.eps / norm_of(v, "l2").clamp_min(1e-30)).clamp_max(1)
        return (v * scale[:, None]).clamp(low, low + 1)

    def step_(self, z: Tensor, g: Tensor, length: Tensor) -> Tensor:
        pace = length / norm_of(g, "l2").clamp_min(1e-30)
        return self.project_(z + g * per_row(pace, g))


def foolbox_pgd(attack: foolbox.Attack, eps: float) -> Iterator[Contestant]:
    run = fool(attack, eps)
    yield Contestant("foolbox", "PGD", run)
    yield Contestant("foolbox", "PGD, every step counts", on_the_way(run))


def as_it_comes(norm: str, eps: float) -> Contestant:
    """PGD with nothing said but the number of steps."""
    same = {"eps": eps, "norm": norm, "steps": STEPS}
    return Contestant(
        "crlib",
        "PGD, defaults",
        lambda m, x, y: attacks.pgd(m, x, y, **same).x_adv,
    )


def pgd(norm: str, eps: float) -> Iterator[Contestant]:
    """Cross-entropy, equal steps from x; then crlib as it comes."""
    length = STEP * eps
    same = {"eps": eps, "norm": norm, "steps": STEPS}

    yield Contestant(
        "crlib",
        "PGD",
        lambda m, x, y: attacks.pgd(m, x, y, loss="ce", step_size=length, **same).x_adv,
    )
    yield as_it_comes(norm, eps)
    if norm == "l2":

        def clipped(m: nn.Module, x: Tensor, y: Tensor) -> Tensor:
            with mock.patch.dict(BALLS, l2=Clipped):
                return attacks.pgd(m, x, y, loss="ce", step_size=length, **same).x_adv

        yield Contestant("crlib", "PGD, clipped", clipped)
    fb = {"abs_stepsize": length, "steps": STEPS, "random_start": False}
    if norm == "linf":
        yield from foolbox_pgd(foolbox.attacks.LinfPGD(**fb), eps)
        yield Contestant(
            "torchattacks",
            "PGD",
            lambda m, x, y: torchattacks.PGD(
                m, eps=eps, alpha=length, steps=STEPS, random_start=False
            )(x, y),
        )
        yield Contestant(
            "adv-lib",
            "PGD",
            lambda m, x, y: adv_lib.pgd_linf(
                m,
                x,
                y,
                eps,
                steps=STEPS,
                random_init=False,
                absolute_step_size=length,
            ),
            "never looks at the point after the last step",
        )
    if norm == "l2":
        yield from foolbox_pgd(foolbox.attacks.L2PGD(**fb), eps)
        yield Contestant(
            "torchattacks",
            "PGD",
            lambda m, x, y: torchattacks.PGDL2(
                m, eps=eps, alpha=length, steps=STEPS, random_start=False
            )(x, y),
        )
    if norm == "l1":
        yield Contestant(
            "foolbox",
            "PGD",
            fool(foolbox.attacks.L1PGD(**fb), eps),
            "rescales to the ball where the nearest point is meant",
        )
        sparse = foolbox.attacks.SparseL1DescentAttack(**fb)
        yield Contestant("foolbox", "sparse descent", fool(sparse, eps))


def apgd(norm: str, eps: float) -> Iterator[Contestant]:
    """Cross-entropy, one run of a hundred steps."""

    def original(m: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        attack = APGDAttack(
            m,
            n_iter=100,
            norm=CAPITAL[norm],
            eps=eps,
            device=x.device,
            use_largereps=norm == "l1",
        )
        return attack.perturb(x, y)

    yield Contestant(
        "crlib",
        "APGD, cross-entropy",
        lambda m, x, y: attacks.apgd(m, x, y, eps=eps, norm=norm, loss="ce").x_adv,
    )
    yield Contestant(
        "crlib",
        "APGD, margin",
        lambda m, x, y: attacks.apgd(m, x, y, eps=eps, norm=norm).x_adv,
    )
    yield Contestant("AutoAttack", "APGD, cross-entropy", original)
    yield Contestant(
        "adv-lib",
        "APGD, cross-entropy",
        lambda m, x, y: adv_lib.apgd(
            m,
            x,
            y,
            eps,
            ORDERS[norm],
            loss_function="ce",
            use_large_reps=norm == "l1",
        ),
    )
    if norm != "l1":
        yield Contestant(
            "torchattacks",
            "APGD, cross-entropy",
            lambda m, x, y: torchattacks.APGD(
                m, norm=CAPITAL[norm], eps=eps, steps=100
            )(x, y),
        )


def ensembles(norm: str, eps: float) -> Iterator[Contestant]:
    """What one would report."""

    def standard(m: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        attack = pyautoattack.AutoAttack(
            m, norm=CAPITAL[norm], eps=eps, seed=0, device=x.device
        )
        return attack.run_standard_evaluation(x, y, batch_size=len(x))[0]

    def short(m: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        attack = pyautoattack.AutoAttack(
            m, norm=CAPITAL[norm], eps=eps / 10, seed=0, device=x.device
        )
        for part in (attack.apgd, attack.apgd_targeted, attack.fab):
            part.n_iter = 10
        attack.square.n_queries = 10
        return attack.run_standard_evaluation(x, y, batch_size=len(x))[0]

    for budget in ("quick", "full"):
        yield Contestant(
            "crlib",
            f"worst case, {budget}",
            lambda m, x, y, budget=budget: (
                attacks.worst_case(m, x, y, eps=eps, norm=norm, budget=budget).x_adv
            ),
        )
    yield Contestant("AutoAttack", "standard", standard, warm_up=short)


def minimal(norm: str) -> Iterator[Contestant]:
    """The smallest perturbation, a hundred steps where there is a choice."""
    order = ORDERS[norm]

    def led(m: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return attacks.fmn(m, x, y, norm=norm, walk=5, steps=40).x_adv

    def fab(m: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        # No ball: every point found is returned.
        attack = FABAttack_PT(
            m, norm=CAPITAL[norm], n_iter=100, eps=1e4, device=x.device
        )
        return attack.perturb(x, y)

    yield Contestant(
        "crlib", "DeepFool", lambda m, x, y: attacks.deepfool(m, x, y, norm=norm).x_adv
    )
    yield Contestant(
        "crlib",
        "FMN",
        lambda m, x, y: attacks.fmn(m, x, y, norm=norm, walk=0, steps=100).x_adv,
    )
    yield Contestant("crlib", "FMN, led by DeepFool", led)
    yield Contestant("AutoAttack", "FAB", fab)
    kinds = {"linf": "LInfFMNAttack", "l2": "L2FMNAttack", "l1": "L1FMNAttack"}
    yield Contestant(
        "foolbox",
        "FMN",
        fool(getattr(foolbox.attacks, kinds[norm])(steps=100)),
        "its projection does nothing" if norm == "l2" else "",
    )
    yield Contestant(
        "adv-lib",
        "FMN",
        lambda m, x, y: adv_lib.fmn(m, x, y, order, steps=100),
        "clamps the perturbation where its factor is meant" if norm == "l2" else "",
    )
    if norm != "l1":
        kinds = {"linf": "LinfDeepFoolAttack", "l2": "L2DeepFoolAttack"}
        deepfool = getattr(foolbox.attacks, kinds[norm])()
        yield Contestant("foolbox", "DeepFool", fool(deepfool))
        yield Contestant(
            "adv-lib", "DeepFool", lambda m, x, y: adv_lib.df(m, x, y, norm=order)
        )
    if norm == "l2":
        yield Contestant(
            "adv-lib", "SuperDeepFool", lambda m, x, y: adv_lib.sdf(m, x, y)
        )
        yield Contestant(
            "adv-lib", "DDN", lambda m, x, y: adv_lib.ddn(m, x, y, steps=100)
        )


def sparse() -> Iterator[Contestant]:
    """As few coordinates as possible, a hundred steps where there is a choice."""
    yield Contestant(
        "crlib", "DeepFool", lambda m, x, y: attacks.deepfool(m, x, y, norm="l0").x_adv
    )
    yield Contestant(
        "crlib",
        "sigma-zero, 100 steps",
        lambda m, x, y: attacks.sigma_zero(m, x, y, steps=100).x_adv,
    )
    yield Contestant(
        "crlib", "sigma-zero", lambda m, x, y: attacks.sigma_zero(m, x, y).x_adv
    )
    yield Contestant(
        "crlib",
        "sigma-zero, Adam, 100 steps",
        lambda m, x, y: attacks.sigma_zero(m, x, y, steps=100, adam=True).x_adv,
    )
    yield Contestant(
        "crlib",
        "sigma-zero, Adam",
        lambda m, x, y: attacks.sigma_zero(m, x, y, adam=True).x_adv,
    )
    yield Contestant(
        "adv-lib",
        "sigma-zero",
        lambda m, x, y: adv_lib.sigma_zero(m, x, y, num_steps=100),
    )
    yield Contestant(
        "adv-lib", "FMN", lambda m, x, y: adv_lib.fmn(m, x, y, 0, steps=100)
    )
    yield Contestant("foolbox", "FMN", fool(foolbox.attacks.L0FMNAttack(steps=100)))
    yield Contestant("adv-lib", "VFGA", lambda m, x, y: adv_lib.vfga(m, x, y, False))
