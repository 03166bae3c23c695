"""The attacks on a run's trainings, one training after the other or several at a time; the rows are the same."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType

from hcqsfl import build
from hcqsfl.config import Config
from hcqsfl.data.windows import Windows
from hcqsfl.evaluation.attack_rows import Row
from hcqsfl.models.devices import device
from hcqsfl.recipes.processes import each_apart, tell
from hcqsfl.recipes.profiles import Case, Profile
from hcqsfl.recipes.victim import Victim, victims
from hcqsfl.registry import load_object

Done = Callable[[str, list[Row]], None]
"""Told the key of an attack and the rows that it gave."""


@dataclass(frozen=True)
class Plan:
    """Which trainings are attacked, and by what.

    Attributes:
        run: the run's folder.
        config: its settings.
        suites: name to module, such as ``hcqsfl.recipes.suites.evasion``.
        profile: how much is tried.
        only: attacks, by name or by how their key begins; all if empty.
        networks: which trainings, as in ``victims``.
    """

    run: Path
    config: Config
    suites: dict[str, str]
    profile: Profile
    only: Sequence[str]
    networks: str

    def victims(self, windows: Windows) -> list[Victim]:
        """Return the trainings."""
        p = self.profile
        return victims(self.run, self.config, windows, p.arms, p.n_folds, p.n_seeds, self.networks)

    def modules(self) -> dict[str, ModuleType]:
        """Return the suites by name."""
        return {name: load_object(where) for name, where in self.suites.items()}

    def cases(self, victim: Victim) -> Iterator[tuple[str, Case]]:
        """Yield the attacks on a training, each with the key of its rows."""
        where = f"{victim.arm.name}/{victim.seed}/{victim.fold.name}"
        for name, module in self.modules().items():
            for case in module.cases(victim, self.profile):
                if not self.only or any(f"{case.key}/".startswith(f"{each}/") for each in self.only):
                    yield f"{where}/{name}/{case.key}", case


def run_cases(
    plan: Plan,
    todo: Sequence[tuple[Victim, str, Case]],
    done: Done,
    say: Callable[[str], None],
    n_processes: int,
) -> None:
    """Run attacks.

    Args:
        plan: of the run.
        todo: the attacks that are left, with whom they are aimed at and the keys of their rows.
        done: told of each as soon as it is over.
        say: told what is being done.
        n_processes: trainings that are attacked at a time.
    """
    if n_processes == 1:
        for victim, key, case in todo:
            say(f"{case.key} · {victim.arm.name} · {victim.fold.name}")
            done(key, case.timed())
        return
    left: dict[tuple[str, int, str], list[str]] = {}
    for victim, key, _ in todo:
        left.setdefault((victim.arm.name, victim.seed, victim.fold.name), []).append(key)
    say(f"{len(left)} trainings, {n_processes} at a time")
    several = [(of, frozenset(keys)) for of, keys in left.items()]
    for _ in each_apart(_attack, several, n_processes, plan.config.training.threads, partial(_begin, plan), done):
        pass


_begun: tuple[Plan, list[Victim]] | None = None


def _begin(plan: Plan) -> None:
    global _begun
    device(plan.profile.device)
    windows = build.windows(plan.config, plan.profile.options["cache"])
    _begun = plan, plan.victims(windows)


def _attack(asked: tuple[tuple[str, int, str], Collection[str]]) -> None:
    if _begun is None:
        raise RuntimeError("this process was not begun")
    plan, held = _begun
    of, keys = asked
    (victim,) = [each for each in held if (each.arm.name, each.seed, each.fold.name) == of]
    for key, case in plan.cases(victim):
        if key in keys:
            tell(key, case.timed())
