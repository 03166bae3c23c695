"""When to stop an attack that gains nothing any more, so that a large budget is a limit and not a price."""

import math

SPAN, PATIENCE, GAIN = 100, 5, 0.005


class Plateau:
    """Tells when a loss has ceased to fall.

    The mean of each ``span`` steps is held against the best before it; after ``patience`` spans in a row that are not
    lower by a share ``GAIN``, the loss is flat.

    Args:
        after: steps that count for nothing, such as those over which a weight in the loss still grows.
        span: steps of one mean; 1 for a loss that is measured rather than noted along the way.
        patience: spans.
    """

    def __init__(self, after: int = 0, span: int = SPAN, patience: int = PATIENCE) -> None:
        self.reached = False
        self._left_out, self._span, self._patience = after, span, patience
        self._sum, self._n = 0.0, 0
        self._best, self._stale = math.inf, 0

    def __call__(self, loss: float) -> bool:
        """Note the loss of a step; return whether it is flat."""
        if self._left_out:
            self._left_out -= 1
            return False
        self._sum, self._n = self._sum + loss, self._n + 1
        if self._n == self._span:
            mean, self._sum, self._n = self._sum / self._span, 0.0, 0
            bar = self._best - GAIN * abs(self._best) if math.isfinite(self._best) else self._best
            self._stale = 0 if mean < bar else self._stale + 1
            self._best = min(self._best, mean)
            self.reached = self._stale >= self._patience
        return self.reached
