"""The layers of trained networks: plain, factored or penalised, of one shape.

Everything is equal but the way. Each run tells what the singular values and the rows of
the layers say, what the network loses when they are cut, and the gap that an attack
leaves. All of it in float64, so that a network trained again is its row of the table.
"""

import math
from typing import Any

import torch
from torch import Tensor

from crlib import attacks, compress, metrics, train
from crlib.data import Dataset
from crlib.models import MLP, weight_layers
from crlib.studies.engine import Config, Numbers
from crlib.studies.measures import SETS, at_checkpoints, judged_trainings

__all__ = ["BUDGETS", "KEPT", "STUDY", "TERMS", "build", "judge"]

SIZES = (784, 256, 256, 10)
MEAN, STD = 0.29, 0.35
WAYS = ("plain", "rank", "rows", "weights")
CHECKPOINTS = ("last",)
TERMS = (1, 2, 4, 8, 16, 32, 64, 128, 256)  # of the first layer: best-k errors
KEPT = (4, 8, 16, 32, 64, 128)  # in every hidden layer, when a network is cut
HEAD = 16  # terms that count as dominant where no rank says it
BUDGETS = (0.01, 0.25, 0.5, 1, 8)  # l2, input units
BUDGET = 0.5


def build(way: str, strength: float, seed: int) -> tuple[MLP, dict[str, Any]]:
    """Return a network and the options of :func:`crlib.train.fit` that make it so.

    Args:
        way: ``"plain"``; ``"rank"`` for factored hidden layers; ``"rows"`` or
            ``"weights"`` for a penalty on the row norms, or the magnitudes, of each
            hidden layer over its Frobenius norm.
        strength: the rank, or that of the penalty; nothing for plain.
        seed: of the initialisation.

    Raises:
        ValueError: an unknown way.
    """
    if way not in WAYS:
        raise ValueError(f"way is {way!r}: choose one of {', '.join(WAYS)}.")
    rank = int(strength) if way == "rank" else None
    net = MLP(SIZES, rank=rank, mean=MEAN, std=STD, seed=seed)
    if way == "rows":
        return net, {"penalty": compress.group_lasso(strength, scale_invariant=True)}
    if way == "weights":

        def penalty(model: Any) -> Tensor:
            hidden = [layer.weight for layer in model.layers[:-1]]
            return strength * sum(w.abs().sum() / w.norm() for w in hidden)

        return net, {"penalty": penalty}
    return net, {}


def judge(
    net: MLP, images: Dataset, *, dominant: int = HEAD, attacked: int = 500
) -> dict[str, float]:
    """Measure the layers of a trained network, and what cutting and attacking them do.

    Args:
        net: the trained network, in the precision of the images.
        images: the test part judges it; on the training part it shows which neurons
            fire.
        dominant: terms k of the published bound, such as the rank.
        attacked: how many test images, the first, are attacked.

    Returns:
        Named numbers. Of the first layer: errors (q = 2), ranks, norm over Frobenius
        norm and the two factors of the bound's slack, its row of largest l1 norm. Of
        both hidden layers: products, and accuracies after keeping k terms. Of the
        second: what an error makes on its way to the logits.
    """
    x, y = images.x_test, images.y_test
    found = {"accuracy": metrics.accuracy(net, x, y)}
    found |= _first_layer(net.weights[0], dominant) | _products(net, dominant)
    for structure, cut in (("directions", _truncated), ("rows", _keeping_rows)):
        first, second = (cut(w) for w in net.weights[:-1])
        for k, *weights in zip(KEPT, first, second, strict=True):
            small = _with_weights(net, [*weights, net.weights[-1]])
            found[f"accuracy, {k} {structure}"] = metrics.accuracy(small, x, y)
    found |= _journey(net, x)
    found["rare share"] = _rare_share(net, images.x_train, layer=1, fires=0.1)
    found["silent share"] = _rare_share(net, images.x_train, layer=0, fires=0.01)
    trimmed = _trimmed(net.weights[0])
    thin = _with_weights(net, [trimmed, *net.weights[1:]])
    found["trimmed accuracy"] = metrics.accuracy(thin, x, y)
    found |= {f"trimmed {n}": v for n, v in _largest_row(trimmed).items()}
    return found | _gap(net, x[:attacked], y[:attacked])


def _first_layer(w: Tensor, dominant: int) -> dict[str, float]:
    s, rows = metrics.singular_values(w), metrics.row_norms(w)
    found = {}
    for name, v in (("spectral", s), ("row", rows)):
        for k in TERMS:
            found[f"{name} error {k}"] = _no_dust(metrics.best_k_error(v, k))
    found["spread"] = metrics.spread(s, HEAD)
    found["stable rank"] = metrics.stable_rank(s)
    found["effective rank"] = metrics.effective_rank(s)
    found["Frobenius"] = float(s.norm())
    found["norm"] = float(s[0] / s.norm())
    found["head"], found["slack"] = _slack(s, dominant)
    return found | _largest_row(w)


def _no_dust(value: float) -> float:
    """What is zero without rounding has no digits to compare."""
    return value if value > 1e-9 else 0.0


def _slack(s: Tensor, k: int) -> tuple[float, float]:
    """Return the factors A_k and B by which theorem 3.1 overshoots the norm."""
    head = float((s[:k] / s[k - 1]).mean())
    return head, math.sqrt(len(s)) * float(s.norm() / s.sum())


def _products(net: MLP, dominant: int) -> dict[str, float]:
    """Return the products over the hidden layers; all three together are the bound."""
    spectra = [metrics.singular_values(w) for w in net.weights[:-1]]
    heads, slacks = zip(*(_slack(s, dominant) for s in spectra), strict=True)
    return {
        "norm product": math.prod(float(s[0]) for s in spectra),
        "head product": math.prod(heads),
        "slack product": math.prod(slacks),
    }


def _largest_row(w: Tensor) -> dict[str, float]:
    """Split the norm for linf over the Frobenius norm into its row's two factors."""
    rho, nu = metrics.row_norms(w), metrics.row_norms(w, p=1)
    i = int(nu.argmax())
    return {"flatness": float(nu[i] / rho[i]), "row share": float(rho[i] / w.norm())}


def _truncated(w: Tensor) -> list[Tensor]:
    u, s, vh = torch.linalg.svd(w, full_matrices=False)
    return [(u[:, :k] * s[:k]) @ vh[:k] for k in KEPT]


def _keeping_rows(w: Tensor) -> list[Tensor]:
    order = w.norm(dim=1).argsort(descending=True)
    return [w.index_fill(0, order[k:], 0) for k in KEPT]


def _trimmed(w: Tensor, share: float = 0.1) -> Tensor:
    """Keep the strongest entries of each row."""
    limit = w.abs().quantile(1 - share, dim=1, keepdim=True)
    return w * (w.abs() >= limit)


def _with_weights(net: MLP, weights: list[Tensor]) -> MLP:
    full = MLP(SIZES, mean=MEAN, std=STD).to(net.weights[0]).eval()
    for layer, w in zip(weight_layers(full), weights, strict=True):
        layer.weight.data.copy_(w)
    return full


def _inputs(net: MLP, x: Tensor, layer: int) -> Tensor:
    x = torch.flatten(net.normalize(x), 1)
    for w in net.weights[:layer]:
        x = (x @ w.T).relu()
    return x


def _journey(net: MLP, x: Tensor) -> dict[str, float]:
    """Follow the relative error of a truncated second layer to the logits."""
    _, w, head = net.weights
    cut = _truncated(w)[KEPT.index(HEAD)]
    inputs = _inputs(net, x, 1)
    z, z_cut = inputs @ w.T, inputs @ cut.T
    logits = [v.relu() @ head.T for v in (z, z_cut)]
    pairs = {
        "weights": (w, cut),
        "outputs": (z, z_cut),
        "ReLU": (z.relu(), z_cut.relu()),
        "logits": tuple(v - v.mean(1, keepdim=True) for v in logits),
    }
    found = {
        f"error at {name}": _no_dust(float((a - b).norm() / a.norm()))
        for name, (a, b) in pairs.items()
    }
    for name, t in (("output", z), ("error", z - z_cut)):
        share = t[z > 0].square().sum() / t.square().sum()
        found[f"{name} above zero"] = float(share) if found["error at weights"] else 0.0
    return found


def _rare_share(net: MLP, x: Tensor, *, layer: int, fires: float) -> float:
    """Return the share of a layer's squared norm in neurons that fire on few images."""
    w = net.weights[layer]
    rare = (_inputs(net, x, layer) @ w.T > 0).double().mean(0) < fires
    return float(w[rare].square().sum() / w.square().sum())


def _gap(net: MLP, x: Tensor, y: Tensor) -> dict[str, float]:
    """Return the loss that PGD adds, and what shows that the attack is sound."""

    def attack(eps: float = BUDGET, steps: int = 10) -> Any:
        return attacks.pgd(net, x, y, eps=eps, norm="l2", steps=steps, loss="ce")

    @torch.no_grad()
    def loss(inputs: Tensor) -> float:
        return float(torch.nn.functional.cross_entropy(net(inputs), y))

    usual = attack()
    found = {
        "gap": loss(usual.x_adv) - loss(x),
        "unattacked": metrics.accuracy(net, x, y),
    }
    for eps in BUDGETS:
        found[f"robust {eps}"] = attack(eps).robust_accuracy
    for steps in (1, 30):
        found[f"robust, steps {steps}"] = attack(steps=steps).robust_accuracy
    return found


def _run(configs: list[Config], device: str) -> list[Numbers]:
    first = configs[0]
    images = SETS[first["data"]]().to(device)
    net, options = build(first["way"], first["strength"], first["seed"])
    fitted = train.fit(
        net.to(device),
        images,
        epochs=first["epochs"],
        lr=first["lr"],
        checkpoint="last",
        seed=first["seed"],
        progress=False,
        **options,
    )
    dominant = int(first["strength"]) if first["way"] == "rank" else HEAD
    return at_checkpoints(
        fitted,
        configs,
        lambda at: judge(
            at.model, images, dominant=dominant, attacked=first["attacked"]
        ),
    )


def _grid(seeds: int, **more: Any) -> list[Config]:
    strengths: dict[str, tuple[float, ...]] = {
        "plain": (0,),
        "rank": (2, 4, 8, 16, 32, 64),
        "rows": (0.1,),
        "weights": (0.01,),
    }
    return [
        {"way": way, "strength": s, "seed": seed, "checkpoint": rule, **more}
        for way, own in strengths.items()
        for s in own
        for seed in range(seeds)
        for rule in CHECKPOINTS
    ]


STUDY = judged_trainings(
    "layers",
    _run,
    {
        "quick": _grid(5, data="sample", epochs=8, lr=0.002, attacked=500),
        "full": _grid(10, data="Fashion-MNIST", epochs=8, lr=0.002, attacked=1000),
    },
    lambda config: SETS[config["data"]]().fingerprint,
)
