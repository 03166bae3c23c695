"""Federate clients of several data sets: fronts and heads of their own around one shared trunk.

Each data set is scored on its own test windows, with the shared trunk (``together``), with the shared trunk's classical
and frozen controls, and beside the same network trained on that data set alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from hcqsfl import build
from hcqsfl.config import Config, CrossConfig
from hcqsfl.data.folds import Fold
from hcqsfl.data.leakage import Leak
from hcqsfl.data.windows import Windows
from hcqsfl.evaluation.report import write_report
from hcqsfl.evaluation.result import Result
from hcqsfl.models.protocols import Setup, set_up_groups
from hcqsfl.recipes.job import Member, Wear, refer, run_training
from hcqsfl.recipes.progress import Progress
from hcqsfl.recipes.run_folder import RunFolder
from hcqsfl.recipes.score import Trained, score


@dataclass(frozen=True, eq=False)
class _DataSet:
    name: str
    config: Config
    windows: Windows
    folds: list[Fold]
    n_folds: int
    leaks: list[Leak]
    run: RunFolder


def cross(
    config: CrossConfig,
    out: Path,
    *,
    cache: Path,
    resume: bool = False,
    overwrite: bool = False,
    command: str = "",
    progress: Progress | None = None,
) -> dict[str, Result]:
    """Run a federation of several data sets, and each of them alone.

    In the ``k``-th fold every data set takes part with its ``k``-th fold, from the first again where it has fewer; it
    is scored on each of its own folds once.

    Args:
        config: its settings.
        out: folder of the run; each data set has one below it.
        cache, resume, overwrite, command, progress: as in ``hcqsfl.recipes.train.train``.

    Returns:
        Data set to its result.

    Raises:
        ValueError, OSError: the settings, the recordings or the folder do not allow it; see the message.
    """
    progress = progress or Progress()
    members = config.members
    torch.set_num_threads(config.training.threads)
    together = build.cross_arms(config)
    sets = {}
    for name, member in members.items():
        windows = build.windows(member, cache, progress.say)
        every = build.make_folds(member, windows)
        folds = every[: config.n_folds]
        leaks = build.scan(member, windows, folds)
        run = RunFolder.open(out / name, member, resume=resume and (out / name).exists(), overwrite=overwrite)
        sets[name] = _DataSet(name, member, windows, folds, len(every), leaks, run)

    n_folds = max(len(each.folds) for each in sets.values())
    n_alone = sum(len(each.folds) for each in sets.values())
    seeds = config.evaluation.seeds
    progress.start(len(seeds) * config.federation.rounds * (len(together) * n_folds + n_alone))
    trained: dict[str, list[Trained]] = {name: [] for name in sets}
    for k in range(n_folds):
        prepared = {
            name: build.prepare(each.config, each.windows, each.folds[k % len(each.folds)])
            for name, each in sets.items()
        }
        for seed in seeds:
            for arm in together:
                _together(config, sets, prepared, arm, seed, k, trained, progress)
            for name, each in sets.items():
                if k < len(each.folds):
                    _alone(each, prepared[name], seed, trained[name], progress)
    results = {}
    progress.say("scoring")
    for name, each in sets.items():
        arms = list({t.arm.name: t.arm for t in trained[name]}.values())
        compare = [(arms[0].name, arm.name) for arm in arms[1:]]
        notes = [f"One trunk is shared with {', '.join(other for other in sets if other != name)} but in arm 'alone'."]
        if len(each.folds) < each.n_folds:
            notes.append(f"Only {len(each.folds)} of the {each.n_folds} folds were run.")
        results[name] = score(
            each.config,
            arms,
            trained[name],
            each.windows,
            each.leaks,
            each.run,
            command=command,
            compare=compare,
            notes=notes,
        )
    write_report([each.run.path for each in sets.values()], out / "report.html")
    return results


def _together(
    config: CrossConfig,
    sets: Mapping[str, _DataSet],
    prepared: Mapping[str, build.Prepared],
    arm: build.Arm,
    seed: int,
    k: int,
    trained: Mapping[str, list[Trained]],
    progress: Progress,
) -> None:
    groups, members = {}, {}
    for name, each in sets.items():
        network, data = build.group(each.config, arm, seed, prepared[name])
        own = {f"{name}:{client}": windows for client, windows in data.items()}
        groups[name] = network, own
        scored = k < len(each.folds)
        fold = prepared[name].fold.name if scored else f"{prepared[name].fold.name} again, {k}"
        folder = each.run.job(arm.name, seed, fold)
        members[name] = Member(arm.name, fold, prepared[name], folder, frozenset(own), scored)
    first = next(iter(sets))

    def set_up(wear: Wear) -> Setup:
        plan = build.plan(sets[first].config, arm, seed, prepared[first], wear)
        return set_up_groups(arm.protocol, groups, plan)

    run_training(sets[first].config, seed, members, set_up, f"{arm.name} · fold {k + 1} · seed {seed}", progress)
    for name, member in members.items():
        if member.scored:
            kept = members[first].folder / "checkpoint.safetensors"
            trained[name].append(Trained(arm, seed, prepared[name].fold, member.folder, kept, name))


def _alone(each: _DataSet, prepared: build.Prepared, seed: int, trained: list[Trained], progress: Progress) -> None:
    for arm in build.alone_arms(each.config):
        folder = each.run.job(arm.name, seed, prepared.fold.name)
        member = Member(arm.name, prepared.fold.name, prepared, folder)
        if arm.reference:
            if not (folder / "predictions.npz").exists():
                refer(member, arm.reference, seed)
            trained.append(Trained(arm, seed, prepared.fold, folder, None))
            continue
        run_training(
            each.config,
            seed,
            {"": member},
            lambda wear, arm=arm: build.setup(each.config, arm, seed, prepared, wear),  # type: ignore[misc]
            f"{each.name} {arm.name} · {prepared.fold.name} · seed {seed}",
            progress,
        )
        trained.append(Trained(arm, seed, prepared.fold, folder, folder / "checkpoint.safetensors"))
