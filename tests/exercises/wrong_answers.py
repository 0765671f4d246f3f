"""One plausible wrong answer per exercise: the mistake a learner would make.

Each is the source of a function that runs, answers something, and must fail the
public or the hidden test of its exercise.
"""

WRONG: dict[str, str] = {
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
}
