"""Lab 1: the study on a small scale, and what its table must hold."""

import pytest
import torch

from crlib import studies
from crlib.data import Dataset
from crlib.studies import lab01


def test_starts_are_what_they_are_called(fashion: Dataset) -> None:
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
    images, labels = lab01.task("images", fashion, 0)
    assert images.shape == (600, 196) and abs(float(images.mean())) < 1e-12
    same, others = lab01.task("random labels", fashion, 0)
    assert torch.equal(same, images) and not torch.equal(labels, others)
    assert not torch.equal(lab01.task("noise", fashion, 0)[0], images)


def test_measures_what_its_table_holds(fashion: Dataset) -> None:
    config = {"part": "channels", "way": "even", "task": "noise", "strength": 2}
    found = lab01.run({**config, "seed": 0}, fashion)
    assert found["floor"] <= found["correlation"] <= 1
    assert lab01.turning_points([1, 3, 2, 2, 5, 4]) == 2
    assert lab01._bimodality(torch.tensor([0.0, 1, 0, 1])) == pytest.approx(1)


def test_table() -> None:
    table = studies.published("lab01")
    for task in lab01.TASKS:
        even, he = (
            studies.runs(table, part="channels", way=way, task=task, strength=10.0)
            for way in ("even", "He")
        )
        assert (even["correlation"] > he["correlation"]).all() and len(even) == 5
        assert (even["floor"] <= even["correlation"]).all()
