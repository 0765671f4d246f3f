"""Tests of the exercise of lab 5, Polynomial nets."""

import math
import random
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["product_kernel", "product_kernel_hidden"]

Answer = Callable[[Tensor, int], Tensor]


def _told(answer: Answer, u: Tensor, degree: int) -> Tensor:
    found = torch.as_tensor(answer(u.clone(), degree))
    assert found.shape == u.shape, (
        f"For {tuple(u.shape)} cosines you return the shape {tuple(found.shape)}."
    )
    return found


def product_kernel(answer: Answer) -> None:
    """Test ``product_kernel(u, degree)`` with one factor, and at equal inputs."""
    u = torch.linspace(-1, 1, 9, dtype=torch.float64)
    bent = (math.pi - u.arccos()) / math.pi
    relu = (1 - u.square()).clamp_min(0).sqrt() / math.pi + 2 * u * bent
    assert torch.allclose(_told(answer, u, 1), relu), (
        "With one factor it must be the kernel of a ReLU network."
    )
    one = torch.ones(1, dtype=torch.float64)
    for degree in (1, 2, 5):
        found = float(_told(answer, one, degree)[0])
        assert abs(found - degree - 1) < 1e-9, (
            f"At u = 1 each of {degree} factors and the head give one,"
            f" {degree + 1} in all, and you return {found:.4f}."
        )


def product_kernel_hidden(answer: Answer, seed: int = 0) -> None:
    """Test ``product_kernel(u, degree)`` against means over the angles of neurons."""
    angle = 2 * math.pi * (torch.arange(40_000, dtype=torch.float64) + 0.5) / 40_000
    rng = random.Random(seed)
    for theta in (0.4, 1.2, 2.5, rng.uniform(0.3, 2.8)):
        near, far = angle.cos(), (angle - theta).cos()
        # Of twice two rectified normals (their squared length is two), and two slopes.
        both = 4 * float((near.relu() * far.relu()).mean())
        steps = 2 * float(((near > 0) & (far > 0)).double().mean())
        for degree in (2, 3, 5):
            head, factor = both**degree, steps * both ** (degree - 1)
            right = head + sum(math.cos(theta) * factor for _ in range(degree))
            u = torch.tensor([math.cos(theta)], dtype=torch.float64)
            found = float(_told(answer, u, degree)[0])
            assert abs(found - right) < 1e-3, (
                f"For {degree} factors and u = {float(u):.3f} a mean over neurons gives"
                f" {right:.4f}, and you return {found:.4f}."
            )
