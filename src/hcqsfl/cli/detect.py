"""Find intrusions among rows, and malicious clients among a federation's."""

from pathlib import Path
from typing import Annotated, Any

import typer

from hcqsfl.cli.common import (
    DEFAULT_CACHE,
    CacheOption,
    JsonOption,
    SetOption,
    overrides,
    print_table,
    shown_progress,
    sub_app,
)

app = sub_app("Find intrusions among rows, and malicious clients among a federation's.")

ConfigArgument = Annotated[Path, typer.Argument(help="A TOML file of settings; see configs/.")]
OutFolder = Annotated[Path | None, typer.Option(help="Folder for table and figure; default runs/CONFIG-detect.")]


@app.command("intrusions")
def detect_intrusions(
    config: ConfigArgument,
    set_: SetOption = None,
    normal: Annotated[str, typer.Option(help="The class to learn; every other one is an attack.")] = "normal",
    features: Annotated[int, typer.Option(min=1, help="Reduced features, and qubits.")] = 8,
    train: Annotated[
        int | None, typer.Option(help="Normal rows to learn from, drawn for each seed; all unless given.")
    ] = 2000,
    test: Annotated[int | None, typer.Option(help="Test rows, drawn once; all unless given.")] = None,
    false_alarms: Annotated[float, typer.Option(help="Share of held-out normal rows above the threshold.")] = 0.01,
    detector: Annotated[list[str] | None, typer.Option(help="Only these detectors; may be repeated.")] = None,
    out: OutFolder = None,
    cache: CacheOption = DEFAULT_CACHE,
    json_: JsonOption = False,
) -> None:
    """Train quantum and classical detectors on normal rows alone, and test them on the same rows."""
    from hcqsfl import config as settings

    resolved = settings.load(config, overrides(set_, None))
    folder = out or Path("runs") / f"{config.stem}-detect"

    from hcqsfl.recipes import detect as recipe

    with shown_progress() as progress:
        found = recipe.detect_of(
            resolved,
            cache=cache,
            detectors=detector or (),
            normal=normal,
            n_features=features,
            n_train=train,
            n_test=test,
            false_alarms=false_alarms,
            out=folder,
            progress=progress,
        )
    if json_:
        typer.echo((folder / "detection.json").read_text(encoding="utf-8"), nl=False)
        return
    rows = [
        {
            "detector": row.arm.title,
            "AUROC": _cell(row.auroc),
            "AUPRC": _cell(row.auprc),
            "recall": _cell(row.recall),
            "false\nalarms": f"{row.false_alarms.value:.3f}",
        }
        for row in found.rows
    ]
    n_attacks = sum(found.n_test.values()) - found.n_test[normal]
    print_table(
        f"{resolved.name}{' (SYNTHETIC)' if found.synthetic else ''}",
        rows,
        f"learnt from {found.n_train} normal rows, {found.n_features} of {found.n_columns} columns' worth; tested on "
        f"{found.n_test[normal]} normal rows and {n_attacks} attacks; recall with {false_alarms:.2g} false alarms "
        f"asked for; {len(found.seeds)} seed(s)",
    )
    for sentence in found.sentences:
        typer.echo(f"• {sentence}")
    typer.echo(f"Table and figure: {folder / 'detection.csv'}, {folder / 'detection.svg'}")


@app.command("clients")
def detect_clients(
    config: ConfigArgument,
    set_: SetOption = None,
    attack: Annotated[str, typer.Option(help="What attackers do; `hcqsfl info` lists it.")] = "label_flip",
    attacker: Annotated[list[str] | None, typer.Option(help="A client that attacks; may be repeated.")] = None,
    share: Annotated[float, typer.Option(help="Share of the clients that attack, unless they are named.")] = 0.2,
    detector: Annotated[list[str] | None, typer.Option(help="Only these detectors; may be repeated.")] = None,
    calibrate: Annotated[
        list[int] | None, typer.Option(help="Seed of a run without attackers; may be repeated. Default 101 102.")
    ] = None,
    false_alarms: Annotated[float, typer.Option(help="Share of honest client-rounds that may be flagged.")] = 0.02,
    strikes: Annotated[int, typer.Option(help="Flags that put a client into quarantine,")] = 3,
    window: Annotated[int, typer.Option(help="within so many rounds.")] = 5,
    out: OutFolder = None,
    cache: CacheOption = DEFAULT_CACHE,
    json_: JsonOption = False,
) -> None:
    """Let some clients attack, weigh all by what a detector trusts them, and count what it finds over all rounds."""
    from hcqsfl import config as settings

    resolved = settings.load(config, overrides(set_, None))
    folder = out or Path("runs") / f"{config.stem}-detect"

    from hcqsfl.recipes import detect_clients as recipe

    with shown_progress() as progress:
        setting, found = recipe.detect_clients_of(
            resolved,
            cache=cache,
            attackers=attacker or (),
            share=share,
            attack=attack,
            detectors=detector or recipe.DETECTORS,
            calibration_seeds=calibrate or (101, 102),
            false_alarms=false_alarms,
            strikes=strikes,
            window=window,
            out=folder,
            progress=progress,
        )
    if json_:
        typer.echo((folder / "clients.json").read_text(encoding="utf-8"), nl=False)
        return
    rows = [
        {
            "detector": each.detector.replace("_", " "),
            "found": _share(each.rates.detection),
            "accused\nwrongly": _share(each.rates.false_positives),
            "in quaran-\ntine, bad": _of(each.rates.quarantined_attackers),
            "honest": _of(each.rates.quarantined_honest),
            "macro F1": _score(each.score),
        }
        for each in found
    ]
    print_table(
        f"{setting.name}: {len(setting.attackers)} of {len(setting.clients)} clients attack ({setting.attack})"
        f"{' (SYNTHETIC)' if setting.synthetic else ''}",
        rows,
        "client-rounds of all rounds, the first included, with Wilson's 95 % intervals; macro F1 "
        f"{_score(setting.honest)} without attackers, {_score(setting.undefended)} with them and no defence",
    )
    typer.echo(f"Table and figure: {folder / 'clients.csv'}, {folder / 'clients.svg'}")


def _cell(got: Any) -> str:
    if got.value is None:
        return "-"
    return f"{got.value:.3f}" + ("" if got.low is None else f"\n{got.low:.2f}–{got.high:.2f}")


def _share(got: Any) -> str:
    return "-" if got.value is None else f"{got.value:.3f}\n{got.low:.2f}–{got.high:.2f}\n{got.count}/{got.total}"


def _of(got: Any) -> str:
    return f"{got.count} of {got.total}"


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
