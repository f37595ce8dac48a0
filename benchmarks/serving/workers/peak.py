"""What the machine's cores can multiply and add: matrix products of PyTorch (oneDNN), the best of several shapes."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

#: Rows, and rows and columns of the square weights.
SHAPES = ((256, 512), (512, 512), (1024, 512), (512, 1024), (1024, 1024), (2048, 2048))
SECONDS = 0.25


def peaks(threads: int) -> dict[str, float]:
    """Return the rates of fp32, bf16 and int8, in 10^9 operations a second, two for each multiplication with addition.

    Args:
        threads: Of PyTorch.
    """
    torch.set_num_threads(threads)
    return {
        "fp32": max(_rate(torch.mm, *_operands(shape, torch.float32)) for shape in SHAPES),
        "bf16": max(_rate(torch.mm, *_operands(shape, torch.bfloat16)) for shape in SHAPES),
        "int8": max(_rate(torch._int_mm, *_operands(shape, torch.int8)) for shape in SHAPES),
    }


def _operands(shape: tuple[int, int], dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    rows, columns = shape
    made = torch.randint(-100, 100, (rows, columns)), torch.randint(-100, 100, (columns, columns))
    return made[0].to(dtype), made[1].to(dtype)


def _rate(
    product: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], left: torch.Tensor, right: torch.Tensor
) -> float:
    product(left, right)
    fastest, end = float("inf"), time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        start = time.perf_counter()
        product(left, right)
        fastest = min(fastest, time.perf_counter() - start)
    return 2 * left.shape[0] * left.shape[1] * right.shape[1] / fastest / 1e9
