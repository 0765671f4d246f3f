"""Lab 14: residual blocks, the same as steps of a flow, and no block at all."""

import torch
from torch import Tensor, nn

from crlib import attacks, checks, metrics, train
from crlib.data import Dataset
from crlib.models import Normalize
from crlib.studies.engine import Config, Numbers
from crlib.studies.measures import nearest, of_sample

__all__ = [
    "SETTINGS",
    "STUDY",
    "WAYS",
    "Flow",
    "bound",
    "fitted",
    "log_norm",
    "part",
    "run",
    "stretch",
]

# Each way has a block for each step or one for all, and takes steps of one or 1/n.
WAYS = {
    "residual": (True, False),
    "ODE": (False, True),
    "small steps": (True, True),
    "no block": (False, False),
    "residual, adversarial": (True, False),
}
STEPS, STATE, WIDTH = 6, 32, 64
EPS = 0.05  # linf, input units, of the adversarial training
BUDGETS = (0.02, EPS, 0.2)
SETTINGS: list[Config] = [{"way": way, "strength": STEPS} for way in WAYS]


class Flow(nn.Module):
    r"""An encoder, steps :math:`z + \tau\, W_2 \tanh(W_1 z + b_1) + \tau b_2`, a head.

    Args:
        way: one of ``WAYS``. Encoder and head start alike in all of them.
        n: number of steps; tau is 1 or ``1 / n``.
        seed: of the start.
    """

    def __init__(self, way: str, n: int, seed: int) -> None:
        super().__init__()
        checks.one_of("way", way, tuple(WAYS))
        own, small = WAYS[way]
        self.n = 0 if way == "no block" else n
        self.step = 1 / n if small else 1.0
        self.normalize = Normalize(0.286, 0.353)
        self.encoder, self.head = nn.Linear(784, STATE), nn.Linear(STATE, 10)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(STATE, WIDTH), nn.Tanh(), nn.Linear(WIDTH, STATE))
            for _ in range(0 if not self.n else n if own else 1)
        )
        self.double()
        g = torch.Generator().manual_seed(80_000 + seed)
        # The blocks come last, so that encoder and head start alike in all ways.
        linear = [m for m in self.modules() if isinstance(m, nn.Linear)]
        with torch.no_grad():
            for layer in linear:
                for p in layer.parameters():
                    draw = torch.rand(p.shape, generator=g, dtype=torch.float64)
                    p.copy_((2 * draw - 1) / layer.in_features**0.5)

    def block(self, k: int) -> nn.Module:
        """Return the block of step k."""
        return self.blocks[k % len(self.blocks)]

    def encode(self, x: Tensor) -> Tensor:
        """Return the states ``(N, 32)`` before the first step."""
        z: Tensor = self.encoder(self.normalize(x).flatten(1))
        return z

    def path(self, z: Tensor) -> list[Tensor]:
        """Return the states before each step and after the last."""
        states = [z]
        for k in range(self.n):
            states.append(states[-1] + self.step * self.block(k)(states[-1]))
        return states

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.path(self.encode(x))[-1])
        return logits


def part(images: Dataset, seed: int) -> Dataset:
    """Return 1,500 training images and two hundred test images to attack."""
    n, m = min(1500, len(images.x_train)), min(200, len(images.x_test))
    return images.subset(n, m, seed=1400 + seed)


def fitted(way: str, n: int, few: Dataset, seed: int) -> Flow:
    """Return a network of one way, trained for eight epochs."""
    hard = way == "residual, adversarial"
    net: Flow = train.fit(
        Flow(way, n, seed),
        few,
        epochs=8,
        lr=2e-3,
        adversary=train.pgd_adversary(eps=EPS, steps=5) if hard else None,
        validation=0.0,
        checkpoint="last",
        seed=seed,
        progress=False,
    ).model
    return net


def bound(net: Flow) -> float:
    r"""Return :math:`\prod_k (1 + \tau \|W_2\|_2 \|W_1\|_2)` over the steps."""
    found = 1.0
    for k in range(net.n):
        first, _, second = net.block(k).children()
        found *= 1 + net.step * _norm(first) * _norm(second)
    return found


def _norm(layer: nn.Module) -> float:
    weight: Tensor = layer.weight.detach()  # type: ignore[operator]
    return metrics.operator_norm(weight)


def stretch(net: Flow, z: Tensor) -> Tensor:
    """Return the operator norms ``(N,)`` of the Jacobian of all steps at states z."""
    slope = torch.func.vmap(torch.func.jacrev(lambda s: net.path(s[None])[-1][0]))(z)
    norms: Tensor = torch.linalg.matrix_norm(slope, 2)
    return norms.detach()


def log_norm(j: Tensor) -> Tensor:
    r"""Return :math:`\lambda_{\max}(\tfrac12 (J + J^\top))`, one a matrix.

    It is what a flow :math:`\dot z = J z` stretches by at most, per unit of time.
    """
    return torch.linalg.eigvalsh((j + j.mT) / 2)[..., -1]


def _exponent(net: Flow, z: Tensor) -> Tensor:
    """Return the sum over the steps of tau times the log norm there, ``(N,)``."""
    total = torch.zeros(len(z), dtype=z.dtype)
    with torch.no_grad():
        states = net.path(z)
    for k, state in enumerate(states[: net.n]):
        block = net.block(k)
        j = torch.func.vmap(torch.func.jacrev(lambda s, b=block: b(s)))(state)
        total += net.step * log_norm(j.detach())
    return total


def run(config: Config, images: Dataset) -> Numbers:
    """Return accuracies, distances and what the steps can do and do to a distance."""
    seed = config["seed"]
    few = part(images, seed)
    net = fitted(config["way"], config["strength"], few, seed)
    x, y = few.x_test, few.y_test
    found = {
        "clean accuracy": metrics.accuracy(net, images.x_test, images.y_test),
        "right": metrics.accuracy(net, x, y),
        "fgsm": attacks.fgsm(net, x, y, eps=EPS).robust_accuracy,
        "full": attacks.worst_case(net, x[:100], y[:100], eps=EPS).robust_accuracy,
    }
    for eps in BUDGETS:
        hit = attacks.worst_case(net, x, y, eps=eps, budget="quick")
        found[f"robust {eps}"] = hit.robust_accuracy
        if eps == EPS:
            found["quick"] = float((~hit.success[:100]).double().mean())
    near = nearest(net, x[:100], y[:100], ["l2"], steps=40)["l2"]
    found["l2"] = float(near.distance[near.distance > 0].median())
    with torch.no_grad():
        z = net.encode(x[:50])
    sv = metrics.singular_values(net.encoder.weight.detach())
    return found | {
        "bound": bound(net),
        "stretch": float(stretch(net, z).median()) if net.n else 1.0,
        "exponent": float(_exponent(net, z).median()),
        "srank": metrics.stable_rank(sv),
        "best-k error": metrics.best_k_error(sv, 8),
    }


STUDY = of_sample("lab14", SETTINGS, run)
