"""One layer: operator norms from compressibility."""

import torch
from law import Mistake, at_most, equal, law
from matrices import integer, many

from crlib import metrics, theory

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


@law(Mistake("crlib.theory.top_entry_bounds", "(head / k) ** (1", "(head / k) ** (2"))
def without_spread_the_bounds_meet() -> None:
    for n, q in enumerate(EXPONENTS):
        v = torch.cat([torch.full((3,), 2.0), torch.linspace(0, 1, n + 2)])
        low, value, high = theory.top_entry_bounds(v.double(), 3, q=q)
        equal(low, value)
        equal(value, high)
