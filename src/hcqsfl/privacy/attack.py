"""What every attack is: a function from what it sees and knows to a guess, within a budget."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor, nn

from hcqsfl.privacy.observation import Observation, Target

GOALS = ("windows", "labels", "identity", "property", "membership")
"""What can be guessed."""


@dataclass(frozen=True, eq=False)
class Knowledge:
    """What an adversary knows besides what it sees.

    Attributes:
        x: auxiliary windows ``(n, n_chans, n_times)``, of people whose data nobody trained on, scaled as the clients'.
        y: ``(n,)`` their labels.
        subject: ``(n,)`` whose they are.
        n_outputs: classes.
        make_front, make_trunk, make_head: fresh halves of the architecture that the clients use, drawn from torch's
            global generator.
        training: the publicly known settings of the training: ``batch_size``, ``rounds``, ``local_epochs``,
            ``local_steps``, ``learning_rate``, ``momentum``, ``weight_decay``, ``optimizer``, ``class_weights``; and
            ``dp_sgd``, with ``noise_multiplier``, ``client_clip`` and ``server_clip``, if the training was so.
        defence: the clients' defence, for an attacker who knows it: the module itself, with noise of its own; ``None``
            for an attacker who does not, or where there is none.
        labelled: place of a target to its label, for the few that the attacker got hold of.
        enrolled: place of a target to its person, for the recordings that the attacker could link to one.
        sfreq: samples per second.
        channels: of a window.
        releases: place of a target to the other rows that carry the same window, in other rounds: for an attacker who
            can link them, such as one who averages noise away.
        extra: what only one kind of attack needs, by name.
    """

    x: Tensor
    y: Tensor
    subject: Sequence[str]
    n_outputs: int
    make_front: Callable[[], nn.Module]
    make_trunk: Callable[[], nn.Module]
    make_head: Callable[[], nn.Module]
    training: Mapping[str, Any] = field(default_factory=dict)
    defence: nn.Module | None = None
    labelled: Mapping[int, int] = field(default_factory=dict)
    enrolled: Mapping[int, str] = field(default_factory=dict)
    sfreq: float = 1.0
    channels: tuple[str, ...] = ()
    releases: Mapping[int, Sequence[Target]] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(eq=False)
class Budget:
    """How much an attack may compute, and what it did.

    Attributes:
        evaluations: most forward or gradient evaluations of a batch.
        trials: most settings that it may tune over.
        spent: evaluations so far.

    Raises:
        ValueError: a budget is below 1.
    """

    evaluations: int
    trials: int = 1
    spent: int = 0

    def __post_init__(self) -> None:
        if self.evaluations < 1 or self.trials < 1:
            raise ValueError(
                f"an attack with {self.evaluations} evaluations and {self.trials} trials cannot do anything; give it "
                "at least 1 of each"
            )

    def spend(self, n: int = 1) -> bool:
        """Note ``n`` evaluations; return whether there were as many left."""
        if self.spent + n > self.evaluations:
            return False
        self.spent += n
        return True


@dataclass(frozen=True, eq=False)
class Guess:
    """What an attack concluded, one entry for each target.

    Attributes:
        windows: ``(n_targets, n_chans, n_times)`` reconstructions.
        labels: ``(n_targets, n_outputs)`` scores of the classes.
        identity: ``(n_targets, n_candidates)`` scores of the ``candidates``.
        candidates: names of the people, or values of the property, in the order of the columns.
        property: ``(n_targets, n_values)`` scores of the ``candidates``.
        membership: ``(n_targets,)`` scores, the higher the likelier a member.
        facts: whatever else the table should tell, such as the round in which a detector fired.
    """

    windows: Tensor | None = None
    labels: Tensor | None = None
    identity: Tensor | None = None
    candidates: tuple[str, ...] = ()
    property: Tensor | None = None
    membership: np.ndarray | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


Run = Callable[[Observation, Knowledge, Budget, int], Guess]
"""Observation, knowledge, budget, seed to guess."""


@dataclass(frozen=True)
class Attack:
    """An attack, as its file declares it under the name ``ATTACK``.

    Attributes:
        id: its row in the evaluation design: ``"A1"``.
        goal: one of ``GOALS``.
        threats: the threat models under which it runs; what it does may depend on what the observation holds.
        run: the attack itself.
        source: paper and section.
        adaptive: whether it makes use of ``Knowledge.defence``.
    """

    id: str
    goal: str
    threats: tuple[str, ...]
    run: Run
    source: str
    adaptive: bool = False
