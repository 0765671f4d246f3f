"""Small experiments of Parts I and II, for five seeds: one row a network.

A chapter trains one network in the open and shows how it is judged. That network is
its row here; the other rows replace the minutes that the other seeds would take. All
is done in float64, so another processor makes the same table.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from scipy.optimize import lsq_linear
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss, softplus

from crlib import attacks, certify, metrics, theory, train
from crlib.data import Dataset, gaussian_classes
from crlib.models import MLP, LowRankLinear, Normalize
from crlib.studies.engine import Config, Numbers, Study
from crlib.studies.measures import SETS, nearest

__all__ = ["EXPERIMENTS", "STUDY"]

# Of Fashion-MNIST, as all networks here but those of two classes normalise it.
MEAN, STD = 0.29, 0.35


# Chapter 2: a penalty on a linear classifier.

PENALTIES: dict[str, Callable[[Any], Tensor]] = {
    "none": lambda m: 0.0 * m.layers[0].weight.sum(),
    "squared l2": lambda m: 7e-3 * m.layers[0].weight.square().sum(),
    "l1": lambda m: 1e-3 * m.layers[0].weight.abs().sum(),
}


def penalties(way: str, strength: int, seed: int, images: Dataset) -> Numbers:
    """Judge a linear classifier on images that all three of its seed label rightly."""
    accuracy, own = _penalised(way, seed, images)
    every = [_penalised(name, seed, images)[1] for name in PENALTIES]
    common = torch.stack([r["linf"] > 0 for r in every]).all(0)
    medians = {norm: float(r[common].median()) for norm, r in own.items()}
    return {"accuracy": accuracy, **medians}


@functools.lru_cache(maxsize=3)
def _penalised(way: str, seed: int, images: Dataset) -> tuple[float, dict[str, Tensor]]:
    net = train.fit(
        MLP((784, 10), bias=True, seed=seed),
        images,
        epochs=15,
        lr=2e-3,
        penalty=PENALTIES[way],
        seed=seed,
        progress=False,
    ).model
    x, y = images.x_test[:400].flatten(1), images.y_test[:400]
    own = net.weights[0], net.layers[0].bias.detach()
    exact = {n: theory.linear_minimal(*own, x, y, norm=n)[0] for n in ("linf", "l2")}
    return metrics.accuracy(net, images.x_test, images.y_test), exact


# Chapter 4: certificates beside attacks.


def certificates(way: str, strength: int, seed: int, images: Dataset) -> Numbers:
    """Compare four certificates of a plain or a low-rank network with attacks."""
    net = MLP((784, 64, 64, 10), rank=strength or None, seed=seed, mean=MEAN, std=STD)
    net = train.fit(net, images, epochs=8, seed=seed, progress=False).model
    right = (net(images.x_test).argmax(1) == images.y_test).nonzero().flatten()[:100]
    x, y = images.x_test[right], images.y_test[right]
    far = {
        norm: _bisected(net, x, y, norm, top)
        for norm, top in (("l2", 4.0), ("linf", 0.4))
    }
    intervals = certify.interval_bounds
    radius = {
        "Lipschitz l2": certify.lipschitz_radius(net, x, y),
        "Lipschitz linf": certify.lipschitz_radius(net, x, y, norm="linf"),
        "intervals": certify.certified_radius(
            net, x, y, bounds=intervals, eps_max=0.2, tol=1e-3
        ),
        "lines": certify.certified_radius(net, x[:20], y[:20], eps_max=0.2, tol=1e-2),
    }
    share = {
        name: r / far["l2" if name.endswith("l2") else "linf"][: len(r)]
        for name, r in radius.items()
    }
    if max(float(s.max()) for s in share.values()) > 1 + 1e-5:
        raise ValueError("A certificate exceeds an attack: one of them is wrong.")
    return {
        "accuracy": metrics.accuracy(net, images.x_test, images.y_test),
        "certificate l2": float(radius["Lipschitz l2"].median()),
        "attack l2": float(far["l2"].median()),
        "attack linf": float(far["linf"].median()),
        **{f"{name} / attack": float(s.median()) for name, s in share.items()},
    }


def _bisected(net: MLP, x: Tensor, y: Tensor, norm: str, top: float) -> Tensor:
    low, high = x.new_zeros(len(x)), x.new_full((len(x),), top)
    best = x.new_full((len(x),), math.inf)
    for _ in range(8):
        eps = (low + high) / 2
        found = attacks.pgd(net, x, y, eps=eps, norm=norm, steps=30, restarts=2)
        low = torch.where(found.success, low, eps)
        high = torch.where(found.success, eps, high)
        best = torch.minimum(best, found.distance)
    return best


# Chapter 7: a bound and a gap along a sweep over ranks.


def gap(way: str, strength: int, seed: int, images: Dataset) -> Numbers:
    """Measure the robustness gap of two hidden layers of a rank, and its bounds."""
    two = _two_classes(images, 2, 4)
    x, y = two.x_test[:300], two.y_test[:300]
    net = MLP((784, 128, 128, 2), rank=strength, seed=seed)
    fitted = train.fit(net, two, seed=seed, progress=False)
    net = fitted.model
    with torch.no_grad():
        margin = metrics.margin(net(x), y)
    worst = _lowered_margins(net, x, y, eps=0.5)
    clean, robust = (float((m > 0).double().mean()) for m in (margin, worst))
    *hidden, head = net.weights
    c = (head[1] - head[0])[None]
    lipschitz, size = theory.network_lipschitz([*hidden, c], strength), float(c.norm())

    def structure(k: int) -> float:
        found = (theory.structure_times_scale(w, k, norm="l2") for w in hidden)
        return size * math.prod(f.bound for f in found)

    return {
        "gap": float((softplus(-worst) - softplus(-margin)).mean()),
        "lost": clean - robust,
        "accuracy": clean,
        "margin": float(margin.mean()),
        "structure at rank": structure(strength),
        "structure at one": structure(1),
        "product": lipschitz.product,
        "aligned": lipschitz.aligned,
        "Frobenius": size * math.prod(float(w.norm()) for w in hidden),
        "epoch": fitted.epoch,
    }


def _two_classes(images: Dataset, first: int, second: int) -> Dataset:
    """Return the part of a data set with two of its labels, renamed 0 and 1."""
    parts: dict[str, Any] = {}
    for part in ("train", "test"):
        x, y = getattr(images, f"x_{part}"), getattr(images, f"y_{part}")
        rows = (y == first) | (y == second)
        parts |= {f"x_{part}": x[rows], f"y_{part}": (y[rows] == second).long()}
    return dataclasses.replace(images, **parts)


def _lowered_margins(
    net: MLP, x: Tensor, y: Tensor, *, eps: float, steps: int = 20
) -> Tensor:
    """Lower every margin as far as l2 steps within the box can, past zero too."""
    z = x.clone()
    for t in range(steps):
        z = z.detach().requires_grad_()
        (g,) = torch.autograd.grad(metrics.margin(net(z), y).sum(), z)
        size = g.flatten(1).norm(dim=1).clamp_min(1e-12).view(-1, 1, 1, 1)
        z = z.detach() - eps * (1 - t / steps) * g / size
        z = attacks.project(z, x, eps=eps, norm="l2")
    with torch.no_grad():
        return metrics.margin(net(z), y)


# Chapter 8: first layers of one rank with different histories.

BUDGETS = (0, 0.25, 0.5, 0.75, 1, 1.5)
LENGTHS = (0, 1, 10, 20, 30, 40, 60)


def history(way: str, strength: int, seed: int, images: Dataset) -> Numbers:
    """Judge a network whose first layer came to its rank in one way.

    Args:
        way: ``"full"``; ``"random start"``, ``"data start"`` or ``"quiet start"`` for a
            layer trained at a rank; ``"truncated"`` for a full one cut afterwards.
        strength: the rank; 0 for ``"full"``.
        seed: of the network and its training.
        images: to train and judge on.
    """
    pixels, principal = _principal(images)
    net = _with_history(way, strength, seed, images)
    x, y = images.x_test[:400], images.y_test[:400]
    w = net.weights[0]
    projector = principal[:, :100] @ principal[:, :100].T
    partner = torch.randperm(400, generator=torch.Generator().manual_seed(0))
    d = (x[partner] - x)[y[partner] != y].flatten(1)
    gain = (d @ w.T).square().sum(1).div(d.square().sum(1)).mean()
    found: dict[str, float] = {
        "accuracy": metrics.accuracy(net, images.x_test, images.y_test),
        "robust": attacks.pgd(net, x, y, eps=1, norm="l2").robust_accuracy,
        "stable rank": float(metrics.stable_rank(metrics.singular_values(w))),
        "off data": float((w - w @ projector).square().sum() / w.square().sum()),
        "signal": float(gain / metrics.operator_norm(w) ** 2),
    }
    if way in ("full", "random start"):
        found |= _halving(net, images) | _alignment(net, strength, seed, x)
        inner = _first_layer(net, w @ projector)
        found["inner accuracy"] = metrics.accuracy(inner, images.x_test, images.y_test)
        found["inner robust"] = attacks.pgd(
            inner, x, y, eps=1, norm="l2"
        ).robust_accuracy
    return found


@functools.lru_cache(maxsize=1)
def _principal(images: Dataset) -> tuple[Tensor, Tensor]:
    """Return normalised training images, and their directions, strongest first."""
    pixels = (images.x_train.flatten(1) - MEAN) / STD
    return pixels, metrics.principal_directions(pixels, centred=False)


def _with_history(way: str, rank: int, seed: int, images: Dataset) -> MLP:
    if way in ("full", "truncated"):
        net = _full(seed, images)
        if way == "full":
            return net
        u, s, vh = torch.linalg.svd(net.weights[0], full_matrices=False)
        return _first_layer(net, u[:, :rank] * s[:rank] @ vh[:rank])
    net = _fresh(rank, seed)
    if way != "random start":
        pixels, principal = _principal(images)
        layer: Any = net.layers[0]
        loud = (pixels @ net.weights[0].T).norm()
        layer.right.data.copy_(principal[:, :rank].T * layer.right.norm() / rank**0.5)
        if way == "quiet start":
            layer.left.data *= loud / (pixels @ net.weights[0].T).norm()
    return _fitted(net, seed, images)


def _fresh(rank: int | None, seed: int) -> MLP:
    return MLP(
        (784, 256, 10), rank=rank or None, seed=seed, mean=MEAN, std=STD
    ).double()


def _fitted(net: MLP, seed: int, images: Dataset, epochs: int = 10) -> MLP:
    fitted = train.fit(
        net, images, epochs=epochs, checkpoint="last", seed=seed, progress=False
    )
    model: MLP = fitted.model
    return model


@functools.lru_cache(maxsize=1)
def _full(seed: int, images: Dataset) -> MLP:
    return _fitted(_fresh(None, seed), seed, images)


def _first_layer(net: MLP, w: Tensor) -> MLP:
    """Return a copy of a network with another first layer, as a full matrix."""
    out = _fresh(None, 0)
    layers: Any = out.layers
    for layer, weight in zip(layers, (w, net.weights[1]), strict=True):
        layer.weight.data.copy_(weight)
    return out.eval()


def _halving(net: MLP, images: Dataset) -> dict[str, float]:
    """Return the sizes of attack and noise that halve the accuracy."""
    x, y = images.x_test[:400], images.y_test[:400]
    attacked = [metrics.accuracy(net, x, y)] + [
        attacks.pgd(net, x, y, eps=e, norm="l2", steps=10).robust_accuracy
        for e in BUDGETS[1:]
    ]
    noise = _sphere(len(images.x_test), 784).view_as(images.x_test)
    shaken = [
        metrics.accuracy(net, images.x_test + s * noise, images.y_test) for s in LENGTHS
    ]
    for curve in (attacked, shaken[1:]):
        if curve != sorted(curve, reverse=True):
            raise ValueError(f"Accuracy rises with the size: {curve}.")
    return {
        "attack that halves": _halves(BUDGETS, attacked),
        "noise that halves": _halves(LENGTHS, shaken),
        "lost to noise of 1": shaken[0] - shaken[1],
        "lost to noise of 20": shaken[0] - shaken[3],
    }


def _halves(sizes: tuple[float, ...], accuracy: list[float]) -> float:
    """Return where a curve falls to half of its start, by linear interpolation."""
    share = [a / accuracy[0] for a in accuracy]
    if min(share) >= 0.5:
        raise ValueError(f"Accuracy never falls to a half: {accuracy}.")
    i = next(i for i, s in enumerate(share) if s < 0.5)
    step = (share[i - 1] - 0.5) / (share[i - 1] - share[i])
    return sizes[i - 1] + step * (sizes[i] - sizes[i - 1])


def _sphere(n: int, m: int) -> Tensor:
    g = torch.Generator().manual_seed(0)
    a = torch.randn(n, m, generator=g, dtype=torch.float64)
    return a / a.norm(dim=1, keepdim=True)


def _alignment(net: MLP, rank: int, seed: int, x: Tensor) -> dict[str, float]:
    """Return alignment and sensitivity of heads: trained, random, and at the start."""
    chance = torch.Generator().manual_seed(seed)
    start = _fresh(rank, seed)
    cases = {
        "trained": (net.weights[0], _heads(net, x)),
        "random": (net.weights[0], _heads(net, x, chance)),
        "start": (start.weights[0], _heads(start, x)),
    }
    found = {}
    for name, (w, c) in cases.items():
        size = c.square().sum(1)
        u1 = torch.linalg.svd(w, full_matrices=False).U[:, 0]
        share = (c @ w).square().sum(1) / size
        found[f"{name} alignment"] = float(len(w) * ((c @ u1) ** 2 / size).mean())
        found[f"{name} gain"] = float(len(w) * share.mean() / w.square().sum())
    return found


@torch.no_grad()
def _heads(net: MLP, x: Tensor, chance: torch.Generator | None = None) -> Tensor:
    """Return the difference of two logits' rows, as the first layer sees it."""
    w, c = net.weights
    z = net.normalize(x).flatten(1) @ w.T
    first, second = (z.relu() @ c.T).topk(2, dim=1).indices.T
    head = c[first] - c[second]
    if chance is not None:
        head = torch.randn(head.shape, generator=chance, dtype=x.dtype)
    return head * (z > 0)


# Chapter 9: what trained networks keep that memorise as many points as dimensions.

MEMORIES = (
    "linear, squared error",
    "ReLU, squared error",
    "linear, cross-entropy",
    "ReLU, cross-entropy",
)


def memory(way: str, strength: int, seed: int, images: Dataset) -> Numbers:
    """Train a network on one point a class, and compare attack and neighbour.

    Args:
        way: one of ``MEMORIES``; with ``", longer"`` for five times as many steps.
        strength: the number of points, of classes and of dimensions.
        seed: of the points and the network.
        images: not used.
    """
    d, longer = strength, way.endswith(", longer")
    points = _one_point_each(d, seed)
    x, y = points.x_train, points.y_train
    linear = way.startswith("linear")
    net: Any = (
        nn.Sequential(Normalize(0.5, 0.1), LowRankLinear(d, d, d, seed=seed))
        if linear
        else MLP((d, 4 * d, d), mean=0.5, std=0.1, seed=seed)
    ).double()
    squared = "squared error" in way
    target = torch.eye(d, dtype=x.dtype)[y] if squared else y
    loss = mse_loss if squared else cross_entropy
    adam = torch.optim.Adam(net.parameters(), lr=3e-3, fused=True)
    for _ in range(3000 if longer else 600):
        adam.zero_grad()
        loss(net(x), target).backward()
        adam.step()
    r = attacks.deepfool(net, x, y, norm="l2").distance
    near = torch.cdist(x, x).fill_diagonal_(math.inf).min(1).values / 2
    return {"accuracy": metrics.accuracy(net, x, y), "kept": float((r / near).median())}


def _one_point_each(d: int, seed: int) -> Dataset:
    g = torch.Generator().manual_seed(seed)
    means = 0.5 + 0.1 * torch.randn(d, d, generator=g, dtype=torch.float64)
    return gaussian_classes(d, d, means.clamp(0, 1), noise=0.0, seed=seed).double()


# Chapter 9: all corners of a sign cube, for layers that bend and layers that do not.

UNITS, CUBE_STEPS = 200, 600
CUBES = ("linear", "ReLU")


def cube(way: str, strength: int, seed: int, images: Dataset) -> Numbers:
    """Train a network on all corners of a sign cube, and attack every one of them.

    Args:
        way: ``"ReLU"``, or ``"linear"`` for the same network without its ReLUs.
        strength: d, the dimension.
        seed: of the matrix and the network.
        images: not used.
    """
    a = _gaussian_matrix(strength, seed)
    x, y = _corners(a)
    net = MLP((strength, UNITS, 2), bias=True, std=strength**0.5, seed=seed).double()
    model = net if way == "ReLU" else nn.Sequential(net.normalize, *net.layers)
    adam = torch.optim.Adam(net.parameters(), lr=1e-2, fused=True)
    for _ in range(CUBE_STEPS):
        adam.zero_grad()
        cross_entropy(model(x), y).backward()
        adam.step()
    model.eval()
    r, gradients = _far(model, x, y), _score_gradients(model, x)
    # The last sign is the highest bit: the first half of the corners has label 0.
    negative, positive = x.chunk(2)
    ways = torch.cdist(negative, positive) / 2
    half = torch.cat([ways.amin(1), ways.amin(0)])
    known = theory.sign_cube_radii(a)
    units = gradients / gradients.norm(dim=1, keepdim=True)
    return {
        "accuracy": metrics.accuracy(model, x, y),
        "kept": float((r / half).median()),
        "median distance": float(r.median()),
        "worst distance": float(r.min()),
        "readout": known.readout,
        "hull": known.hull,
        "neighbour": float(known.neighbour or math.nan),
        "last column": float(a[:, -1].norm()),
        "straight": float(units.mean(0).norm()),
    }


def _gaussian_matrix(d: int, seed: int) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(d, d, generator=g, dtype=torch.float64)


def _corners(a: Tensor) -> tuple[Tensor, Tensor]:
    """Return all ``A z``, ``(2^d, d)``, and whether the last sign is positive."""
    d = len(a)
    bits = (torch.arange(2**d)[:, None] >> torch.arange(d)) & 1
    return (2 * bits - 1).double() @ a.T, bits[:, -1]


def _far(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return the smaller l2 distance that DeepFool and FMN find, with no wall near."""
    side = 8 * float(x.abs().max())
    near = nearest(
        lambda u: model(side * (u - 0.5)), x / side + 0.5, y, ("l2",), steps=50
    )
    return side * near["l2"].distance


def _score_gradients(model: nn.Module, x: Tensor) -> Tensor:
    z = x.clone().requires_grad_()
    logits = model(z)
    (g,) = torch.autograd.grad((logits[:, 1] - logits[:, 0]).sum(), z)
    return g


# Chapter 9: three cosines on sign cubes, after a short and a longer training.

LINEAR_UNITS, SHORT, LONG = 3000, 600, 3000
COSINES = ("cross-entropy", "squared error")


def cosines(way: str, strength: int, seed: int, images: Dataset) -> Numbers:
    """Compare the direction of a wide linear network with three others.

    Args:
        way: the loss, one of ``COSINES``; with ``", longer"`` for five times the steps.
        strength: d, the dimension.
        seed: of the matrix and the network.
        images: not used.
    """
    a = _gaussian_matrix(strength, seed)
    x, y = _corners(a)
    half = x[y == 1]  # the corners opposite have the opposite label
    g = torch.Generator().manual_seed(seed)
    hidden = _uniform(LINEAR_UNITS, strength, generator=g) / strength**0.5
    head = _uniform(LINEAR_UNITS, generator=g) / LINEAR_UNITS**0.5
    adam = torch.optim.Adam(
        [hidden.requires_grad_(), head.requires_grad_()], lr=1e-3, fused=True
    )
    squared = way.startswith("squared error")
    for _ in range(LONG if way.endswith(", longer") else SHORT):
        adam.zero_grad()
        score = half @ (head @ hidden)
        loss = (score - 1).square() if squared else softplus(-score)
        loss.mean().backward()
        adam.step()
    w = (head @ hidden).detach()
    known = theory.sign_cube_radii(a)
    # From the hull of one class to that of the other, the shortest way.
    fit = lsq_linear(a[:, :-1].numpy(), -a[:, -1].numpy(), (-1, 1), method="bvls")
    best = a[:, -1] + a[:, :-1] @ torch.from_numpy(fit.x)
    others = torch.stack([a[:, -1], torch.linalg.inv(a)[-1], best])  # (3, d)
    one, two, three = torch.cosine_similarity(w[None], others).abs().tolist()
    return {
        "accuracy": float((half @ w > 0).double().mean()),
        "phi": known.readout / float(a[:, -1].norm()),
        "cosine 1": one,
        "cosine 2": two,
        "cosine best": three,
    }


def _uniform(*shape: int, generator: torch.Generator) -> Tensor:
    return 2 * torch.rand(shape, generator=generator, dtype=torch.float64) - 1


# Chapter 9: a straight walk predicts the attack.

WAYS_TO_WALK: dict[str, dict[str, float]] = {
    "plain": {},
    "weight decay": {"decay": 1.0},
    "adversarial": {"eps": 1.0},
}


def walk(way: str, strength: int, seed: int, images: Dataset) -> Numbers:
    """Compare the attack on two logits with the prediction from the straight path."""
    net = _walked(seed, images, **WAYS_TO_WALK[way])
    pairs = ((0, 1), (2, 3), (4, 5), (6, 7), (8, 9))
    paths = torch.cat([_paths(net, a, b, images) for a, b in pairs], 1)
    return {
        "accuracy": metrics.accuracy(net, images.x_test, images.y_test),
        "attack": float(paths[0].mean()),
        "predicted": float(paths[1].mean()),
        "cosine": float(paths[2].mean()),
        "correlation": float(torch.corrcoef(paths[:2])[0, 1]),
        "error of the identity": float(paths[3].max()),
    }


def _walked(seed: int, images: Dataset, eps: float = 0.0, decay: float = 0.0) -> MLP:
    part = images.subset(2000, 1000)
    net = MLP((784, 128, 128, 10), seed=seed, mean=MEAN, std=STD).double()
    adam = torch.optim.AdamW(net.parameters(), weight_decay=decay, fused=True)
    g = torch.Generator().manual_seed(seed)
    for _ in range(6):
        for rows in torch.randperm(2000, generator=g).split(80):
            x, y = part.x_train[rows], part.y_train[rows]
            if eps:
                x = _worse(net, x, y, eps)
            adam.zero_grad()
            cross_entropy(net(x), y).backward()
            adam.step()
    return net.eval()


def _worse(net: MLP, x: Tensor, y: Tensor, eps: float) -> Tensor:
    """Take three l2 steps that lower the margin, each back into ball and box."""
    z = x
    for _ in range(3):
        z = z.detach().requires_grad_()
        (g,) = torch.autograd.grad(metrics.margin(net(z), y).sum(), z)
        size = g.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        z = attacks.project(z.detach() - eps / 2 * g / size, x, eps=eps, norm="l2")
    return z


def _paths(net: MLP, a: int, b: int, images: Dataset) -> Tensor:
    """Return attack and prediction over half the way, cosine, error: ``(4, N)``."""
    x, end = (images.x_test[images.y_test == c][:40] for c in (a, b))

    def score(z: Tensor) -> Tensor:
        logits: Tensor = net(z)
        return logits[:, b] - logits[:, a]

    with torch.no_grad():
        right = (score(x) < 0) & (score(end) > 0)
    x, end = x[right], end[right]
    path = theory.path_identity(score, x, end, steps=50)
    zero = torch.zeros(len(x), dtype=torch.long)
    near = attacks.fmn(lambda z: net(z)[:, [a, b]], x, zero)
    half = (end - x).flatten(1).norm(dim=1) / 2
    error = (path.integral / path.difference - 1).abs()
    return torch.stack(
        [near.distance / half, path.predicted / half, path.cosine, error]
    )


# Chapter 10: what a first layer lets through.


def bridge(way: str, strength: int, seed: int, images: Dataset) -> Numbers:
    """Judge a network with a first layer of a rank (256: a full one) by its bridge."""
    rank = strength if strength < 256 else None
    net = _fitted(_fresh(rank, seed), seed, images, epochs=8)
    x, y, w = images.x_test.flatten(1), images.y_test, net.weights[0]
    partner = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))
    differences = (x[partner] - x)[y[partner] != y]
    rows = (y[partner] != y).nonzero().flatten()[:800]
    a, b = x[rows], x[partner[rows]]
    found: dict[str, float] = {
        "accuracy": metrics.accuracy(net, x, y),
        "survives": float(theory.surviving_fraction(w, differences).mean()),
        **_radii(net, x),
    }
    if strength == 256:
        found |= _tail(net, a, b, 16)
    if strength in (4, 16, 256):
        found |= _universal(net, x, y, strength, seed)
    if strength == 16:
        found["fooled, library"] = attacks.universal(
            net, x, y, eps=2.0, norm="l2", epochs=15
        ).fooling_rate
    if strength in (4, 8, 16):
        found |= _boxed(net, a, b)
    return found


@torch.no_grad()
def _label(net: MLP, x: Tensor) -> Tensor:
    label: Tensor = net(x).argmax(1)
    return label


def _radii(net: MLP, x: Tensor) -> dict[str, float]:
    """Return medians of attack, bridge bound and half the way to another label."""
    some, everyone = x[:100], _label(net, x)
    seen = everyone[:100]
    attack = _unboxed(net, some, seen)
    bound = theory.bridge_radius(net.weights[0], some, seen, x, everyone)
    ways = torch.cdist(some, x)
    away = ways.masked_fill(seen[:, None] == everyone, math.inf).amin(1)
    return {
        "attack": float(attack.median()),
        "bound": float(bound.median()),
        "half the way": float((away / 2).median()),
        "beaten": int((bound < attack).sum()),
    }


def _unboxed(net: MLP, x: Tensor, seen: Tensor) -> Tensor:
    """Return the distances that DeepFool finds where no wall is near."""
    # The box of the attack is [0, 1], and that of the images then [-4, 5].
    near = attacks.deepfool(
        lambda u: net(9 * u - 4), (x + 4) / 9, seen, norm="l2", steps=20
    )
    return 9 * near.distance


def _tail(net: MLP, a: Tensor, b: Tensor, k: int) -> dict[str, float]:
    """Return price and errors of the attack with k directions, and what it reaches."""
    w = net.weights[0]
    e, residual, _ = theory.bridge_attack(w, a, b, k)
    ours, theirs = _label(net, a), _label(net, b)
    reached = (_label(net, a + e) == theirs)[ours != theirs]
    return {
        "price": float((e.norm(dim=1) / (b - a).norm(dim=1)).mean()),
        "error": float(residual.norm() / ((b - a) @ w.T).norm()),
        "error of the spectrum": metrics.best_k_error(metrics.singular_values(w), k),
        "reached": float(reached.double().mean()),
    }


def _universal(net: MLP, x: Tensor, y: Tensor, k: int, seed: int) -> dict[str, float]:
    """Return what one perturbation fools, by the subspace in which it was learnt."""
    vh = torch.linalg.svd(net.weights[0]).Vh
    g = torch.Generator().manual_seed(seed)
    chance = torch.linalg.qr(torch.randn(k, 784, generator=g, dtype=x.dtype).T).Q
    places = {
        "anywhere": torch.eye(784, dtype=x.dtype),
        "row space": vh[:k].T,
        "random": chance,
        "complement": vh[k:].T,
    }
    test = x[1000:]
    found = {}
    for name, basis in places.items():
        delta = _learnt(net, basis, x[:1000], y[:1000], seed)
        changed = _label(net, (test + delta).clamp(0, 1)) != _label(net, test)
        found[f"fooled, {name}"] = float(changed.double().mean())
    return found


def _learnt(net: MLP, basis: Tensor, x: Tensor, y: Tensor, seed: int) -> Tensor:
    """Return one perturbation of length 2 in the span of the columns of a basis."""
    g = torch.Generator().manual_seed(seed)
    # At zero nothing outside the row space has a slope, but what rounding makes.
    c = basis.T @ torch.randn(784, generator=g, dtype=x.dtype)
    c = (0.2 / c.norm() * c).requires_grad_()
    for step in range(40):
        rows = torch.randint(len(x), (250,), generator=g)
        margin = metrics.margin(net((x[rows] + basis @ c).clamp(0, 1)), y[rows])
        (slope,) = torch.autograd.grad(margin.clamp_min(0).mean(), c)
        with torch.no_grad():
            c -= (1 - step / 40) * slope / slope.norm().clamp_min(1e-12)
            c *= (2 / c.norm()).clamp_max(1)
    return basis @ c.detach()


def _boxed(net: MLP, a: Tensor, b: Tensor) -> dict[str, float]:
    """Return what is left of the bridge attacks after clipping to the box."""
    ours, theirs = _label(net, a), _label(net, b)
    e = theory.bridge_attack(net.weights[0], a, b).e
    clipped = (a + e).clamp(0, 1)
    away = a + e - clipped
    return {
        "outside": float((away.abs() > 1e-3).any(1).double().mean()),
        "clipped reach": float(
            (_label(net, clipped) == theirs)[ours != theirs].double().mean()
        ),
        "clipped away": float((away.norm(dim=1) / e.norm(dim=1)).mean()),
    }


def bottleneck(way: str, strength: int, seed: int, images: Dataset) -> Numbers:
    """Bridge a network whose second layer has a low rank, by a step and by a path."""
    net = MLP((784, 256, 256, 10), seed=seed, mean=MEAN, std=STD)
    net.layers[1] = LowRankLinear(256, 256, strength, seed=seed)
    net = _fitted(net, seed, images, epochs=8)
    x = images.x_test.flatten(1)
    partner = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))
    seen = _label(net, x)
    chosen = (seen != seen[partner]).nonzero().flatten()[:40]
    start, end, wanted = x[chosen], x[partner[chosen]], seen[partner[chosen]]

    first, second = net.layers[:2]
    right: Tensor = second.right  # type: ignore[assignment]

    def inside(p: Tensor) -> Tensor:
        hidden: Tensor = first(net.normalize(p)).relu()
        return hidden @ right.T

    step = torch.stack(
        [
            theory.bridge_attack(_slopes(inside, p), p, q).e
            for p, q in zip(start, end, strict=True)
        ]
    )
    path = theory.curved_bridge(inside, start, end)
    straight = (end - start).norm(dim=1)
    with torch.no_grad():
        carried = (inside(end) - inside(start)).norm(dim=1)
    return {
        "accuracy": metrics.accuracy(net, x, images.y_test),
        "arrived": float((_label(net, start + step) == wanted).double().mean()),
        "followed": float((_label(net, path.z) == wanted).double().mean()),
        "share of the way": float(((path.z - start).norm(dim=1) / straight).median()),
        "promised": float((carried / path.slope / straight).median()),
        **_deep_radii(net, inside, x, seen),
    }


def _slopes(inside: Callable[[Tensor], Tensor], p: Tensor) -> Tensor:
    slopes: Tensor = torch.autograd.functional.jacobian(lambda q: inside(q[None])[0], p)
    return slopes


def _deep_radii(
    net: MLP, inside: Callable[[Tensor], Tensor], x: Tensor, seen: Tensor
) -> dict[str, float]:
    """Return medians of attack, curved bridge and half the way to another label.

    For each of 50 images the ten others of another label that the first step reaches
    at the least cost are tried as ends of a path.
    """
    n, tried = 50, 10
    with torch.no_grad():
        inner = inside(x)
    steps = [
        (inner - inner[i]) @ torch.linalg.pinv(_slopes(inside, x[i])).T
        for i in range(n)
    ]
    cost = torch.stack(steps).norm(dim=2)
    same = seen[:n, None] == seen
    ends = cost.masked_fill(same, math.inf).topk(tried, largest=False).indices.flatten()
    start = x[:n].repeat_interleave(tried, 0)
    path = theory.curved_bridge(inside, start, x[ends], steps=20)
    # Whatever the path, a point with another label bounds the distance.
    away = (path.z - start).norm(dim=1)
    stays = _label(net, path.z) == seen[:n].repeat_interleave(tried)
    bound = away.masked_fill(stays, math.inf).view(n, tried).amin(1)
    half = torch.cdist(x[:n], x).masked_fill(same, math.inf).amin(1) / 2
    attack = _unboxed(net, x[:n], seen[:n])
    return {
        "attack": float(attack.median()),
        "bound": float(bound.median()),
        "half the way": float(half.median()),
        "beaten": int((bound < attack).sum()),
    }


EXPERIMENTS: dict[str, Callable[[str, int, int, Dataset], Numbers]] = {
    "penalties": penalties,
    "certificates": certificates,
    "gap": gap,
    "history": history,
    "memory": memory,
    "cube": cube,
    "cosines": cosines,
    "walk": walk,
    "bridge": bridge,
    "bottleneck": bottleneck,
}


def _run(configs: list[Config], device: str) -> list[Numbers]:
    images = SETS[configs[0]["data"]]().to(device)
    return [
        EXPERIMENTS[c["experiment"]](c["way"], c["strength"], c["seed"], images)
        for c in configs
    ]


def _grid(seeds: int) -> list[Config]:
    ranks = (64, 16, 4)
    settings: dict[str, list[tuple[str, int]]] = {
        "penalties": [(way, 0) for way in PENALTIES],
        "certificates": [("plain", 0), ("rank", 16)],
        "gap": [("rank", k) for k in (2, 4, 8, 16, 32, 64, 128)],
        "history": [
            ("full", 0),
            *[("truncated", k) for k in ranks],
            *[("random start", k) for k in ranks],
            *[("data start", k) for k in ranks],
            ("quiet start", 16),
        ],
        "memory": [
            *[(way, d) for way in MEMORIES for d in (16, 64)],
            (f"{MEMORIES[0]}, longer", 16),
        ],
        "cube": [(way, d) for d in (8, 10, 12) for way in CUBES],
        "cosines": [
            (f"{way}{time}", d)
            for d in (8, 10, 12)
            for way in COSINES
            for time in ("", ", longer")
        ],
        "walk": [(way, 0) for way in WAYS_TO_WALK],
        "bridge": [("rank", k) for k in (4, 8, 16, 64, 256)],
        "bottleneck": [("rank", k) for k in (4, 16)],
    }
    return [
        {
            "experiment": name,
            "way": way,
            "strength": strength,
            "seed": seed,
            "data": "sample",
        }
        for name, own in settings.items()
        # Matrices differ more than networks do, and cost less.
        for seed in range(seeds * (2 if name == "cosines" else 1))
        for way, strength in own
    ]


STUDY = Study(
    name="small_experiments",
    run=lambda config, device: _run([config], device)[0],
    run_many=_run,
    # Networks of one seed share the images, and the full network that is cut.
    group=lambda config: (config["experiment"], config["seed"]),
    grids={"quick": _grid(5), "full": _grid(10)},
    fingerprint=lambda config: SETS[config["data"]]().fingerprint,
)
