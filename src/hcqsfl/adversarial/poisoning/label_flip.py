"""Label flipping."""

from torch import Tensor

from hcqsfl.adversarial.poisoning.attacker import Member, PoisoningAttack


class Attack(PoisoningAttack):
    """Train honestly on labels that are turned around: ``y`` becomes ``n_classes - 1 - y``, or one class another.

    Args:
        origin, target: flip only the windows of class ``origin``, into class ``target``; both or neither.

    Raises:
        ValueError: only one of the two is given.

    Source: Tolpegin et al. (2020), Data poisoning attacks against federated learning systems, section 3; Fang et al.
    (2020), section 4.1, for turning all labels around.
    """

    source = "Tolpegin et al. (2020), Data poisoning attacks against federated learning systems, section 3"

    def __init__(self, origin: int | None = None, target: int | None = None) -> None:
        if (origin is None) != (target is None):
            raise ValueError("label_flip takes both origin and target, or neither to turn all labels around")
        self.origin, self.target = origin, target

    def data(self, x: Tensor, y: Tensor, member: Member) -> tuple[Tensor, Tensor]:
        """Return the windows with other labels."""
        if self.origin is None or self.target is None:
            return x, member.n_classes - 1 - y
        for name, label in (("origin", self.origin), ("target", self.target)):
            if not 0 <= label < member.n_classes:
                raise ValueError(f"label_flip has the {name} class {label}, but there are {member.n_classes} classes")
        flipped = y.clone()
        flipped[y == self.origin] = self.target
        return x, flipped
