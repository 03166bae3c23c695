"""How much is tried against a training, and what one attack in one setting is."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hcqsfl.evaluation.attack_rows import Row
from hcqsfl.registry import lookup


@dataclass(frozen=True)
class Profile:
    """How much is tried.

    Attributes:
        name: of the profile.
        evaluations: of one attack.
        trials: settings that an attack, and a defence, may tune over.
        n_targets: windows asked about.
        n_folds, n_seeds: trainings attacked, of each arm.
        arms: trunks attacked, those that the run has.
        n_references: reference models of membership inference.
        n_resamples: of the bootstrap.
        options: of single attacks, by name: ``property`` is what property inference is after.
        all_knowledge: whether reconstructions run as one who does not know of the defence, as one who does, and as one
            who links releases; else as the one of them whom the defence suits worst.
        changed: budgets that are not the profile's own, by name.
        device: where the attacked networks compute; see ``models.devices.device``.
    """

    name: str
    evaluations: int
    trials: int
    n_targets: int
    n_folds: int
    n_seeds: int
    arms: tuple[str, ...]
    n_references: int
    n_resamples: int
    options: Mapping[str, Any] = field(default_factory=dict)
    all_knowledge: bool = True
    changed: Mapping[str, int] = field(default_factory=dict)
    device: str = "cpu"

    @property
    def file(self) -> str:
        """What its rows are filed under: budgets of another size are other rows."""
        return "-".join([self.name, *(f"{name}_{value}" for name, value in sorted(self.changed.items()))])

    def of(self, budget: Mapping[str, Any]) -> "Profile":
        """Return it with other budgets.

        Args:
            budget: by name; see ``BUDGETS``.

        Raises:
            ValueError: there is no such budget, or it is no number above 0.
        """
        for name, value in budget.items():
            lookup("budget", BUDGETS, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"--budget {name}={value}: a budget is a whole number, 1 or more")
        return replace(self, **{BUDGETS[name]: value for name, value in budget.items()}, changed=dict(budget))


BUDGETS = {
    "evaluations": "evaluations",
    "trials": "trials",
    "windows": "n_targets",
    "references": "n_references",
    "resamples": "n_resamples",
}
"""Budget to the attribute of ``Profile`` that it sets."""

PROFILES = {
    "smoke": Profile("smoke", 300, 2, 64, 1, 1, ("hybrid", "classical"), 4, 500),
    "paper": Profile("paper", 5000, 20, 512, 5, 3, ("hybrid", "classical", "frozen"), 16, 2000),
}


OPTIONS = {
    "honest": "how many honest trainings tell how often detectors of hijacking are wrong",
    "property": "what property inference is after: level:CHANNEL or spread:CHANNEL (above the median or not)"
    ", or stratum (what a class is divided into, such as types of attack)",
    "auxiliary": "numbers of auxiliary subjects of further decoder inversions: 1,5,15 (as the paper profile has it)",
    "other": "settings file of another data set, whose windows an attacker has instead: configs/pamap2.toml",
}
"""Option of single attacks to what it means."""


@dataclass(frozen=True, eq=False)
class Case:
    """One attack in one setting.

    Attributes:
        key: tells it from all others of this victim: attack, threat, knowledge.
        run: gives its rows, but for their ``seconds``.
    """

    key: str
    run: Callable[[], Sequence[Row]]

    def timed(self) -> list[Row]:
        """Run it; each of its rows has the seconds of the whole."""
        began = time.perf_counter()
        rows = self.run()
        seconds = time.perf_counter() - began
        return [replace(row, seconds=seconds) for row in rows]
