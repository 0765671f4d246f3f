"""One plausible wrong answer per exercise: the mistake a learner would make.

Each is the source of a function that runs, answers something, and must fail the
public or the hidden test of its exercise.
"""

WRONG: dict[str, str] = {
    # A sample that falls at exactly the budget left standing.
    "ex-falls": """
def robust_accuracies(falls_at, eps):
    return (falls_at[:, None] >= eps[None, :]).float().mean(0)
""",
    # Columns of the third result of the decomposition in place of its rows.
    "ex-share": """
def energy_in(delta, w, k):
    flat = delta.flatten(1)
    columns = torch.linalg.svd(w).Vh[:, :k]
    return (flat @ columns).square().sum(1) / flat.square().sum(1)
""",
    # One sign only.
    "ex-fooling": """
def fooling_rate(net, x, direction, eps):
    step = eps * direction / direction.norm()
    label = net((x + step).clamp(0, 1)).argmax(1)
    return float((label != net(x).argmax(1)).float().mean())
""",
    # The square root forgotten.
    "ex-blind": """
def matrix_with(h, m, ratio):
    size = min(h, m)
    sigma = torch.full((size,), (1 - ratio / m) / (size - 1))
    sigma[0] = ratio / m
    w = torch.zeros(h, m)
    w[range(size), range(size)] = sigma
    return w
""",
    # The norm of the attack itself in place of its dual.
    "ex-distance": """
def distance(w, b, x, y, norm):
    order = {"linf": math.inf, "l2": 2, "l1": 1}[norm]
    margin = y * (x @ w + b)
    return margin.clamp_min(0) / torch.linalg.vector_norm(w, ord=order)
""",
    # Sorted by gain, which is the rule for l0.
    "ex-knapsack": """
def knapsack(c, m, room):
    spent, left = 0.0, float(m)
    for i in (c.abs() * room).argsort(descending=True):
        size, available = float(c[i].abs()), float(room[i])
        if size > 0 and size * available >= left:
            return spent + left / size
        spent, left = spent + available, left - size * available
    return math.inf
""",
    # The second guess.
    "ex-rival": """
def nearest_rival(weight, bias, x, y):
    logits = x @ weight.T + bias
    return logits.scatter(1, y[:, None], -math.inf).argmax(1)
""",
    # The right l1 norm with the wrong l2 norm.
    "ex-normal": """
def normal(d, kappa):
    return torch.full((d,), kappa / d)
""",
    # The Euclidean norm of the weights.
    "ex-robust-loss": """
def robust_loss(w, b, x, y, eps):
    worst = y * (x @ w + b) - eps * w.norm()
    return torch.nn.functional.softplus(-worst).mean()
""",
    # The root of the quotient forgotten.
    "ex-error-curve": """
def error_curve(v, q):
    powers = v.abs().double().sort().values ** q
    tails = torch.cat([powers.new_zeros(1), powers.cumsum(0)]).flip(0)
    return tails / tails[0]
""",
    # The shares of the head and of the tail do not add up before the root is taken.
    "ex-fewest": """
def fewest(v, eps, q):
    powers = v.abs().double().sort(descending=True).values ** q
    heads = (powers.cumsum(0) / powers.sum()) ** (1 / q)
    return int((heads < 1 - eps - 1e-12).sum()) + 1
""",
    # The entropy itself.
    "ex-effective-rank": """
def effective_rank(s):
    p = s[s > 0].double() / s.double().sum()
    return float(-(p * p.log()).sum())
""",
    # An error of eps taken as a share of the head instead of the whole.
    "ex-build": """
def build(k, eps, beta, d):
    head = torch.full((k,), 1 - beta, dtype=torch.float64)
    head[0] = 1
    entry = float(head.norm()) * eps / math.sqrt(d - k)
    if entry > 1 - beta:
        raise ValueError("d is too small for this tail")
    return torch.cat([head, torch.full((d - k,), entry, dtype=torch.float64)])
""",
    # The ends of the input taken as they are, whatever the sign of a weight.
    "ex-box-layer": """
def box_layer(w, b, low, high):
    return (low @ w.T + b).relu(), (high @ w.T + b).relu()
""",
    # The square root forgotten: the two norms change places.
    "ex-balance": """
def balance(first, second):
    c = second.norm(dim=0) / first.norm(dim=1)
    return c[:, None] * first, second / c
""",
    # The counted share for its lower bound.
    "ex-votes": """
def radius_from(hits, n, sigma, alpha):
    share = hits / n
    return sigma * stats.norm.ppf(share) if share > 0.5 else 0.0
""",
    # The error at q = 2.
    "ex-published": """
def published_bound(s, k):
    if s[k - 1] == 0:
        return math.inf
    head = 1 - float(s[k:].norm() / s.norm())
    return float(head * s[0] / s[k - 1] * math.sqrt(len(s)) / k * s.norm())
""",
    # The first k beyond the tie, and no end at d.
    "ex-useful": """
def first_useful(d, eps, beta):
    if beta == 1:
        return None
    return math.floor((1 - eps) * math.sqrt(d) / (1 - beta)) + 1
""",
    # Shares of the variance in place of the covariance.
    "ex-shares": """
def shares(factors, gaps):
    parts = factors.log().var(0)
    return parts / parts.sum()
""",
    # Rescaled at the end, which moves the norm that was to be hit.
    "ex-any-norm": """
def layer_with(t, h, m):
    w = torch.zeros(h, m, dtype=torch.float64)
    if t <= 1:
        w[:, 0] = math.sqrt(max(1 - t**2, 0) / h)
        w[0, 0] = t
    else:
        w[0] = t / m
    return w / w.norm()
""",
    # The absolute values of all products.
    "ex-worst-mask": """
def worst_mask(v, u):
    return float((v * u).abs().sum())
""",
    # Greedy: the least alignment first.
    "ex-best-pairs": """
def best_pairs(alignments):
    result, free = 1.0, set(range(len(alignments)))
    for i in sorted(free, key=lambda i: alignments[i]):
        if i in free and alignments[i] < 1:
            result *= alignments[i]
            free -= {i - 1, i, i + 1}
    return result
""",
    # The arithmetic mean of the norms.
    "ex-even-norms": """
def balanced(weights):
    norms = [metrics.operator_norm(w) for w in weights]
    common = sum(norms) / len(norms)
    return [w * common / size for w, size in zip(weights, norms)]
""",
    # The law for h that grows without end.
    "ex-typical": """
def typical(h, k):
    from scipy import stats

    return float(stats.chi2.median(k) / k)
""",
    # Keeps what is positive in the matrix, whatever the vectors.
    "ex-best-mask": """
def best_mask(w, a, b):
    return (w > 0).to(w.dtype)
""",
    # The length of w forgotten.
    "ex-any-direction": """
def robust_accuracy(w, mean, noise, eps):
    from scipy import stats

    return float(stats.norm.cdf((float(w @ mean) - eps) / noise))
""",
    # The ratio in place of its square.
    "ex-classes": """
def most_classes(d, ratio):
    return min(d, math.floor(d + 1 - d * ratio + 1e-9))
""",
    # A bias that enters the norm as one more weight.
    "ex-bias": """
def bias_radii(x):
    w = torch.linalg.pinv(torch.cat([x, torch.ones_like(x[:1])]))[:, :-1]
    return 1 / (w[:, None] - w).norm(dim=2)
""",
    # The mean over the corners.
    "ex-worst-corner": """
def worst_corner(w, a):
    return float((a.T @ w)[-1] / w.norm())
""",
    # Sine and cosine exchanged.
    "ex-third": """
def three_points(c):
    s = math.sqrt(1 - c * c)
    return torch.tensor([[s, -s, 0.0], [c, -c, 1.0], [1.0, 1.0, 0.0]])
""",
    # What the layer makes of the difference, not what it lets through.
    "ex-bridge-survives": """
def survives(w, difference):
    gain = torch.linalg.matrix_norm(w, ord=2)
    return float((w @ difference).norm() / (gain * difference.norm()))
""",
    # The nearest input by the eye, not by the network.
    "ex-bridge-cheapest": """
def cheapest(w, x, label, others, labels):
    differences = others[labels != label] - x
    nearest = differences[differences.norm(dim=1).argmin()]
    return nearest @ (torch.linalg.pinv(w) @ w)
""",
    # The two projections added.
    "ex-bridge-bypass": """
def bypass(w, s, x, x_prime):
    one = theory.bridge_attack(w, x, x_prime).e
    return one + theory.bridge_attack(s, x, x_prime).e
""",
    # The bound in place of the residual.
    "ex-bridge-fewest": """
def fewest_directions(w, x, x_prime, radius):
    for k in range(1, min(w.shape) + 1):
        if theory.bridge_attack(w, x, x_prime, k).residual_bound <= radius:
            return k
    return 0
""",
    # Zero in place of the true logit: wrong where all logits are negative.
    "ex-margin-loss": """
def margin_loss(logits, y):
    own = logits.gather(1, y[:, None]).squeeze(1)
    return logits.scatter(1, y[:, None], 0.0).amax(1) - own
""",
    # The whole point shrunk until it fits.
    "ex-project": """
def project_l1(v, eps):
    size = v.abs().sum(1, keepdim=True)
    return v * (eps / size).clamp_max(1)
""",
    # The middle of the last bracket, at which nothing was tried.
    "ex-bisect": """
def bisect(attack, high, rounds):
    ever = attack(high)
    low = torch.zeros_like(high)
    for _ in range(rounds):
        middle = (low + high) / 2
        fooled = attack(middle) & ever
        high = torch.where(fooled, middle, high)
        low = torch.where(fooled, low, middle)
    return ((low + high) / 2).masked_fill(~ever, math.inf)
""",
    # A stronger rival taken for a higher report.
    "ex-weak-spots": """
def weak_spots(reports):
    trusted = reports["steps"]
    rivals = ("noise", "one step", "black box")
    found = {name for name in rivals if reports[name] > trusted}
    if max(reports.values()) > reports["clean"]:
        found.add("clean")
    if reports["twice"] < trusted - 0.02:
        found.add("twice")
    if reports["huge"] > 0.1:
        found.add("huge")
    return found
""",
    # The distance without its sign: a wrong input counted as robust.
    "ex-teacher-score": """
def score(w, star, x, eps):
    r = ((x - 0.5) @ w).abs() / w.norm()
    return float((r > eps).double().mean())
""",
    # The share of directions taken for the cosine, not for its square.
    "ex-teacher-rank": """
def rank_needed(accuracy, d):
    chi = math.cos(math.pi * (1 - accuracy))
    return max(1, math.ceil(chi * d - 1e-9))
""",
    # The control asked, the plain network not.
    "ex-teacher-verdict": """
def verdict(plain, control, treated):
    if interval(np.log(treated / plain)).mean > 0:
        return "no loss"
    below = interval(np.log(treated / control)).high < 0
    return "beyond the control" if below else "not beyond the control"
""",
    # Factors as large as the matrix counted as a saving.
    "ex-compress-factors": """
def largest_rank(h, m):
    return h * m // (h + m)
""",
    # A sum in place of a count: entries may cancel.
    "ex-compress-narrow": """
def narrowed(w1, w2):
    alive = (w1.sum(1) != 0) & (w2.sum(0) != 0)
    return w1[alive], w2[:, alive]
""",
    # The change of one logit taken for that of a difference.
    "ex-compress-survive": """
def survives(logits, moved):
    first, second = logits.topk(2, dim=1).values.T
    return first - second > 2 * moved
""",
    # The strongest row taken for the one of largest sum.
    "ex-rows-share": """
def row_share(w):
    strongest = w[w.norm(dim=1).argmax()]
    share = strongest.abs().sum() / w.norm()
    return float(share), float(strongest.norm() / w.norm())
""",
    # The mean of the norms for the limit.
    "ex-rows-giants": """
def inflated(w):
    rho = w.norm(dim=1)
    return rho > rho.mean()
""",
    # Neurons without weights divided by zero.
    "ex-rows-balance": """
def balance(w, v):
    c = (v.norm(dim=0) / w.norm(dim=1)).sqrt()
    return c[:, None] * w, v / c
""",
    # Not paired: the scatter of the seeds hides the effect.
    "ex-rows-stories": """
def stories(table, setting, control, column):
    found = {}
    for rule in set(table.checkpoint):
        part = table[(table.checkpoint == rule) & table.met]
        ours, base = (np.log(part[(part.way == w) & (part.strength == s)][column])
                      for w, s in (setting, control))
        mark = interval(ours)
        below = "lower" if mark.high < base.mean() else "open"
        found[rule] = "higher" if mark.low > base.mean() else below
    return found
""",
    # The profile's own norm forgotten.
    "ex-few-dial": """
def dialled(w, alpha):
    u, s, vh = torch.linalg.svd(w, full_matrices=False)
    return u * (w.norm() * torch.arange(1, len(s) + 1, dtype=w.dtype) ** -alpha) @ vh
""",
    # The inputs taken for orthonormal.
    "ex-few-unseen": """
def cleared(w, x):
    x = x / x.norm(dim=1, keepdim=True)
    return w @ x.T @ x
""",
    # Energies added up before they are divided: long vectors count more.
    "ex-few-twice": """
def concentration(w, delta, x, k):
    v = torch.linalg.svd(w, full_matrices=False).Vh[:k].T
    i, j = torch.triu_indices(len(x), len(x), 1)
    shares = [(d @ v).square().sum() / d.square().sum() for d in (delta, x[i] - x[j])]
    return float(shares[0] / shares[1])
""",
    # The mean in place of the mean square: the exponent of a sum of entries.
    "ex-unasked-limit": """
def limit(alpha, share):
    if alpha <= 2:
        return 0.0
    return math.sqrt(1 - share ** (1 - 1 / alpha))
""",
    # The normal law in place of the Gamma law.
    "ex-unasked-interval": """
def tail_interval(v, k, level):
    reach = stats.norm.ppf((1 + level) / 2) / math.sqrt(k)
    return hill(v, k) * (1 - reach), hill(v, k) * (1 + reach)
""",
    # Sorted by fit first: right only while the fit never falls back.
    "ex-unasked-fit": """
def at_fit(fit, value, target):
    if target > fit.max():
        return math.nan
    order = fit.argsort()
    return float(np.interp(target, fit[order], value[order]))
""",
    # The mean left in the bias without the factor of the filter.
    "ex-cifar-fold": """
def fold(kernel, gamma, beta, mean, variance, eta):
    scale = gamma / (variance + eta).sqrt()
    return scale.view(-1, 1, 1, 1) * kernel, beta - mean
""",
    # The bound, which a short axis does not reach.
    "ex-cifar-windows": """
def windows(size, k, stride, padding):
    return math.ceil(k / stride)
""",
    # Sorted by fit: a second crossing is taken for the first.
    "ex-cifar-fit": """
def at_fit(fits, distances, level):
    if not fits[0] <= level <= max(fits):
        return math.nan
    order = np.argsort(fits)
    fits, distances = np.array(fits)[order], np.array(distances)[order]
    return float(np.exp(np.interp(level, fits, np.log(distances))))
""",
}
