"""Pruned with the adversary in the loop: by magnitude, by learnt scores, by chance.

Networks trained plainly or adversarially, as in the study ``adversarial``, lose nine
tenths of their weights or more: single ones, or whole rows. What stays is chosen by
magnitude, by scores that are learnt against an adversary (HYDRA, Sehwag et al. 2020) or
without one, or at random, and then tuned against the adversary or without it. Beside
them are networks of the same size that were never large. All in float64.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from crlib import attacks, checks, compress, metrics, train
from crlib.data import Dataset
from crlib.models import MLP
from crlib.studies import adversarial
from crlib.studies.engine import Config, Numbers, Study
from crlib.studies.measures import SETS, compressibility, differences

__all__ = [
    "BUDGETS",
    "EPS",
    "KEPT",
    "STUDY",
    "Scored",
    "cut",
    "judge",
    "masks",
    "overlap",
    "scored",
    "started",
    "tuned",
]

EPS = 0.05  # of the adversary, linf, input units
BUDGETS = (0.025, EPS, 0.1)
BEFORE = 12  # epochs of the training that is cut
# What is kept of each hidden layer, by structure and percent of the weights: a share of
# them, or a number of rows.
KEPT = {
    ("weights", 10): 0.1,
    ("weights", 5): 0.05,
    ("rows", 10): 24,
    ("rows", 5): 13,
}
MASKS = ("magnitude", "scores", "plain scores", "random")
BEHIND = "scores behind"  # the ReLU: for rows
SCORE_RATE = 0.01  # by the training under attack of one seed, of six rates
# Chosen for scores before the ReLU: so those behind have others, too.
RATES = {BEHIND: SCORE_RATE, f"{BEHIND}, slow": 0.001, f"{BEHIND}, fast": 0.1}
LEARNT = ("scores", "plain scores", *RATES)
FINE = 30  # halvings enough that a rounding beside the boundary does not matter


def _options(config: Config, training: str, way: str = "plain") -> Any:
    """Return network, data and options of the study ``adversarial``."""
    kept = KEPT.get((config["structure"], config["size"]), 0)  # a width, in rows
    return adversarial.build(
        {
            **{name: config[name] for name in ("seed", "images", "data")},
            "experiment": "damage",
            "train": training,
            "way": way,
            "strength": kept,
            "epochs": config["epochs"],
        }
    )


def started(config: Config, device: str = "cpu") -> tuple[MLP, Dataset]:
    """Train the network that is cut: plain full layers, as in ``adversarial``.

    Args:
        config: ``start``, ``seed``, ``images`` and ``data`` as in the grid.
        device: of the training.

    Returns:
        The network, and its data in float64.
    """
    net, images, options = _options(config, config["start"])
    options["epochs"], images = BEFORE, images.to(device)
    return train.fit(net.to(device), images, progress=False, **options).model, images


def best(scores: Tensor, count: int) -> Tensor:
    """Return a mask, one at the ``count`` largest scores and zero elsewhere."""
    mask = torch.zeros_like(scores).flatten()
    mask[scores.flatten().argsort(descending=True, stable=True)[:count]] = 1
    return mask.view_as(scores)


class Scored(nn.Module):
    """A network with frozen weights, of which the best scores say which are there.

    The mask is a step function of the scores. Backwards it counts as the scores
    themselves (straight-through), so a score gets the gradient of its mask entry. A row
    that is out gets none: its neuron stands at zero, where the slope of ReLU is zero.
    Behind the ReLU it gets one: there the mask multiplies what the neuron hands on.

    Without batch normalisation a cut makes the logits small, and the loss then hears
    little of labels. So where weights are cut, the logits of a batch are made as large
    as those of the full network. Where rows are cut they would be large and wrong, and
    stay as they are.

    Args:
        net: with full layers; a copy of it is frozen.
        structure: ``"weights"`` has a score for each, ``"rows"`` for each row.
        size: percent of the weights to keep, as in ``KEPT``.
        behind: the mask stands behind the ReLU; for rows.
    """

    def __init__(
        self, net: MLP, structure: str, size: int, *, behind: bool = False
    ) -> None:
        super().__init__()
        if behind and structure != "rows":
            raise ValueError("Only rows have a score behind the ReLU.")
        self.structure, self.behind = structure, behind
        self.net = copy.deepcopy(net).requires_grad_(False)
        kept = KEPT[structure, size]
        weights = net.weights[:-1]
        scores = [
            w.abs() if structure == "weights" else w.norm(dim=1, keepdim=True)
            for w in weights
        ]
        # Of one scale in all layers, since one rate moves them all.
        self.scores = nn.ParameterList(s / s.max() for s in scores)
        self.counts = [
            round(kept * w.numel()) if structure == "weights" else int(kept)
            for w in weights
        ]

    def masks(self) -> list[Tensor]:
        """Return the mask of each hidden layer, ``(h, m)`` or ``(h, 1)``."""
        return [
            best(s.detach().abs(), count)
            for s, count in zip(self.scores, self.counts, strict=True)
        ]

    def forward(self, x: Tensor) -> Tensor:
        weights = {}
        for i, (mask, s) in enumerate(zip(self.masks(), self.scores, strict=True)):
            through = mask + (s.abs() - s.detach().abs())  # the mask, to the last bit
            if self.behind:  # what leaves a neuron is a column of the next layer
                i, through = i + 1, through.T
            weights[f"layers.{i}.weight"] = self.net.weights[i] * through
        out: Tensor = torch.func.functional_call(self.net, weights, (x,))
        if self.structure == "rows":
            return out
        with torch.no_grad():
            scale = self.net(x).norm() / out.norm().clamp_min(1e-12)
        return scale * out


def scored(
    model: Scored, images: Dataset, options: dict[str, Any], lr: float = SCORE_RATE
) -> train.Fit:
    """Learn the scores of a network; its weights stay.

    Args:
        model: whose scores are where they start.
        images: to learn from.
        options: of :func:`crlib.train.fit`, the adversary among them or not.
        lr: learning rate of the scores.

    Returns:
        The training, whose model is a :class:`Scored`.
    """
    # No decay: it would draw all scores together.
    options = options | {"lr": lr, "weight_decay": 0.0}
    return train.fit(model, images, progress=False, **options)


def cut(net: MLP, masks: Sequence[Tensor]) -> MLP:
    """Return a copy of a network without what the masks do not keep.

    Args:
        net: with full layers.
        masks: one a hidden layer, ``(h, m)`` or ``(h, 1)``.
    """
    net = copy.deepcopy(net)
    layers: Any = net.layers
    for layer, mask in zip(layers[:-1], masks, strict=True):
        layer.weight.data *= mask
    return net


def overlap(masks: Sequence[Tensor], others: Sequence[Tensor]) -> float:
    """Return the share of what is kept that others keep too, a mean over the layers."""
    shares = [
        float((mask * other).sum() / mask.sum())
        for mask, other in zip(masks, others, strict=True)
    ]
    return sum(shares) / len(shares)


def judge(net: MLP, images: Dataset, *, attacked: int) -> Numbers:
    """Measure accuracy, robust accuracy, distances, and how evenly layers are used.

    Args:
        net: trained.
        images: whose test part judges.
        attacked: how many test images, the first, are attacked.

    Returns:
        ``accuracy``, ``right`` on the attacked images, ``robust`` what the quick linf
        cascade leaves at ``EPS``, ``ratio`` of the two; ``linf`` and ``l2``, medians by
        FMN over the images labelled right, and ``beyond ...`` the share whose linf
        distance exceeds a budget. ``chi``: root of the share of differences of images
        that the first layer sees.
        The measures of :func:`compressibility` are of the balanced form.
    """
    x, y = images.x_test[:attacked], images.y_test[:attacked]
    right = metrics.accuracy(net, x, y)
    found: dict[str, float] = {
        "accuracy": metrics.accuracy(net, images.x_test, images.y_test),
        "right": right,
    }
    hit = attacks.worst_case(net, x, y, eps=EPS, budget="quick")
    found |= {"robust": hit.robust_accuracy, "ratio": hit.robust_accuracy / right}
    for norm in ("linf", "l2"):
        far = attacks.fmn(net, x, y, norm=norm, steps=20, search_steps=FINE).distance
        found[norm] = float(far[far > 0].median())
        if norm == "linf":
            for eps in BUDGETS:
                found[f"beyond {eps}"] = float((far > eps).double().mean())
    _, s, vh = torch.linalg.svd(net.weights[0], full_matrices=False)
    seen = vh[s > 1e-9 * s[0]].T
    pairs = differences(images.x_test, images.y_test)
    found["chi"] = float(metrics.energy_share(pairs, seen).mean().sqrt())
    return found | compressibility(metrics.balanced(net).weights[:-1])


def masks(net: MLP, images: Dataset, how: str, config: Config) -> list[Tensor]:
    """Choose what to keep of each hidden layer.

    Args:
        net: trained, with full layers.
        images: scores are learnt from them.
        how: ``"magnitude"``, ``"scores"`` learnt against the adversary, ``"plain
            scores"`` learnt without, ``"scores behind"`` learnt against it behind the
            ReLU, also ``"..., slow"`` and ``"..., fast"``, or ``"random"``.
        config: ``structure``, ``size``, ``epochs`` and ``seed`` as in the grid; scores
            take a third of the epochs.

    Raises:
        ValueError: an unknown way to choose.
    """
    checks.one_of("mask", how, (*MASKS, *RATES))
    behind = how in RATES
    model = Scored(net, config["structure"], config["size"], behind=behind)
    if how in LEARNT:
        training = "standard" if how == "plain scores" else "linf"
        *_, options = _options(config, training)
        options["epochs"] = config["epochs"] // 3
        lr = RATES.get(how, SCORE_RATE)
        model = scored(model, images, options, lr).model
    if how == "random":
        # Not the stream that drew the weights: its largest numbers are in them.
        source = torch.Generator().manual_seed(1000 + config["seed"])
        for s in model.scores:
            s.data = torch.rand(s.shape, generator=source).to(s)
    return model.masks()


def tuned(net: MLP, images: Dataset, config: Config) -> train.Fit:
    """Train what is left of a cut network; zero rows go, and other zeros stay.

    Args:
        net: cut.
        images: to train with.
        config: ``structure``, ``mask``, ``tuning``, ``epochs`` and ``seed`` as in the
            grid. All epochs count, so what learnt scores has a third less.
    """
    *_, options = _options(config, config["tuning"])
    if config["mask"] in LEARNT:
        options["epochs"] -= config["epochs"] // 3
    net = compress.narrow(net) if config["structure"] == "rows" else net
    zeros = compress.keep_zeros(net)
    return train.fit(net, images, constraint=zeros, progress=False, **options)


def _small(config: Config, device: str) -> tuple[train.Fit, Dataset]:
    """Train a network that was never large, for as many epochs as the others."""
    net, images, options = _options(config, config["tuning"], "width")
    options["epochs"] += BEFORE
    images = images.to(device)
    return train.fit(net.to(device), images, progress=False, **options), images


def _run(configs: list[Config], device: str) -> list[Numbers]:
    """Train one network; cut it in all ways. What two rows need is made once."""
    if configs[0]["start"] == "none":
        return [_judged(*_small(config, device), {}, config) for config in configs]
    net, images = started(configs[0], device)
    known: dict[tuple[Any, ...], list[Tensor]] = {}

    def kept(how: str, config: Config) -> list[Tensor]:
        key = (how, *(config[name] for name in ("structure", "size", "epochs")))
        if key not in known:
            known[key] = masks(net, images, how, config)
        return known[key]

    def measured(config: Config) -> Numbers:
        found: dict[str, float] = {}
        left = net
        if config["mask"] != "full":
            own = kept(config["mask"], config)
            found["magnitude too"] = overlap(own, kept("magnitude", config))
            if config["mask"] == "scores":
                found["plain scores too"] = overlap(own, kept("plain scores", config))
            left = cut(net, own)
            found["untuned"] = metrics.accuracy(left, images.x_test, images.y_test)
        return _judged(tuned(left, images, config), images, found, config)

    return [measured(config) for config in configs]


def _judged(
    fitted: train.Fit, images: Dataset, found: Numbers, config: Config
) -> Numbers:
    return {
        "train accuracy": fitted.history[-1].train_accuracy,
        **found,
        **judge(fitted.model, images, attacked=config["attacked"]),
    }


def _grid(seeds: int, sizes: tuple[int, ...], **more: Any) -> list[Config]:
    ways = [("magnitude", "standard")] + [(mask, "linf") for mask in MASKS]
    pairs = [(structure, size) for size in sizes for structure in ("weights", "rows")]
    plan: list[tuple[str, tuple[str, int], str, str, int]] = [
        *(("linf", pair, *way, 12) for pair in pairs for way in ways),
        *(("standard", pairs[0], *way, 12) for way in ways),
        *((start, ("none", 100), "full", "linf", 12) for start in ("linf", "standard")),
        *(("none", pair, "width", "linf", 12) for pair in pairs[1::2]),
        # Whether it was a matter of time.
        *(("linf", pairs[0], mask, "linf", 36) for mask in MASKS[:3]),
        *(("linf", pair, how, "linf", 12) for how in RATES for pair in pairs[1::2]),
    ]
    return [
        {
            "start": start,
            "structure": structure,
            "size": size,
            "mask": mask,
            "tuning": tuning,
            "epochs": epochs,
            "images": 2000,
            "seed": seed,
            **more,
        }
        for start, (structure, size), mask, tuning, epochs in plan
        for seed in range(seeds)
    ]


STUDY = Study(
    name="pruned",
    run=lambda config, device: _run([config], device)[0],
    run_many=_run,
    group=lambda config: [config["start"], config["seed"]],
    job_size=100,
    grids={
        "quick": _grid(5, (5,), data="sample", attacked=200),
        "full": _grid(10, (5, 10), data="Fashion-MNIST", attacked=1000),
    },
    fingerprint=lambda config: SETS[config["data"]]().fingerprint,
)
