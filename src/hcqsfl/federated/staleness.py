"""How much an update counts that started from an old version of the global state.

The staleness of an update is the number of versions that came out between the one its training started from and the
one it is now applied to: 0 for an update that is not late. A discount turns that into a factor in (0, 1], 1 for an
update that is not late.

Source: Xie, Koyejo and Gupta (2019), Asynchronous federated optimization, section 5.2 (constant, polynomial, hinge).
"""

import inspect
import math
from collections.abc import Callable

from hcqsfl.registry import lookup, suggest

Discount = Callable[[int], float]
"""From staleness in versions to the factor on the update."""


def constant() -> Discount:
    """Count every update in full, however late: ``1``."""
    return polynomial(0.0)


def polynomial(a: float = 0.5) -> Discount:
    """Count an update ``(1 + s)^-a``.

    Args:
        a: how fast it fades, at least 0; at 0 it is constant.

    Raises:
        ValueError: ``a`` is negative or not finite.
    """
    if not 0 <= a < math.inf:
        raise ValueError(f"the polynomial discount was given a = {a:g}; it must be at least 0")
    return lambda staleness: (1.0 + _checked(staleness)) ** -a


def hinge(a: float = 10.0, b: int = 4) -> Discount:
    """Count an update in full up to staleness b, then ``1 / (a (s - b) + 1)``.

    Args:
        a: how fast it fades after that, at least 0.
        b: how many versions late an update may be and still count in full, at least 0.

    Raises:
        ValueError: ``a`` or ``b`` is negative or not finite.
    """
    if not (0 <= a < math.inf and 0 <= b < math.inf):
        raise ValueError(f"the hinge discount was given a = {a:g} and b = {b:g}; both must be at least 0")
    return lambda staleness: 1.0 / (a * max(_checked(staleness) - b, 0) + 1.0)


def _checked(staleness: int) -> int:
    if staleness < 0:
        raise ValueError(f"an update of staleness {staleness} started from a version that does not exist yet")
    return staleness


DISCOUNTS: dict[str, Callable[..., Discount]] = {
    "constant": constant,
    "hinge": hinge,
    "polynomial": polynomial,
}


def make(name: str, **options: float) -> Discount:
    """Return the staleness discount called ``name``, set up with ``options``.

    Raises:
        ValueError: there is no such discount, it does not take an option, or one is out of range.
    """
    discount = lookup("staleness discount", DISCOUNTS, name)
    known = list(inspect.signature(discount).parameters)
    for option in options:
        if option not in known:
            takes = ", ".join(known) or "none"
            raise ValueError(f"{name} has no option {option!r}{suggest(option, known)} Its options: {takes}")
    return discount(**options)
