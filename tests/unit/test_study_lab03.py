"""Lab 3: the study on a small scale, and what its table must hold."""

import torch

from crlib import studies
from crlib.data import Dataset
from crlib.models import MLP
from crlib.studies import lab03


def test_uncertainties_on_a_square() -> None:
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    first, second = (1 + t) ** 2, 2 - t
    # A product of two functions: the other coordinate plays no part.
    on_square = lab03.square((first[:, None] * second)[None], t)
    on_line = lab03.spreads(first[None], t)
    for a, b in zip(on_square, on_line, strict=True):
        assert torch.allclose(a, b)


def test_lines_pass_through_their_images(fashion: Dataset) -> None:
    net = MLP((784, 12, 10), mean=0.286, std=0.353, seed=0).double()
    x, y = fashion.x_test[:5], fashion.y_test[:5]
    for kind, reach in lab03.LINES:
        points, t = lab03.lines(net, x, y, kind, reach, 0)
        assert points.shape == (5, 201, 784)
        steps = (points[:, -1] - points[:, 0]).norm(dim=1)
        assert torch.allclose(steps, torch.full_like(steps, 2 * reach))
        moved = (points[:, 100] - x.flatten(1)).abs() > 1e-12
        assert moved.sum() <= (5 if kind == "pixel" else 0)
        loss = lab03.losses(net, points, y)
        assert loss.shape == (5, 201) and (loss > 0).all()


def test_table() -> None:
    table = studies.published("lab03")
    pixels = table[table["part"] == "pixels"]
    bounds = [f"{kind} {reach:g} below bound" for kind, reach in lab03.LINES]
    assert len(pixels) == 10 and (pixels[bounds] == 0).all(axis=None)
