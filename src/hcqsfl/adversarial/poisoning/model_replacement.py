"""Model replacement."""

from torch import Tensor

from hcqsfl.adversarial.poisoning import label_flip
from hcqsfl.adversarial.poisoning.attacker import Turn


class Attack(label_flip.Attack):
    """Train on flipped labels, and scale the update so that it survives the averaging: ``factor (X - G) + G``.

    Args:
        factor: of the update; without it n / m, with which m attackers together replace the mean of n clients.
        origin, target: as in ``label_flip``.

    Raises:
        ValueError: ``factor`` is not above 0, or as ``label_flip``.

    Source: Bagdasaryan et al. (2020), How to backdoor federated learning, equation 3.
    """

    source = "Bagdasaryan et al. (2020), How to backdoor federated learning, equation 3"

    def __init__(self, factor: float | None = None, origin: int | None = None, target: int | None = None) -> None:
        super().__init__(origin, target)
        if factor is not None and not factor > 0:
            raise ValueError(f"model_replacement was given a factor of {factor:g}; it must be above 0")
        self.factor = factor

    def update(self, turn: Turn) -> Tensor:
        """Return the update, scaled."""
        return replacing(turn, self.factor)


def replacing(turn: Turn, factor: float | None) -> Tensor:
    """Return the own update times ``factor``, or times n / m without one."""
    return (turn.member.n_clients / turn.member.n_attackers if factor is None else factor) * turn.own
