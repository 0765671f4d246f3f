"""One perturbation for all inputs, judged on inputs it has not seen."""

import pytest
import torch
from torch import nn

from crlib.attacks import top_direction, universal
from crlib.data import Dataset
from crlib.models import MLP, Normalize
from tests.unit.support import Affine, Changed, Never, rng

SIZE = {"linf": 0.1, "l2": 2.5}


@pytest.mark.parametrize("norm", SIZE)
def test_a_learnt_direction_fools_what_it_has_not_seen(
    trained: MLP, fashion: Dataset, norm: str
) -> None:
    x, y, eps = fashion.x_train, fashion.y_train, SIZE[norm]
    found = universal(trained, x, y, eps=eps, norm=norm, epochs=5)
    order = float("inf") if norm == "linf" else 2
    assert float(torch.linalg.vector_norm(found.delta, ord=order)) <= eps * (1 + 1e-6)
    noise = eps * torch.randn(x.shape[1:], generator=rng(0)).sign()
    noise = noise if norm == "linf" else noise / 28
    with torch.no_grad():
        moved = trained((x + noise).clamp(0, 1)).argmax(1) != trained(x).argmax(1)
    assert found.fooling_rate > 2 * float(moved.double().mean())
    assert found.fooling_rate <= found.train_rate + 0.05
    assert found.robust_accuracy <= 1 - found.fooling_rate + 0.3
    again = universal(trained, x, y, eps=eps, norm=norm, epochs=5)
    assert again.delta.equal(found.delta)
    # One run from zero and two from each of two directions; a run may end worse than
    # the start that was kept.
    assert len(found.rates) == 5 and found.rates == again.rates
    assert all(0 <= rate <= 1 for rate in found.rates)
    assert max(found.rates) >= found.fooling_rate - 0.05


def test_the_top_direction_is_the_singular_vector_of_the_first_layer(
    trained: MLP, fashion: Dataset
) -> None:
    x, y = fashion.x_test, fashion.y_test
    found = top_direction(trained, x, y, eps=2.0)
    top = torch.linalg.svd(trained.weights[0]).Vh[0]
    cosine = abs(float(found.delta.flatten() @ top)) / 2.0
    assert cosine == pytest.approx(1, abs=1e-2)
    assert float(found.delta.norm()) == pytest.approx(2.0, rel=1e-5)
    signs = top_direction(trained, x, y, eps=0.1, norm="linf")
    assert float(signs.delta.abs().amax()) == pytest.approx(0.1)
    assert all(m._forward_hooks == {} for m in trained.modules())


def test_a_convolution_is_taken_as_an_operator_behind_normalisation() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(2, 3, 3, stride=2, padding=1)
    head = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    model = nn.Sequential(Normalize([0.5, 0.4], [0.2, 1.0]), conv, nn.ReLU(), head)
    x = torch.rand(10, 2, 4, 4, generator=rng(0))
    y = model(x).argmax(1)
    found = top_direction(model, x, y, eps=1.0)
    first = nn.Sequential(model[0], conv)
    matrix = torch.autograd.functional.jacobian(
        lambda v: first(v.view(1, 2, 4, 4)).flatten(), x[0].flatten()
    )
    top = torch.linalg.svd(matrix).Vh[0]
    assert abs(float(found.delta.flatten() @ top)) == pytest.approx(1, abs=1e-3)


def test_the_better_sign_is_taken() -> None:
    model = Affine(torch.tensor([[3.0, 0.0], [0.0, 0.1]]), torch.tensor([-1.4, 0.0]))
    x = torch.tensor([0.55, 0.5]).expand(10, 2)
    y = model(x).argmax(1)
    assert top_direction(model, x, y, eps=0.3).fooling_rate == 1


def test_bad_input_is_refused_first() -> None:
    x, y = torch.rand(4, 3), torch.zeros(4, dtype=torch.int64)
    for attack in (universal, top_direction):
        with pytest.raises(ValueError, match="two samples or more"):
            attack(Never(), x[:1], y[:1], eps=0.1)
        with pytest.raises(ValueError, match="choose one of linf, l2"):
            attack(Never(), x, y, eps=0.1, norm="l1")
    with pytest.raises(ValueError, match="epochs is 0"):
        universal(Never(), x, y, eps=0.1, epochs=0)
    with pytest.raises(ValueError, match="weight matrix"):
        top_direction(nn.Sequential(nn.ReLU()), x, y, eps=0.1)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_it_beats_its_one_line_rival_at_any_scale_of_the_logits(
    trained: MLP, fashion: Dataset, norm: str
) -> None:
    x, y, eps = fashion.x_test, fashion.y_test, {"linf": 0.1, "l2": 2.0}[norm]
    rates = [
        universal(Changed(trained, by), x, y, eps=eps, norm=norm).train_rate
        for by in (lambda z: z, lambda z: 1e3 * z, lambda z: 1e-3 * z)
    ]
    rival = top_direction(trained, x, y, eps=eps, norm=norm).train_rate
    assert min(rates) >= rival
    assert max(rates) - min(rates) <= 0.05
