"""What survives a first layer bounds the distance of every network behind it."""

from collections.abc import Callable

import torch
from scipy import stats
from torch import Tensor

from crlib import metrics, theory
from tests.theory.law import Mistake, at_most, equal, law
from tests.theory.matrices import Generator, integer, many

Layer = Callable[[Tensor], Tensor]
DIRECTIONS = "crlib.theory.bridge._directions"


def gaussian(g: Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=g, dtype=torch.float64)


def scale(w: Tensor, *inputs: Tensor) -> float:
    return float(torch.linalg.matrix_norm(w) * sum(x.norm() for x in inputs))


@law(
    Mistake(DIRECTIONS, "return vh[:kept].T", "return vh[: kept - 1].T"),
    Mistake("crlib.theory.bridge_attack", "d @ v @ v.T", "0.999 * d @ v @ v.T"),
)
def the_attack_shows_the_other_input_and_nothing_shorter_does() -> None:
    for w, g in many():
        x, other = gaussian(g, 2, w.shape[1])
        e, residual, bound = theory.bridge_attack(w, x, other)
        size = scale(w, x, other)
        assert float((w @ (x + e) - w @ other).norm()) < 1e-9 * size
        assert float(residual) < 1e-9 * size and float(bound) <= 1e-9 * size
        # Every other way to the same output differs by something that W does not see.
        unseen = gaussian(g, w.shape[1])
        unseen = unseen - theory.bridge_attack(w, torch.zeros_like(x), unseen).e
        assert abs(float(e @ unseen)) < 1e-9 * float(e.norm() * unseen.norm() + 1)
        at_most(float(e.norm()), float((e + unseen).norm()))


@law(
    Mistake("crlib.theory.bridge_attack", "beyond * (d - e)", "beyond * e"),
    Mistake(DIRECTIONS, "float(s[kept])", "float(s[kept]) * 0.99"),
)
def the_residual_keeps_its_bound() -> None:
    for w, g in many():
        k = integer(g, 1, min(w.shape))
        x, other = gaussian(g, 2, w.shape[1])
        e, residual, bound = theory.bridge_attack(w, x, other, k)
        rounding = 1e-12 * scale(w, x, other)
        assert abs(residual - (w @ (x + e) - w @ other).norm()) < rounding
        assert residual <= bound * (1 + 1e-9) + rounding
        _, s, vh = torch.linalg.svd(w, full_matrices=False)
        if k < len(s) and s[k] > 1e-6 * s[0]:
            _, residual, bound = theory.bridge_attack(w, x, x + vh[k], k)
            assert abs(float(residual) - float(bound)) < 1e-9 * float(s[0])
            assert abs(float(bound) - float(s[k])) < 1e-9 * float(s[0])


@law(
    Mistake("crlib.theory.surviving_fraction", " / d.norm(dim=-1)", ""),
    Mistake(DIRECTIONS, "min(k, rank)", "min(k + 1, rank)"),
)
def on_average_the_price_and_the_error_are_k_and_epsilon() -> None:
    for w, g in many():
        _, s, _ = torch.linalg.svd(w)
        rank = int((s > 1e-9 * s[0]).sum())
        k = integer(g, 1, rank)
        # The coordinate directions have the second moments of the uniform law.
        basis = 3 * torch.eye(w.shape[1], dtype=torch.float64)
        chi = theory.surviving_fraction(w, basis, k)
        equal(float(chi.square().mean()), k / w.shape[1])
        _, residual, _ = theory.bridge_attack(w, torch.zeros_like(basis), basis, k)
        error = float(residual.square().sum()) / float((w @ basis).square().sum())
        assert abs(error - metrics.best_k_error(s, k) ** 2) < 1e-12


@law(
    Mistake(
        "crlib.theory.surviving_fraction", "(d @ v).norm(dim=-1)", "(d @ v)[..., 0]"
    )
)
def random_layers_leave_a_beta_share() -> None:
    for m, k, seed in ((20, 3, 0), (60, 12, 1), (9, 8, 2)):
        g = torch.Generator().manual_seed(seed)
        d = torch.rand(m, generator=g, dtype=torch.float64)
        chi = torch.stack(
            [theory.surviving_fraction(gaussian(g, k, m), d) for _ in range(1500)]
        )
        law_of = stats.beta(k / 2, (m - k) / 2)
        assert stats.kstest(chi.square().numpy(), law_of.cdf).pvalue > 0.01, (m, k)


@law(
    Mistake("crlib.theory.bridge_radius", "_directions(w, None)", "_directions(w, 1)"),
    Mistake("crlib.theory.bridge_radius", "y[:, None] == y_o", "y[:, None] != y_o"),
)
def no_linear_classifier_is_more_robust_than_its_bridge() -> None:
    for w, g in many(2000):
        head = gaussian(g, 4, len(w)) @ w
        x, others = gaussian(g, 6, w.shape[1]), gaussian(g, 9, w.shape[1])
        y, labels = (x @ head.T).argmax(1), (others @ head.T).argmax(1)
        exact, _ = theory.linear_minimal(head, None, x, y, norm="l2", box=False)
        bound = theory.bridge_radius(w, x, y, others, labels)
        for low, high in zip(exact.tolist(), bound.tolist(), strict=True):
            at_most(low, high, w)


@law(Mistake("crlib.theory.bridge_radius", ".amin(1)", ".amin(1) / 2"))
def just_beyond_the_boundary_the_bridge_is_the_distance() -> None:
    for w, g in many(500):
        row = w[w.norm(dim=1).argmax()]
        logits = torch.stack([row, -row])
        x = gaussian(g, 1, w.shape[1])
        y = (x @ logits.T).argmax(1)
        exact, step = theory.linear_minimal(logits, None, x, y, norm="l2", box=False)
        unseen = gaussian(g, 1, w.shape[1])
        unseen = unseen - unseen @ row[:, None] * row / row.square().sum()
        beyond = x + (1 + 1e-12) * step + unseen
        bound = theory.bridge_radius(row[None], x, y, beyond, 1 - y)
        assert abs(float(bound - exact)) < 1e-9 * float(x.norm() + unseen.norm())


@law(
    Mistake("crlib.theory.two_probe_radius", "probe_i, probe_j]", "probe_i, probe_i]"),
    Mistake("crlib.theory.two_probe_radius", ".e.norm()", ".e.abs().max()"),
)
def two_probes_bound_the_pairwise_distance() -> None:
    for w, g in many():
        if len(w) < 2:
            continue
        b_i, b_j = w[0], w[1]
        x, other = gaussian(g, 2, w.shape[1])
        gap = b_j - b_i
        if gap @ (other - x) < 0:
            x, other = other, x
        # A bias puts the boundary anywhere between the two.
        exact = float(torch.rand((), generator=g)) * float(gap @ (other - x))
        exact /= max(float(gap.norm()), 1e-300)
        along = abs(float(gap @ (other - x))) / max(float(gap.norm()), 1e-300)
        bound = theory.two_probe_radius(b_i, b_j, x, other)
        assert exact <= bound + 1e-9 * along + 1e-12
        assert along <= bound * (1 + 1e-9) + 1e-9 * float((other - x).norm())
        lone = theory.two_probe_radius(b_i, -b_i, x, other)
        cosine = theory.surviving_fraction(b_i[None], other - x) * (other - x).norm()
        assert abs(lone - float(cosine)) < 1e-9 * float((other - x).norm())
        direct = abs(float(b_i @ (other - x))) / max(float(b_i.norm()), 1e-300)
        assert abs(lone - direct) < 1e-9 * float((other - x).norm())


CURVED = "crlib.theory.curved_bridge"


def bent(inner: Tensor, shift: Tensor, outer: Tensor, *, kinks: bool) -> Layer:
    """Return a layer whose units have slopes in [0.3, 1]."""
    bend = torch.relu if kinks else torch.nn.functional.softplus

    def layer(p: Tensor) -> Tensor:
        h = p @ inner.T + shift
        return (0.3 * h + 0.7 * bend(h)) @ outer.T

    return layer


def spheres(scale: float) -> Layer:
    """Return a layer of two distances, whose slopes are orthogonal."""

    def layer(p: Tensor) -> Tensor:
        parts = [p[:, :4].norm(dim=1), 5 * p[:, 4:].norm(dim=1)]
        return scale * torch.stack(parts, 1)

    return layer


@law(
    Mistake(CURVED, "parts / s, 0", "parts / s[:, :1], 0"),
    Mistake(CURVED, "inside(x), inside(x_prime)", "inside(x), 0.999 * inside(x_prime)"),
    Mistake(CURVED, "length += move.norm(dim=1)", "length += move.norm(dim=1) / 4"),
)
def a_path_leads_to_the_other_inner_output_within_its_slope() -> None:
    for case in range(40):
        g = torch.Generator().manual_seed(case)
        k, n = integer(g, 1, 3), integer(g, 4, 6)
        inner, shift, outer = gaussian(g, n, 9), gaussian(g, n), gaussian(g, k, n)
        layer = bent(inner, shift, outer, kinks=case % 2 == 1)
        # The slopes of the units lie in [0.3, 1], and inner has full row rank.
        least = 0.3 * float(
            torch.linalg.svdvals(inner)[-1] * torch.linalg.svdvals(outer)[-1]
        )
        x, other = gaussian(g, 2, 60, 9)
        # Half of the ends lie where the layer is weakest at the start, an adversary's.
        weakest = torch.linalg.svd(outer @ inner).Vh[k - 1]
        other[::2] = x[::2] + 3 * gaussian(g, 30, 1) * weakest
        found = theory.curved_bridge(layer, x, other)
        wanted = (layer(other) - layer(x)).norm(dim=1)
        assert (found.residual < 1e-9 * (1 + wanted)).all()
        assert torch.allclose(layer(found.z), layer(other), rtol=0, atol=1e-8)
        walked = (found.z - x).norm(dim=1)
        assert (walked * least <= wanted * (1 + 1e-9)).all()
        assert (walked <= found.length * (1 + 1e-9)).all()
        assert (found.slope >= least * (1 - 1e-9)).all()


@law(
    Mistake(CURVED, "s[:, -1])", "s[:, 0])"),
    Mistake(CURVED, "inside(x), inside(x_prime)", "inside(x), 0.999 * inside(x_prime)"),
    Mistake(CURVED, "length += move.norm(dim=1)", "length += move.abs().sum(1)"),
)
def spheres_and_planes_attain_the_curved_bridge() -> None:
    for case in range(60):
        g = torch.Generator().manual_seed(case)
        scale = 10.0 ** integer(g, -3, 3)
        x, turn = gaussian(g, 40, 8), torch.linalg.qr(gaussian(g, 4, 4)).Q
        other = x.clone()
        other[:, :4] = (0.2 + 2 * torch.rand(40, 1, generator=g)) * (x[:, :4] @ turn)
        layer = spheres(scale)
        found = theory.curved_bridge(layer, x, other, steps=integer(g, 1, 9))
        wanted = (layer(other) - layer(x)).norm(dim=1)
        for z, start, length, slope, rise in zip(
            found.z, x, found.length, found.slope, wanted, strict=True
        ):
            equal(float((z - start).norm()) * scale, float(rise))
            equal(float(length) * scale, float(rise))
            equal(float(slope), scale)
    for w, g in many(300):
        s = torch.linalg.svdvals(w)
        if len(w) > w.shape[1] or s[-1] < 1e-6 * s[0]:
            continue
        x, other = gaussian(g, 2, 5, w.shape[1])
        found = theory.curved_bridge(lambda p: p @ w.T, x, other, steps=3)  # noqa: B023
        straight = theory.bridge_attack(w, x, other).e
        assert torch.allclose(found.z - x, straight, rtol=0, atol=1e-9)
