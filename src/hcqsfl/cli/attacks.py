"""Attack what was trained."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hcqsfl.cli.common import (
    DEFAULT_CACHE,
    CacheOption,
    JsonOption,
    OutOption,
    SeedOption,
    SetOption,
    command_line,
    overrides,
    print_table,
    shown_progress,
)

if TYPE_CHECKING:
    from hcqsfl.config import Config


NetworksOption = Annotated[
    str,
    typer.Option(help="Attack these trainings: all, how many, or one as SEED/FOLD; as the profile says unless given."),
]


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command()(attack)
    app.command("compare-attacks")(compare_attacks)
    app.command()(robustness)


def attack(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")],
    suite: Annotated[str, typer.Option(help="privacy, poisoning, evasion or all.")] = "privacy",
    profile: Annotated[str, typer.Option(help="smoke (minutes) or paper (hours).")] = "smoke",
    only: Annotated[list[str] | None, typer.Option("--only", help="Run this attack alone; may be repeated.")] = None,
    arm: Annotated[list[str] | None, typer.Option("--arm", help="Attack this arm; may be repeated.")] = None,
    seeds: Annotated[int | None, typer.Option(help="Attack the trainings of so many seeds.")] = None,
    networks: NetworksOption = "",
    option: Annotated[
        list[str] | None, typer.Option("--option", help="property=level:CHANNEL, say; may be repeated.")
    ] = None,
    budget: Annotated[
        list[str] | None,
        typer.Option(
            help="Other than the profile's: evaluations, trials, windows, references or resamples =N; repeatable."
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="Where attacked networks compute: cpu, cuda; evasion alone.")] = "cpu",
    jobs: Annotated[int, typer.Option(min=1, help="Trainings attacked at a time; the rows are the same.")] = 1,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Forget rows that are there already.")] = False,
    cache: CacheOption = DEFAULT_CACHE,
    json_: JsonOption = False,
) -> None:
    """Attack a finished run: what can be learnt from what crossed, and how it can be misled."""
    from dataclasses import asdict

    from hcqsfl.config import read_options
    from hcqsfl.recipes.attack import attack as execute
    from hcqsfl.recipes.profiles import PROFILES

    options, other = read_options(option or ()), read_options(budget or ())
    with shown_progress() as progress:
        rows = execute(
            run,
            suite,
            profile,
            cache=cache,
            overwrite=overwrite,
            only=only or (),
            arms=arm or (),
            n_seeds=seeds,
            networks=networks,
            options=options,
            budget=other,
            device=device,
            n_processes=jobs,
            command=command_line(),
            progress=progress,
        )
    if json_:
        typer.echo(json.dumps([asdict(row) | {"leaks": row.leaks} for row in rows], indent=2))
        return
    from rich.console import Console

    from hcqsfl.evaluation.console import attack_table
    from hcqsfl.evaluation.pooled import without_parts

    console = Console()
    console.print(attack_table(without_parts(rows)))
    page = run / "attacks" / f"report-{PROFILES[profile].of(other).file}.html"
    console.print(f"Report: {page}", markup=False, highlight=False, soft_wrap=True)


def compare_attacks(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of an attacked run: the defended one, say.")],
    other: Annotated[Path, typer.Argument(metavar="OTHER", help="Folder of the run that it is held against.")],
    profile: Annotated[str, typer.Option(help="Profile that both were attacked with.")] = "smoke",
    budget: Annotated[list[str] | None, typer.Option(help="As both were attacked with; repeatable.")] = None,
    only: Annotated[list[str] | None, typer.Option("--only", help="This attack alone; may be repeated.")] = None,
    arm: Annotated[list[str] | None, typer.Option("--arm", help="This arm alone; may be repeated.")] = None,
    json_: JsonOption = False,
) -> None:
    """Tell how far two runs lie apart under the same attacks, on the same folds and seeds, paired by subject."""
    from dataclasses import asdict

    from hcqsfl.config import read_options
    from hcqsfl.recipes.compare_attacks import compare_attacks as execute

    found = execute(run, other, profile, budget=read_options(budget or ()), only=only or (), arms=arm or ())
    if json_:
        told = [asdict(each) | {"trunk": name} for name, group in found.items() for each in group]
        typer.echo(json.dumps(told, indent=2))
        return
    for name, group in found.items():
        rows = [
            {
                "attack and metric": f"{each.attack}, {each.knowledge}: {each.metric}",
                "RUN": f"{each.scores[0]:.3f}",
                "OTHER": f"{each.scores[1]:.3f}",
                "RUN - OTHER": f"{each.value:+.3f}\n{each.low:+.3f} to {each.high:+.3f}",
            }
            for each in group
        ]
        who = {f"{each.n_trainings} training(s) each, {each.n_units} subjects or flows" for each in group}
        print_table(f"{name}: {run} against {other}", rows, f"95 % intervals by subject; {' / '.join(sorted(who))}")


def robustness(
    config: Annotated[Path, typer.Argument(help="A TOML file of settings; see configs/.")],
    suite: Annotated[str, typer.Option(help="Which grid: privacy or poisoning.")] = "privacy",
    profile: Annotated[str, typer.Option(help="smoke (minutes) or paper (hours).")] = "smoke",
    attack: Annotated[list[str] | None, typer.Option(help="Run this attack; may be repeated.")] = None,
    defence: Annotated[list[str] | None, typer.Option(help="Run with this defence; may be repeated.")] = None,
    rule: Annotated[list[str] | None, typer.Option(help="Poisoning: with this aggregation rule; repeatable.")] = None,
    share: Annotated[list[float] | None, typer.Option(help="Poisoning: this share attacks; repeatable.")] = None,
    from_round: Annotated[int, typer.Option(help="Poisoning: attackers train honestly before this round.")] = 1,
    arm: Annotated[list[str] | None, typer.Option(help="Train this trunk; may be repeated.")] = None,
    networks: NetworksOption = "",
    set_: SetOption = None,
    seed: SeedOption = None,
    out: OutOption = None,
    jobs: Annotated[int, typer.Option(min=1, help="Privacy: settings at a time; the rows are the same.")] = 1,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Forget cells that are there already.")] = False,
    cache: CacheOption = DEFAULT_CACHE,
    json_: JsonOption = False,
) -> None:
    """Set attacks against defences in a grid of trainings; goes on where it stopped."""
    from hcqsfl import config as settings
    from hcqsfl.registry import lookup

    grids = dict.fromkeys(("privacy", "poisoning"))
    resolved = settings.load(config, overrides(set_, seed))
    folder = out or Path("runs") / f"robustness-{config.stem}"
    lookup("robustness suite", grids, suite)
    attacks, defences, arms = tuple(attack or ()), tuple(defence or ()), tuple(arm or ())
    if suite == "poisoning":
        if networks:
            raise ValueError("--networks is for --suite privacy; poisoning trains by split.only and evaluation.seeds")
        if jobs > 1:
            raise ValueError("--jobs is for --suite privacy; poisoning trains its attackers and clients in one batch")
        chosen = (attacks, tuple(rule or ()), defences, arms, tuple(share or ()), from_round)
        poisoning_grid(resolved, folder, profile, chosen, overwrite, cache, json_)
        return
    if rule or share or from_round != 1:
        raise ValueError("--rule, --share and --from-round are for --suite poisoning: nobody poisons the privacy grid")
    privacy_grid(resolved, folder, profile, defences, arms, attacks, networks, jobs, overwrite, cache, json_)


def privacy_grid(
    config: "Config",
    folder: Path,
    profile: str,
    defences: tuple[str, ...],
    arms: tuple[str, ...],
    attacks: tuple[str, ...],
    networks: str,
    jobs: int,
    overwrite: bool,
    cache: Path,
    json_: bool,
) -> None:
    """Run the curve of privacy against utility, and show it."""
    from dataclasses import asdict

    from hcqsfl.evaluation.privacy_curve import table
    from hcqsfl.recipes.privacy_curve import METRICS, privacy_curve

    with shown_progress() as progress:
        found = privacy_curve(
            config,
            folder,
            profile,
            cache=cache,
            defences=defences,
            arms=arms,
            attacks=attacks,
            networks=networks,
            overwrite=overwrite,
            n_processes=jobs,
            command=command_line(),
            progress=progress,
        )
    if json_:
        told = {"points": [asdict(p) for p in found.points], "rows": [asdict(row) for row in found.rows]}
        typer.echo(json.dumps(told, indent=2))
        return
    from rich.console import Console

    console = Console()
    console.print(table(found.points, METRICS[0]))
    for sentence in found.sentences:
        console.print(f"• {sentence}", markup=False, highlight=False)
    for path in found.files:
        console.print(f"Wrote {path}", markup=False, highlight=False, soft_wrap=True)


def poisoning_grid(
    config: "Config",
    folder: Path,
    profile: str,
    chosen: tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...], tuple[str, ...], tuple[float, ...], int],
    overwrite: bool,
    cache: Path,
    json_: bool,
) -> None:
    """Run the grid of attacks by aggregation rule, detector and guard, and show it."""
    from dataclasses import asdict

    from hcqsfl.recipes.robustness import Choice
    from hcqsfl.recipes.robustness import robustness as execute

    with shown_progress() as progress:
        found = execute(
            config,
            folder,
            "poisoning",
            profile,
            choice=Choice(*chosen),
            cache=cache,
            overwrite=overwrite,
            progress=progress,
        )
    if json_:
        typer.echo(json.dumps([asdict(row) | {"leaks": row.leaks} for row in found.rows], indent=2))
        return
    from rich.console import Console

    console = Console()
    console.print(found.table)
    for sentence in found.sentences:
        console.print(f"• {sentence}", markup=False, highlight=False)
    for path in found.files:
        console.print(f"Wrote {path}", markup=False, highlight=False, soft_wrap=True)
