"""The study of what is advised trains what it names, and cuts it."""

import inspect
from typing import Any

import pytest
import torch

from crlib import compress, data, metrics, studies, train
from crlib.compress.layers import matrices
from crlib.models import MLP, ConvNet
from crlib.studies import advice, interventions, measures, repair
from crlib.studies.engine import Config

GRID = advice.STUDY.grids["quick"]


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> data.Dataset:
    part = measures.halved(data.fashion_mnist_sample().subset(300, 40)).double()
    monkeypatch.setattr(advice, "small", lambda name, count: part)
    advice._teacher.cache_clear()
    return part


def configs(network: str, way: str, taught: bool = False) -> list[Config]:
    wanted = {"data": "sample", "network": network, "way": way, "taught": taught}
    fits = [
        c for c in GRID if all(c[k] == v for k, v in (wanted | {"seed": 0}).items())
    ]
    return [{**c, "epochs": 2, "attacked": 12} for c in fits]


@pytest.mark.parametrize(
    ("network", "way", "taught"),
    [
        ("ConvNet", "rows, beta", False),
        ("ConvNet", "rank", True),
        ("MLP", "plain", True),
    ],
)
def test_a_training_is_judged_at_both_checkpoints(
    few: data.Dataset,
    network: str,
    way: str,
    taught: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(repair.MATCH, ("sample", network), 0.2)
    two = configs(network, way, taught)
    matched, last = advice.STUDY.run_many(two, "cpu")  # type: ignore[misc]
    assert matched["met"] and matched["train accuracy"] >= 0.2 and last["epoch"] == 2
    assert 0 < last["linf"] < last["l2"] and 0 < last["alignment"] <= 1
    assert ("kept 0.5" in last) == (network == "ConvNet" and way != "rank")
    assert advice.STUDY.run(two[1], "cpu") == last
    assert advice.STUDY.fingerprint is not None
    assert advice.STUDY.fingerprint(two[0]) == few.fingerprint


def test_the_ways_are_what_they_are_called(few: data.Dataset) -> None:
    rows, beta, align = (
        float(advice.build(configs("ConvNet", way)[0], few)[1]["penalty"](net).detach())
        for way in advice.PENALTIES
        for net in [ConvNet((8, 16, 32), image=(1, 14, 14), seed=3)]
    )
    net = ConvNet((8, 16, 32), image=(1, 14, 14), seed=3)
    w = [v.detach() for v in matrices(net)]
    lasso = [float(v.norm(dim=1).sum() / v.norm()) for v in w]
    assert rows == pytest.approx(interventions.ROWS * sum(lasso), rel=1e-5)
    # A quarter of 8, 16 and 32 rows.
    tops = [v.norm(dim=1).sort().values[-len(v) // 4 :] for v in w]
    assert beta - rows == pytest.approx(
        0.3 * sum(float(t.var(correction=0)) for t in tops), rel=1e-3
    )
    numbers = advice.judge(net.double(), few, attacked=12)
    assert align == pytest.approx(0.1 * 2 * numbers["alignment"], rel=1e-3)
    # Two pairs; the layer after has a row for each output and place.
    pairs = [
        (before, layer.weight.detach().movedim(1, -1).flatten(0, -2))
        for before, layer in zip(w, [net[3], net[5]], strict=False)
    ]
    norm = metrics.operator_norm
    right = [norm(v @ u.double()) / (norm(v) * norm(u)) for u, v in pairs]
    assert numbers["alignment"] == pytest.approx(sum(right) / 2, rel=1e-3)
    spreads = [1 - float(t[0] / t[-1]) for t in tops]
    assert numbers["beta"] == pytest.approx(sum(spreads) / 3, rel=1e-5)
    for way, rank in (("plain", False), ("rank", True)):
        one, options = advice.build(configs("MLP", way)[0], few)
        assert not options and isinstance(one, MLP)
        assert hasattr(one.layers[0], "left") == rank


def test_a_plain_network_is_one_of_the_repair(few: data.Dataset) -> None:
    one = configs("ConvNet", "plain")[0]
    net: Any
    net, again = advice.fitted(one, few).model, repair.fitted(one, few).model
    for w, v in zip(net.parameters(), again.parameters(), strict=True):
        assert torch.equal(w, v)


def test_a_teacher_asks_for_its_own_outputs() -> None:
    x = torch.rand(50, 6, generator=torch.Generator().manual_seed(0)).double()
    teacher, other = MLP((6, 9, 4), seed=1).double(), MLP((6, 9, 4), seed=2).double()
    penalty = advice.toward(teacher, x, batch_size=4000)
    assert float(penalty(teacher).detach()) == pytest.approx(0, abs=1e-12)
    t = advice.TEMPERATURE
    with torch.no_grad():
        p, q = ((net(x) / t).softmax(1) for net in (teacher, other))
    right = advice.TEACHING * t**2 * float((p * (p / q).log()).sum(1).mean())
    assert float(penalty(other).detach()) == pytest.approx(right, rel=0.05)
    draws = [float(advice.toward(teacher, x, seed=5)(other).detach()) for _ in "ab"]
    assert draws[0] == draws[1] != float(advice.toward(teacher, x)(other).detach())
    penalty(other).backward()
    assert all(p.grad is None for p in teacher.parameters())
    assert all(p.grad is not None for p in other.parameters())


def test_a_student_has_the_penalty_of_its_teacher(few: data.Dataset) -> None:
    one = configs("ConvNet", "rank", True)[0]
    net: Any
    net, options = advice.build(one, few)
    assert set(options) <= set(inspect.signature(train.fit).parameters)
    teacher = advice._teacher("sample", "ConvNet", 0, one["epochs"])
    alone = advice.toward(teacher, few.x_train, seed=0)
    value = float(options["penalty"](net.double()).detach())
    assert value == pytest.approx(float(alone(net).detach()), rel=1e-9) and value > 0


def test_a_student_hears_its_teacher(few: data.Dataset) -> None:
    taught = configs("MLP", "rank", True)[0] | {"epochs": 4}
    teacher = advice._teacher("sample", "MLP", 0, 4)
    plain = advice.fitted(taught | {"way": "plain", "taught": False}, few).model
    assert torch.equal(teacher(few.x_test), plain(few.x_test))

    def apart(config: Config) -> float:
        logits = [
            net(few.x_test) for net in (advice.fitted(config, few).model, teacher)
        ]
        p, q = (v.detach().log_softmax(1) for v in logits)
        return float((q.exp() * (q - p)).sum(1).mean())

    assert apart(taught) < 0.9 * apart(taught | {"taught": False})


def test_cuts_keep_what_they_say(few: data.Dataset) -> None:
    net = ConvNet((8, 16, 32), image=(1, 14, 14), seed=0).double()
    with torch.no_grad():
        for w in matrices(net):
            # Uneven layers: the share of all filters is no mean of their shares.
            w *= (torch.arange(len(w)) + 1.0)[:, None] ** (-16 / len(w))
    found = advice.pruned(net, few, attacked=12)
    for eps in advice.EPSILONS:
        cut = compress.prune_to_error(net, eps)
        left = sum(int((w != 0).any(1).sum()) for w in matrices(cut))
        assert found[f"kept {eps}"] == pytest.approx(left / 56)
        assert abs(found[f"kept by share {eps}"] - left / 56) < 2 / 56
        alike = compress.prune(net, 1 - left / 56, structure="rows")
        for name, one in (("error", cut), ("share", alike)):
            hits = metrics.accuracy(one, few.x_test, few.y_test)
            assert found[f"{name} accuracy {eps}"] == hits
            x, y = few.x_test[:12], few.y_test[:12]
            robust = measures.cascaded(one, x, y, {"linf": 8 / 255})["linf"]
            assert found[f"{name} cascade {eps}"] == robust
    assert 0 < found["kept 0.5"] < found["kept 0.2"] < 1


def test_strangers_are_refused(few: data.Dataset) -> None:
    for bad in ({"network": "ViT"}, {"way": "magic"}):
        with pytest.raises(ValueError, match="choose"):
            advice.build({**configs("MLP", "rank")[0], **bad}, few)


def test_the_table_is_sound() -> None:
    table = studies.published("advice")
    assert len(table) == len(GRID) and set(table["data"]) == {"sample", "CIFAR-10"}
    met = table[(table["checkpoint"] == "matched") & table["met"]]
    wanted = [
        repair.MATCH[pair] for pair in zip(met["data"], met["network"], strict=True)
    ]
    assert (met["train accuracy"] >= wanted).all() and len(met) > 0.9 * len(table) / 2
    # To an error and by a share about as many filters are left.
    cut = table.dropna(subset="kept 0.5")
    assert (cut["kept 0.5"] - cut["kept by share 0.5"]).abs().max() < 2 / 56
    # The plain networks, and those of low rank, are those of the repair.
    other = studies.published("repair")
    for (name, network), part in table[~table["taught"]].groupby(["data", "network"]):
        for way in ("plain", "rank"):
            setting = {"network": network, "way": way, "checkpoint": "last"}
            theirs = studies.runs(other, data=name, **setting)["accuracy"]
            ours = studies.runs(part, **setting)["accuracy"]
            assert (ours - theirs).abs().max() < 1e-6
