"""Every pair of neighbouring layers counts, and the gauge that no norm sees."""

import itertools
import math

import torch
from torch import Tensor

from crlib import metrics, theory
from tests.theory.law import Mistake, at_most, equal, law
from tests.theory.laws_composition import layers, masks
from tests.theory.matrices import Generator, integer, many

PAIR = "crlib.theory.pairs._Pair"


def largest(weights: list[Tensor], order: float) -> float:
    """Return the largest norm of a product with masks between, by trying all."""
    jacobians = weights[0][None]
    for later in weights[1:]:
        opened = masks(later.shape[1])[None, :, :, None] * jacobians[:, None]
        jacobians = later @ opened.flatten(0, 1)
    return float(torch.linalg.matrix_norm(jacobians, ord=order).max())


def network(g: Generator, first: Tensor) -> list[Tensor]:
    sizes = [len(first), *(integer(g, 1, 4) for _ in range(integer(g, 0, 3)))]
    return layers(sizes, g, first)


def splits(g: Generator, weights: list[Tensor]) -> list[float]:
    return torch.rand(max(0, len(weights) - 2), generator=g).double().tolist()


@law(
    Mistake(PAIR, "(a * self.later.log_s)", "((1 - a) * self.later.log_s)"),
    Mistake("crlib.theory.pairs._searched", "[1.0, *t, 0.0]", "[0.5, *t, 0.5]"),
    Mistake(PAIR, "torch.arange(2**units)", "torch.arange(2**units - 1, 2**units)"),
)
def no_jacobian_exceeds_any_split() -> None:
    for n, (w, g) in enumerate(many(1200, largest=4, seed=6)):
        weights = network(g, w)
        if n % 4 == 3:  # Two layers out of step: a weak direction meets a strong one.
            weights = [
                torch.diag(torch.tensor(d)).double()
                for d in ((0.1, 1.0), (2.0, 1.0), (0.1, 1.0))
            ]
        truth = largest(weights, 2)
        found = theory.every_pair(weights, splits(g, weights))
        assert found.exact
        at_most(truth, found.bound, weights)
        at_most(found.bound, found.product, weights)
        if len(weights) == 2:
            equal(truth, found.bound, weights)


@law(
    Mistake("crlib.theory.pairs._searched", "row[i - 1] += slope_b", "pass"),
    Mistake("crlib.theory.pairs._searched", "[(0, 1)] * n", "[(0.4, 0.6)] * n"),
)
def no_split_beats_the_one_that_is_found() -> None:
    for w, g in many(160, largest=4, seed=7):
        weights = [*network(g, w)]
        weights += layers([len(weights[-1]), 3, 3], g)
        best = theory.every_pair(weights)
        assert math.log(best.slack) <= 1e-6
        inner = len(weights) - 2
        corners = itertools.product((0.0, 0.5, 1.0), repeat=inner)
        for t in itertools.chain(corners, [splits(g, weights) for _ in range(9)]):
            rival = theory.every_pair(weights, list(t)).bound
            assert best.bound <= rival * (1 + 2e-6), t
        # The published bound by whole pairs is one of the corners.
        aligned = theory.network_lipschitz(weights, 4).aligned
        assert best.bound <= aligned * (1 + 2e-6)


@law(Mistake(PAIR, "(a * self.later.log_s)", "(a**2 * self.later.log_s)"))
def the_bound_is_log_convex_in_the_split() -> None:
    for w, g in many(400, largest=5, seed=8):
        weights = layers([len(w), 4, 3, 2], g, w)
        one, other = splits(g, weights), splits(g, weights)
        share = float(torch.rand((), generator=g))
        between = [share * a + (1 - share) * b for a, b in zip(one, other, strict=True)]
        bounds = [theory.every_pair(weights, t).bound for t in (one, other, between)]
        if min(bounds) == 0:
            continue
        low, high, middle = map(math.log, bounds)
        assert middle <= share * low + (1 - share) * high + 1e-9


@law(
    Mistake(PAIR, "later.vh.abs() @ earlier.u.abs()", "(later.vh @ earlier.u).abs()"),
    Mistake(PAIR, "min(sizes[0], (sizes[1] + 1) / 2)", "min(sizes[0], sizes[1])"),
)
def wide_layers_are_bounded_without_masks() -> None:
    for w, g in many(60, largest=13, seed=9):
        wide = torch.cat([w, w.new_zeros(13 - len(w), w.shape[1])])
        wide = wide + 0.3 * torch.randn(wide.shape, generator=g).double()
        weights = [wide, *layers([13, 3, 2], g)]
        for found in (
            theory.every_pair(weights),
            theory.every_pair(weights, splits(g, weights)),
        ):
            assert not found.exact
            at_most(largest(weights, 2), found.bound, w)
            at_most(found.bound, found.product, w)
    # One direction a layer: nothing is lost for want of masks.
    g = torch.Generator().manual_seed(10)
    for _ in range(40):
        column, row = torch.randn(2, 13, generator=g).double()
        found = theory.every_pair([column[:, None], row[None]])
        products = column * row
        truth = max(float(products.relu().sum()), float((-products).relu().sum()))
        equal(found.bound, truth)


@law(Mistake("crlib.theory.path_norm", ".abs() @ reach", " @ reach"))
def the_path_norm_is_the_least_product_over_gauges() -> None:
    for w, g in many(1500, largest=5, seed=11):
        weights = network(g, w)
        path = theory.path_norm(weights)
        at_most(largest(weights, math.inf), path, w)
        sums, unit = torch.ones(w.shape[1], dtype=torch.float64), []
        chance = []
        for n, v in enumerate(weights):
            inner, sums = v.abs() * sums, v.abs() @ sums
            last = n == len(weights) - 1
            unit.append(inner if last else inner / sums.clamp_min(1e-300)[:, None])
            factors = torch.rand(len(v), generator=g).double() + 0.1
            before = chance[-1][1] if chance else 1.0
            chance.append((v / before * (1 if last else factors[:, None]), factors))
        equal(path, math.prod(metrics.operator_norm(v, norm="linf") for v in unit))
        rival = [v for v, _ in chance]
        at_most(path, math.prod(metrics.operator_norm(v, norm="linf") for v in rival))
        equal(path, theory.path_norm(rival))
