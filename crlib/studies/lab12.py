"""Lab 12: networks on labels that alternate, with a small shortcut beside them."""

import torch
from torch import Tensor

from crlib import metrics
from crlib.data import Dataset
from crlib.studies.engine import Config, Numbers
from crlib.studies.measures import of_sample

__all__ = ["SETTINGS", "STUDY", "Net", "fitted", "points", "run", "stable"]

# Points of label 1, and the size of the shortcut.
ONES, SHORTCUT = 8, 0.01
WIDTHS = (4, 16, 64, 256)
SETTINGS: list[Config] = [
    {"way": way, "strength": h}
    for way in ("shortcut", "without", "adversarial")
    for h in WIDTHS
]


class Net:
    """A score of two inputs with one hidden ReLU layer.

    Args:
        w: weights ``(h, 2)`` of the inputs, each scaled to unit spread.
        b: biases ``(h,)``.
        a: head ``(h,)``.
        c: its bias, a scalar.
    """

    # Middle and spread of the two coordinates.
    middle = torch.tensor([0.5, SHORTCUT / 2], dtype=torch.float64)
    spread = torch.tensor([0.3, SHORTCUT / 2], dtype=torch.float64)

    def __init__(self, w: Tensor, b: Tensor, a: Tensor, c: Tensor) -> None:
        self.w, self.b, self.a, self.c = w, b, a, c

    def __call__(self, x: Tensor) -> Tensor:
        """Return scores ``(n,)`` of inputs ``(n, 2)``; above zero means label 1."""
        z = (x - self.middle) / self.spread
        return (z @ self.w.T + self.b).relu() @ self.a + self.c

    @property
    def weight(self) -> Tensor:
        """The first layer ``(h, 2)`` in input units."""
        return self.w / self.spread


def points() -> tuple[Tensor, Tensor]:
    """Return inputs ``(17, 2)`` and labels that alternate along the first one.

    The second coordinate is zero for label 0 and the size of the shortcut for label 1.
    """
    y = torch.arange(2 * ONES + 1) % 2
    place = torch.linspace(0, 1, 2 * ONES + 1, dtype=torch.float64)
    return torch.stack([place, SHORTCUT * y.double()], 1), y


def stable() -> Net:
    """Return the network of 16 neurons that goes from -1 to 1 at each point."""
    place = points()[0][:-1, 0]
    jump = torch.full((2 * ONES,), 4.0 * 2 * ONES, dtype=torch.float64)
    jump[1::2] *= -1
    jump[0] /= 2
    w = torch.zeros(2 * ONES, 2, dtype=torch.float64)
    w[:, 0] = Net.spread[0]
    return Net(w, Net.middle[0] - place, jump, torch.tensor(-1.0, dtype=torch.float64))


def fitted(way: str, h: int, seed: int, steps: int = 2000) -> Net:
    """Return a network trained by Adam on all points in each step.

    Args:
        way: ``"shortcut"``; ``"without"``, blind to the second coordinate;
            ``"adversarial"``, on the worst of three places of the second coordinate.
        h: width of the hidden layer.
        seed: of the start.
        steps: with a learning rate that falls to zero as a cosine.
    """
    g = torch.Generator().manual_seed(60_000 + seed)
    w, b, a = (
        torch.randn(*shape, generator=g, dtype=torch.float64)
        for shape in ((h, 2), (h,), (h,))
    )
    if way == "without":
        w[:, 1] = 0
    net = Net(w, b, a / h**0.5, torch.zeros((), dtype=torch.float64))
    parameters = [p.requires_grad_() for p in (net.w, net.b, net.a, net.c)]
    optimiser = torch.optim.Adam(parameters, lr=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    x, y = points()
    sign = 2 * y.double() - 1
    if way == "without":
        x[:, 1] = Net.middle[1]
    moves = torch.tensor([[0.0, m] for m in (-SHORTCUT, 0.0, SHORTCUT)]).double()
    for _ in range(steps):
        at = x
        if way == "adversarial":
            with torch.no_grad():
                scores = torch.stack([sign * net(x + move) for move in moves])
                at = x + moves[scores.argmin(0)]
        loss = torch.nn.functional.softplus(-sign * net(at)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return Net(*(p.detach() for p in parameters))


def run(config: Config, images: Dataset) -> Numbers:
    """Return accuracies of one network, clean and after small moves."""
    net = fitted(config["way"], config["strength"], config["seed"])
    x, y = points()
    flat = x * torch.tensor([1.0, 0.0], dtype=torch.float64)
    ok = torch.ones(len(x), dtype=torch.bool)
    grid = torch.linspace(-SHORTCUT, SHORTCUT, 11, dtype=torch.float64)
    for move in torch.cartesian_prod(grid, grid):
        ok &= (net(x + move) > 0) == (y == 1)
    strength = net.weight.norm(dim=1) * net.a.abs()
    return {
        "clean accuracy": float(((net(x) > 0) == (y == 1)).double().mean()),
        "survive": int(((net(flat) > 0) & (y == 1)).sum()),
        "robust": float(ok.double().mean()),
        "srank": metrics.stable_rank(metrics.singular_values(net.weight)),
        "neurons that count": metrics.effective_rank(strength),
    }


STUDY = of_sample("lab12", SETTINGS, run)
