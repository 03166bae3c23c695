"""Stale replay."""

from torch import Tensor

from hcqsfl.adversarial.poisoning.attacker import PoisoningAttack, Turn


class Attack(PoisoningAttack):
    """Hand in again, as if it were new, the state reached some turns ago: it pulls the federation back.

    Args:
        lag: how many turns ago, at least 1; until there were so many, the oldest one.

    Raises:
        ValueError: it is below 1.

    Source: replay in the sense of Dolev & Yao (1983); what is replayed is set here.
    """

    source = "Dolev & Yao (1983), On the security of public key protocols, for replay"

    def __init__(self, lag: int = 5) -> None:
        if lag < 1:
            raise ValueError(f"stale_replay was given a lag of {lag} turns; at least 1 is needed")
        self.remembers = lag

    def update(self, turn: Turn) -> Tensor:
        """Return the way from the present base back to the old state."""
        if not turn.updates:
            return turn.own
        return turn.bases[0] + turn.updates[0] - turn.base
