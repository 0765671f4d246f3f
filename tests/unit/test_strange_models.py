"""Strange models: an attack returns what an outside judge confirms, or one clear error.

The judge trusts nothing but the points. It asks a fresh copy of the honest network,
in evaluation mode and float64, one by one; and it looks whether the model and the
inputs are as they were. That the attack was not hindered shows beside the same attack
on the honest network.
"""

import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from crlib import attacks, metrics, models
from crlib.asking import reached
from crlib.attacks import Doubt
from crlib.geometry import norm_of
from tests.unit.support import rng

DEPENDS = ("crlib",)
N, K, SHAPE = 8, 4, (3, 4, 4)
EPS = {"linf": 0.03, "l2": 0.2, "l1": 0.8}


def network() -> nn.Sequential:
    """Return a network that training mode changes, with statistics of its own."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(96, K),
    )
    net[1].running_mean.uniform_(-0.3, 0.3)
    net[1].running_var.uniform_(0.02, 0.1)
    return net.train()


@cache
def made() -> tuple[Tensor, Tensor]:
    x = (255 * torch.rand(N, *SHAPE, generator=rng(1))).round() / 255
    y = network().eval()(x).argmax(1).detach()
    y[-1] = (y[-1] + 1) % K
    return x, y


def inputs() -> tuple[Tensor, Tensor]:
    """Return images and labels, to be spoilt; the last label is wrong."""
    x, y = made()
    return x.clone(), y.clone()


# What is asked: maps model, x and y to a result. Small, and of all kinds.
ASKED: dict[str, Callable[..., Any]] = {
    "fgsm": partial(attacks.fgsm, eps=EPS["linf"]),
    "pgd": partial(attacks.pgd, eps=EPS["linf"], steps=3, restarts=2),
    "pgd l2": partial(attacks.pgd, eps=EPS["l2"], norm="l2", steps=3),
    "apgd l1": partial(attacks.apgd, eps=EPS["l1"], norm="l1", steps=4),
    "apgd": partial(attacks.apgd, eps=EPS["linf"], steps=3, n_targets=2),
    "noise": partial(attacks.random_noise, eps=EPS["linf"], draws=2),
    "square": partial(attacks.square, eps=EPS["linf"], queries=4),
    "deepfool": partial(attacks.deepfool, steps=2, search_steps=4),
    "fmn": partial(attacks.fmn, norm="linf", steps=3, walk=1, search_steps=4),
    "sigma zero": partial(attacks.sigma_zero, steps=4),
    "minimal": partial(
        attacks.minimal, eps=0.1, attack=attacks.pgd, steps=2, search_steps=2
    ),
    "worst case": partial(attacks.worst_case, eps=EPS["linf"], budget="quick"),
    "evaluate": partial(
        attacks.evaluate, attacks.pgd, eps=EPS["linf"], steps=2, batch_size=5
    ),
    "transfer": lambda model, x, y: attacks.transfer(
        attacks.fgsm(SHELF["other"], x, y, eps=EPS["linf"]), model, x, y
    ),
    "as images": lambda model, x, y: attacks.as_images(
        attacks.fgsm(SHELF["other"], x, y, eps=EPS["linf"]),
        model,
        x,
        y,
        eps=EPS["linf"],
    ),
    "patch": partial(attacks.patch, size=2, steps=3, places=2),
    "worst case l0": partial(attacks.worst_case, eps=3, norm="l0", budget="quick"),
    "curve": partial(attacks.robustness_curve, eps=[0, 0.01, 0.03], steps=2),
    "universal": partial(attacks.universal, eps=0.1, epochs=1),
    "top direction": partial(attacks.top_direction, eps=0.5),
    "diagnose": partial(attacks.diagnose, eps=EPS["linf"], steps=2, queries=2),
    "accuracy": metrics.accuracy,
}
BALL = {
    **dict.fromkeys(("fgsm", "pgd", "apgd", "noise", "square"), ("linf", 0.03)),
    **dict.fromkeys(("worst case", "evaluate", "transfer"), ("linf", 0.03)),
    **{"pgd l2": ("l2", 0.2), "apgd l1": ("l1", 0.8), "minimal": ("linf", 0.1)},
    **{"as images": ("linf", 0.03), "patch": ("l0", 12), "worst case l0": ("l0", 3)},
    **{"deepfool": ("l2", 1e9), "fmn": ("linf", 1e9), "sigma zero": ("l0", 1e9)},
}
# What is told the result of an attack on another model.
TOLD = ("transfer", "as images")
assert set(attacks.__all__) == {
    *("AttackResult", "Check", "Curve", "Diagnosis", "Doubt", "EOT"),
    *("UniversalResult", "project", "minimum_of", "random_noise", "sigma_zero"),
    *("as_images", "patch"),
    *("fgsm", "pgd", "apgd", "square", "deepfool", "fmn", "minimal", "worst_case"),
    *("evaluate", "transfer", "robustness_curve", "universal", "top_direction"),
    "diagnose",
}, "a new function belongs into the matrix"


def judge(
    found: Any, honest: nn.Module, x: Tensor, y: Tensor, norm: str, eps: float
) -> None:
    """Confirm an attack's result by its points alone."""
    assert found.x_adv.shape == x.shape and found.x_adv.dtype == x.dtype
    assert ((found.x_adv >= 0) & (found.x_adv <= 1)).all()
    delta = norm_of(found.x_adv.double() - x.double(), norm)
    assert (delta <= eps * (1 + 1e-5)).all()
    honest = copy.deepcopy(honest).eval().double()
    logits = (
        torch.cat([honest(v[None].double()) for v in found.x_adv]).detach().double()
    )
    lead = metrics.margin(logits, y)
    # On the boundary float32 and float64 may round to different sides.
    size = logits.masked_fill(logits.isinf(), 0).abs().amax(1)
    clear = ~(lead.abs() <= 1e-5 * size)
    assert found.success[clear].equal((lead <= 0)[clear])
    assert found.right.equal(honest(x.double()).argmax(1) == y)
    hit = found.distance[found.success].double()
    torch.testing.assert_close(hit, delta[found.success], rtol=1e-4, atol=1e-6)
    assert found.distance[~found.success].isinf().all()


def state(model: Any) -> list[Any]:
    """Return flags, parameters and buffers of all that is behind a model."""
    modules, generators = reached(model)
    tensors = [
        (name, v.detach().clone(), v.requires_grad)
        for m in modules
        for name, v in [*m.named_parameters(), *m.named_buffers()]
    ]
    return [[m.training for m in modules], tensors, len(generators)]


def same(one: list[Any], other: list[Any]) -> bool:
    pairs = zip(one[1], other[1], strict=True)
    equal = all(a[0] == b[0] and a[1].equal(b[1]) and a[2] == b[2] for a, b in pairs)
    return one[0] == other[0] and equal


def numbers(found: Any) -> list[Tensor]:
    """Return what must not depend on how a function is dressed up."""
    if isinstance(found, attacks.AttackResult):
        return [found.success.double(), found.right.double(), found.n_backward.double()]
    if isinstance(found, attacks.Curve):
        return [found.accuracy.double()]
    if isinstance(found, attacks.UniversalResult):
        rates = found.fooling_rate, found.train_rate, found.robust_accuracy
        return [torch.tensor(rates, dtype=torch.float64)]
    if isinstance(found, attacks.Diagnosis):
        return [torch.tensor([float(len(found.checks))])]
    return [torch.tensor(found, dtype=torch.float64)]


# Models that are dressed up, but compute what the network computes.


class Wrapped(nn.Module):
    """A function before a network and one behind it."""

    def __init__(self, before: Any = None, after: Any = None) -> None:
        super().__init__()
        self.net = network()
        self.before, self.after = before, after

    def forward(self, x: Tensor) -> Any:
        z = self.net(x if self.before is None else self.before(x))
        return z if self.after is None else self.after(z)


class Kept(nn.Module):
    """Keeps its network where torch does not see it."""

    def __init__(self, keep: Callable[[nn.Module], Any]) -> None:
        super().__init__()
        self.kept = keep(network())

    def forward(self, x: Tensor) -> Any:
        kept = self.kept
        while not callable(kept):
            kept = next(iter(kept.values() if isinstance(kept, dict) else kept))
        return kept(x)


class Callable_:
    def __init__(self) -> None:
        self.net = network()

    def __call__(self, x: Tensor) -> Any:
        return self.net(x)

    def predict(self, x: Tensor) -> Any:
        return self.net(x)


class Slotted:
    __slots__ = ("net",)

    def __init__(self) -> None:
        self.net = network()

    def __call__(self, x: Tensor) -> Any:
        return self.net(x)


class Fused(nn.Module):
    """Answers nonsense until its own ``train`` is told."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.fused = network(), False

    def train(self, mode: bool = True) -> "Fused":
        self.fused = not mode
        return super().train(mode)

    def forward(self, x: Tensor) -> Any:
        return self.net(x) if self.fused else 0 * self.net(x)


class OwnLoop(nn.Module):
    """Has a method ``train`` that is a loop of training."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network()

    def train(self, loader: Any, epochs: int) -> None:  # type: ignore[override]
        raise AssertionError("nobody asked for training")

    def forward(self, x: Tensor) -> Any:
        return self.net(x)


class InPlace(nn.Module):
    """Writes into its input."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network()

    def forward(self, x: Tensor) -> Any:
        x -= 0.5
        x += 0.5
        x.mul_(1.0)
        return self.net(x.clone()) + x.zero_().flatten(1).sum(1, keepdim=True)


class Remembers(Wrapped):
    """Keeps the last activations, as feature extractors do."""

    def forward(self, x: Tensor) -> Any:
        self.last = x
        return self.net(x)


def hooked() -> nn.Module:
    net = network()
    net[2].register_full_backward_hook(lambda *_: None)
    return net


def half_frozen() -> nn.Module:
    net = network()
    net[1].eval()
    net[0].weight.requires_grad_(False)
    return net


SHELF = {"net": network(), "other": network().eval()}


def by_name(x: Tensor) -> Any:
    return SHELF["net"](x)


def closed() -> Callable[[Tensor], Any]:
    net = network()

    def outer(x: Tensor) -> Any:
        return (lambda v: net(v))(x)

    return outer


def by_default() -> Callable[[Tensor], Any]:
    def ask(x: Tensor, net: Any = network()) -> Any:  # noqa: B008
        return net(x)

    return ask


@dataclass
class Output:
    logits: Tensor
    features: Tensor


@dataclass
class Scores:
    scores: Tensor


SAME: dict[str, Callable[[], Any]] = {
    "training mode": network,
    "half frozen": half_frozen,
    "lambda": lambda: (lambda net: lambda x: net(x))(network()),
    "forward": lambda: network().forward,
    "partial": lambda: partial(lambda net, x: net(x), network()),
    "object": Callable_,
    "method of an object": lambda: Callable_().predict,
    "slots": Slotted,
    "function in a function": closed,
    "default argument": by_default,
    "global": lambda: by_name,
    "list in a module": lambda: Kept(lambda net: [net]),
    "dictionary in a module": lambda: Kept(lambda net: {"a": [net]}),
    "function in a module": lambda: Kept(lambda net: lambda x: net(x)),
    "own train()": Fused,
    "own train() behind a lambda": lambda: (lambda f: lambda x: f(x))(Fused()),
    "own training loop": OwnLoop,
    "writes into its input": InPlace,
    "writes, a function": lambda: (lambda net: lambda x: net(x.mul_(1.0)))(network()),
    "remembers": Remembers,
    "backward hook": hooked,
    "parallel": lambda: nn.DataParallel(network()),
    "graph": lambda: torch.fx.symbolic_trace(network()),
    "frozen": lambda: network().requires_grad_(False),
    "logits of a tuple": lambda: models.logits(Wrapped(after=lambda z: (z, z))),
    "logits of a list": lambda: models.logits(Wrapped(after=lambda z: [z])),
    "logits of a dict": lambda: models.logits(Wrapped(after=lambda z: {"logits": z})),
    "logits of an object": lambda: models.logits(Wrapped(after=lambda z: Output(z, z))),
    "logits of scores": lambda: models.logits(Wrapped(after=Scores)),
    "logits of a lambda": lambda: models.logits(
        (lambda net: lambda x: (net(x),))(network())
    ),
    "logits of images": lambda: models.logits(
        Wrapped(after=lambda z: z[:, :, None, None])
    ),
    "logits of logits": lambda: models.logits(models.logits(network())),
    "mean of one": lambda: attacks.EOT(network(), 1),
    "mean of a function": lambda: attacks.EOT(Callable_(), 1),
}
HONEST: dict[Any, list[Tensor]] = {}


def honest_numbers(name: str, x: Tensor, y: Tensor) -> list[Tensor]:
    if name not in HONEST:
        HONEST[name] = numbers(ASKED[name](network().eval(), x.clone(), y.clone()))
    return HONEST[name]


@pytest.mark.parametrize("name", ASKED)
@pytest.mark.parametrize("strange", SAME)
def test_a_network_dressed_up_is_the_network(strange: str, name: str) -> None:
    x, y = inputs()
    before, model = (x.clone(), y.clone()), SAME[strange]()
    kept = state(model)
    found = ASKED[name](model, x, y)
    assert same(kept, state(model))
    assert x.equal(before[0]) and y.equal(before[1])
    if name in BALL:
        judge(found, network(), x, y, *BALL[name])
    for own, honest in zip(numbers(found), honest_numbers(name, x, y), strict=True):
        torch.testing.assert_close(own, honest, rtol=0, atol=1e-9)


# Functions of their own: the judge is told the function, in evaluation mode.


def masked(z: Tensor) -> Tensor:
    off = torch.arange(z.shape[1]) == 2
    return z.masked_fill(off, -torch.inf)


def added(z: Tensor) -> Tensor:
    return z + torch.zeros(z.shape[1]).index_fill(0, torch.tensor([2]), -torch.inf)


def all_but_two(z: Tensor) -> Tensor:
    return z.masked_fill(torch.arange(z.shape[1]) > 1, -torch.inf)


def one_column(z: Tensor) -> Tensor:
    return z[:, 1:2] - z[:, :1]


class NoGradient(Wrapped):
    @torch.no_grad()
    def forward(self, x: Tensor) -> Any:
        return self.net(x)


class NoInference(Wrapped):
    @torch.inference_mode()
    def forward(self, x: Tensor) -> Any:
        return self.net(x)


class Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.TransformerEncoderLayer(16, 2, 16, batch_first=True)
        self.head = nn.Linear(48, K)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.layer(x.flatten(2)).flatten(1))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.head = nn.LSTM(16, 8, batch_first=True), nn.Linear(8, K)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.layer(x.flatten(2))[0][:, -1])


class HeadFirst(nn.Module):
    """Registers its head before its body."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head, self.body = nn.Linear(96, K), nn.Conv2d(3, 6, 3, padding=1)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.body(x).relu().flatten(1))


class Constant(nn.Module):
    def forward(self, x: Tensor) -> Any:
        return torch.eye(K, dtype=x.dtype)[:1].expand(len(x), K)


def scripted() -> Any:
    return torch.jit.script(network())


def traced() -> Any:
    return torch.jit.trace(network().eval(), inputs()[0])


OWN: dict[str, Callable[[], Any]] = {
    "masked classes": lambda: Wrapped(after=masked),
    "minus infinity added": lambda: Wrapped(after=added),
    "all but two masked": lambda: Wrapped(after=all_but_two),
    "probabilities": lambda: Wrapped(after=lambda z: z.softmax(1)),
    "log-probabilities": lambda: Wrapped(after=lambda z: z.log_softmax(1)),
    "logits times 1e30": lambda: Wrapped(after=lambda z: 1e30 * z),
    "logits times 1e-30": lambda: Wrapped(after=lambda z: 1e-30 * z),
    "integers": lambda: Wrapped(after=lambda z: (100 * z).round().long()),
    "steps": lambda: Wrapped(before=lambda x: (8 * x).round() / 8),
    "detached": lambda: Wrapped(before=lambda x: x.detach()),
    "no_grad inside": NoGradient,
    "inference_mode inside": NoInference,
    "constant": Constant,
    "one logit, two columns": lambda: models.logits(Wrapped(after=one_column)),
    "one logit, flat": lambda: models.logits(
        Wrapped(after=lambda z: one_column(z)[:, 0])
    ),
    "attention": Attending,
    "recurrent": Recurrent,
    "head registered first": HeadFirst,
}


@pytest.mark.parametrize("name", ASKED)
@pytest.mark.parametrize("strange", OWN)
def test_the_judge_confirms_what_an_attack_says(strange: str, name: str) -> None:
    x, _ = inputs()
    model = OWN[strange]()
    honest, kept = copy.deepcopy(model).eval(), state(model)
    y = honest(x).argmax(1).clone()
    before = x.clone(), y.clone()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Doubt)
        try:
            found = ASKED[name](model, x, y)
        except ValueError as error:
            assert name == "top direction" and "seen at work" in str(error)
            return
    assert same(kept, state(model))
    assert x.equal(before[0]) and y.equal(before[1])
    if name in BALL:
        judge(found, honest, x, y, *BALL[name])


@pytest.mark.parametrize("make", [scripted, traced])
@pytest.mark.parametrize("name", ASKED)
def test_compiled_networks_are_attacked_as_they_are(name: str, make: Any) -> None:
    x, y = inputs()
    if name == "top direction":
        with pytest.raises(ValueError, match="scripted or traced one hides them"):
            ASKED[name](make(), x, y)
        return
    found = ASKED[name](make(), x, y)
    if name in BALL:
        judge(found, network(), x, y, *BALL[name])


def test_masked_classes_give_the_numbers_of_the_network_cut() -> None:
    x, _ = inputs()
    for mask in (masked, added):
        cut = Wrapped(after=lambda z: z[:, [0, 1, 3]])
        y = cut.eval()(x).argmax(1)
        named = torch.tensor([0, 1, 3])[y]
        for name in ("pgd", "apgd", "deepfool", "fmn", "worst case", "minimal"):
            found = ASKED[name](Wrapped(after=mask), x, named)
            other = ASKED[name](cut, x, y)
            assert found.success.equal(other.success), name
            torch.testing.assert_close(found.distance, other.distance)
        full = attacks.worst_case(Wrapped(after=mask), x, named, eps=0.03)
        assert full.success.equal(attacks.worst_case(cut, x, y, eps=0.03).success)


# Places and inputs that are strange.


def in_inference_mode(x: Tensor, y: Tensor) -> tuple[Any, Tensor, Tensor]:
    with torch.inference_mode():
        return nullcontext(), x.clone(), y.clone()


PLACES: dict[str, Callable[[Tensor, Tensor], tuple[Any, Tensor, Tensor]]] = {
    "inference_mode": lambda x, y: (torch.inference_mode(), x, y),
    "inputs of inference_mode": in_inference_mode,
    "no_grad": lambda x, y: (torch.no_grad(), x, y),
    "inputs with a gradient": lambda x, y: (nullcontext(), x.requires_grad_(), y),
    "strided inputs": lambda x, y: (
        nullcontext(),
        x.repeat_interleave(2, 3)[..., ::2],
        torch.stack([y, y], 1)[:, 0],
    ),
    "channels last": lambda x, y: (
        nullcontext(),
        x.contiguous(memory_format=torch.channels_last),
        y,
    ),
}


@pytest.mark.parametrize("name", ASKED)
@pytest.mark.parametrize("place", PLACES)
def test_a_strange_place_changes_nothing(place: str, name: str) -> None:
    where, x, y = PLACES[place](*inputs())
    before, model = x.detach().clone(), network()
    kept = state(model)
    with where:
        found = ASKED[name](model, x, y)
    assert same(kept, state(model)) and x.equal(before) and x.grad is None
    if name in BALL:
        judge(found, network(), x.detach(), y, *BALL[name])
    if place == "strided inputs":
        return  # another order of summing, another last bit
    for own, honest in zip(
        numbers(found), honest_numbers(name, *inputs()), strict=True
    ):
        torch.testing.assert_close(own, honest, rtol=0, atol=1e-9)


@pytest.fixture
def in_float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("name", [k for k in ASKED if k not in TOLD])
def test_double_precision_by_default_is_no_place_to_fail(name: str) -> None:
    x = inputs()[0].double()
    y = network().eval()(x).argmax(1)
    found = ASKED[name](network(), x, y)
    if name in BALL:
        judge(found, network(), x, y, *BALL[name])


@pytest.mark.parametrize("name", ASKED)
def test_a_model_in_half_precision_is_given_its_own(name: str) -> None:
    x, y = inputs()
    model = models.logits(network().bfloat16())
    found = ASKED[name](model, x, y)
    if name in BALL:
        norm, eps = BALL[name]
        assert found.x_adv.dtype == torch.float32
        assert (norm_of(found.x_adv - x, norm) <= eps * (1 + 1e-5)).all()
        copied = copy.deepcopy(model).eval()
        logits = torch.cat([copied(v[None]) for v in found.x_adv]).float()
        lead = metrics.margin(logits, y).detach()
        # Its rounding is three digits: nothing clearer than that is claimed.
        assert (lead[found.success] <= 0.05 * logits.abs().max()).all()
        assert (lead[~found.success] >= -0.05 * logits.abs().max()).all()


@pytest.mark.parametrize("name", ASKED)
def test_a_model_that_draws_at_random_is_asked_as_before(name: str) -> None:
    x, y = inputs()
    source = rng(3)

    def noisy(v: Tensor) -> Tensor:
        return v + 0.3 * torch.randn(v.shape, generator=source).to(v)

    model = Wrapped(before=noisy)
    kept = state(model)
    found = ASKED[name](model, x, y)
    assert same(kept, state(model)) and x.equal(inputs()[0])
    if name in BALL:
        norm, eps = BALL[name]
        assert (norm_of(found.x_adv - x, norm) <= eps * (1 + 1e-5)).all()
        assert found.distance[~found.success].isinf().all()


# What is refused, with the words that must be in the one sentence.


class Centred(Wrapped):
    def forward(self, x: Tensor) -> Any:
        z = self.net(x)
        return z - z.mean(0)


def without_statistics() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.BatchNorm2d(6, track_running_stats=False),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(96, K),
    )


def vectors_without_statistics() -> nn.Module:
    bare = nn.BatchNorm1d(6, track_running_stats=False)
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 6), bare, nn.Linear(6, K))


def of_eight(x: Tensor) -> Tensor:
    return x.reshape(N, 48)[:, :K]


def made_inside() -> nn.Module:
    with torch.inference_mode():
        return network()


WRAPPER = r"crlib\.models\.logits\(model\)"
REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "tuple": (lambda: Wrapped(after=lambda z: (z, z)), f"a tuple.*{WRAPPER}"),
    "list": (lambda: Wrapped(after=lambda z: [z]), f"a list.*{WRAPPER}"),
    "dictionary": (lambda: Wrapped(after=lambda z: {"logits": z}), f"dict.*{WRAPPER}"),
    "object": (lambda: Wrapped(after=lambda z: Output(z, z)), f"Output.*{WRAPPER}"),
    "nothing": (lambda: Wrapped(after=lambda z: None), f"NoneType.*{WRAPPER}"),
    "numpy": (lambda: Wrapped(after=lambda z: z.detach().numpy()), f"nd.*{WRAPPER}"),
    "mean of tuples": (
        lambda: attacks.EOT(Wrapped(after=lambda z: (z, z)), 2),
        f"a tuple.*{WRAPPER}",
    ),
    "logits of nothing": (
        lambda: models.logits(Wrapped(after=lambda z: {"a": z})),
        "no logits in a dict",
    ),
    "one logit": (lambda: Wrapped(after=one_column), f"K at least 2.*{WRAPPER}"),
    "one number": (lambda: Wrapped(after=lambda z: z[:, 0]), f"at least 2.*{WRAPPER}"),
    "images": (lambda: Wrapped(after=lambda z: z[:, :, None, None]), "must return"),
    "sum": (lambda: Wrapped(after=lambda z: z.sum()), "must return"),
    "complex": (lambda: Wrapped(after=lambda z: z * 1j), "real numbers"),
    "truth values": (lambda: Wrapped(after=lambda z: z > 0), "real numbers"),
    "NaN": (lambda: Wrapped(after=lambda z: z * torch.nan), "returned a NaN"),
    "too few classes": (lambda: Wrapped(after=lambda z: z[:, :2]), "labels run from 0"),
    "half weights": (lambda: network().half(), f"does not take.*{WRAPPER}"),
    "double weights": (lambda: network().double(), f"does not take.*{WRAPPER}"),
    "made in inference_mode": (made_inside, "make or load it outside"),
}
DEPENDENT: dict[str, tuple[Callable[[], Any], str]] = {
    "statistics of the batch": (without_statistics, "depends on the others"),
    "statistics, vectors": (vectors_without_statistics, "not a sample alone"),
    "centred": (Centred, "depends on the others"),
    "fixed batch": (lambda: of_eight, "not a sample alone"),
}


@pytest.mark.parametrize("name", ASKED)
@pytest.mark.parametrize("strange", REFUSED)
def test_what_cannot_be_judged_is_refused(strange: str, name: str) -> None:
    make, message = REFUSED[strange]
    x, y = inputs()
    model = make()
    kept = state(model)
    with pytest.raises(ValueError, match=message) as caught:
        ASKED[name](model, x, torch.where(y < 2, 2, y))
    assert len(str(caught.value)) < 400
    assert [m.training for m in reached(model)[0]] == kept[0]
    assert x.equal(inputs()[0])


@pytest.mark.parametrize(
    "name", [k for k in ASKED if k not in ("accuracy", "diagnose")]
)
@pytest.mark.parametrize("strange", DEPENDENT)
def test_an_answer_that_depends_on_its_batch_is_refused(
    strange: str, name: str
) -> None:
    make, message = DEPENDENT[strange]
    if (strange, name) == ("fixed batch", "evaluate"):
        return  # its batches are of five, to which the model has its own answer
    with pytest.raises(ValueError, match=message):
        ASKED[name](make(), *inputs())


BAD: dict[str, tuple[Callable[[Tensor, Tensor], tuple[Any, Any]], str]] = {
    "bfloat16": (lambda x, y: (x.bfloat16(), y), r"give x\.float\(\)"),
    "float16": (lambda x, y: (x.half(), y), r"give x\.float\(\)"),
    "numpy x": (lambda x, y: (x.numpy(), y), r"x is a ndarray.*torch\.as_tensor\(x\)"),
    "numpy y": (lambda x, y: (x, y.numpy()), r"y is a ndarray.*torch\.as_tensor\(y\)"),
    "list y": (lambda x, y: (x, y.tolist()), r"y is a list.*torch\.as_tensor\(y\)"),
    "no y": (lambda x, y: (x, None), "y is a NoneType"),
    "loader": (
        lambda x, y: (
            torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y)),
            None,
        ),
        r"x is a DataLoader.*torch\.cat",
    ),
    "integers": (lambda x, y: ((255 * x).to(torch.uint8), y), "floating-point"),
    "one hot": (lambda x, y: (x, nn.functional.one_hot(y)), "one integer label"),
    "fewer labels": (lambda x, y: (x, y[:-1]), "for each of the 8 samples"),
    "a hair outside": (
        lambda x, y: (x / x.max() + 2e-6, y),
        r"to 1\.000002: .*x\.clamp\(0, 1\)",
    ),
    "not normalised": (lambda x, y: (4 * x - 2, y), "first layer"),
}


@pytest.mark.parametrize("name", [k for k in ASKED if k != "accuracy"])
@pytest.mark.parametrize("bad", BAD)
def test_bad_input_gets_one_sentence_that_names_the_cure(bad: str, name: str) -> None:
    if (bad, name) == ("loader", "evaluate"):
        return  # it takes one
    change, message = BAD[bad]
    x, y = inputs()
    arguments = change(x, y)
    ask = ASKED[name]
    if name in TOLD:  # the attack before it refuses them too
        found = attacks.fgsm(network(), x, y, eps=0.01)
        ask = {
            "transfer": partial(attacks.transfer, found),
            "as images": partial(attacks.as_images, found, eps=0.01),
        }[name]
    with pytest.raises(ValueError, match=message):
        ask(network(), *arguments)


@pytest.mark.parametrize("model", [None, 3, torch.zeros(3), "net"])
@pytest.mark.parametrize("name", [k for k in ASKED if k not in TOLD])
def test_a_model_that_cannot_be_called_is_named(name: str, model: Any) -> None:
    with pytest.raises(ValueError, match=f"model is a {type(model).__name__}"):
        ASKED[name](model, *inputs())


@pytest.mark.parametrize(
    "name", [k for k, (norm, eps) in BALL.items() if norm == "linf" and eps < 1]
)
def test_eps_in_levels_is_refused_in_linf(name: str) -> None:
    if name in TOLD:
        return
    with pytest.raises(ValueError, match="8/255"):
        ASKED[name](network(), *inputs(), eps=8)
    with pytest.raises(ValueError, match="8/255"):
        attacks.pgd(network(), *inputs(), eps=torch.linspace(0, 1.1, N))
    assert attacks.pgd(network(), *inputs(), eps=1.0, steps=2).success.any()


def test_the_matrix_has_thirty_strange_models_and_more() -> None:
    assert len(SAME) + len(OWN) + len(REFUSED) + len(DEPENDENT) >= 60


def test_asking_for_one_alone_leaves_chance_as_it_was() -> None:
    x, y = inputs()
    source = rng(3)
    drawn: list[Tensor] = []

    def noisy(v: Tensor) -> Tensor:
        both = torch.randn(1, generator=source), torch.randn(1)
        drawn.append(torch.cat(both))
        return SHELF["other"](v) + 100 * sum(both)

    torch.manual_seed(5)
    attacks.square(noisy, x, y, eps=0.01, queries=1)
    whole = [drawn[0], drawn[-1]]
    torch.manual_seed(5)
    again = rng(3)
    for one in whole:
        expected = torch.cat([torch.randn(1, generator=again), torch.randn(1)])
        assert one.equal(expected)
    assert len(drawn) == 4


def test_only_a_model_without_any_gradient_is_doubted() -> None:
    x, y = inputs()
    with warnings.catch_warnings():
        warnings.simplefilter("error", Doubt)
        for name in ASKED:
            ASKED[name](network(), x, y)
        # All are labelled wrongly: no gradient was asked for.
        attacks.pgd(NoGradient(), x, (y + 1) % K, eps=0.01)
    for name in ("pgd", "apgd", "deepfool", "fmn", "universal", "minimal"):
        with pytest.warns(Doubt, match="Every input gradient was zero") as told:
            ASKED[name](NoGradient(), x, NoGradient().eval()(x).argmax(1))
        assert len(told) == 1 and told[0].filename == __file__


def test_a_frozen_part_that_switches_itself_stays_frozen() -> None:
    model = nn.Sequential(Fused(), Fused()).train()
    model[1].eval()
    attacks.pgd(lambda x: model[0](x) + model[1](x), *inputs(), eps=0.01)
    assert [m.training for m in (model, model[0], model[1])] == [True, True, False]
    assert not model[0].fused and model[1].fused


def test_two_columns_are_the_sigmoid_of_one() -> None:
    z = torch.randn(20, 1, generator=rng(0))
    pair = models.logits(nn.Identity())(z)
    torch.testing.assert_close(pair.softmax(1)[:, 1:], z.sigmoid())
    assert pair.argmax(1).equal((z[:, 0] > 0).long())
