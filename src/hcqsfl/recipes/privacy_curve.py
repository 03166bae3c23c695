"""Privacy against utility against bytes: each defence at each strength is trained, attacked, and put on one curve."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from hcqsfl import build
from hcqsfl.config import Config, parse
from hcqsfl.data.leakage import Leak
from hcqsfl.evaluation import defence_effects, dependence_table, leak_tables
from hcqsfl.evaluation import privacy_curve as curve
from hcqsfl.evaluation.attack_report import write_attack_report
from hcqsfl.evaluation.attack_rows import Row, RowFile
from hcqsfl.evaluation.dependence_table import beside
from hcqsfl.evaluation.files import write_whole
from hcqsfl.evaluation.result import Result
from hcqsfl.privacy.threats import THREATS
from hcqsfl.quantum import draw
from hcqsfl.recipes.attack import attack
from hcqsfl.recipes.defence_grid import SETTINGS, SMOKE, Setting, override
from hcqsfl.recipes.privacy_claims import as_facts, claims
from hcqsfl.recipes.processes import each_apart
from hcqsfl.recipes.profiles import PROFILES
from hcqsfl.recipes.progress import Progress
from hcqsfl.recipes.run_folder import RunFolder
from hcqsfl.recipes.train import train
from hcqsfl.registry import lookup

METRICS = ("balanced_accuracy", "macro_f1")

QUICK = (
    "decoder_inversion/T2",
    "difference_inversion",
    "linear_probe",
    "label_norm",
    "label_direction",
    "label_denoising",
    "loss_threshold",
    "dependence",
)
"""The attacks of the smoke profile, unless others are named: the strongest cheap one of each goal.

Decoders have the clients' front in hand (T2), which is at least as strong as imitating it, know the defence, and
average releases where its noise is drawn anew: whoever does less finds less. Labels are told by the direction of one
known gradient a class.
"""


EVALUATIONS = 200
"""Of each attack in the smoke profile."""


@dataclass(frozen=True)
class Curve:
    """What came out.

    Attributes:
        rows: of attacks, and of the task, of all settings that were asked for.
        points: a setting and trunk each.
        files: table and figure.
        sentences: what it says.
    """

    rows: Sequence[Row]
    points: Sequence[curve.Point]
    files: Sequence[Path]
    sentences: Sequence[str]


def privacy_curve(
    config: Config,
    out: Path,
    profile: str,
    *,
    cache: Path,
    defences: Sequence[str] = (),
    arms: Sequence[str] = (),
    attacks: Sequence[str] = (),
    networks: str = "",
    overwrite: bool = False,
    n_processes: int = 1,
    command: str = "",
    progress: Progress | None = None,
) -> Curve:
    """Run the grid; settings that are there already are not run again.

    Args:
        config: settings of the undefended federation.
        out: folder of the grid.
        profile: a key of ``PROFILES``.
        cache: folder of parsed windows.
        defences: by name; those of the profile unless given.
        arms: trunks; those of the profile unless given.
        attacks: by name; those of the profile unless given.
        networks: which trainings of a cell to attack: ``all``, a number or ``SEED/FOLD``; the first, as many as the
            profile says, unless given.
        overwrite: forget what is there.
        n_processes: settings that are tried at a time; the rows do not depend on it.
        command: what was typed, for the page.
        progress: what to tell of it.

    Raises:
        ValueError, OSError: a name is unknown, the folder is of other settings, or the settings or recordings do not
            allow it; see the message.
    """
    progress = progress or Progress()
    chosen = lookup("profile", PROFILES, profile)
    quick = profile == "smoke"
    names = [lookup("defence", SETTINGS, n).name for n in defences] or list(SMOKE if quick else SETTINGS)
    only = tuple(attacks) or (QUICK if quick else ())
    aims = replace(chosen, all_knowledge=False, evaluations=EVALUATIONS) if quick else chosen
    trunks = tuple(arms) or chosen.arms
    torch.set_num_threads(config.training.threads)
    there = (out / "config.toml").is_file()
    RunFolder.open(out, config, resume=there and not overwrite, overwrite=overwrite and there)
    windows = build.windows(config, cache, progress.say)
    kept = RowFile(out / f"privacy-{profile}.jsonl")
    todo = list(_cells(config, names, trunks, len(windows.classes)))
    attacked = partial(attack, suite="privacy", profile=aims, cache=cache, only=only, arms=trunks, networks=networks)
    progress.start(len(todo))
    for key, _ in todo:
        if key in kept.groups:
            progress.step(key, None)
    if left := [each for each in todo if each[0] not in kept.groups]:
        progress.say("scanning for leaks")
        leaks = build.scan(config, windows, build.make_folds(config, windows))
        under_way = [*(key for key, _ in left), "writing the report"]
        progress.say(under_way[0])
        cell = partial(_cell, out=out / "cells", attacked=attacked, cache=cache, leaks=leaks)
        made = each_apart(cell, left, n_processes, config.training.threads)
        for (key, cells), following in zip(made, under_way[1:], strict=True):
            kept.add(key, cells)
            progress.step(key, None)
            progress.say(following)
    rows = [row for key, _ in todo for row in kept.groups[key]]
    return Curve(rows, *_report(rows, out, profile, config, command, synthetic=windows.synthetic))


def _cells(config: Config, names: Sequence[str], arms: Sequence[str], n_classes: int) -> Iterator[tuple[str, Config]]:
    first, *others = arms
    base = config.model_dump(mode="json", exclude_none=True)
    base = override(
        base,
        {
            "recording.tap": True,
            "trunk.kind": first,
            "evaluation.controls": others,
            "evaluation.baselines": [],
            "evaluation.references": [],
            "evaluation.without_control": True,
        },
    )
    for name in names:
        setting: Setting = SETTINGS[name]
        if setting.binary and n_classes != 2:
            continue
        for strength, overrides in setting.strengths.items():
            yield f"{name}: {strength}", parse(override(base, overrides), f"{name}, {strength}", Config)


def _cell(
    setting: tuple[str, Config],
    *,
    out: Path,
    attacked: Callable[[Path], list[Row]],
    cache: Path,
    leaks: Sequence[Leak],
) -> tuple[str, list[Row]]:
    """Train with one setting, attack what was recorded, and return all rows; the recording is deleted afterwards.

    Args:
        setting: key (defence and strength) and settings of the cell.
        out: folder of the cells' runs.
        attacked: from a run to the rows of its attacks.
        cache: folder of parsed windows.
        leaks: what the scan found, once for all cells.
    """
    key, config = setting
    folder = out / key.replace(": ", "/").replace("=", "_")
    result = train(config, folder, cache=cache, resume=(folder / "config.toml").is_file(), page=False, leaks=leaks)
    rows = [replace(row, defence=key, facts={**row.facts, "defence": row.defence}) for row in attacked(folder)]
    rows += _task(config, result, cache, key)
    for recorded in [*folder.glob("jobs/*/*/*/tap.bin"), *folder.glob("jobs/*/*/*/rounds")]:
        shutil.rmtree(recorded) if recorded.is_dir() else recorded.unlink()
    return key, rows


def _task(config: Config, result: Result, cache: Path, key: str) -> list[Row]:
    """Return what the models are good for, beside the majority class, with bytes and claims."""
    windows = build.windows(config, cache)
    prepared = build.prepare(config, windows, build.make_folds(config, windows)[0])
    told = as_facts(claims(config, prepared))
    trivial = result.baselines[0].metrics
    rows = []
    for arm in result.arms:
        n_bytes = 0.0 if arm.cost is None else arm.cost.bytes_up_per_round + arm.cost.bytes_down_per_round
        for metric in METRICS:
            got = arm.metrics[metric]
            rows.append(
                Row(
                    "privacy",
                    curve.TASK,
                    "",
                    "",
                    "",
                    key,
                    arm.name,
                    "all",
                    result.seeds[0],
                    metric,
                    "higher",
                    got.value,
                    trivial[metric].value,
                    "majority class",
                    got.low,
                    got.high,
                    n_units=got.n_units,
                    facts={"bytes_per_round": n_bytes, "claims": told, "folds": list(result.folds)},
                )
            )
    return rows


def _report(
    rows: Sequence[Row], out: Path, profile: str, config: Config, command: str, *, synthetic: bool
) -> tuple[list[curve.Point], list[Path], list[str]]:
    metric = METRICS[0]
    held = curve.points(rows, metric)
    figure = out / f"privacy-{profile}.png"
    drawn = curve.figure(rows, metric, config.name, synthetic=synthetic)
    for kind in (".png", ".svg"):
        draw.save(drawn, figure.with_suffix(kind))
    text = out / f"privacy-{profile}.md"
    measured = beside(rows, metric)
    effects = defence_effects.effects(rows)
    tables = [
        curve.markdown(held, metric),
        defence_effects.markdown(effects),
        dependence_table.markdown(measured),
        leak_tables.markdown(rows, metric),
    ]
    write_whole(text, "\n".join(tables).encode())
    said = sentences(held) + defence_effects.sentences(effects)
    said += [told] if (told := dependence_table.sentence(measured)) else []
    page = write_attack_report(
        rows,
        out / f"privacy-{profile}.html",
        title=f"Privacy against utility: {config.name}",
        threats={name: threat.who for name, threat in THREATS.items()},
        synthetic=synthetic,
        command=command,
        drawn={"Utility over leak, all attacks together and each goal; the line is the Pareto front.": drawn},
        points=held,
        measured=measured,
        metric=metric,
        notes=said,
    )
    return held, [figure, figure.with_suffix(".svg"), text, page], said


def sentences(held: Sequence[curve.Point]) -> list[str]:
    """Say what the curve shows."""
    said = []
    for arm in dict.fromkeys(p.arm for p in held):
        mine = [p for p in held if p.arm == arm]
        front = ", ".join(f"{p.defence} {p.strength}" for p in curve.pareto(mine))
        said.append(f"{arm}: area under the Pareto front {curve.area(mine):.3f}; on it: {front}")
    for p in held:
        for claim in p.facts.get("claims", []):
            line = f"{p.defence} {p.strength}: {claim['says']}"
            if line not in said:
                said.append(line)
    said.append(
        "every attack was tuned on the attacker's own people with as many trials as the profile says; a defence's "
        "strengths are the trials of the defence"
    )
    return said
