"""Directions in which colluding clients push away from the benign mean."""

from collections.abc import Callable

from torch import Tensor

DIRECTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "unit": lambda benign: -benign.mean(dim=0) / benign.mean(dim=0).norm().clamp(min=1e-300),
    "sign": lambda benign: -benign.mean(dim=0).sign(),
    "std": lambda benign: -benign.std(dim=0, correction=0),
}
"""Inverse unit vector, inverse sign, inverse deviation of benign updates ``(n, n_values)``.

Source: Shejwalkar & Houmansadr (2021), Manipulating the Byzantine, section 4.2.
"""
