"""The distributed backdoor (DBA)."""

from hcqsfl.adversarial.poisoning import backdoor
from hcqsfl.adversarial.poisoning.attacker import Member


class Attack(backdoor.Attack):
    """Split the trigger over the attackers: each trains on a part of it, and the whole one is tested.

    The options are those of ``backdoor``.

    Source: Xie et al. (2020), DBA: distributed backdoor attacks against federated learning, section 3.
    """

    source = "Xie et al. (2020), DBA: distributed backdoor attacks against federated learning, section 3"

    def part(self, member: Member) -> tuple[int, int]:
        """Return which part of the trigger an attacker puts in; at most four parts."""
        return member.rank, min(member.n_attackers, 4)
