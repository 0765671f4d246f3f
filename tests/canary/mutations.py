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
    # The norm of the attack for its dual.
    Mutation("thm-dual", "setup", '"linf": 1, "l2": 2', '"linf": math.inf, "l2": 2'),
    # The water-filling rules of l2 and linf exchanged.
    Mutation(
        "thm-box",
        "crlib.theory._halfspace",
        'size if norm == "l2" else size.sign()',
        'size.sign() if norm == "l2" else size',
    ),
    # The room towards the wrong wall.
    Mutation(
        "thm-box",
        "crlib.theory._halfspace",
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
]
