"""Set attacks against defences in a grid: every cell trains anew, and is kept as it is done."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.table import Table

from hcqsfl import build
from hcqsfl.config import Config
from hcqsfl.evaluation.attack_rows import Row, RowFile
from hcqsfl.recipes.profiles import PROFILES
from hcqsfl.recipes.progress import Progress
from hcqsfl.recipes.run_folder import RunFolder
from hcqsfl.registry import load_object, lookup

SUITES = {
    "poisoning": "hcqsfl.recipes.suites.poisoning_grid",
}
"""Name to a module of four functions.

``cells(config, windows, profile, choice)`` lists the cells as ``Case``, ``report(rows, folder, synthetic)`` writes
table and figures and returns their paths, ``table(rows)`` is for the terminal, ``summary(rows)`` says in sentences what
came out.
"""


@dataclass(frozen=True)
class Choice:
    """Which part of a grid to run; what is left empty is as the profile says.

    Attributes:
        attacks, rules, defences, arms: by name.
        shares: of the clients that attack.
        start: the first round in which they do.
    """

    attacks: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    defences: tuple[str, ...] = ()
    arms: tuple[str, ...] = ()
    shares: tuple[float, ...] = ()
    start: int = 1


@dataclass(frozen=True)
class Robustness:
    """What came out.

    Attributes:
        rows: of the cells that were asked for.
        files: tables and figures, of all cells that are there.
        sentences: what it says.
        table: for the terminal.
    """

    rows: Sequence[Row]
    files: Sequence[Path]
    sentences: Sequence[str]
    table: Table


def robustness(
    config: Config,
    out: Path,
    suite: str,
    profile: str,
    *,
    choice: Choice | None = None,
    cache: Path,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Robustness:
    """Run a grid; cells that are there already are not run again, whichever part of the grid they came with.

    Args:
        config: settings of the federation; cells change what they are about.
        out: folder of the grid.
        suite: a key of ``SUITES``.
        profile: a key of ``PROFILES``.
        choice: which part of the grid.
        cache: folder of parsed windows.
        overwrite: forget what is there.
        progress: what to tell of it.

    Raises:
        ValueError, OSError: there is no such suite or profile, the folder is of other settings, or the settings or
            recordings do not allow it; see the message.
    """
    progress = progress or Progress()
    module = load_object(lookup("robustness suite", SUITES, suite))
    chosen = lookup("profile", PROFILES, profile)
    torch.set_num_threads(config.training.threads)
    there = (out / "config.toml").is_file()
    folder = RunFolder.open(out, config, resume=there and not overwrite, overwrite=overwrite and there)
    windows = build.windows(config, cache, progress.say)
    progress.say("scanning for leaks")
    build.scan(config, windows, build.make_folds(config, windows))
    kept = RowFile(folder.path / f"{suite}-{profile}.jsonl")
    todo = module.cells(config, windows, chosen, choice or Choice())
    progress.start(len(todo))
    for case in todo:
        if case.key not in kept.groups:
            progress.say(case.key)
            kept.add(case.key, case.timed())
        progress.step(case.key, None)
    rows = [row for case in todo for row in kept.groups[case.key]]
    files = module.report(kept.rows(), folder.path, windows.synthetic)
    return Robustness(rows, files, module.summary(rows), module.table(rows))
