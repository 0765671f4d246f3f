"""The study of a pretrained network does on a stand-in what it says."""

import copy
import math
import sys
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from crlib import metrics, studies
from crlib.models import Normalize, weight_layers
from crlib.studies import StudyError, imagenet
from crlib.studies.engine import Config
from tests.unit.support import rng

COMMAND = r"pip install '\.\[imagenet\]'"


class Padded(nn.Conv2d):
    """Pads by itself, as the convolutions of the package do."""

    def __init__(self, *sizes: Any, **options: Any) -> None:
        super().__init__(*sizes, bias=False, **options)
        pads = self.kernel_size[0] > 1
        self.static_padding = nn.ZeroPad2d((0, 1, 0, 1)) if pads else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.static_padding(x)
        return nn.functional.conv2d(
            x, self.weight, None, self.stride, 0, 1, self.groups
        )


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self._conv_stem, self._bn0 = Padded(3, 4, 3, stride=2), nn.BatchNorm2d(4)
        self.expand, self._bn1 = Padded(4, 12, 1), nn.BatchNorm2d(12)
        self.depth, self._bn2 = Padded(12, 12, 2, groups=12), nn.BatchNorm2d(12)
        self.project, self._bn3 = Padded(12, 6, 1), nn.BatchNorm2d(6)
        self._fc = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self._bn0(self._conv_stem(x)).relu()
        x = self._bn1(self.expand(x)).relu()
        x = self._bn2(self.depth(x)).relu()
        out: Tensor = self._fc(self._bn3(self.project(x)).mean((2, 3)))
        return out


@pytest.fixture(scope="module")
def made() -> nn.Module:
    g = rng(0)
    net = Small()
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean.copy_(torch.randn(m.num_features, generator=g) / 4)
            m.running_var.copy_(0.1 + torch.rand(m.num_features, generator=g))
        for p in m.parameters(recurse=False):
            p.data.copy_(
                torch.randn(p.shape, generator=g) / max(1, p[0].numel()) ** 0.5
            )
    net.eval()
    with torch.no_grad():  # or one label would be that of all inputs
        net._fc.bias -= net(2 * torch.rand(50, 3, 8, 8, generator=g) - 1).mean(0)
    return net


@pytest.fixture(scope="module")
def raw(made: nn.Module) -> nn.Sequential:
    body = imagenet.plain(copy.deepcopy(made))
    return nn.Sequential(Normalize([0.5] * 3, [0.5] * 3), body).requires_grad_(False)


@pytest.fixture(scope="module")
def net(raw: nn.Sequential) -> nn.Module:
    return metrics.folded(raw).requires_grad_(False)


@pytest.fixture(scope="module")
def scenes() -> Tensor:
    return torch.rand(7, imagenet.VIEWS, 3, 8, 8, generator=rng(1))


def test_a_plain_convolution_pads_as_the_package_does(
    made: nn.Module, raw: nn.Sequential, net: nn.Module, scenes: Tensor
) -> None:
    x = scenes[0]
    assert torch.allclose(raw(x), made((x - 0.5) / 0.5), atol=1e-6)
    assert torch.allclose(net(x), raw(x), atol=1e-5)
    kinds = {type(m) for m in raw.modules()}
    assert Padded not in kinds and nn.ZeroPad2d in kinds
    assert len(weight_layers(net)) == 5


def test_views_are_squares_of_bytes_and_every_second_one_is_mirrored() -> None:
    pixels = np.zeros((60, 100, 3), dtype=np.uint8)
    pixels[:, :, 0] = np.arange(100)[None] * 2
    found = imagenet.views(Image.fromarray(pixels), 5, seed=3)
    assert found.shape == (5, 3, imagenet.SIDE, imagenet.SIDE)
    assert torch.equal((found * 255).round() / 255, found)
    rising = found[:, 0, 0].diff(dim=1).sum(1) > 0
    assert rising.tolist() == [True, False, True, False, True]
    # The first is the middle: of a hundred columns, the twentieth to the eightieth.
    assert abs(float(found[0, 0].mean()) * 255 - 99) < 1
    assert torch.equal(found, imagenet.views(Image.fromarray(pixels), 5, seed=3))


def test_a_gain_is_a_ratio_of_lengths() -> None:
    stem = nn.Sequential(nn.Conv2d(1, 1, 1))
    with torch.no_grad():
        stem[0].weight.fill_(-3.0)
    x, step = torch.rand(2, 4, 1, 8, 8, generator=rng(0))
    assert imagenet.gains(stem, x, step) == pytest.approx(3, rel=1e-5)


def test_a_path_between_two_labels_of_affine_scores_is_known() -> None:
    line = nn.Sequential(nn.Flatten(), nn.Linear(2, 3)).double()
    with torch.no_grad():
        line[1].weight.copy_(torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 9.0]]))
        line[1].bias.copy_(torch.tensor([2.0, 0.0, -9.0]))
    x, end = torch.tensor([[[0.1, 0.2]], [[0.9, 0.8]]], dtype=torch.float64)
    found = imagenet.path(line, x, end, steps=8)
    assert found["length"] == pytest.approx(1, rel=1e-6)
    assert found["cosine"] == pytest.approx(0.8)
    assert found["crossing"] == pytest.approx(0.5, rel=1e-6)
    for name in ("predicted", "measured", "linearised"):
        assert found[name] == pytest.approx(0.4, rel=1e-3), name
    assert found["integral"] == pytest.approx(found["difference"])


def test_low_rank_and_zeros_change_kernels_of_one_pixel_only(net: nn.Module) -> None:
    layers = weight_layers(net)
    for way, strength in (("energy", 0.5), ("weights", 0.5)):
        small = weight_layers(imagenet.compressed(net, way, strength))
        changed = [
            not torch.equal(a.weight, b.weight)
            for a, b in zip(layers, small, strict=True)
        ]
        assert changed == [False, True, False, True, False]
    assert float((small[1].weight == 0).float().mean()) == 0.5
    coarse = weight_layers(imagenet.compressed(net, "bits", 3))
    assert all(len(layer.weight[0].unique()) <= 7 for layer in coarse)


def test_means_are_restored_from_the_other_half_of_the_scenes(
    net: nn.Module, scenes: Tensor
) -> None:
    small = imagenet.compressed(net, "bits", 3)
    first = imagenet.recentred(net, small, scenes, 2, head=True)
    changed = scenes.clone()
    changed[2::2] = 0  # the scene that is judged, and others of its half
    second = imagenet.recentred(net, small, changed, 2, head=False)
    third = imagenet.recentred(net, small, changed, 3, head=True)
    biases = [weight_layers(n)[0].bias for n in (first, second, third)]
    assert torch.equal(biases[0], biases[1])
    assert not torch.allclose(biases[1], biases[2])
    heads = [weight_layers(n)[-1].bias for n in (first, second, small)]
    assert torch.equal(heads[1], heads[2]) and not torch.allclose(heads[0], heads[2])


def test_a_network_keeps_its_own_labels_and_distances(
    net: nn.Module, scenes: Tensor
) -> None:
    same = imagenet.kept(net, net, scenes[0], judged=3)
    assert same == {"kept": 1.0, "distance": pytest.approx(1)}
    other = nn.Sequential(net, nn.Linear(5, 5))
    with torch.no_grad():
        other[1].weight.copy_(-torch.eye(5))
        other[1].bias.zero_()
    none = imagenet.kept(net, other, scenes[0], judged=3)
    assert none["kept"] == 0 and math.isnan(none["distance"])


def test_folded_measures_of_a_layer_do_not_depend_on_where_its_scale_stands(
    raw: nn.Sequential, net: nn.Module
) -> None:
    kinds = []
    for a, b in zip(weight_layers(raw), weight_layers(net), strict=True):
        found = imagenet.spectra(a, b)
        kinds.append(found["kind"])
        rows = metrics.row_norms(b.weight.flatten(1))
        assert found["folded row error"] == metrics.best_k_error(
            rows, max(1, round(0.1 * len(rows)))
        )
    assert kinds == ["stem", "expand", "depthwise", "project", "head"]
    assert found["raw row error"] == found["folded row error"]


@pytest.fixture
def standing_in(
    monkeypatch: pytest.MonkeyPatch, raw: nn.Sequential, scenes: Tensor
) -> None:
    monkeypatch.setattr(imagenet, "network", lambda: raw)
    monkeypatch.setattr(imagenet, "photographs", lambda: scenes)
    monkeypatch.setattr(imagenet, "_folded", lambda: metrics.folded(raw))


def test_every_experiment_returns_what_its_table_has(
    standing_in: None, net: nn.Module, scenes: Tensor
) -> None:
    table, study = studies.published("imagenet"), imagenet.STUDY
    labels = net(scenes[:, 0]).argmax(1).tolist()
    grid: Any = study.grids["quick"]
    configs: list[Config] = [
        next(
            c
            for c in grid
            if c["experiment"] == name
            and (name != "paths" or labels[c["seed"]] != labels[c["to"]])
        )
        for name in ("scenes", "layers", "paths")
    ]
    own = set(table[table["experiment"] == "paths"].dropna(axis=1, how="all"))
    for config in configs:
        found = study.run(config, "cpu")
        assert set(found) <= set(table)
    assert set(found) <= own
    for means in imagenet.MEANS:
        cut = [
            c
            for c in grid
            if (c.get("way"), c.get("strength"), c.get("means")) == ("bits", 5, means)
        ]
        assert study.run_many is not None and len(cut) == len(imagenet.SCENES)
        assert len({study.group(c) == study.group(cut[0]) for c in cut}) == 1
        assert len(study.run_many(cut, "cpu")) == len(cut)
    assert study.fingerprint is not None
    assert len(study.fingerprint(configs[0])) == 12


@pytest.mark.parametrize("missing", ["efficientnet_lite_pytorch", "skimage.data"])
def test_without_the_extra_the_study_names_the_command(
    monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    load = imagenet.network if "lite" in missing else imagenet.photographs
    load.cache_clear()
    with pytest.raises(StudyError, match=COMMAND):
        load()


def test_the_pretrained_network_knows_the_cat() -> None:
    for package in ("efficientnet_lite_pytorch", "skimage", "sklearn"):
        pytest.importorskip(package, reason=f"no {package}: extra imagenet")
    x = imagenet.photographs()
    assert x.shape == (7, 6, 3, 224, 224)
    with torch.no_grad():
        assert int(imagenet.network()(x[0, :1]).argmax()) in imagenet.SCENES[0][3]
    assert sum(p.numel() for p in imagenet.network().parameters()) == 4_652_008
    (row,) = studies.published("imagenet")["fingerprint"].unique()
    assert imagenet.STUDY.fingerprint is not None
    assert imagenet.STUDY.fingerprint({}) == row
