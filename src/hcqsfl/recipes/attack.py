"""Attack a finished run, row by row, and table what every attack gained over the trivial guess."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from hcqsfl import build, config
from hcqsfl.config import Config
from hcqsfl.evaluation import attack_tables
from hcqsfl.evaluation.attack_report import write_attack_report
from hcqsfl.evaluation.attack_rows import Row, RowFile
from hcqsfl.evaluation.files import write_whole
from hcqsfl.evaluation.pooled import pool, without_parts
from hcqsfl.evaluation.privacy_curve import summary
from hcqsfl.models.devices import device as find_device
from hcqsfl.privacy.threats import THREATS
from hcqsfl.quantum import draw
from hcqsfl.recipes.attack_processes import Plan, run_cases
from hcqsfl.recipes.privacy_claims import claims
from hcqsfl.recipes.profiles import OPTIONS, PROFILES, Profile
from hcqsfl.recipes.progress import Progress
from hcqsfl.registry import lookup

SUITES = {
    "poisoning": "hcqsfl.recipes.suites.poisoning",
    "privacy": "hcqsfl.recipes.suites.privacy",
    "evasion": "hcqsfl.recipes.suites.evasion",
}
"""Name to the module whose ``cases(victim, profile)`` lists what is run, and which may draw the rows by
``figures(rows, synthetic)`` and say more of them by ``sentences(rows)``."""


def attack(
    run: Path,
    suite: str,
    profile: str | Profile,
    *,
    cache: Path,
    overwrite: bool = False,
    only: Sequence[str] = (),
    arms: Sequence[str] = (),
    n_seeds: int | None = None,
    networks: str = "",
    options: Mapping[str, Any] | None = None,
    budget: Mapping[str, Any] | None = None,
    device: str = "cpu",
    n_processes: int = 1,
    command: str = "",
    progress: Progress | None = None,
) -> list[Row]:
    """Run a suite of attacks on a finished run; rows that are there already are not run again.

    Args:
        run: the run's folder.
        suite: a key of ``SUITES``, or ``all``.
        profile: a key of ``PROFILES``, or one of its own.
        cache: folder of parsed windows.
        overwrite: forget the rows that are there.
        only: attacks to run, by name or by how their key begins (``decoder_inversion/T2``); all unless given.
        arms: to attack; those of the profile unless given.
        n_seeds: trainings of each arm and fold to attack; as many as the profile says unless given.
        networks: which trainings: ``all``, a number or ``SEED/FOLD``; the first, as many as the profile says, unless
            given.
        options: of single attacks; see ``OPTIONS``.
        budget: other budgets than the profile's, by name (see ``BUDGETS``), whose rows are kept apart.
        device: where attacked networks compute, such as ``"cuda"``; for evasion alone.
        n_processes: trainings that are attacked at a time; the rows do not depend on it.
        command: what was typed, for the page.
        progress: what to tell of it.

    Returns:
        Rows of the attacks asked for; where several trainings were attacked, rows over all of them follow.

    Raises:
        ValueError, OSError: there is no such suite or profile, or the run cannot be attacked; see the message.
    """
    progress = progress or Progress()
    for option in options or {}:
        lookup("option of an attack", OPTIONS, option)
    known = profile if isinstance(profile, Profile) else lookup("profile", PROFILES, profile)
    chosen = replace(known.of(budget or {}), options={**(options or {}), "cache": cache}, device=device)
    if device != "cpu" and suite != "evasion":
        raise ValueError(f"--device {device} goes with --suite evasion alone; suite {suite!r} computes on the CPU")
    find_device(device)
    names = list(SUITES) if suite == "all" else [suite]
    suites = {name: lookup("suite of attacks", SUITES, name) for name in names}
    if not (run / "config.toml").is_file():
        raise FileNotFoundError(f"{run} is no run: it has no config.toml")
    settings = config.load(run / "config.toml")
    if n_seeds is not None:
        if not 1 <= n_seeds <= len(settings.evaluation.seeds):
            raise ValueError(f"{n_seeds} seeds were asked for; the run has {len(settings.evaluation.seeds)}")
        chosen = replace(chosen, n_seeds=n_seeds)
    torch.set_num_threads(settings.training.threads)
    windows = build.windows(settings, cache, progress.say)
    chosen = replace(chosen, arms=_arms(settings, chosen, arms))
    rows = RowFile(run / "attacks" / f"{chosen.file}.jsonl", overwrite=overwrite)
    plan = Plan(run, settings, suites, chosen, tuple(only), networks)
    held = plan.victims(windows)
    asked = [(victim, key, case) for victim in held for key, case in plan.cases(victim)]
    left = [each for each in asked if each[1] not in rows.groups]
    progress.start(len(asked))

    def step(key: str) -> None:
        progress.step(key.split("/", 3)[3], None)

    def done(key: str, made: list[Row]) -> None:
        rows.add(key, made)
        step(key)

    for _, key, _ in asked:
        if key in rows.groups:
            step(key)
    run_cases(plan, left, done, progress.say, n_processes)
    found = [row for _, key, _ in asked for row in rows.groups[key]]
    found += pool(found)
    # those asked for first, in one order however many processes made them
    keys = dict.fromkeys([*(key for _, key, _ in asked), *sorted(rows.groups)])
    everything = [row for key in keys for row in rows.groups[key]]
    everything += pool(everything)
    drawn: dict[str, Figure] = {}
    if (best := summary(without_parts(everything), synthetic=windows.synthetic)) is not None:
        drawn["The best row of each attack: what it gained, as a share of what the trivial guess left."] = best
    modules = plan.modules().values()
    for module in modules:
        if hasattr(module, "figures"):
            for name, figure in module.figures(found, windows.synthetic).items():
                for kind in ("svg", "png"):
                    draw.save(figure, run / "attacks" / f"{name}-{chosen.file}.{kind}")
                drawn[name.replace("_", " ").capitalize()] = figure
    said = [more for module in modules if hasattr(module, "sentences") for more in module.sentences(found)]
    write_whole(run / "attacks" / f"tables-{chosen.file}.md", attack_tables.markdown(everything).encode())
    write_whole(run / "attacks" / f"tables-{chosen.file}.csv", attack_tables.sheet(everything).encode())
    write_attack_report(
        everything,
        run / "attacks" / f"report-{chosen.file}.html",
        title=f"Attacks on {settings.name}",
        threats={name: threat.who for name, threat in THREATS.items()},
        synthetic=windows.synthetic,
        command=command,
        drawn=drawn,
        claims=[str(claim) for claim in claims(settings, held[0].prepared)],
        notes=[*_notes(settings, chosen, len({(victim.fold.name, victim.seed) for victim in held})), *said],
    )
    return found


def _notes(settings: Config, profile: Profile, n_trainings: int) -> list[str]:
    said = [
        f"Attacks are tuned on the attacker's own people, in up to {profile.trials} trials of up to "
        f"{profile.evaluations} evaluations each; {n_trainings} training(s) of each trunk were attacked."
    ]
    if n_trainings > 1:
        said.append(
            "Rows of several trainings are means over them; their intervals are over subjects, whose contributions are "
            "added up over folds and seeds."
        )
    if not profile.all_knowledge and settings.defence.name != "none":
        said.append(
            "Reconstructions ran as the attacker whom the defence suits worst: one who knows it and, where "
            "its noise is drawn anew, averages releases."
        )
    if settings.federation.label_sharing:
        said.append("Labels are shared with the server: label leakage is 100 % by design, and is not measured.")
    if settings.defence.name in ("nopeek", "two_pi", "max_norm", "marvell"):
        said.append(f"The defence {settings.defence.name} gives no guarantee; only attacks tell what it is worth.")
    return said


def _arms(settings: Config, profile: Profile, wanted: Sequence[str]) -> tuple[str, ...]:
    known = {arm.name: arm for arm in build.arms(settings) if not arm.reference}
    if wanted:
        return tuple(lookup("arm of this run", known, name).name for name in wanted)
    return tuple(name for name in profile.arms if name in known) or (settings.trunk.kind,)
