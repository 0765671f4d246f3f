"""Certificates never exceed exact distances, which never exceed attacks."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from crlib import attacks, certify, metrics, theory
from crlib.models import MLP, LowRankLinear, Normalize
from tests.unit.support import Affine, Changed, Never, predictions, rng, with_walls


def randomised(model: nn.Module, shape: tuple[int, ...], seed: int) -> nn.Module:
    """Draw the parameters, and centre the logits so that every class is predicted."""
    g = rng(seed)
    last: nn.Linear | None = None
    with torch.no_grad():
        for module in model.modules():
            for parameter in module.parameters(recurse=False):
                fan = max(1, parameter[0].numel())
                noise = torch.randn(parameter.shape, generator=g)
                parameter.copy_(1.5 * noise / math.sqrt(fan))
                last = module if isinstance(module, nn.Linear) else last
        assert last is not None
        last.bias -= model(torch.rand(200, *shape, generator=g)).mean(0)
    return model


def mlp(*sizes: int, seed: int = 0) -> nn.Module:
    return randomised(MLP(sizes, bias=True, mean=0.4, std=0.5), sizes[:1], seed)


def convnet(seed: int = 0) -> nn.Module:
    net = nn.Sequential(
        Normalize([0.4, 0.6], [0.5, 0.25]),
        nn.Sequential(nn.Conv2d(2, 4, 3, stride=2, padding=1), nn.ReLU()),
        nn.Conv2d(4, 4, 2, groups=2),
        nn.Dropout(0.5),
        nn.ReLU(),
        nn.Flatten(),
        LowRankLinear(16, 8, 3, bias=True),
        nn.Identity(),
        nn.ReLU(),
        nn.Linear(8, 3),
    )
    net.eval()
    return randomised(net, (2, 6, 6), seed)


def leaky(seed: int = 0) -> nn.Module:
    layers = [nn.Linear(5, 9), nn.LeakyReLU(0.3), nn.Linear(9, 9), nn.ReLU()]
    last = [nn.Linear(9, 9), nn.LeakyReLU(1.0), nn.Linear(9, 4)]
    return randomised(nn.Sequential(*layers, *last), (5,), seed)


def padded(seed: int = 0) -> nn.Module:
    """Every way of padding, inside a convolution and beside it."""
    net = nn.Sequential(
        nn.ReflectionPad2d((1, 0, 0, 1)),
        nn.Conv2d(2, 3, 2, padding="same"),
        nn.LeakyReLU(),
        nn.ZeroPad2d((0, 1, 0, 1)),
        nn.Conv2d(3, 3, 3, stride=2, padding=1, padding_mode="circular"),
        nn.ReLU(),
        nn.ReplicationPad2d(1),
        nn.CircularPad2d(1),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(27, 3),
    )
    return randomised(net, (2, 3, 3), seed)


NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: mlp(6, 3), (6,)),
    "shallow": (lambda: mlp(4, 12, 3), (4,)),
    "deep": (lambda: mlp(5, 10, 10, 10, 4), (5,)),
    "convolutional": (convnet, (2, 6, 6)),
    "leaky": (leaky, (5,)),
    "padded": (padded, (2, 3, 3)),
    "relu first": (
        lambda: randomised(nn.Sequential(nn.ReLU(), nn.Linear(4, 2)), (4,), 0),
        (4,),
    ),
    "two relus": (
        lambda: randomised(
            nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.ReLU(), nn.Linear(5, 2)),
            (4,),
            0,
        ),
        (4,),
    ),
}
ORDERS = {"l2": 2, "linf": math.inf, "l1": 1}
BOUNDS = {"interval": certify.interval_bounds, "crown": certify.crown_bounds}


def task(name: str, n: int = 8) -> tuple[nn.Module, Tensor, Tensor]:
    make, shape = NETS[name]
    model, g = make(), rng(5)
    x = with_walls(torch.rand(n, *shape, generator=g), g)
    return model, x, predictions(model, x)


def differences(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return all margins, ``(N, K)``, in float64."""
    with torch.no_grad():
        z = model.double()(x.double())
    model.float()
    return z.gather(1, y[:, None]) - z


@pytest.mark.parametrize("eps", [0.0, 0.02, 0.2, 1.0])
@pytest.mark.parametrize("name", NETS)
def test_bounds_hold_at_thousands_of_points(name: str, eps: float) -> None:
    model, x, y = task(name)
    y = (y + torch.arange(len(y)) % 2) % 2
    g = rng(1)
    ibp = certify.interval_bounds(model, x, y, eps=eps)
    crown = certify.crown_bounds(model, x, y, eps=eps)
    assert (crown >= ibp).all()
    assert ibp.dtype == torch.float64 and not ibp.requires_grad
    for i in range(len(x)):
        u = 2 * torch.rand(3000, *x.shape[1:], generator=g, dtype=torch.float64) - 1
        # Corners of the ball are where the extremes of a linear function lie.
        u[::2] = u[::2].sign()
        points = (x[i].double() + eps * u).clamp(0, 1)
        seen = differences(model, points, y[i].expand(3000)).amin(0)
        rivals = torch.arange(len(seen)) != y[i]
        assert (crown[i] <= seen + 1e-9)[rivals].all()
        assert crown[i, y[i]] == math.inf


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("kind", BOUNDS)
def test_bounds_on_a_point_are_the_margins(name: str, kind: str) -> None:
    model, x, y = task(name)
    found = BOUNDS[kind](model, x, y, eps=0)
    exact = differences(model, x, y).scatter(1, y[:, None], math.inf)
    torch.testing.assert_close(found, exact, atol=1e-9, rtol=0)


def test_bounds_of_a_linear_model_are_exact() -> None:
    model, x, y = task("linear")
    w = (model.layers[0].weight / 0.5).double().detach()
    low, high = (x - 0.1).clamp(0, 1).double(), (x + 0.1).clamp(0, 1).double()
    c = w[y].unsqueeze(1) - w
    worst = torch.minimum(c * low.unsqueeze(1), c * high.unsqueeze(1)).sum(2)
    exact = worst + differences(model, x, y) - (c * x.unsqueeze(1)).sum(2)
    exact.scatter_(1, y[:, None], math.inf)
    for bounds in BOUNDS.values():
        found = bounds(model, x, y, eps=torch.full((8,), 0.1))
        torch.testing.assert_close(found, exact, atol=1e-6, rtol=0)


def test_one_radius_a_sample_is_that_radius() -> None:
    model, x, y = task("deep")
    eps = torch.linspace(0, 0.3, len(x))
    together = certify.crown_bounds(model, x, y, eps=eps)
    for i, e in enumerate(eps):
        alone = certify.crown_bounds(model, x[i : i + 1], y[i : i + 1], eps=e)
        torch.testing.assert_close(together[i], alone[0])


def attack_distance(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Bisect the radius at which PGD succeeds; return the size of what it found."""
    low, high = torch.zeros(len(x)), torch.ones(len(x))
    best = torch.full((len(x),), math.inf)
    for _ in range(14):
        eps = (low + high) / 2
        found = attacks.pgd(model, x, y, eps=eps, steps=40, restarts=3)
        low = torch.where(found.success, low, eps)
        high = torch.where(found.success, eps, high)
        best = torch.minimum(best, found.distance)
    return best


@pytest.mark.parametrize("name", ["linear", "shallow", "deep", "convolutional"])
def test_certificate_exact_distance_attack_in_this_order(name: str) -> None:
    n = 3 if name == "convolutional" else 6
    model, x, y = task(name, n)
    lipschitz = certify.lipschitz_radius(model, x, y, norm="linf")
    ibp = certify.certified_radius(model, x, y, bounds=certify.interval_bounds)
    crown = certify.certified_radius(model, x, y)
    exact = certify.exact_distance(model, x, y)
    attack = attack_distance(model, x, y)
    assert exact.status == ("exact",) * n
    assert (lipschitz <= ibp + 1e-5).all()
    assert (ibp <= crown).all()
    assert (crown <= exact.distance).all()
    assert (exact.lower <= exact.distance).all()
    assert (exact.distance <= exact.lower * (1 + 1e-5) + 1e-6).all()
    assert (exact.distance <= attack * (1 + 1e-5)).all()
    assert (attack / exact.distance).median() < 1.02
    # The two ends are not trivial: the bounds are worth having.
    assert (crown / exact.distance).median() > 0.5


@pytest.mark.parametrize(
    ("name", "norm"),
    [("shallow", "linf"), ("shallow", "l1"), ("deep", "linf"), ("relu first", "l1")],
)
def test_the_exact_point_lies_on_the_boundary_at_the_distance(
    name: str, norm: str
) -> None:
    model, x, y = task(name, 4)
    found = certify.exact_distance(model, x, y, norm=norm)
    step = (found.x_adv - x).flatten(1)
    torch.testing.assert_close(
        torch.linalg.vector_norm(step, ord=ORDERS[norm], dim=1), found.distance
    )
    assert ((found.x_adv >= 0) & (found.x_adv <= 1)).all()
    margins = differences(model, found.x_adv, y).scatter(1, y[:, None], math.inf)
    assert margins.amin(1).abs().max() < 1e-6


@pytest.mark.parametrize("norm", ["linf", "l1"])
def test_exact_distance_of_a_linear_model_is_its_closed_form(norm: str) -> None:
    for seed in range(5):
        g = rng(seed)
        model = nn.Sequential(nn.Linear(7, 4))
        randomised(model, (7,), seed)
        x = with_walls(torch.rand(6, 7, generator=g), g)
        y = torch.randint(4, (6,), generator=g)
        weight, bias = model[0].weight, model[0].bias
        expected, _ = theory.linear_minimal(weight, bias, x, y, norm=norm)
        found = certify.exact_distance(model, x, y, norm=norm)
        torch.testing.assert_close(found.distance, expected, atol=1e-6, rtol=0)
        torch.testing.assert_close(found.lower, expected, atol=1e-6, rtol=0)
        assert [s == "wrong" for s in found.status] == (expected == 0).tolist()


@pytest.mark.parametrize("norm", ["linf", "l1"])
@pytest.mark.parametrize("seed", range(3))
def test_exact_distance_in_the_plane_is_that_of_a_dense_grid(
    seed: int, norm: str
) -> None:
    model = mlp(2, 8, 8, 3, seed=seed)
    ticks = torch.linspace(0, 1, 1001)
    grid = torch.cartesian_prod(ticks, ticks)
    labels = predictions(model, grid)
    x = torch.rand(5, 2, generator=rng(seed))
    y = predictions(model, x)
    found = certify.exact_distance(model, x, y, norm=norm)
    for i in range(len(x)):
        steps = (grid[labels != y[i]] - x[i]).abs()
        nearest = float((steps.amax(1) if norm == "linf" else steps.sum(1)).min())
        assert found.distance[i] - 1e-6 <= nearest <= found.distance[i] + 0.01


def test_a_box_with_one_label_has_no_boundary() -> None:
    model, x, _ = task("shallow", 2)
    with torch.no_grad():
        model.layers[-1].bias[0] += 1e3
    y = torch.tensor([0, 1])
    found = certify.exact_distance(model, x, y)
    assert found.status == ("none", "wrong")
    assert found.distance.tolist() == found.lower.tolist() == [math.inf, 0]
    assert (found.x_adv == x).all()
    assert certify.certified_radius(model, x, y).tolist() == [math.inf, 0]
    half = certify.certified_radius(model, x, y, eps_max=0.5)
    assert half.tolist() == [0.5, 0]


@pytest.mark.parametrize("seconds", [1e-9, 0.05, 0.3])
def test_a_time_limit_gives_an_interval_that_holds(seconds: float) -> None:
    model = mlp(6, 24, 24, 3, seed=3)
    x = torch.rand(3, 6, generator=rng(0))
    y = predictions(model, x)
    exact = certify.exact_distance(model, x, y)
    found = certify.exact_distance(model, x, y, time_limit=seconds)
    assert exact.status == ("exact",) * 3
    assert set(found.status) <= {"exact", "interval"}
    if seconds == 1e-9:
        assert found.status == ("interval",) * 3
    assert (found.lower <= exact.distance + 1e-6).all()
    assert (exact.distance <= found.distance + 1e-6).all()


@pytest.mark.parametrize("norm", ["linf", "l1"])
def test_a_start_changes_no_exact_distance(norm: str) -> None:
    model, x, y = task("shallow", 4)
    plain = certify.exact_distance(model, x, y, norm=norm)
    # The second has a start of its own label, which is no start.
    start = attacks.pgd(model, x, y, eps=0.9).x_adv
    start[1] = x[1]
    found = certify.exact_distance(model, x, y, norm=norm, start=start)
    assert found.status == plain.status == ("exact",) * 4
    torch.testing.assert_close(found.distance, plain.distance, atol=1e-6, rtol=0)


def test_a_start_is_the_upper_end_where_the_time_runs_out() -> None:
    model, x, y = task("deep", 3)
    start = attacks.pgd(model, x, y, eps=1.0, random_start=True)
    assert start.success.all()
    found = certify.exact_distance(model, x, y, start=start.x_adv, time_limit=1e-9)
    assert found.status == ("interval",) * 3
    torch.testing.assert_close(found.distance, start.distance.double())
    assert (found.x_adv == start.x_adv).all()
    assert (found.lower > 0).all()


def test_a_network_with_two_relus_or_one_first_has_an_exact_distance() -> None:
    for name in ("relu first", "two relus"):
        model, x, y = task(name, 4)
        found = certify.exact_distance(model, x, y)
        attack = attack_distance(model, x, y)
        torch.testing.assert_close(
            found.distance, attack.double(), atol=2e-3, rtol=0.02
        )


@pytest.mark.parametrize("norm", ["l2", "linf", "l1"])
@pytest.mark.parametrize("name", NETS)
def test_no_two_inputs_move_the_logits_more_than_the_lipschitz_bound(
    name: str, norm: str
) -> None:
    model, x, _ = task(name, 300)
    other = x + 0.1 * torch.randn(x.shape, generator=rng(2))
    with torch.no_grad():
        moved = torch.linalg.vector_norm(
            model(x) - model(other), ord=ORDERS[norm], dim=1
        )
    size = torch.linalg.vector_norm((x - other).flatten(1), ord=ORDERS[norm], dim=1)
    bound = certify.lipschitz_bound(model, x.shape[1:], norm=norm)
    assert (moved / size).max() <= bound * (1 + 1e-5)


@pytest.mark.parametrize("norm", ["l2", "linf", "l1"])
def test_the_lipschitz_radius_of_two_opposite_rows_is_the_distance(norm: str) -> None:
    w = torch.tensor([1.0, -2.0, 0.5])
    rows = torch.stack([w, -w]) if norm != "l1" else torch.eye(2)
    model = nn.Sequential(nn.Linear(rows.shape[1], 2, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(rows)
    x = torch.rand(20, rows.shape[1], generator=rng(0))
    y = predictions(model, x)
    exact, _ = theory.linear_minimal(rows, None, x, y, norm=norm, box=False)
    found = certify.lipschitz_radius(model, x, y, norm=norm)
    torch.testing.assert_close(found, exact, rtol=1e-6, atol=1e-6)
    assert (certify.lipschitz_radius(model, x, 1 - y, norm=norm) == 0).all()


def test_the_lipschitz_bound_is_the_product_of_the_layers() -> None:
    model = convnet()
    conv, grouped, low_rank, head = (model[i] for i in (1, 2, 6, 9))
    expected = (
        4
        * metrics.layer_operator_norm(conv[0], (2, 6, 6), norm="linf")
        * metrics.layer_operator_norm(grouped, (4, 3, 3), norm="linf")
        * metrics.operator_norm(low_rank.weight, norm="linf")
        * metrics.operator_norm(head.weight, norm="linf")
    )
    found = certify.lipschitz_bound(model, (2, 6, 6), norm="linf")
    assert found == pytest.approx(expected)


def test_smoothing_a_linear_model_certifies_its_distance() -> None:
    # Two classes: the label of x + noise is right with probability Phi(d / sigma).
    g = rng(0)
    w = torch.randn(2, 10, generator=g)
    x = torch.rand(30, 10, generator=g)
    model = Affine(w, -w @ x.mean(0))
    y = predictions(model, x)
    exact, _ = theory.linear_minimal(w, model.bias, x, y, norm="l2", box=False)
    sigma, n = 0.5, 4000
    found = certify.smooth_certify(model, x, sigma=sigma, n=n, alpha=1e-3, generator=g)
    certified = found.label >= 0
    assert (found.label == y)[certified].all() and certified.float().mean() > 0.7
    assert (found.radius[certified] <= exact[certified]).float().mean() > 0.95
    p = torch.special.ndtr(exact / sigma)
    # Clopper-Pearson at 0.001 lies three to four standard errors below the share seen,
    # and the share may lie as far below p.
    short = p - 7 * (p * (1 - p) / n).sqrt() - 0.003
    assert (found.p_low >= short).all()
    ceiling = sigma * float(stats.norm.ppf(1e-3 ** (1 / n)))
    assert (found.radius <= ceiling + 1e-9).all()
    assert (found.radius[~certified] == 0).all()


def test_the_confidence_bound_covers_as_often_as_it_says() -> None:
    # Same input 400 times; the label's probability is 0.8 by construction.
    model = Affine(torch.tensor([[1.0], [-1.0]]))
    shift = float(stats.norm.ppf(0.8))
    x = torch.full((400, 1), shift / 4)
    found = certify.smooth_certify(
        model, x, sigma=0.25, n0=50, n=100, alpha=0.1, batch_size=64
    )
    covered = float((found.p_low <= 0.8).double().mean())
    assert 0.9 - 0.03 <= covered < 1
    assert found.p_low.median() > 0.7


def test_smoothing_abstains_where_no_label_leads() -> None:
    model = Affine(torch.tensor([[1.0], [-1.0]]), torch.tensor([-0.5, 0.5]))
    x = torch.full((20, 1), 0.5)
    found = certify.smooth_certify(model, x, sigma=0.2, alpha=1e-3)
    assert (found.label == -1).all() and (found.radius == 0).all()


def test_smoothing_guesses_on_other_draws_than_it_counts() -> None:
    # Rare labels: the guess from one draw need not come up among the next.
    rare = Changed(Affine(torch.zeros(50, 1)), lambda z: z)
    seen = iter([torch.tensor([49]), torch.zeros(5, dtype=torch.int64)])

    def model(z: Tensor) -> Tensor:
        return nn.functional.one_hot(next(seen), 50) + rare(z)

    found = certify.smooth_certify(model, torch.zeros(1, 1), sigma=1, n0=1, n=5)
    assert found.label.tolist() == [-1] and found.p_low.tolist() == [0]


def test_smoothing_repeats_with_its_generator_and_leaves_torch_alone() -> None:
    model, x, _ = task("shallow", 3)
    state = torch.get_rng_state()
    one, two = (
        certify.smooth_certify(model, x, sigma=0.1, generator=rng(1)) for _ in range(2)
    )
    assert one.p_low.equal(two.p_low)
    assert torch.get_rng_state().equal(state)


def test_the_model_and_the_inputs_are_left_as_they_were() -> None:
    model, x, y = task("convolutional", 2)
    model.train()
    model[1].eval()
    flags = [m.training for m in model.modules()]
    before, state = x.clone(), {k: v.clone() for k, v in model.state_dict().items()}
    certify.certified_radius(model, x, y, tol=0.1)
    certify.exact_distance(model, x, y)
    certify.smooth_certify(model, x, sigma=0.1, n=10)
    assert [m.training for m in model.modules()] == flags
    assert x.equal(before) and all(p.grad is None for p in model.parameters())
    assert all(v.equal(state[k]) for k, v in model.state_dict().items())


def test_no_samples_give_no_answers() -> None:
    model, x, y = task("deep", 0)
    assert certify.crown_bounds(model, x, y, eps=0.1).shape == (0, 4)
    assert certify.interval_bounds(model, x, y, eps=0.1).shape == (0, 4)
    assert certify.certified_radius(model, x, y).shape == (0,)
    assert certify.lipschitz_radius(model, x, y).shape == (0,)
    assert certify.smooth_certify(model, x, sigma=1).label.shape == (0,)
    found = certify.exact_distance(model, x, y)
    assert found.distance.shape == (0,) and found.x_adv.shape == (0, 5)


class Doubled(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class Residual(MLP):
    def features(self, x: Tensor) -> Tensor:
        return 2 * super().features(x)


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Linear(4, 3), nn.ELU(), nn.Linear(3, 2)),
        nn.Sequential(nn.Sequential(nn.LayerNorm(4)), nn.Linear(4, 2)),
        nn.Sequential(nn.Linear(4, 3), nn.Softplus(), nn.Linear(3, 2)),
        nn.Sequential(Doubled(4, 2)),
        Residual((4, 3, 2)),
        Never(),
    ],
)
def test_modules_that_are_not_known_are_refused(model: nn.Module) -> None:
    x, y = torch.rand(2, 4, generator=rng(0)), torch.zeros(2, dtype=torch.int64)
    calls: list[Callable[[], object]] = [
        lambda: certify.lipschitz_bound(model, (4,)),
        lambda: certify.lipschitz_radius(model, x, y),
        lambda: certify.interval_bounds(model, x, y, eps=0.1),
        lambda: certify.crown_bounds(model, x, y, eps=0.1),
        lambda: certify.exact_distance(model, x, y),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="not a module that can be bounded"):
            call()


def test_a_leaky_relu_is_bounded_and_has_no_exact_distance() -> None:
    model, x, y = task("leaky", 3)
    with pytest.raises(ValueError, match="crown_bounds bounds it"):
        certify.exact_distance(model, x, y)
    for slope in (-0.1, 1.5):
        with pytest.raises(ValueError, match=r"slope in \[0, 1\]"):
            certify.crown_bounds(
                nn.Sequential(nn.Linear(5, 4), nn.LeakyReLU(slope)), x, y, eps=0.1
            )
    # A slope of one bends nothing: the bounds are those of the linear map, exactly.
    flat = nn.Sequential(nn.Linear(5, 6), nn.LeakyReLU(1.0), nn.Linear(6, 3))
    one = nn.Linear(5, 3)
    with torch.no_grad():
        one.weight.copy_(flat[2].weight @ flat[0].weight)
        one.bias.copy_(flat[2].weight @ flat[0].bias + flat[2].bias)
    y = predictions(one, x)
    torch.testing.assert_close(
        certify.crown_bounds(flat, x, y, eps=0.1),
        certify.interval_bounds(one, x, y, eps=0.1),
        atol=1e-5,
        rtol=1e-5,
    )


def test_the_radius_does_not_depend_on_the_batches() -> None:
    model, x, y = task("padded")
    parts = certify.lipschitz_radius(model, x, y, batch_size=3)
    torch.testing.assert_close(parts, certify.lipschitz_radius(model, x, y))


def test_a_parametrised_layer_is_read_as_it_computes() -> None:
    model, x, y = task("deep", 3)
    plain = certify.crown_bounds(model, x, y, eps=0.05)
    layer = model.layers[1]
    layer.weight.data *= 2
    nn.utils.parametrize.register_parametrization(layer, "weight", Half())
    torch.testing.assert_close(certify.crown_bounds(model, x, y, eps=0.05), plain)


class Half(nn.Module):
    def forward(self, w: Tensor) -> Tensor:
        return w / 2


def test_bad_input_is_refused() -> None:
    model, x, y = task("deep", 3)
    for call in (
        lambda x, y: certify.crown_bounds(model, x, y, eps=0.1),
        lambda x, y: certify.exact_distance(model, x, y),
        lambda x, y: certify.lipschitz_radius(model, x, y),
    ):
        for bad in (x + 1, x * math.nan):
            with pytest.raises(ValueError, match=r"\[0, 1\]"):
                call(bad, y)
        for bad in (x[0], (x > 0.5).long()):
            with pytest.raises(ValueError, match="give a batch"):
                call(bad, y)
        for bad in (y[:2], y.float()):
            with pytest.raises(ValueError, match="one integer label"):
                call(x, bad)
        for label in (-1, 4):
            with pytest.raises(ValueError, match="labels run from 0"):
                call(x, torch.full_like(y, label))
        with pytest.raises(ValueError, match="does not take inputs"):
            call(x[:, :4], y)
    with pytest.raises(ValueError, match="alike"):
        certify.exact_distance(model, x, y, start=x[:1])
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        certify.exact_distance(model, x, y, start=x + 1)
    for eps in (-0.1, math.nan, math.inf):
        with pytest.raises(ValueError, match="finite and not negative"):
            certify.interval_bounds(model, x, y, eps=eps)
    with pytest.raises(ValueError, match=r"one number, or \(N,\)"):
        certify.interval_bounds(model, x, y, eps=torch.zeros(2))
    with pytest.raises(ValueError, match="K at least 2"):
        certify.lipschitz_bound(nn.Linear(3, 1), (3,))
    with pytest.raises(ValueError, match="all but the batch"):
        certify.lipschitz_bound(nn.Sequential(nn.Flatten(2), nn.Linear(3, 2)), (3,))
    with pytest.raises(ValueError, match="choose one of linf, l2, l1"):
        certify.lipschitz_bound(model, (5,), norm="l0")
    with pytest.raises(ValueError, match="choose one of linf, l1"):
        certify.exact_distance(model, x, y, norm="l2")
    with pytest.raises(ValueError, match="must be positive"):
        certify.exact_distance(model, x, y, time_limit=0)
    for options in ({"eps_max": 0}, {"eps_max": math.inf}, {"tol": 0}, {"tol": 1}):
        with pytest.raises(ValueError, match="eps_max is"):
            certify.certified_radius(model, x, y, **options)
    for options in ({"sigma": 0}, {"sigma": 1, "alpha": 1}, {"sigma": math.nan}):
        with pytest.raises(ValueError, match="sigma is"):
            certify.smooth_certify(Never(), x, **options)
    for options in ({"n0": 0}, {"n": 0}, {"batch_size": 0}):
        with pytest.raises(ValueError, match="at least 1"):
            certify.smooth_certify(Never(), x, sigma=1, **options)


def test_what_is_no_tensor_or_no_shape_is_refused_with_the_cure() -> None:
    model, x, y = task("deep", 3)
    listed: Any = x.tolist()
    with pytest.raises(ValueError, match=r"x is a list: .*torch\.as_tensor"):
        certify.certified_radius(model, listed, y)
    with pytest.raises(ValueError, match=r"start is a ndarray: .*torch\.as_tensor"):
        certify.exact_distance(model, x, y, start=x.numpy())
    for bad in (5, None, ()):
        with pytest.raises(ValueError, match=r"input_shape is .*give \(d,\)"):
            certify.lipschitz_bound(model, bad)


def test_smoothing_asks_as_attacks_do() -> None:
    x = torch.rand(2, 2, generator=rng(0))
    with pytest.raises(ValueError, match="returned a tuple"):
        certify.smooth_certify(lambda v: (v, v), x, sigma=0.1)
    with pytest.raises(ValueError, match=r"does not take torch\.float64"):
        certify.smooth_certify(MLP((2, 2)), x.double(), sigma=0.1)
