"""The study of transfer runs on a small scale, and its table holds what must be."""

import pytest
import torch

from crlib import data, studies
from crlib.data import Dataset
from crlib.models import MLP
from crlib.studies import measures, transfer


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "NEXT_EPOCHS", 1)


@pytest.fixture(scope="module")
def tasks(fashion: Dataset) -> tuple[Dataset, Dataset]:
    source, target = transfer.split(0)
    images = fashion.double()
    return images.of_classes(source), images.of_classes(target)


@pytest.fixture(scope="module")
def old(tasks: tuple[Dataset, Dataset]) -> MLP:
    net: MLP = transfer.pretrained("rank, both", 4, 0, tasks[0], epochs=2).model
    return net


def test_a_seed_is_a_split_of_the_ten_classes() -> None:
    halves = [transfer.split(seed) for seed in range(10)]
    for first, second in halves:
        assert len(first) == len(second) == 5
        assert sorted(first + second) == list(range(10))
        assert first == sorted(first) and second == sorted(second)
    assert len({str(half) for half in halves}) == 10
    assert transfer.split(3) == halves[3]


def test_a_frozen_encoder_stays_and_a_tuned_one_moves(
    quick: None, tasks: tuple[Dataset, Dataset], old: MLP
) -> None:
    kept = [w.clone() for w in old.weights]
    new, moved = (learn(old, tasks[1], 0).model for learn in TRAININGS)
    x = tasks[1].x_test
    assert torch.equal(new.features(x), old.features(x))
    assert not torch.equal(new.weights[-1], old.weights[-1])
    assert not torch.equal(moved.weights[0], old.weights[0])
    # A low rank is a form of the layers and stays, whatever they learn.
    assert all(torch.linalg.matrix_rank(w) == 4 for w in moved.weights[:-1])
    assert all(w.equal(v) for w, v in zip(kept, old.weights, strict=True))


TRAININGS = (transfer.frozen, transfer.tuned)


def test_no_epoch_gives_the_network_as_it_starts(
    tasks: tuple[Dataset, Dataset],
) -> None:
    fitted = transfer.pretrained("rank, both", 4, 0, tasks[0], epochs=0)
    spectrum = torch.linalg.svdvals(fitted.model.weights[0])[:4]
    assert fitted.epoch == 0
    assert torch.allclose(spectrum, spectrum[0].expand(4), rtol=1e-6)


def test_the_row_space_is_what_the_first_layer_sees(old: MLP) -> None:
    basis, w = measures.row_space(old), old.weights[0]
    assert basis.shape == (784, 4)
    assert torch.allclose(basis.T @ basis, torch.eye(4).double(), atol=1e-9)
    assert torch.allclose(w @ basis @ basis.T, w, atol=1e-9)


def test_where_nothing_is_hidden_all_of_a_difference_is_seen() -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.rand(60, 1, 2, 2, generator=g).double()
    net = MLP((4, 9, 3), mean=0.5, seed=7).double()
    y = net(x).argmax(1)
    assert len(y.unique()) > 1
    points = data.dataset(x, y, x, y)
    found = transfer.judge(net, points, norms=("l2",))
    assert found["chi"] == pytest.approx(1) and found["contrast"] >= 1
    assert 0 < found["ceiling"] < 2 and found["robust l2"] <= found["accuracy"]
    assert "robust linf" not in found


def test_an_attack_on_oneself_is_ones_own(old: MLP, tasks: tuple[Dataset, ...]) -> None:
    x = tasks[0].x_test[:50]
    found = transfer.borrowed(old, old, x)
    assert found["squared cosine"] == pytest.approx(1)
    assert found["blind"] < found["own"] and found["borrowed"] > 0.9 * found["own"]


def test_a_run_tells_all_that_the_table_has_and_tells_it_again(
    quick: None, fashion: Dataset
) -> None:
    config = {"way": "rank", "strength": 4, "epochs": 1, "seed": 1, "data": "sample"}
    found = transfer.run(config, fashion.double())
    table = studies.published("transfer")
    assert set(found) <= set(table) and found == transfer.run(config, fashion.double())
    for name in ("target", "tuned"):
        assert found[f"{name} gap"] <= found[f"{name} gap bound"]
        assert 0 <= found[f"{name} universal"] <= 1
    # One first layer, other images.
    assert found["source chi"] != found["target chi"]


def test_the_table_holds_what_must_be_true() -> None:
    table = studies.published("transfer")
    shares = ("accuracy", "robust l2", "chi", "train")
    for name in ("source", "target", "tuned"):
        assert table[[f"{name} {s}" for s in shares]].stack().between(0, 1).all()
        assert (table[f"{name} contrast"] >= 1).all()
    for name in ("target", "tuned"):
        assert (table[f"{name} gap"] <= table[f"{name} gap bound"]).all()
    early = table[table["epochs"] == transfer.EARLY]
    late = studies.runs(table, way="plain", epochs=transfer.EPOCHS)
    behind = late["source train"] - early.set_index("seed")["source train"]
    assert len(early) == table["seed"].nunique() and (behind > 0).all()
