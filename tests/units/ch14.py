"""Chapter 14: mutations of its theorems, wrong answers, its code from scratch."""

from tests.units import Mutation
from tests.units.every import *

MUTATIONS = [
    # The mean over the frequencies, which bounds nothing.
    Mutation(
        "prop-symbol",
        "crlib.metrics._largest_symbol",
        "(symbol, ord=2).max()",
        "(symbol, ord=2).mean()",
    ),
    # Pixels of a square mistaken for places of the kernel.
    Mutation(
        "prop-symbol",
        "crlib.metrics._phases",
        "permute(0, 1, 3, 5, 2, 4)",
        "permute(0, 1, 2, 4, 3, 5)",
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

WRONG = {
    # The mean left in the bias without the factor of the filter.
    "ex-cifar-fold": """
def fold(kernel, gamma, beta, mean, variance, eta):
    scale = gamma / (variance + eta).sqrt()
    return scale.view(-1, 1, 1, 1) * kernel, beta - mean
""",
    # The bound, which a short axis does not reach.
    "ex-cifar-windows": [
        """
def windows(size, k, stride, padding):
    return math.ceil(k / stride)
""",
        # Rounded down.
        """
def windows(size, k, stride, padding):
    return k // stride
""",
    ],
    # Sorted by fit: a second crossing is taken for the first.
    "ex-cifar-fit": [
        """
def at_fit(fits, distances, level):
    if not fits[0] <= level <= max(fits):
        return math.nan
    order = np.argsort(fits)
    fits, distances = np.array(fits)[order], np.array(distances)[order]
    return float(np.exp(np.interp(level, fits, np.log(distances))))
""",
        # Linear between the epochs, where the distance is log-linear.
        """
def at_fit(fits, distances, level):
    if not fits[0] <= level <= max(fits):
        return math.nan
    return float(np.interp(level, fits, distances))
""",
    ],
}
