"""One layer: operator norms from compressibility."""

import math

import torch

from crlib import metrics, theory
from tests.theory.law import Mistake, at_most, equal, law
from tests.theory.matrices import integer, many

EXPONENTS = (0.5, 1.0, 1.5, 2.0, 3.0)


@law(
    Mistake("crlib.theory.top_entry_bounds", "(1 - beta)", "(1 - beta / 2)"),
    Mistake("crlib.theory.top_entry_bounds", "(head / k)", "(head * 1.01 / k)"),
)
def the_top_entry_lies_between_its_bounds() -> None:
    for n, (w, g) in enumerate(many()):
        s = metrics.singular_values(w)
        # Rounding noise for a zero is no small number to a root of it (q < 1).
        s[s < 1e-12 * s[0]] = 0
        q = EXPONENTS[n % len(EXPONENTS)]
        low, value, high = theory.top_entry_bounds(s, integer(g, 1, len(s)), q=q)
        at_most(low, value, w)
        at_most(value, high, w)


@law(Mistake("crlib.theory.top_entry_bounds", "(head / k)", "(head / (k + 1))"))
def without_spread_the_bounds_meet() -> None:
    for n, q in enumerate(EXPONENTS):
        v = torch.cat([torch.full((3,), 2.0), torch.linspace(0, 1, n + 2)])
        low, value, high = theory.top_entry_bounds(v.double(), 3, q=q)
        equal(low, value)
        equal(value, high)


@law(
    Mistake(
        "crlib.theory.structure_times_scale", "math.sqrt(min(h, m))", "math.sqrt(k)"
    ),
    Mistake("crlib.theory.structure_times_scale", "(1 - eps) *", "(1 - eps) ** 2 *"),
    Mistake("crlib.theory.structure_times_scale", "/ k /", "/ (k + 1) /"),
    Mistake("crlib.theory.structure_times_scale", "h * k_row", "k * k_row"),
)
def structure_times_scale_bounds_both_norms() -> None:
    for w, g in many():
        h, m = w.shape
        k = integer(g, 1, min(h, m))
        l2 = theory.structure_times_scale(w, k, norm="l2")
        at_most(l2.value, l2.bound, w)
        at_most(l2.value, l2.trivial, w)
        k, k_row = integer(g, 1, h), integer(g, 1, m)
        linf = theory.structure_times_scale(w, k, norm="linf", k_row=k_row)
        at_most(linf.value, linf.bound, w)
        at_most(linf.value, linf.trivial, w)


@law(
    Mistake("crlib.theory.structure_times_scale", "/ k /", "/ k ** 0.5 /"),
    Mistake("crlib.theory.structure_times_scale", "v, k, q=1", "v, k, q=2"),
    Mistake("crlib.theory.structure_times_scale", "h * m", "h * h"),
    Mistake("crlib.theory.structure_times_scale", "/ (1 - beta)", "/ (1 - beta) + 0.1"),
)
def structure_times_scale_is_exact_for_flat_matrices() -> None:
    for n in range(200):
        g = torch.Generator().manual_seed(n)
        h, m = integer(g, 1, 9), integer(g, 1, 9)
        u, _, vh = torch.linalg.svd(torch.randn(h, m, generator=g, dtype=torch.double))
        flat = u[:, : min(h, m)] @ vh[: min(h, m)]
        found = theory.structure_times_scale(flat, integer(g, 1, min(h, m)), norm="l2")
        equal(found.value, found.bound)
        signs = torch.randn(h, m, generator=g, dtype=torch.double).sign()
        found = theory.structure_times_scale(signs, integer(g, 1, h), norm="linf")
        equal(found.value, found.bound)
        # k_r = m / 2 and an error of one half: the row factor is no longer exact.
        if m % 2 == 0:
            found = theory.structure_times_scale(signs, h, norm="linf", k_row=m // 2)
            equal(found.bound, found.value * (0.5**0.5 + 0.5))


@law(
    Mistake("crlib.theory.layers._longest", "(0, last)", "(0, last / 2)"),
    Mistake("crlib.theory.layers._sharp", "** (2 / q)", "** (1 / q)"),
    Mistake("crlib.theory.layers._sharp", "(1 - 2 / q)", "(2 / q - 1)"),
    Mistake("crlib.theory.layers._sharp", "eps**q / (1 - eps**q)", "eps / (1 - eps)"),
)
def the_sharp_interval_holds_the_spectral_norm() -> None:
    for n, (w, g) in enumerate(many()):
        q = (0.5, 1.0, 1.5, 2.0)[n % 4]
        k = integer(g, 1, min(w.shape))
        low, value, high = theory.sharp_spectral_bounds(w, k, q=q)
        at_most(low, value, w)
        at_most(value, high, w)
        s = metrics.singular_values(w)
        s[s < 1e-12 * s[0]] = 0
        floor = theory.spectral_floor(k, eps=metrics.best_k_error(s, k, q=q), q=q)
        at_most(floor * float(s.norm()), low, w)
        if q == 2:
            old = theory.spectral_norm_bounds(w, k)
            at_most(old.low, low, w)
            equal(old.high, high, w)


SHARP, LONGEST = "crlib.theory.layers._sharp", "crlib.theory.layers._longest"


@law(
    Mistake(SHARP, "(1 - 2 / q)", "-1"),
    Mistake(SHARP, "(1 + (k - 1) * last)", "k"),
    Mistake(LONGEST, "min(k - 1 + last, room)", "k - 1 + last"),
    Mistake(LONGEST, "- (1 - last) * steps", "- steps"),
    Mistake(LONGEST, "odds * head", "odds * least"),
)
def the_ends_of_the_sharp_interval_are_attained() -> None:
    for n in range(2000):
        g = torch.Generator().manual_seed(n)
        k, more, q = integer(g, 1, 6), integer(g, 1, 6), (0.5, 1.0, 1.5, 2.0)[n % 4]
        shares = torch.rand(3, generator=g).double().tolist()
        b = 1.0 if k == 1 else 0.1 + 0.9 * shares[0]
        weak, between = b * shares[1], b + (1 - b) * shares[2]
        ones = integer(g, 1, max(k - 2, 1))
        full_head = [1.0] * (k - 1) + [b]
        # A head that is not full goes with a tail that is.
        part_head = [1.0] * ones + [between] + [b] * (k - 1 - ones)
        ends = {
            "low": full_head + [b] * (more - 1) + [weak] + [0.0] * (n % 3),
            "low too": (part_head if k > 2 else full_head) + [b] * more,
            "high": [1.0] + [b] * (k - 1) + [weak] * more,
        }
        for name, values in ends.items():
            v = torch.tensor(values, dtype=torch.double)
            low, high = theory.sharp_spectral_interval(
                k,
                d=len(v),
                eps=metrics.best_k_error(v, k, q=q),
                beta=metrics.spread(v, k),
                q=q,
            )
            equal(1 / float(v.norm()), high if name == "high" else low, (name, v))


@law(Mistake("crlib.theory.spectral_floor", "1 - eps**q", "1 - eps"))
def the_spectral_floor_is_met_by_equal_values() -> None:
    for k in range(1, 8):
        for more in range(8):
            for q in (0.5, 1.0, 1.5, 2.0):
                v = torch.ones(k + more, dtype=torch.double)
                eps = metrics.best_k_error(v, k, q=q)
                equal(theory.spectral_floor(k, eps=eps, q=q), float(1 / v.norm()))


@law(
    Mistake("crlib.theory.flatness_bounds", "(1 - eps) ** 2 /", "(1 - eps) /"),
    Mistake("crlib.theory.flatness_bounds", "eps**2 /", "eps /"),
)
def compressible_rows_are_not_flat() -> None:
    for w, g in many():
        h, m = w.shape
        k = integer(g, 1, m)
        low, value, high = theory.flatness_bounds(w, k)
        at_most(low, value, w)
        at_most(value, high, w)
        eps = max(metrics.best_k_error(row, k, q=1) for row in w)
        for looser in (m**0.5, k**0.5 + eps * m**0.5, k**0.5 / max(1 - eps, 1e-12)):
            at_most(high, looser, w)
        # The flattest row of its error: one level in the head, one in the tail.
        levels = [(1 - eps) / k] * k + [eps / max(m - k, 1)] * (m - k)
        row = torch.tensor([levels], dtype=torch.double)
        _, value, top = theory.flatness_bounds(row, k)
        equal(value, high)
        equal(top, high)


@law(
    Mistake("crlib.theory.neuron_implies_spectral", "singular_values(w),", "w[0],"),
    Mistake("crlib.theory.neuron_implies_spectral", "row_norms(w.double())", "w[:, 0]"),
)
def strong_neurons_imply_strong_directions() -> None:
    for w, g in many():
        k = integer(g, 1, min(w.shape))
        spectrum, rows = theory.neuron_implies_spectral(w, k)
        # An error near zero is the root of a rounding error.
        assert spectrum <= rows + 1e-7, w
        floor = theory.spectral_floor(k, eps=rows)
        at_most(floor * float(w.norm()), metrics.operator_norm(w), w)
    # With orthogonal rows the row norms are the singular values.
    w = torch.diag(torch.tensor([3.0, 2, 1, 1])).double()
    equal(*theory.neuron_implies_spectral(w, 2))


SYMBOL, PHASES = "crlib.metrics._largest_symbol", "crlib.metrics._phases"


def dense(layer: torch.nn.Conv2d, channels: int, size: int) -> torch.Tensor:
    """Return a convolution as a matrix, from what it makes of each pixel."""
    pixels = torch.eye(channels * size**2).double().view(-1, channels, size, size)
    return layer(pixels).flatten(1).detach().T


@law(
    Mistake(SYMBOL, "(symbol, ord=2).max()", "(symbol, ord=2).mean()"),
    Mistake("crlib.metrics.symbol_norm", "squares + taps - 1", "taps"),
    Mistake(SYMBOL, "(groups, -1)", "(1, -1)"),
    Mistake(PHASES, "permute(0, 1, 3, 5, 2, 4)", "permute(0, 1, 2, 4, 3, 5)"),
)
def no_convolution_stretches_more_than_its_symbol() -> None:
    for case in range(400):
        g = torch.Generator().manual_seed(case)
        k, size, padding, d, stride = (
            integer(g, *ends) for ends in ((1, 4), (1, 6), (0, 3), (1, 2), (1, 3))
        )
        groups, channels = ((1, 1), (1, 2), (2, 4))[case % 3]
        size = max(size, (k - 1) * d + 1 - 2 * padding)
        options = {"padding": padding, "dilation": d, "groups": groups}
        layer = torch.nn.Conv2d(channels, 2, k, stride, bias=False, **options).double()
        kernel = torch.randn(layer.weight.shape, generator=g).double()
        layer.weight.data = kernel.abs() if case % 5 == 0 else kernel
        truth = float(torch.linalg.matrix_norm(dense(layer, channels, size), ord=2))
        bound = metrics.symbol_norm(layer, (channels, size, size))
        at_most(truth, bound, case)
        if k == 1 and padding == 0:  # One matrix at every pixel that is read.
            equal(truth, bound, case)
        if k <= stride and d == 1 and padding == 0:  # Patches that do not overlap.
            equal(truth, bound, case)
    # A kernel of ones on a large picture reaches its symbol in the limit.
    blur = torch.nn.Conv2d(1, 1, 3, padding=1, bias=False).double()
    blur.weight.data = torch.ones_like(blur.weight)
    equal(metrics.symbol_norm(blur, (1, 40, 40)), 9.0)
    known = (1 + 2 * math.cos(math.pi / 41)) ** 2
    assert 9.0 / known < 1.01


@law(
    Mistake(PHASES, "permute(0, 1, 3, 5, 2, 4)", "permute(0, 1, 2, 4, 3, 5)"),
    Mistake(SYMBOL, "(symbol, ord=2).max()", "(symbol, ord=2)[0, 0].max()"),
)
def on_a_picture_that_wraps_around_the_symbol_is_the_norm() -> None:
    for case in range(200):
        g = torch.Generator().manual_seed(case)
        stride, squares = integer(g, 1, 3), integer(g, 2, 4)
        padding = integer(g, 0, 2)
        # As many outputs as squares.
        k = integer(g, 2 * padding + 1, 2 * padding + stride)
        size = stride * squares
        if k > size or padding >= size:
            continue
        layer = torch.nn.Conv2d(
            2, 3, k, stride, padding, bias=False, padding_mode="circular"
        ).double()
        layer.weight.data = torch.randn(layer.weight.shape, generator=g).double()
        truth = float(torch.linalg.matrix_norm(dense(layer, 2, size), ord=2))
        kernel, _ = metrics._phases(layer)
        equal(float(kernel.norm()), float(layer.weight.detach().norm()), case)
        energy = torch.fft.fft2(kernel, s=[squares] * 2).abs().square().sum((0, 1))
        equal(float(energy.mean()), float(kernel.square().sum()), case)
        equal(metrics._largest_symbol(kernel, [squares] * 2, 1), truth, case)
