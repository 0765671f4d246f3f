"""What is not affine in a network, and the linear functions around it.

Each class answers the same questions. For inputs between a and b: ``box`` returns the
interval of the outputs, ``open`` the entries that tighter ends would help, ``lines``
linear functions below and above, and ``pull`` carries rows, ``(N, R, *shape)`` of
the output, back to the input: a positive coefficient takes the function from below, a
negative one that from above. With them comes what the constants add up to, ``(N, R)``.
``stretch`` is the Lipschitz constant in a norm. ``rounded`` returns the output and
what an error of the input becomes.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Bend:
    r"""``max(v, slope * v)``: a ReLU, or with a slope in (0, 1] a leaky one.

    A ReLU whose input runs from a < 0 to b > 0 lies under the chord
    :math:`b (v - a) / (b - a)` and above 0 and above v. A leaky one, of slope s, lies
    under the chord from :math:`(a, s a)` and above :math:`s v`.
    """

    slope: float = 0.0

    def __call__(self, v: Tensor) -> Tensor:
        # Apart, because zero times infinity is no number.
        return torch.maximum(v, self.slope * v) if self.slope else v.clamp_min(0)

    def box(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        return self(a), self(b)

    def open(self, a: Tensor, b: Tensor) -> Tensor:
        return (a < 0) & (b > 0)

    def lines(self, a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
        """Return the slopes from below and above, and where the chord begins."""
        rise, fall = b.clamp_min(0), a.clamp_max(0)
        end = self.slope * fall if self.slope else 0.0  # what it is at a
        chord = (rise - end) / (rise - fall).clamp_min(1e-300)
        # Of the two lines from below, the one that leaves the smaller triangle.
        line = (b > -a).to(a.dtype).clamp_min(self.slope)
        return line, chord, fall

    def pull(self, rows: Tensor, lines: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        line, chord, fall = (v.unsqueeze(1) for v in lines)  # (N, 1, *shape)
        negative = rows.clamp_max(0)
        total = -(negative * (chord - self.slope) * fall).flatten(2).sum(2)
        return rows.clamp_min(0) * line + negative * chord, total

    def stretch(self, norm: str) -> float:
        return 1.0

    def rounded(self, v: Tensor, error: Tensor) -> tuple[Tensor, Tensor]:
        return self(v), error


RELU = Bend()

# Parts into which an interval is cut to place a line beside a curve.
CELLS = 48


@dataclass(frozen=True)
class Curve:
    r"""A smooth function of each entry, such as GELU.

    **The lines.** Take any slope s and look at the gap :math:`g(v) = f(v) - s v` on a
    grid of step h from a to b. On a cell, g differs from its own chord by at most
    :math:`M h^2 / 8` with :math:`M \ge |f''|`, the error of linear interpolation, and
    the chord lies between the values at the two ends of the cell. Besides, the nearer
    end is at most h / 2 away, and :math:`|g'| = |f' - s| \le D` where s and f' lie in
    an interval of length D. So with

    .. math:: r = h \min(M h / 8,\ D / 2)

    g lies between its least value on the grid minus r and its largest plus r: two lines
    of slope s with f between them. Two slopes are tried, that of the chord from a to b
    and that in the middle; below and above, each time the line that is nearer to f in
    the middle is taken.

    **The interval.** f falls before ``lowest`` and rises after it, so it is least at
    the point of [a, b] next to ``lowest``, and largest at an end.

    Attributes:
        value: f.
        lowest: where f is least; minus infinity if it always rises.
        slopes: an interval that holds f'.
        bend: M, a bound on the magnitude of f''.
    """

    value: Callable[[Tensor], Tensor]
    lowest: float
    slopes: tuple[float, float]
    bend: float

    def __call__(self, v: Tensor) -> Tensor:
        return self.value(v)

    def _noise(self, a: Tensor, b: Tensor) -> Tensor:
        """What float64 may move a value, a grid point or a product by, generously."""
        f, unit = self.value, torch.finfo(a.dtype).eps
        size = torch.maximum(a.abs(), b.abs())
        return 32 * unit * (size + f(a).abs() + f(b).abs())

    def box(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        f, noise = self.value, self._noise(a, b)
        low = f(torch.maximum(a, b.clamp_max(self.lowest)))
        return low - noise, torch.maximum(f(a), f(b)) + noise

    def open(self, a: Tensor, b: Tensor) -> Tensor:
        return a < b

    def lines(self, a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
        """Return slope and constant from below, then slope and constant from above."""
        f, step, middle = self.value, (b - a) / CELLS, (a + b) / 2
        chord = (f(b) - f(a)) / (b - a).clamp_min(1e-300)
        tangent = f(middle + step) - f(middle - step)
        slopes = torch.stack([chord, tangent / (2 * step).clamp_min(1e-300)])
        # Any slope will do; one of the interval keeps |f' - s| below its length.
        slopes = slopes.clamp(*self.slopes)  # (2, N, *shape)
        least = most = f(a) - slopes * a
        for k in range(1, CELLS + 1):
            v = a + k * step
            gap = f(v) - slopes * v
            least, most = torch.minimum(least, gap), torch.maximum(most, gap)
        length = self.slopes[1] - self.slopes[0]
        reach = step * (self.bend * step / 8).clamp_max(length / 2)
        reach = reach + self._noise(a, b)
        least, most = least - reach, most + reach
        below = (slopes * middle + least).argmax(0, keepdim=True)
        above = (slopes * middle + most).argmin(0, keepdim=True)
        low, floor = (v.gather(0, below)[0] for v in (slopes, least))
        high, roof = (v.gather(0, above)[0] for v in (slopes, most))
        return low, floor, high, roof

    def pull(self, rows: Tensor, lines: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        low, floor, high, roof = (v.unsqueeze(1) for v in lines)  # (N, 1, *shape)
        positive, negative = rows.clamp_min(0), rows.clamp_max(0)
        total = (positive * floor + negative * roof).flatten(2).sum(2)
        return positive * low + negative * high, total

    def stretch(self, norm: str) -> float:
        return max(abs(slope) for slope in self.slopes)

    def rounded(self, v: Tensor, error: Tensor) -> tuple[Tensor, Tensor]:
        out = self(v)
        return out, self.stretch("linf") * error + v.abs() + out.abs()


# GELU is v Phi(v), its slope Phi + v phi runs between its values at -sqrt(2) and
# sqrt(2), and its second derivative (2 - v^2) phi is largest at 0. SiLU is v sigma(v);
# its second derivative is largest at 0, where it is 1/2. That of tanh reaches
# 4 / sqrt(27), that of the sigmoid 1 / sqrt(108). Numbers are rounded outwards.
CURVES: dict[type[Any], Curve] = {
    nn.GELU: Curve(
        nn.functional.gelu, -0.7517915246935645, (-0.129, 1.129), bend=0.798
    ),
    nn.SiLU: Curve(nn.functional.silu, -1.2784645427610738, (-0.1, 1.1), bend=0.5),
    nn.Tanh: Curve(torch.tanh, -math.inf, (0.0, 1.0), bend=0.77),
    nn.Sigmoid: Curve(torch.sigmoid, -math.inf, (0.0, 0.25), bend=0.0963),
}


@dataclass(frozen=True)
class Highest:
    """Max pooling: of each window the largest entry.

    It is at least any of its entries: here the one whose lower end is the highest. If
    no other entry can exceed that one, it *is* that entry; else it is at most the
    highest upper end, a constant.

    In linf it stretches nothing. In l2 each output moves by at most the largest move
    in its window, and a pixel counts in at most c windows: the root of c, which is 1
    if no two windows overlap. In l1 it is c.

    Attributes:
        windows: ``(L, K)`` numbers of the K pixels that window L sees, -1 for padding.
        image: height and width of the input.
        out: height and width of the output, ``L`` together.
    """

    windows: Tensor
    image: tuple[int, int]
    out: tuple[int, int]

    def _seen(self, v: Tensor) -> Tensor:
        """Return what each window sees of ``(..., H, W)``, as ``(..., L, K)``."""
        # One entry more, the last, is what padding sees.
        flat = nn.functional.pad(v.flatten(-2), (0, 1), value=-math.inf)
        return flat[..., self.windows.to(v.device)]

    def __call__(self, v: Tensor) -> Tensor:
        return self._seen(v).amax(-1).unflatten(-1, self.out)

    def box(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        return self(a), self(b)

    def open(self, a: Tensor, b: Tensor) -> Tensor:
        return a < b

    def lines(self, a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
        """Return the pixel of each window, whether it is surely it, and the roof."""
        lows, highs = self._seen(a), self._seen(b)  # (N, C, L, K)
        # Behind a ReLU many lower ends are zero: of those the highest upper end.
        behind = lows < lows.amax(-1, keepdim=True)
        best = highs.masked_fill(behind, -math.inf).argmax(-1, keepdim=True)
        pixel = self.windows.to(a.device).expand_as(lows).gather(-1, best)
        others = highs.scatter(-1, best, -math.inf)
        sure = others.amax(-1) <= lows.amax(-1)
        return pixel.squeeze(-1), sure, highs.amax(-1)

    def pull(self, rows: Tensor, lines: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        pixel, sure, roof = (v.unsqueeze(1) for v in lines)  # (N, 1, C, L)
        flat = rows.flatten(-2)  # (N, R, C, L)
        negative = flat.clamp_max(0)
        total = (negative * ~sure * roof).flatten(2).sum(2)
        moved = flat.clamp_min(0) + negative * sure
        back = rows.new_zeros(*flat.shape[:-1], math.prod(self.image))
        back = back.scatter_add(-1, pixel.expand_as(moved), moved)
        return back.unflatten(-1, self.image), total

    def stretch(self, norm: str) -> float:
        count = int(self.windows[self.windows >= 0].bincount().max())
        return {"linf": 1.0, "l2": math.sqrt(count), "l1": float(count)}[norm]

    def rounded(self, v: Tensor, error: Tensor) -> tuple[Tensor, Tensor]:
        return self(v), self(error)
