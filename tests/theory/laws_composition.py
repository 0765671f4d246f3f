"""Networks: alignment of layers, the best pairs, the logistic gap."""

import itertools
import math

import torch
from torch import Tensor

from crlib import metrics, theory
from tests.theory.law import Mistake, at_most, equal, law
from tests.theory.matrices import integer, many

ORDERS = {"l2": 2, "linf": math.inf}
NORMS = tuple(ORDERS)


def masks(h: int) -> Tensor:
    """Return every mask of h units, one a row."""
    rows = list(itertools.product((0.0, 1.0), repeat=h))
    return torch.tensor(rows, dtype=torch.float64)


def over_masks(w_next: Tensor, w: Tensor, norm: str) -> float:
    """Return the largest relative norm of ``w_next D w``, by trying all masks."""
    products = (w_next * masks(len(w))[:, None]) @ w
    largest = torch.linalg.matrix_norm(products, ord=ORDERS[norm]).max()
    size = metrics.operator_norm(w_next, norm=norm) * metrics.operator_norm(
        w, norm=norm
    )
    return float(largest) / size


def layers(
    sizes: list[int], g: torch.Generator, first: Tensor | None = None
) -> list[Tensor]:
    ws = [
        torch.randn(h, m, generator=g, dtype=torch.float64)
        for m, h in itertools.pairwise(sizes)
    ]
    return ws if first is None else [first, *ws]


@law(
    Mistake("crlib.theory.interlayer_alignment", "dominant + remainder)", "dominant)"),
    Mistake(
        "crlib.theory.interlayer_alignment",
        "(open_mask, dominant)",
        "(open_mask, dominant + remainder)",
    ),
    Mistake("crlib.theory.composition._ratio", "s[k] / s[0]", "(s[k] / s[0]) ** 2"),
)
def two_layers_do_together_what_their_alignment_says() -> None:
    for n, (w, g) in enumerate(many(largest=6)):
        w_next = torch.randn(integer(g, 1, 6), len(w), generator=g).double()
        norm, k = NORMS[n % 2], integer(g, 1, 6)
        found = theory.interlayer_alignment(w_next, w, k, norm=norm)
        truth = over_masks(w_next, w, norm)
        assert found.exact
        at_most(found.low, truth, w)
        at_most(truth, found.high, w)
        if found.remainder == 0:
            equal(found.low, found.high, w)


@law(
    Mistake(
        "crlib.theory.composition._largest_over_masks",
        "a.abs() @ b.abs() + open_mask.abs()",
        "a.abs() @ b.abs()",
    ),
    Mistake(
        "crlib.theory.composition._largest_over_masks", "by_signs / 2", "by_signs / 4"
    ),
)
def more_units_than_can_be_tried_are_bounded() -> None:
    for n, (w, g) in enumerate(many(60, largest=13, seed=1)):
        h = len(w)
        wide = torch.cat([w, w.new_zeros(13 - h, w.shape[1])])
        wide = wide + 0.3 * torch.randn(wide.shape, generator=g).double()
        w_next = torch.randn(3, 13, generator=g).double()
        if n % 2:  # Nothing negative: the mask that keeps all is the best one.
            wide, w_next = wide.abs(), w_next.abs()
        for norm in NORMS:
            found = theory.interlayer_alignment(w_next, wide, 13, norm=norm)
            truth = over_masks(w_next, wide, norm)
            assert not found.exact
            at_most(found.low, truth, w)
            at_most(truth, found.high, w)
            if n % 2 and norm == "linf":
                equal(truth, found.high, w)


@law(
    Mistake("crlib.theory.optimal_pairing", "best[i + 2]", "best[i + 1]"),
    Mistake("crlib.theory.optimal_pairing", "            i += 1\n", ""),
)
def no_other_set_of_pairs_weighs_more() -> None:
    g = torch.Generator().manual_seed(2)
    for _ in range(400):
        weights = torch.randn(integer(g, 0, 9), generator=g).double().tolist()
        chosen = theory.optimal_pairing(weights)
        sets = (
            [i for i, kept in enumerate(pattern) if kept]
            for pattern in itertools.product((False, True), repeat=len(weights))
        )
        best = max(
            sum(weights[i] for i in s)
            for s in sets
            if all(b - a > 1 for a, b in itertools.pairwise(s))
        )
        equal(sum(weights[i] for i in chosen), best, weights)
        assert all(b - a > 1 for a, b in itertools.pairwise(chosen))


@law(
    Mistake(
        "crlib.theory.network_lipschitz",
        "pairs = optimal_pairing(gains)",
        "pairs = tuple(range(len(gains)))",
    )
)
def no_jacobian_exceeds_the_aligned_product() -> None:
    for n, (w, g) in enumerate(many(400, largest=4, seed=3)):
        depth = integer(g, 0, 3)
        sizes = [len(w), *(integer(g, 1, 4) for _ in range(depth))]
        weights, norm = layers(sizes, g, w), NORMS[n % 2]
        if n % 4 > 1:  # Two strong directions and two weak ones, out of step.
            weights = [
                torch.diag(torch.tensor(d)).double()
                for d in ((0.0, 1.0), (2.0, 1.0), (0.0, 1.0))
            ]
        found = theory.network_lipschitz(weights, integer(g, 1, 4), norm=norm)
        jacobians = weights[0][None]
        for later in weights[1:]:
            opened = masks(later.shape[1])[None, :, :, None] * jacobians[:, None]
            jacobians = later @ opened.flatten(0, 1)
        truth = float(torch.linalg.matrix_norm(jacobians, ord=ORDERS[norm]).max())
        at_most(truth, found.aligned, weights)
        at_most(found.aligned, found.product, weights)


@law(
    Mistake("crlib.theory.logistic_gap_bounds", "(-m).sigmoid()", "m.sigmoid()"),
    Mistake(
        "crlib.theory.logistic_gap_bounds",
        "(reach - m).sigmoid()",
        "(-reach - m).sigmoid()",
    ),
    Mistake("crlib.theory.logistic_gap_bounds", "reach - m) - ", "reach / 2 - m) - "),
)
def the_logistic_gap_lies_between_its_bounds() -> None:
    for n, (w, g) in enumerate(many(seed=4)):
        x = torch.randn(6, w.shape[1], generator=g).double()
        y = torch.randint(0, 2, (6,), generator=g).double() * 2 - 1
        c = w.T @ torch.randn(len(w), generator=g).double()
        eps = float(torch.rand((), generator=g)) * (1, 10)[n % 2]
        norm, dual = (("l2", 2), ("linf", 1))[n % 2]
        size = torch.linalg.vector_norm(c, ord=dual)
        reach = eps * float(size)
        m = y * (x @ c)
        low, value, high = theory.logistic_gap_bounds(m, reach)
        # The attack itself, and not the formula: -y times the direction that attains
        # the dual norm.
        u = c.sign() if norm == "linf" else c / size.clamp_min(1e-300)
        attacked = y * ((x - eps * y[:, None] * u) @ c)
        loss = [torch.zeros(6).double().logaddexp(-v).mean() for v in (attacked, m)]
        gap = float(loss[0] - loss[1])
        assert abs(gap - value) <= 1e-9 * (1 + float(m.abs().max()) + reach), w
        at_most(low, value, w)
        at_most(value, high, w)
        at_most(high, reach, w)
    # Equality: as the reach shrinks, both sides; where the loss is a line, the reach.
    m = torch.randn(20, generator=torch.Generator().manual_seed(5)).double()
    low, value, high = theory.logistic_gap_bounds(m, 1e-4)
    assert max(value / low, high / value) < 1 + 1e-4
    for side in theory.logistic_gap_bounds(m - 60, 2.0):
        equal(side, 2.0)


SLOPE = "crlib.theory.gap_slope"


@law(
    Mistake(SLOPE, "(-margins.detach().double())", "margins.detach().double()"),
    Mistake(SLOPE, "(1 - missed**2) / k", "1 - missed**2"),
    Mistake(SLOPE, "(q @ u[:, 0])", "(q @ u.sum(1))"),
)
def a_gap_opens_with_its_slope_and_above_its_floors() -> None:
    for n, (w, g) in enumerate(many(1500, seed=12)):
        h, m = w.shape
        x = torch.randn(6, m, generator=g).double()
        outer = torch.randn(4, h, generator=g).double()
        c = torch.randn(4, generator=g).double()
        if n % 3 == 0:  # One direction: the gradients meet nothing else.
            w = torch.outer(*(torch.randn(s, generator=g).double() for s in (h, m)))

        def margin(z: Tensor) -> Tensor:
            return (z @ outer.T).tanh() @ c + 0.1  # noqa: B023

        inside = (x @ w.T).requires_grad_()
        (q,) = torch.autograd.grad(margin(inside).sum(), inside)
        a, k = margin(inside.detach()), integer(g, 1, min(h, m))
        found = theory.gap_slope(a, q, w, k)
        at_most(found.aligned, found.value, w)
        at_most(found.floor, found.aligned, w)
        if n % 3 == 0:
            equal(found.aligned, found.value, w)
            equal(theory.gap_slope(a, q, w, 1).floor, found.value, w)
        # By a short step against the gradient, which tends to the largest fall.
        way = q @ w
        size = way.norm(dim=1, keepdim=True).clamp_min(1e-300)
        eps = 1e-6 / float(torch.linalg.matrix_norm(w) * outer.norm() + 1)
        worst = margin((x - eps * way / size) @ w.T)
        rise = torch.log1p((-a).sigmoid() * torch.expm1(a - worst))
        slope = float(rise.mean()) / eps
        assert abs(slope - found.value) <= 1e-4 * found.value + 1e-7 / eps * 1e-9
        # At any distance the loss lies above its tangent.
        fall = a - margin((x - 3 * way / size) @ w.T)
        gap = torch.log1p((-a).sigmoid() * torch.expm1(fall))
        assert (gap >= (-a).sigmoid() * fall - 1e-12).all()


DRIFT = "crlib.theory.margin_drift"


@law(
    Mistake(DRIFT, "before * operator_norm(w)", "before"),
    Mistake(DRIFT, "math.sqrt(2) * drift", "drift"),
    Mistake(DRIFT, ".norm(dim=1) + far)", ".norm(dim=1))"),
)
def a_compression_moves_margins_and_distances_by_no_more_than_the_drift() -> None:
    for n, (w, g) in enumerate(many(1200, largest=6, seed=13)):
        full = layers([len(w), 4, 3], g, w)
        cut = [v - 0.1 * torch.randn(v.shape, generator=g).double() for v in full]
        x, reach = torch.randn(5, w.shape[1], generator=g).double(), 0.7
        if n % 3 == 0:  # One layer, and an error along one direction: equality.
            u = x[0] / x[0].norm()
            full = [torch.randn(2, w.shape[1], generator=g).double()]
            cut = [full[0] - torch.outer(torch.tensor([0.3, -0.3]).double(), u)]
        tau = theory.margin_drift(full, cut, x, reach)
        steps = torch.randn(20, *x.shape, generator=g).double()
        steps[0] = x  # where the first layer's error is, an adversary's
        steps = reach * steps / steps.norm(dim=2, keepdim=True)

        def answers(ws: list[Tensor], z: Tensor) -> Tensor:
            for v in ws[:-1]:
                z = (z @ v.T).relu()
            return z @ ws[-1].T

        y = answers(full, x).argmax(1)
        moved = torch.stack(
            [
                (
                    metrics.margin(answers(full, z), y)
                    - metrics.margin(answers(cut, z), y)
                )
                for z in (x + step for step in steps)
            ]
        ).abs()
        assert (moved <= tau * (1 + 1e-9) + 1e-12).all()
        if n % 3 == 0:
            equal(float(moved[0, 0]), float(tau[0]), w)
            # Distances of a linear network, to levels and to the other label.
            c, d = full[0][0] - full[0][1], cut[0][0] - cut[0][1]
            sign = torch.where(y == 0, 1.0, -1.0)
            m, new = sign * (x @ c), sign * (x @ d)
            low, high = (m - tau) / c.norm(), (m + tau) / c.norm()
            there = new.clamp_min(0) / d.norm()
            assert (low.clamp(0, reach) <= there.clamp_max(reach) + 1e-9).all()
            assert (there.clamp_max(reach) <= high.clamp_max(reach) + 1e-9).all()
