"""When to stop an attack that gains nothing any more, so that a large budget is a limit and not a price."""

SPAN, PATIENCE, GAIN = 100, 5, 0.005


class Plateau:
    """Tells when a loss has ceased to fall.

    The mean of each ``SPAN`` steps is held against the best before it; after ``PATIENCE`` spans in a row that are not
    lower by a share ``GAIN``, the loss is flat.

    Args:
        after: steps that count for nothing, such as those over which a weight in the loss still grows.
    """

    def __init__(self, after: int = 0) -> None:
        self.reached = False
        self._left_out, self._sum, self._n = after, 0.0, 0
        self._best, self._stale = float("inf"), 0

    def __call__(self, loss: float) -> bool:
        """Note the loss of a step; return whether it is flat."""
        if self._left_out:
            self._left_out -= 1
            return False
        self._sum, self._n = self._sum + loss, self._n + 1
        if self._n == SPAN:
            mean, self._sum, self._n = self._sum / SPAN, 0.0, 0
            fell = mean < self._best - GAIN * abs(self._best) if self._best != float("inf") else True
            self._stale = 0 if fell else self._stale + 1
            self._best = min(self._best, mean)
            self.reached = self._stale >= PATIENCE
        return self.reached
