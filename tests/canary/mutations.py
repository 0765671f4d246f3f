"""For each theorem a fault that its check must notice.

A mutation replaces ``find`` (which must occur exactly once) in the place ``where``:

- ``"setup"``: the chapter's cells tagged setup, joined by blank lines;
- ``"check"``: the cells tagged check-<label>, joined the same way;
- ``"crlib.theory.some_function"``: the source of a function of crlib, called as
  ``theory.some_function`` or imported by a setup or check cell.

A good mutation is a mistake one could make: a dual norm made primal, a square root
dropped, a constant halved. The check must then fail an assertion or a claim; a name
error would say nothing about the theorem.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutation:
    label: str
    where: str
    find: str
    replace: str


MUTATIONS: list[Mutation] = [
    # Outputs counted in place of inputs.
    Mutation("prop-average-worst", "setup", "w.shape[1] *", "w.shape[0] *"),
    # The largest singular value without its square.
    Mutation("prop-average-worst", "setup", "sigma[0] ** 2 /", "sigma[0] /"),
    # Left singular vectors in place of right ones.
    Mutation("prop-row-space", "setup", ".Vh[:k].T", ".U[:, :k]"),
    # The norm in place of the energy.
    Mutation("cor-random-share", "check", "(k / m)", "(k / m) ** 0.5"),
    # The root dropped.
    Mutation("prop-truncation", "check", "math.sqrt(1 - error**2)", "(1 - error**2)"),
    # The smallest singular values kept.
    Mutation("prop-truncation", "setup", "* sigma[:k] @", "* sigma[-k:] @"),
    # The norm of the attack for its dual.
    Mutation("thm-dual", "setup", '"linf": 1, "l2": 2', '"linf": math.inf, "l2": 2'),
    # The water-filling rules of l2 and linf exchanged.
    Mutation(
        "thm-box",
        "crlib.theory.linear._halfspace",
        'size if norm == "l2" else size.sign()',
        'size.sign() if norm == "l2" else size',
    ),
    # The room towards the wrong wall.
    Mutation(
        "thm-box",
        "crlib.theory.linear._halfspace",
        "torch.where(c > 0, 1 - x, x)",
        "torch.where(c > 0, x, 1 - x)",
    ),
    # The normal of the rival alone, not of the difference.
    Mutation(
        "prop-rivals",
        "crlib.theory.linear_minimal",
        "c = weight[rival] - weight[y]",
        "c = weight[rival] + 0 * weight[y]",
    ),
    # The budget times the size of the perturbation, the dual norm forgotten.
    Mutation("thm-loss", "setup", "m - eps * dual_norm(w, norm)", "m - eps"),
    # A step of half the length.
    Mutation("cor-fgsm", "crlib.attacks.fgsm", "step_size=eps,", "step_size=eps / 2,"),
    # The root dropped.
    Mutation(
        "prop-noise",
        "setup",
        "math.exp(-d / (2 * s**2))",
        "math.exp(-d / s**2)",
    ),
    # Squares where the flatness has a norm.
    Mutation(
        "prop-flat",
        "setup",
        "w.abs().sum(-1) / torch.linalg.vector_norm(w, dim=-1)",
        "w.abs().sum(-1) / torch.linalg.vector_norm(w, dim=-1) ** 2",
    ),
    # The strongest direction left out of the row space.
    Mutation("prop-lowrank", "setup", "return vh[:k].T", "return vh[1 : k + 1].T"),
    # The smallest entries kept.
    Mutation(
        "prop-best-k",
        "setup",
        "v.abs().sort(descending=True).values ** q",
        "v.abs().sort(descending=False).values ** q",
    ),
    # The error for the share of the tail.
    Mutation(
        "prop-exponent",
        "check",
        "metrics.best_k_error(v, 3, q=q) ** q for",
        "metrics.best_k_error(v, 3, q=q) for",
    ),
    # The head shared among one instead of k.
    Mutation(
        "lem-sandwich",
        "crlib.theory.top_entry_bounds",
        "low=(head / k) ** (1 / q) * size",
        "low=head ** (1 / q) * size",
    ),
    # The spread for its complement.
    Mutation(
        "lem-sandwich",
        "crlib.theory.top_entry_bounds",
        "(k - 1) * (1 - beta) ** q",
        "(k - 1) * beta**q",
    ),
    # Row norms for singular values.
    Mutation(
        "prop-spectral",
        "crlib.theory.spectral_norm_bounds",
        "top_entry_bounds(singular_values(w), k)",
        "top_entry_bounds(row_norms(w), k)",
    ),
    # The least flat row for the flattest.
    Mutation(
        "prop-neuron",
        "crlib.theory.row_norm_bounds",
        "flatness.max()",
        "flatness.min()",
    ),
    # Roots of the singular values.
    Mutation("thm-eckart-young", "setup", "s[:k]) @", "s[:k].sqrt()) @"),
    # Squared row norms.
    Mutation(
        "prop-rows-spectrum",
        "check",
        "rho, sigma = metrics.row_norms(w), ",
        "rho, sigma = metrics.row_norms(w) ** 2, ",
    ),
    # The root dropped.
    Mutation("prop-renormalise", "check", "(1 - eps**2) ** -0.5", "(1 - eps**2) ** -1"),
    # What goes into the neuron scaled, what goes out not.
    Mutation("prop-gauge", "check", "(v / c.T) @", "v @"),
    # All attacks must succeed, in place of one.
    Mutation("prop-upper", "setup", "~successes.any(0)", "~successes.all(0)"),
    # Normalised by the wrong norm.
    Mutation(
        "prop-steepest", "setup", "return g / g.norm()", "return g / g.abs().sum()"
    ),
    # The walls of the box forgotten.
    Mutation("prop-project", "setup", "return less.minimum(room)", "return less"),
    # The scale left out of the probabilities.
    Mutation("prop-scale", "setup", "torch.softmax(a * z, 0)", "torch.softmax(z, 0)"),
    # The gradient itself in place of its sign.
    Mutation("prop-each-rival", "setup", "(x + eps * c.sign())", "(x + eps * c)"),
    # A sample that falls at the budget left standing.
    Mutation(
        "prop-curve",
        "setup",
        "distance[None] > budgets[:, None]",
        "distance[None] >= budgets[:, None]",
    ),
]
