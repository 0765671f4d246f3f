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
        "crlib.theory.linear.halfspace_step",
        'size if norm == "l2" else sign.abs()',
        'sign.abs() if norm == "l2" else size',
    ),
    # The room towards the wrong wall.
    Mutation(
        "thm-box",
        "crlib.theory.linear.halfspace_step",
        "room_towards(x, c)",
        "room_towards(x, -c)",
    ),
    # The normal of the rival alone, not of the difference.
    Mutation(
        "prop-rivals",
        "crlib.theory.linear_minimal",
        "weight[rival] - weight[y]",
        "weight[rival] + 0 * weight[y]",
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
    # Two logits move, and only one is counted.
    Mutation("thm-lipschitz", "setup", '"linf": 2.0', '"linf": 1.0'),
    # The root squared.
    Mutation("thm-lipschitz", "setup", '"l2": math.sqrt(2)', '"l2": 2.0'),
    # One layer for all.
    Mutation("prop-product", "setup", "math.prod(metrics", "max(metrics"),
    # What goes into the neuron scaled, what goes out not.
    Mutation("prop-product", "setup", "second[:, i] /= c", "second[:, i] /= 1"),
    # The weights with their signs.
    Mutation("thm-interval", "setup", "half @ w.abs().T", "half @ w.T"),
    # The last layer's half-widths halved.
    Mutation("thm-interval", "setup", "c.abs() * half).sum", "c.abs() * half / 2).sum"),
    # The chord through zero.
    Mutation("prop-triangle", "setup", "(rise - fall).clamp", "(rise + fall).clamp"),
    # The intercept of the chord forgotten.
    Mutation("prop-triangle", "setup", "- (down * fall[:, None]).sum(2)", ""),
    # The switch does not open the upper side.
    Mutation("prop-bigm", "setup", "-np.inf, b + big)", "-np.inf, b)"),
    # The logits' offset with the wrong sign.
    Mutation("prop-bigm", "setup", "-np.inf, -e)", "-np.inf, e)"),
    # The noise level forgotten.
    Mutation("thm-smooth", "setup", "sigma * stats.norm.ppf(p)", "stats.norm.ppf(p)"),
    # The probability for its quantile.
    Mutation("prop-smooth-linear", "setup", "stats.norm.ppf(p)", "stats.norm.cdf(p)"),
    # The counted share for its lower bound.
    Mutation(
        "prop-smooth-linear",
        "crlib.certify.smooth_certify",
        "stats.beta.ppf(alpha, hits, n - hits + 1)",
        "hits / n",
    ),
    # The number of dominant directions for the number of all.
    Mutation(
        "thm-structure",
        "crlib.theory.structure_times_scale",
        "math.sqrt(min(h, m))",
        "math.sqrt(k)",
    ),
    # The error at q = 2.
    Mutation(
        "prop-exact-when-flat",
        "crlib.theory.structure_times_scale",
        "best_k_error(v, k, q=1)",
        "best_k_error(v, k, q=2)",
    ),
    # The trivial bound of linf without the root of m.
    Mutation(
        "prop-vacuous",
        "crlib.theory.structure_times_scale",
        "trivial = math.sqrt(m)",
        "trivial = 1.0",
    ),
    # A tail as heavy as its largest value allows, where the least is meant.
    Mutation("thm-sharp", "crlib.theory.layers._sharp", "(1 - 2 / q)", "0"),
    # The head without its last value.
    Mutation("thm-sharp", "crlib.theory.layers._sharp", "k - 1 + last**2 +", "k - 1 +"),
    # The error in place of its power.
    Mutation("cor-floor", "crlib.theory.spectral_floor", "1 - eps**q", "1 - eps"),
    # The mean of all values for that of the head.
    Mutation("prop-slack", "setup", "(s[:k] / s[k - 1])", "(s / s[k - 1])"),
    # A root dropped.
    Mutation(
        "prop-within", "crlib.theory.flatness_bounds", "(1 - eps) ** 2 /", "(1 - eps) /"
    ),
    # No masks: the layers multiplied as if there were no ReLU.
    Mutation(
        "lem-masks",
        "setup",
        "product((0.0, 1.0), repeat=h)",
        "product((1.0,), repeat=h)",
    ),
    # The remainders multiplied.
    Mutation(
        "thm-alignment",
        "crlib.theory.interlayer_alignment",
        "_ratio(later.S, k) + _ratio(",
        "_ratio(later.S, k) * _ratio(",
    ),
    # The mean of the two parts in place of the larger one.
    Mutation(
        "prop-masks", "setup", "torch.maximum(plus, minus)", "((plus + minus) / 2)"
    ),
    # A layer used in two pairs.
    Mutation("thm-pairs", "crlib.theory.optimal_pairing", "best[i + 2]", "best[i + 1]"),
    # The probability of being right for that of being wrong.
    Mutation(
        "thm-gap", "crlib.theory.logistic_gap_bounds", "(-m).sigmoid()", "m.sigmoid()"
    ),
    # Half the reach.
    Mutation(
        "cor-gap",
        "crlib.theory.logistic_gap_bounds",
        "zero.logaddexp(reach - m)",
        "zero.logaddexp(reach / 2 - m)",
    ),
    # Factors added.
    Mutation("prop-rescale", "check", "math.prod(factors)", "sum(factors)"),
    Mutation(
        "prop-gain-ratio", "crlib.theory.gain_ratio", "w.shape[1] /", "w.shape[0] /"
    ),
    # The fourth moment of a Gaussian for that of a coordinate on the sphere.
    Mutation("thm-random-head", "setup", "(h**2 * (h + 2))", "h**3"),
    # The factor two forgotten.
    Mutation("thm-random-head", "setup", "float(2 * excess", "float(excess"),
    # Both sides of the boundary counted.
    Mutation("prop-score", "check", "(40 - 1) / 2) / 2", "(40 - 1) / 2)"),
    # A mask of signs in place of zeros and ones.
    Mutation("prop-never", "check", "< 0.5).double()", "< 0.5).double() * 2"),
    # The gain in the flat direction, which is only a lower bound of the norm.
    Mutation(
        "thm-mask",
        "crlib.theory.mask_amplification",
        "value=(root + math.sqrt(n + 8)) / 4",
        "value=(root + 1 / root) / 2",
    ),
    # A block of Sylvester's construction without its minus sign.
    Mutation("thm-mask", "setup", "torch.cat([h, -h], 1)", "torch.cat([h, h], 1)"),
    # The complement of the projector.
    Mutation(
        "prop-off-data",
        "check",
        "inner = w @ basis @ basis.T",
        "inner = w - w @ basis @ basis.T",
    ),
    # The budget taken off after the scaling by the noise.
    Mutation(
        "thm-rank-one",
        "crlib.theory.rank_one_optimal",
        "return RankOne(sigma * torch.outer(u, mean / distance), u, distance, noise)",
        "return RankOne(sigma * torch.outer(u, mean), u, distance / noise, 1.0)",
    ),
    # The alignment in place of its inverse.
    Mutation(
        "thm-premises",
        "crlib.theory.radius_premises",
        "math.sqrt(signal / worst) / alignment",
        "math.sqrt(signal / worst) * alignment",
    ),
    # The sine in place of the cosine.
    Mutation(
        "prop-sum",
        "check",
        "r.sum(), (x2 - x1).norm() * cos",
        "r.sum(), (x2 - x1).norm() * (1 - cos**2).sqrt()",
    ),
    # The rival's logit at its own point.
    Mutation(
        "prop-linear",
        "setup",
        "logits.diagonal()[:, None] - logits.T",
        "logits.diagonal()[:, None] - logits.diagonal()",
    ),
    # The whole distance for half of it.
    Mutation("prop-linear", "crlib.theory.features._radii", ") / 2", ")"),
    # The entry above the diagonal forgotten.
    Mutation(
        "thm-one-hot",
        "crlib.theory.one_hot_attack",
        "r[-2, -2] - r[-2, -1]",
        "r[-2, -2]",
    ),
    # One degree of freedom too few.
    Mutation("thm-law", "check", "stats.chi2(d - n + 1)", "stats.chi2(d - n + 2)"),
    # The triangular factor not inverted.
    Mutation(
        "thm-law",
        "crlib.theory.interpolation_radii",
        "solve_triangular(r, q.T, upper=True)",
        "matmul(r, q.T)",
    ),
    # All features for the narrow ones.
    Mutation(
        "prop-bottleneck",
        "crlib.theory.bottleneck_radii",
        "len(x), m, gen",
        "len(x), len(x), gen",
    ),
    # Factors peeled without the basis of the one before.
    Mutation(
        "thm-depth", "crlib.theory.product_factor", "_factors(g @ q)", "_factors(g)"
    ),
    # The depth in the exponent forgotten.
    Mutation("thm-depth", "check", "-t / 2 * (float", "-1 / 2 * (float"),
    # The hull of a cube of twice the side.
    Mutation(
        "prop-cube",
        "crlib.theory.sign_cube_radii",
        "bounds=(-1, 1)",
        "bounds=(-0.5, 0.5)",
    ),
    # The length of the way for the integral of the cosine.
    Mutation(
        "prop-path", "crlib.theory.path_identity", "(cosine * counted)", "counted"
    ),
    # The last direction of the row space forgotten.
    Mutation(
        "thm-bridge",
        "crlib.theory.bridge._directions",
        "vh[:kept].T",
        "vh[: kept - 1].T",
    ),
    # The square dropped.
    Mutation(
        "prop-bridge-random",
        "check",
        "stats.kstest((chi**2).numpy()",
        "stats.kstest(chi.numpy()",
    ),
    # The second singular value left out, not the first.
    Mutation(
        "thm-bridge-tail",
        "crlib.theory.bridge._directions",
        "float(s[kept]) if",
        "float(s[kept + 1]) if",
    ),
    # The error without its square.
    Mutation("prop-price-error", "check", "error, eps**2", "error, eps"),
    # The same probe twice.
    Mutation(
        "cor-bridge-probes",
        "crlib.theory.two_probe_radius",
        "[probe_i, probe_j]",
        "[probe_i, probe_i]",
    ),
    # One gradient in place of two.
    Mutation(
        "prop-bridge-local",
        "check",
        "bridge_attack(slopes, u, target)",
        "bridge_attack(slopes[:1], u, target)",
    ),
    # One degree of freedom too many.
    Mutation("prop-bridge-bottleneck", "check", "k - n + 1", "k - n + 2"),
    # Divided by the norm twice.
    Mutation(
        "prop-bridge-aligned",
        "check",
        "(cloud @ mu).abs() / mu.norm())",
        "(cloud @ mu).abs() / mu.norm() ** 2)",
    ),
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
    # The root dropped from the part orthogonal to the teacher.
    Mutation(
        "prop-teacher-student",
        "setup",
        "(scale * math.sqrt(1 - chi**2))",
        "(scale * (1 - chi**2))",
    ),
    # The flatness left out of the reach in linf.
    Mutation(
        "prop-teacher-student",
        "check",
        "eps * float(w.abs().sum() / w.norm())",
        "eps",
    ),
    # A whole turn in place of half of one.
    Mutation(
        "cor-teacher-round",
        "check",
        "math.acos(chi) / math.pi",
        "math.acos(chi) / 6.28",
    ),
    # The square of the cosine in place of the cosine.
    Mutation(
        "prop-teacher-behind",
        "check",
        "float(best.norm() / star.norm())",
        "float(best.norm() / star.norm()) ** 2",
    ),
    # One row short: the error is exceeded.
    Mutation("prop-prune-eps", "setup", "k = 1 + int(", "k = int("),
    # Only the last error counted.
    Mutation(
        "thm-compress-error",
        "setup",
        "local = local + tail *",
        "local = tail *",
    ),
    # The plain mean of the norms in place of the one weighted by themselves.
    Mutation(
        "prop-rows-push",
        "setup",
        "star = rho.square().sum() / rho.sum()",
        "star = rho.mean()",
    ),
    # The root of the factor dropped: in and out are exchanged, not balanced.
    Mutation(
        "prop-rows-balanced",
        "setup",
        "(v.norm(dim=0) / w.norm(dim=1)).sqrt()",
        "(v.norm(dim=0) / w.norm(dim=1))",
    ),
    # A step by signs, as of Adam: it leaves the span of the data.
    Mutation("prop-few-unseen", "setup", "- rate * gw", "- rate * gw.sign()"),
    # The decay counted once, not in every step.
    Mutation("prop-few-unseen", "check", "(1 - 0.3 * 0.1) ** 40", "(1 - 0.3 * 0.1)"),
    # All dimensions counted as free.
    Mutation("prop-few-unseen", "check", "stats.chi2(12 - 5)", "stats.chi2(12)"),
    # The excess over the k-th entry, not over the next one.
    Mutation(
        "prop-unasked-hill",
        "setup",
        "(s[:k] - s[k]).mean()",
        "(s[:k] - s[k - 1]).mean()",
    ),
    # The gaps without their ranks.
    Mutation(
        "prop-unasked-hill", "setup", "torch.arange(1, k + 1) * (", "torch.ones(k) * ("
    ),
    # The bias forgotten.
    Mutation(
        "prop-unasked-hill",
        "check",
        "found.mean() - k * alpha / (k - 1)",
        "found.mean() - alpha",
    ),
    # The mean in place of the mean square.
    Mutation(
        "prop-unasked-limit",
        "setup",
        "share ** (1 - 2 / alpha)",
        "share ** (1 - 1 / alpha)",
    ),
    # Groups counted alike whatever their size.
    Mutation("prop-unasked-parts", "check", "len(c) / 60 *", "1 / groups *"),
    # Centred by the mean of all in place of that of the group.
    Mutation(
        "prop-unasked-parts",
        "setup",
        "pair - centre, centre",
        "pair - pair.mean(), centre",
    ),
    # The fewest windows in place of the most.
    Mutation(
        "prop-cifar-kernel",
        "setup",
        "torch.ones_like(like.weight)).max())",
        "torch.ones_like(like.weight)).min())",
    ),
    # The small number added outside the root.
    Mutation(
        "prop-cifar-bn", "setup", "(variance + eta).sqrt()", "(variance.sqrt() + eta)"
    ),
    # A gradient that grows with the filter, in place of shrinking.
    Mutation("prop-cifar-bn", "check", "slopes[0] / t", "slopes[0] * t"),
]
