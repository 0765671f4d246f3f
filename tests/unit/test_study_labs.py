"""The labs' study on a small scale, and its table holds what must be true."""

from typing import Any

import pytest
import torch

from crlib import studies
from crlib.data import Dataset
from crlib.models import MLP
from crlib.studies import labs
from crlib.studies.labs import lab01, lab02, lab03


@pytest.fixture(scope="module")
def few(fashion: Dataset) -> Dataset:
    return fashion.double()


def rows(table: Any, number: int, **values: Any) -> Any:
    return studies.runs(table[table["lab"] == number], **values)


def test_a_lab_is_run_by_its_module(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(lab01, "run", lambda *given: asked.append(given) or {"a": 1})
    config = labs.STUDY.grids["quick"][0]
    assert labs.STUDY.run(config, "cpu") == {"a": 1}
    assert asked[0][0] == config and asked[0][1].x_train.dtype == torch.float64


def test_lab_1_starts_are_what_they_are_called(few: Dataset) -> None:
    for way in ("even", "He"):
        (w,) = lab01.start((400, 300), way, 0)
        assert w.square().mean() * 200 == pytest.approx(1, rel=0.05)
    even, he, uneven = (
        float(lab01.start((400, 300), way, 0)[0].norm(dim=1).log().std())
        for way in ("even", "He", "uneven")
    )
    assert even < 0.01 < he < 0.1 < 0.8 < uneven < 1.2
    half, one = (lab01.network("He", scale, 0) for scale in (0.5, 1.0))
    for a, b in zip(half.weights, one.weights, strict=True):
        assert torch.allclose(2 * a, b)
    images, labels = lab01.task("images", few, 0)
    assert images.shape == (600, 196) and abs(float(images.mean())) < 1e-12
    same, others = lab01.task("random labels", few, 0)
    assert torch.equal(same, images) and not torch.equal(labels, others)
    assert not torch.equal(lab01.task("noise", few, 0)[0], images)


def test_lab_1_measures_what_its_table_holds(few: Dataset) -> None:
    config = {"part": "channels", "way": "even", "task": "noise", "strength": 2}
    found = lab01.run({**config, "seed": 0}, few)
    assert found["floor"] <= found["correlation"] <= 1
    assert lab01.turning_points([1, 3, 2, 2, 5, 4]) == 2
    assert lab01._bimodality(torch.tensor([0.0, 1, 0, 1])) == pytest.approx(1)


def test_lab_1_table() -> None:
    table = studies.published("labs")
    for task in lab01.TASKS:
        even, he = (
            rows(table, 1, part="channels", way=way, task=task, strength=10.0)
            for way in ("even", "He")
        )
        assert (even["correlation"] > he["correlation"]).all() and len(even) == 5
        assert (even["floor"] <= even["correlation"]).all()


def test_lab_2_measures_what_its_table_holds(few: Dataset) -> None:
    net = lab02.SpikingNet(2, few.x_train[:200], 0)
    t = net.times(few.x_train[:200])
    # The decoder starts at the scale of the times.
    logits = net(few.x_train[:200])
    assert torch.allclose(logits.mean(0), torch.zeros(10).double(), atol=1e-9)
    assert t.shape == (200, 32)
    y = net(few.x_test).argmax(1)
    sure = lab02.radius(net, few.x_test, y, "linf")
    assert (sure > 0).all()
    g = torch.Generator().manual_seed(0)
    signs = torch.rand(few.x_test.shape, generator=g, dtype=torch.float64).round()
    moved = few.x_test + (2 * signs - 1) * 0.999 * sure.view(-1, 1, 1, 1)
    assert torch.equal(net(moved).argmax(1), y)
    wrong = lab02.radius(net, few.x_test, (y + 1) % 10, "l2")
    assert (wrong == 0).all()


def test_lab_2_table() -> None:
    table = studies.published("labs")
    for way in ("spiking", "ReLU"):
        for depth in lab02.DEPTHS:
            found = rows(table, 2, way=way, strength=depth)
            assert len(found) == 5
            # No attack goes below a certificate.
            assert (found[["most linf", "most l2"]] <= 1).all(axis=None)


def test_lab_3_uncertainties_on_a_square() -> None:
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    first, second = (1 + t) ** 2, 2 - t
    # A product of two functions: the other coordinate plays no part.
    on_square = lab03.square((first[:, None] * second)[None], t)
    on_line = lab03.spreads(first[None], t)
    for a, b in zip(on_square, on_line, strict=True):
        assert torch.allclose(a, b)


def test_lab_3_lines_pass_through_their_images(few: Dataset) -> None:
    net = MLP((784, 12, 10), mean=0.286, std=0.353, seed=0).double()
    x, y = few.x_test[:5], few.y_test[:5]
    for kind, reach in lab03.LINES:
        points, t = lab03.lines(net, x, y, kind, reach, 0)
        assert points.shape == (5, 201, 784)
        steps = (points[:, -1] - points[:, 0]).norm(dim=1)
        assert torch.allclose(steps, torch.full_like(steps, 2 * reach))
        moved = (points[:, 100] - x.flatten(1)).abs() > 1e-12
        assert moved.sum() <= (5 if kind == "pixel" else 0)
        loss = lab03.losses(net, points, y)
        assert loss.shape == (5, 201) and (loss > 0).all()


def test_lab_3_table() -> None:
    table = studies.published("labs")
    pixels = table[(table["lab"] == 3) & (table["part"] == "pixels")]
    bounds = [f"{kind} {reach:g} below bound" for kind, reach in lab03.LINES]
    assert len(pixels) == 10 and (pixels[bounds] == 0).all(axis=None)
