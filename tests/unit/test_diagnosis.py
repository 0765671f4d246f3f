"""Models broken on purpose are flagged, each by its check; plain ones are not."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from crlib.attacks import diagnose
from crlib.data import Dataset
from crlib.models import MLP, Normalize
from tests.unit.support import Never

EPS = {"linf": 8 / 255, "l2": 0.7, "l1": 6.0}


class NoWayBack(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return torch.zeros_like(g)


class Misleading(NoWayBack):
    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return -g


class Layer(nn.Module):
    def __init__(self, change: Any) -> None:
        super().__init__()
        self.change = change

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.change(x)
        return out


BROKEN = {
    "saturated": (None, lambda z: 1e4 * z, "cross-entropy not saturated"),
    "rounding": (lambda x: (8 * x).round() / 8, None, "input gradients exist"),
    "detached": (lambda x: x.detach(), None, "input gradients exist"),
    "zero backward": (NoWayBack.apply, None, "input gradients exist"),
    "made-up backward": (Misleading.apply, None, "gradients tell the truth"),
    "noise": (lambda x: x + 0.1 * torch.randn_like(x), None, "same answer twice"),
    "softmax": (None, lambda z: z.softmax(1), "logits, not probabilities"),
}


def identity(x: Tensor) -> Tensor:
    return x


@pytest.mark.parametrize("name", BROKEN)
def test_a_model_broken_on_purpose_is_flagged(
    trained: MLP, fashion: Dataset, name: str
) -> None:
    before, after, check = BROKEN[name]
    model = nn.Sequential(Layer(before or identity), trained, Layer(after or identity))
    x, y = fashion.x_test[:80], fashion.y_test[:80]
    report = diagnose(model, x, y, eps=EPS["linf"])
    assert not report.passed and not report[check].passed
    assert report[check].number > report[check].limit
    assert report[check].meaning in str(report)
    assert "✗" in report._repr_html_()


@pytest.mark.parametrize("layer", [nn.Dropout(0.1), nn.BatchNorm1d(10)])
def test_train_mode_is_flagged_and_kept(
    trained: MLP, fashion: Dataset, layer: nn.Module
) -> None:
    model = nn.Sequential(trained, layer.double()).train()
    x, y = fashion.x_test[:50], fashion.y_test[:50]
    report = diagnose(model, x, y, eps=EPS["linf"])
    assert report["evaluation mode"].number == 1 and layer.training
    trained.eval()


class Adapts(nn.Module):
    """Subtracts a mean of what it has seen, which every question moves a little."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("mean", torch.zeros(10, dtype=torch.float64))
        self.register_buffer("unused", torch.full((2,), torch.nan))

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.net(x)
        self.mean += 1e-9 * (z.detach().mean(0) - self.mean)
        return z - self.mean


class OfTheBatch(nn.BatchNorm1d):
    """Uses the statistics of the batch whatever mode it is in."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.batch_norm(
            x, self.running_mean, self.running_var, training=True
        )


def test_a_model_that_questions_change_is_flagged(
    trained: MLP, fashion: Dataset
) -> None:
    x, y = fashion.x_test[:50], fashion.y_test[:50]
    options: dict[str, Any] = {"eps": EPS["linf"], "steps": 2, "queries": 2}
    memory = Adapts(trained)
    for model in (memory, lambda v: memory(v)):
        report = diagnose(model, x, y, **options)
        assert report["buffers stay"].number == 1
        # Nothing else sees it.
        assert report["same answer twice"].passed
        assert report["same answer in halves"].passed
        assert report["evaluation mode"].passed
    behind = nn.Sequential(trained, OfTheBatch(10).double())
    report = diagnose(lambda v: behind(v), x, y, **options)
    assert report["buffers stay"].number == 2
    assert not report["same answer in halves"].passed


@pytest.mark.parametrize("norm", EPS)
def test_a_plain_network_is_not_flagged(
    trained: MLP, fashion: Dataset, norm: str
) -> None:
    x, y = fashion.x_test[:80], fashion.y_test[:80]
    report = diagnose(trained, x, y, eps=EPS[norm], norm=norm)
    assert report.passed, str(report)
    assert len(list(report)) == len(str(report).splitlines()) == 17
    assert report._repr_html_().count("<tr>") == 18
    assert "✗" not in str(report)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_plain_convolutional_network_is_not_flagged(
    fashion: Dataset, norm: str
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        Normalize(0.286, 0.353),
        nn.Conv2d(1, 8, 3, stride=2, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.1),
        nn.Linear(784, 10),
    ).double()
    steps = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(8):
        for rows in torch.arange(1000).split(100):
            loss = nn.functional.cross_entropy(
                model(fashion.x_train[rows]), fashion.y_train[rows]
            )
            steps.zero_grad()
            loss.backward()
            steps.step()
    model.eval()
    x, y = fashion.x_test[:80], fashion.y_test[:80]
    report = diagnose(model, x, y, eps=EPS[norm], norm=norm)
    assert report.passed, str(report)


def test_a_check_is_found_by_its_name(trained: MLP, fashion: Dataset) -> None:
    report = diagnose(trained, fashion.x_test[:5], fashion.y_test[:5], eps=0.02)
    assert report["noise loses"].name == "noise loses"
    with pytest.raises(KeyError, match="there are: evaluation mode"):
        report["luck"]


def test_all_wrong_is_no_reason_to_flag_saturation(
    trained: MLP, fashion: Dataset
) -> None:
    x = fashion.x_test[:20]
    y = (trained(x).argmax(1) + 1) % 10
    report = diagnose(trained, x, y, eps=0.02)
    assert report["cross-entropy not saturated"].number == 0


def test_bad_input_is_refused_first() -> None:
    x, y = torch.rand(4, 3), torch.zeros(4, dtype=torch.int64)
    with pytest.raises(ValueError, match="positive eps"):
        diagnose(Never(), x, y, eps=0.0)
    with pytest.raises(ValueError, match="positive eps"):
        diagnose(Never(), x[:0], y[:0], eps=0.1)
