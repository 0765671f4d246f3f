"""Networks with sparse rows, cut by rows after training: what an adversary leaves.

Fully connected ones as the studies ``layers`` and ``interventions`` train them, plain
and with a row penalty. Each loses rows, by a share or to an error, without further
training, and then meets the quick cascade. All of it in float64.
"""

from typing import Any

from crlib import checks, compress, metrics, train
from crlib.data import Dataset
from crlib.models import MLP
from crlib.studies import interventions, layers
from crlib.studies.engine import Config, Numbers, Study
from crlib.studies.measures import SETS, at_checkpoints, cascaded

__all__ = ["BUDGETS", "STUDY", "cut", "fitted", "judge", "kept"]

BUDGETS = {"linf": 8 / 255, "l2": 0.5}  # as reported
PENALTY = interventions.ROWS  # of the rows, over the Frobenius norm
# Of each study: which networks, and what they lose, with the share of the rows that
# stays or the error of a layer.
WAYS = {"layers": ("plain", "rows"), "interventions": ("rows",)}
CUTS: dict[str, tuple[tuple[str, float], ...]] = {
    "layers": (("none", 1.0), ("rows", 0.25)),
    "interventions": (("error", 0.5), ("share", 0.5), ("balanced error", 0.5)),
}
HOW = ("none", "rows", "error", "share", "balanced error")


def fitted(config: Config, device: str = "cpu") -> tuple[train.Fit, Dataset]:
    """Train a network that is cut; its checkpoints are kept.

    Args:
        config: ``network``, the study it is from, ``way``, ``strength``, ``seed`` and
            ``data``, as in the grid.
        device: of the training.

    Returns:
        The training, and its data.
    """
    network, way, seed = config["network"], config["way"], config["seed"]
    checks.one_of("network", network, tuple(WAYS))
    options: dict[str, Any]
    if network == "interventions":
        net, images, options = interventions.build(config)
        images = images.to(device)
        return train.fit(net.to(device), images, **options), images
    images = SETS[config["data"]]().to(device)
    net, options = layers.build(way, PENALTY, seed)
    options |= {"epochs": 8, "lr": 2e-3, "checkpoint": "last", "seed": seed}
    return train.fit(net.to(device), images, progress=False, **options), images


def kept(net: MLP) -> float:
    """Return the share of the rows of a hidden layer that are not zero, a mean."""
    shares = [float((w != 0).any(1).double().mean()) for w in net.weights[:-1]]
    return sum(shares) / len(shares)


def cut(net: MLP, how: str, level: float) -> Any:
    """Return a network without some of its rows.

    Args:
        net: with full layers, without biases.
        how: ``"none"``; ``"rows"`` keeps a share of each layer; ``"error"`` prunes to
            a relative error, and ``"share"`` keeps as many rows as it does, of each
            layer the same share; in ``"balanced error"`` the error is that of the
            balanced form.
        level: the share that stays, or the error.

    Raises:
        ValueError: an unknown way to cut.
    """
    checks.one_of("cut", how, HOW)
    if how == "none":
        return net
    if how == "rows":
        return compress.prune(net, 1 - level, structure="rows")
    if how == "error":
        return compress.prune_to_error(net, level)
    if how == "balanced error":
        return cut(metrics.balanced(net), "error", level)
    return cut(net, "rows", kept(cut(net, "error", level)))


def judge(net: MLP, images: Dataset, *, attacked: int) -> dict[str, float]:
    """Measure what is left of a network.

    Args:
        net: cut, or not.
        images: whose test part judges.
        attacked: how many test images, the first, are attacked.

    Returns:
        ``kept``, the share of the rows; ``accuracy``, and ``right`` on the attacked
        images; ``robust ...`` what the quick cascade leaves of these at ``BUDGETS``.
    """
    x, y = images.x_test[:attacked], images.y_test[:attacked]
    found = {
        "kept": kept(net),
        "accuracy": metrics.accuracy(net, images.x_test, images.y_test),
        "right": metrics.accuracy(net, x, y),
    }
    left = cascaded(net, x, y, BUDGETS)
    return found | {f"robust {norm}": share for norm, share in left.items()}


def _run(configs: list[Config], device: str) -> list[Numbers]:
    """Train one network; cut it in all ways, at all checkpoints."""
    training, images = fitted(configs[0], device)

    def judged(config: Config) -> Numbers:
        def at(fit: train.Fit) -> Numbers:
            left = cut(fit.model, config["cut"], config["level"])
            return judge(left, images, attacked=config["attacked"])

        return at_checkpoints(training, [config], at)[0]

    return [judged(config) for config in configs]


def _grid(seeds: int, **more: Any) -> list[Config]:
    return [
        {
            "network": network,
            "way": way,
            "strength": 0.0,
            "cut": how,
            "level": level,
            "seed": seed,
            "checkpoint": "last",
            **more,
        }
        for network, ways in WAYS.items()
        for way in ways
        for how, level in CUTS[network]
        for seed in range(seeds)
    ]


STUDY = Study(
    name="thinned",
    run=lambda config, device: _run([config], device)[0],
    run_many=_run,
    group=lambda config: [config[n] for n in ("network", "way", "strength", "seed")],
    grids={
        "quick": _grid(5, data="sample", attacked=200),
        "full": _grid(10, data="Fashion-MNIST", attacked=1000),
    },
    fingerprint=lambda config: SETS[config["data"]]().fingerprint,
)
