"""The study of the repair builds what it names, and measures in four norms."""

import inspect
from typing import Any

import pytest
import torch

from crlib import compress, data, metrics, studies, train
from crlib.models import ConvNet, LowRankConv2d, LowRankLinear, ViT, weight_layers
from crlib.studies import measures, repair
from crlib.studies.engine import Config

GRID = repair.STUDY.grids["quick"]


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> data.Dataset:
    part = measures.halved(data.fashion_mnist_sample().subset(300, 40)).double()
    monkeypatch.setattr(repair, "small", lambda name, count: part)
    return part


def configs(network: str, way: str) -> list[Config]:
    return [
        {**c, "epochs": 2, "attacked": 12}
        for c in GRID
        if (c["data"], c["network"], c["way"], c["seed"]) == ("sample", network, way, 0)
    ]


@pytest.mark.parametrize("network", ["MLP", "ConvNet"])
def test_a_training_is_judged_at_both_checkpoints(
    few: data.Dataset, network: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(repair.MATCH, ("sample", network), 0.2)
    two = configs(network, "rank, both")
    matched, last = repair.STUDY.run_many(two, "cpu")  # type: ignore[misc]
    assert matched["met"] and matched["train accuracy"] >= 0.2 and last["epoch"] == 2
    for name in repair.EPS["sample"]:
        assert last[name] > 0 and 0 <= last[f"robust {name}"] <= 1
    assert last["linf"] <= last["l2"] <= last["l1"] and last["l0"] >= 1
    # Eight bits round the weights by a percent: distances hardly move.
    assert last["int8 l2"] == pytest.approx(last["l2"], rel=0.5)
    assert last["int8 l2"] != last["l2"]
    assert repair.STUDY.run(two[1], "cpu") == last
    assert repair.STUDY.fingerprint is not None
    assert repair.STUDY.fingerprint(two[0]) == few.fingerprint


def test_each_layer_starts_in_the_directions_of_what_reaches_it(
    few: data.Dataset,
) -> None:
    one = configs("ConvNet", "rank, both")[0]
    net: Any
    net, options = repair.build(one, few)
    assert set(options) <= set(inspect.signature(train.fit).parameters)
    layers = [m for m in weight_layers(net) if isinstance(m, LowRankConv2d)]
    x, inner = few.x_train[: repair.SEEN], list(net)
    for layer in layers:
        with torch.no_grad():
            for module in inner[: inner.index(layer)]:
                x = module(x)
            inner = inner[inner.index(layer) :]
        fresh = LowRankConv2d(
            layer.kernel_shape[0],
            len(layer.left),
            3,
            len(layer.right),
            stride=layer.stride,
            padding=layer.padding,
        ).double()
        compress.principal_start(fresh, x)
        top = measures.right_directions(fresh.right.detach(), len(fresh.right))
        kept = metrics.energy_share(layer.right.detach(), top)
        assert kept.min() > 1 - 1e-9
    assert len(layers) == 2
    mlp, _ = repair.build(configs("MLP", "rank, both")[0], few)
    bare, options = repair.build(configs("MLP", "rank")[0], few)
    spaces = [measures.row_space(each.double()) for each in (mlp, bare)]
    assert not options and metrics.energy_share(spaces[0].T, spaces[1]).max() < 0.9


def test_convolutions_have_each_half_of_the_repair_alone(few: data.Dataset) -> None:
    cases = {(c["network"], c["way"]) for c in GRID if c["way"] in repair.HALVES}
    assert cases == {("ConvNet", way) for way in repair.HALVES}

    def built(way: str) -> tuple[list[Any], dict[str, Any]]:
        net, options = repair.build({"network": "ConvNet", "way": way, "seed": 0}, few)
        layers = weight_layers(net.double())
        return [m for m in layers if isinstance(m, LowRankConv2d)], options

    (bare, free), (start, kept_free) = built("rank"), built("rank, principal")
    (drawn, even), (both, even_too) = built("rank, orthonormal"), built("rank, both")
    assert not free and not kept_free and set(even) == set(even_too)
    assert even["constrain_every"] == 5
    for one, other, third, fourth in zip(bare, drawn, start, both, strict=True):
        assert torch.equal(one.right, other.right) and torch.equal(one.left, other.left)
        assert torch.equal(third.right, fourth.right)
        assert not torch.allclose(one.right, third.right, atol=1e-3)


def test_two_ways_are_penalties(few: data.Dataset) -> None:
    cases = {(c["data"], c["network"]) for c in GRID if c["way"] in repair.PENALTIES}
    assert cases == {("CIFAR-10", "MLP")}
    net: Any
    for way, penalty in repair.PENALTIES.items():
        net, options = repair.build({"network": "MLP", "way": way, "seed": 0}, few)
        assert options == {"penalty": penalty}
        w = net.weights[:-1]
        sizes = {
            "group lasso": sum(float(v.norm(dim=1).sum()) for v in w),
            "Frobenius": sum(float(v.square().sum()) for v in w),
        }
        value = float(penalty(net).detach())
        assert value == pytest.approx(0.003 * sizes[way], rel=1e-4)


def test_strangers_are_refused(few: data.Dataset) -> None:
    for bad in ({"network": "ViT"}, {"way": "magic"}):
        with pytest.raises(ValueError, match="choose"):
            repair.build({"network": "MLP", "way": "rank", "seed": 0, **bad}, few)


def test_the_table_is_sound() -> None:
    table = studies.published("repair")
    assert len(table) == len(GRID) and set(table["data"]) == {"sample", "CIFAR-10"}
    met = table[table["met"]]
    for name in repair.EPS["sample"]:
        assert (met[f"robust {name}"] <= met["accuracy"] + 0.2).all()
    assert (met["linf"] < met["l2"]).all() and (met["l2"] < met["l1"]).all()
    last = table[table["checkpoint"] == "last"]
    assert last["met"].all()
    assert (last["int8 accuracy"] - last["accuracy"]).abs().max() < 0.05


def test_a_start_that_fails_leaves_no_hook_behind() -> None:
    net = ConvNet((4, 4), 3, image=(2, 6, 6), rank=2)
    low_rank = [m for m in net.modules() if isinstance(m, LowRankConv2d)]
    assert low_rank
    with pytest.raises(RuntimeError, match="channels"):
        measures.start_principal(net, torch.rand(9, 3, 6, 6))
    assert not any(layer._forward_pre_hooks for layer in low_rank)


def test_layers_of_attention_start_in_the_directions_of_their_tokens() -> None:
    net = ViT(dim=16, depth=2, heads=2, rank=3).double()
    images = torch.rand(
        6, 3, 32, 32, generator=torch.Generator().manual_seed(0)
    ).double()
    measures.start_principal(net, images)
    layers = [m for m in net.modules() if isinstance(m, LowRankLinear)]
    seen: dict[LowRankLinear, torch.Tensor] = {}
    for layer in layers:
        layer.register_forward_pre_hook(lambda m, given: seen.update({m: given[0]}))
    with torch.no_grad():
        net(images)
    assert len(layers) == 8 and len(seen) == 8
    for layer, tokens in seen.items():
        span = metrics.principal_directions(tokens.flatten(0, -2), 3)  # (m, 3)
        rows = torch.linalg.qr(layer.right.detach().T).Q
        assert torch.allclose(rows @ rows.T, span @ span.T, atol=1e-4)
