"""What malicious clients may do (threat model T8): the places where they can act, and what they know there.

===========  ===============================================  ========================================
place        what is replaced                                 acts where
===========  ===============================================  ========================================
data         own windows and labels, before training          any client trains on its own data
smashed      smashed data on their way to the server          the network is cut
gradient     the gradient of the features, on its way there   the network is cut, labels are not shared
update       own update of the client's half, after a turn    that half leaves the client
joint        the updates of all attackers, knowing the        that half is aggregated
             benign ones of the round (omniscient)
===========  ===============================================  ========================================

Updates are flat vectors, state minus base, float64, as aggregation rules see them.

Source: Shejwalkar & Houmansadr (2021), Manipulating the Byzantine, section 3 (adversary's knowledge and capability);
Fung, Yoon & Beschastnikh (2020) call the attackers sybils; for the places at the cut, Wan et al. (2023), MISA.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

PLACES = ("data", "smashed", "gradient", "update", "joint")


@dataclass(frozen=True)
class Member:
    """One of the attackers, and what it knows of the federation.

    Attributes:
        client: its name.
        rank: its place among the attackers, from 0.
        n_attackers: how many attack together.
        n_clients: how many clients there are.
        n_classes: classes of the task.
        sfreq: samples per second.
        seed: root seed of what attackers draw.
    """

    client: str
    rank: int
    n_attackers: int
    n_clients: int
    n_classes: int
    sfreq: float
    seed: int


@dataclass(frozen=True, eq=False)
class Turn:
    """One attacker's turn, as it ended.

    Attributes:
        member: who.
        number: the round, from 1.
        base: ``(n_values,)`` the state that the turn started from.
        own: ``(n_values,)`` the update that honest training on its data (poisoned or not) reached.
        bases, updates: those of its earlier turns, oldest first, as many as the attack remembers.
        generator: for what it draws.
    """

    member: Member
    number: int
    base: Tensor
    own: Tensor
    bases: tuple[Tensor, ...]
    updates: tuple[Tensor, ...]
    generator: torch.Generator


@dataclass(frozen=True, eq=False)
class Joint:
    """A round's updates, as attackers who see them all do.

    Attributes:
        number: the round, from 1.
        base: ``(n_values,)`` the global state.
        benign: ``(n - m, n_values)`` updates of honest clients.
        own: ``(m, n_values)`` what the attackers would hand in otherwise.
        aggregate: what the server's rule would make of the benign updates and these of the attackers, ``(m, n_values)``
            to ``(n_values,)``. It raises ``ValueError`` where the rule does.
        generator: for what they draw.
    """

    number: int
    base: Tensor
    benign: Tensor
    own: Tensor
    aggregate: Callable[[Tensor], Tensor]
    generator: torch.Generator

    @property
    def n(self) -> int:
        """Clients in the round."""
        return len(self.benign) + len(self.own)

    @property
    def m(self) -> int:
        """Attackers in the round."""
        return len(self.own)

    def all_alike(self, update: Tensor) -> Tensor:
        """Return ``update (n_values,)`` for each attacker."""
        return update.expand(self.m, -1).clone()


class PoisoningAttack:
    """One way in which malicious clients misbehave; each attack overrides the places where it acts.

    Attributes:
        source: author (year), title, and where in it.
        goal: ``untargeted`` or ``backdoor``.
        trains: whether its clients train at all.
        remembers: how many of its own turns an attacker keeps.
        levels: strengths that an attacker who knows the trunk's guard rehearses its turn with, strongest first.
        level: the one that it acts with.
    """

    source: ClassVar[str] = ""
    goal: ClassVar[str] = "untargeted"
    trains: ClassVar[bool] = True
    remembers: int = 0
    levels: tuple[float, ...] = ()
    level: float = 1.0

    @property
    def places(self) -> tuple[str, ...]:
        """Where it acts, of ``PLACES``."""
        return tuple(p for p in PLACES if getattr(type(self), p) is not getattr(PoisoningAttack, p))

    @property
    def knowledge(self) -> str:
        """What it takes, in words."""
        return "benign updates (omniscient)" if "joint" in self.places else "own data and updates"

    def data(self, x: Tensor, y: Tensor, member: Member) -> tuple[Tensor, Tensor]:
        """Return what is trained on in place of windows ``(n, n_chans, n_times)`` and labels ``(n,)``."""
        return x, y

    def smashed(self, smashed: Tensor, member: Member, generator: torch.Generator) -> Tensor:
        """Return what is sent in place of smashed data ``(b, n_smashed)``, in training."""
        return smashed

    def gradient(self, gradient: Tensor, member: Member) -> Tensor:
        """Return what is sent in place of the gradient of the features ``(b, n_features)``."""
        return gradient

    def update(self, turn: Turn) -> Tensor:
        """Return what is handed in, or on, in place of the own update ``(n_values,)``."""
        return turn.own

    def joint(self, joint: Joint) -> Tensor:
        """Return what the attackers hand in, ``(m, n_values)``."""
        return joint.own
