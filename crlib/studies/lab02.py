"""Lab 2: networks of neurons that fire once, with positive weights between them."""

import math

import torch
from torch import Tensor, nn

from crlib import certify, metrics, train
from crlib.data import Dataset
from crlib.models import MLP, Normalize, evaluating
from crlib.studies.engine import Config, Numbers
from crlib.studies.measures import nearest, of_sample

__all__ = [
    "SETTINGS",
    "STUDY",
    "Spiking",
    "SpikingNet",
    "fitted",
    "radius",
    "run",
    "spike_times",
]

WIDTH, DEPTHS = 32, (1, 3)
SETTINGS: list[Config] = [
    {"way": way, "strength": depth} for way in ("spiking", "ReLU") for depth in DEPTHS
]


def spike_times(w: Tensor, t: Tensor) -> Tensor:
    r"""Return when each neuron fires, ``(N, h)``.

    .. math:: s = \min_{A \ne \emptyset} \frac{1 + \sum_{i \in A} w_i t_i}{\sum_A w_i}

    is the time at which :math:`\sum_i w_i (s - t_i)_+ = 1`; the minimum is attained at
    a set of earliest inputs, so sorting finds it.

    Args:
        w: positive weights ``(h, m)``.
        t: times of the inputs ``(N, m)``.
    """
    earliest, order = t.sort(dim=1)
    w = w.T[order]  # (N, m, h)
    mass = w.cumsum(1)
    return ((1 + (w * earliest[:, :, None]).cumsum(1)) / mass).amin(1)


class Spiking(nn.Module):
    """A layer of ``h`` neurons that fire once, with weights ``exp(log_w)``."""

    def __init__(self, m: int, h: int, generator: torch.Generator) -> None:
        super().__init__()
        draw = torch.randn(h, m, generator=generator, dtype=torch.float64)
        self.log_w = nn.Parameter(2 * draw + math.log(2 / m))

    @property
    def weight(self) -> Tensor:
        return self.log_w.exp()

    def forward(self, t: Tensor) -> Tensor:
        return spike_times(self.weight, t)


class SpikingNet(nn.Module):
    """An affine map to times, spiking layers, an affine map to logits.

    Args:
        depth: number of spiking layers.
        x: images ``(N, 1, 28, 28)`` in float64 on which the decoder is given the scale
            of the times that reach it.
        seed: of the weights.
    """

    def __init__(self, depth: int, x: Tensor, seed: int) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(2000 + seed)
        self.normalize = Normalize(0.286, 0.353)
        self.encoder = nn.Linear(784, WIDTH)
        self.hidden = nn.Sequential(*(Spiking(WIDTH, WIDTH, g) for _ in range(depth)))
        self.decoder = nn.Linear(WIDTH, 10)
        self.double()
        with torch.no_grad():
            for layer in (self.encoder, self.decoder):
                for p in layer.parameters():
                    draw = torch.rand(p.shape, generator=g, dtype=torch.float64)
                    p.copy_((2 * draw - 1) / layer.in_features**0.5)
            t = self.times(x)
            self.decoder.weight /= t.std(0).mean()
            self.decoder.bias.copy_(-self.decoder.weight @ t.mean(0))

    def times(self, x: Tensor) -> Tensor:
        """Return when the neurons of the last hidden layer fire."""
        t: Tensor = self.hidden(self.encoder(self.normalize(x).flatten(1)))
        return t

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.decoder(self.times(x))
        return logits


def radius(net: SpikingNet, x: Tensor, y: Tensor, norm: str) -> Tensor:
    r"""Return radii ``(N,)`` within which no label changes; 0 where it is wrong.

    The margin against class j over
    :math:`\lVert c_j \rVert_1 \max_i \lVert a_i \rVert_{p^*}`, with encoder rows
    :math:`a_i` in input units and the difference :math:`c_j` of two decoder rows. The
    hidden weights do not enter.
    """
    with evaluating(net), torch.no_grad():
        p = {"linf": 1, "l2": 2}[norm]
        slope = net.encoder.weight.norm(p=p, dim=1).max() / net.normalize.std
        z, v = net(x), net.decoder.weight
        m = z.gather(1, y[:, None]) - z
        steep = (v[y][:, None] - v[None]).abs().sum(2) * slope
        return (m / steep).scatter(1, y[:, None], math.inf).amin(1).clamp_min(0)


def fitted(way: str, depth: int, images: Dataset, seed: int) -> train.Fit:
    """Return a network of one kind, trained on three thousand images."""
    few = images.subset(min(3000, len(images.x_train)), 100, seed=seed)
    net = (
        SpikingNet(depth, few.x_train[:500], seed)
        if way == "spiking"
        else MLP(
            (784, WIDTH, *[WIDTH] * depth, 10),
            bias=True,
            mean=0.286,
            std=0.353,
            seed=seed,
        )
    )
    return train.fit(
        net,
        few,
        epochs=10,
        lr=3e-3,
        weight_decay=0.0,
        validation=0.0,
        checkpoint="last",
        match=0.75,
        seed=seed,
        progress=False,
    )


def measured(fit: train.Fit, images: Dataset) -> Numbers:
    """Return accuracies, distances and certificates of one network."""
    net = fit.model
    shown = metrics.accuracy(net, images.x_test, images.y_test)
    found: dict[str, float] = {
        "train accuracy": fit.history[-1].train_accuracy,
        "clean accuracy": shown,
    }
    if "matched" in fit.kept:
        early = fit.at("matched")
        reached = early.history[early.epoch - 1].train_accuracy
        found["gap"] = reached - metrics.accuracy(
            early.model, images.x_test, images.y_test
        )
    x, y = images.x_test[:100], images.y_test[:100]
    right = net(x).argmax(1) == y
    near = nearest(net, x, y, ["linf", "l2"], steps=40)
    for norm, result in near.items():
        sure = (
            radius(net, x, y, norm)
            if isinstance(net, SpikingNet)
            else certify.lipschitz_radius(net, x, y, norm=norm)
        )
        found[norm] = float(result.distance[right].median())
        found[f"certified {norm}"] = float(sure[right].median())
        found[f"share {norm}"] = float((sure / result.distance)[right].median())
        found[f"most {norm}"] = float((sure / result.distance)[right].max())
    if isinstance(net, SpikingNet):
        layers = [layer for layer in net.hidden if isinstance(layer, Spiking)]
        weights = [layer.weight.detach() for layer in layers]
        errors = [metrics.best_k_error(metrics.row_norms(w), 3) for w in weights]
        inputs = [metrics.effective_rank(row) for w in weights for row in w]
        found["row error"] = sum(errors) / len(errors)
        found["inputs that count"] = sum(inputs) / len(inputs)
    return found


def run(config: Config, images: Dataset) -> Numbers:
    """Train the network of one setting and measure it."""
    way, depth, seed = config["way"], config["strength"], config["seed"]
    return measured(fitted(way, depth, images, seed), images)


STUDY = of_sample("lab02", SETTINGS, run)
