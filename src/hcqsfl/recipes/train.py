"""Train every arm of an experiment on every fold with every seed, score, compare, and write it all down."""

from collections.abc import Sequence
from pathlib import Path

import torch

from hcqsfl import build
from hcqsfl.config import Config
from hcqsfl.data.leakage import Leak
from hcqsfl.evaluation.result import Result
from hcqsfl.recipes.job import Job, MakeSetup, simulated
from hcqsfl.recipes.processes import run_jobs
from hcqsfl.recipes.progress import Progress
from hcqsfl.recipes.run_folder import RunFolder
from hcqsfl.recipes.score import Trained, score


def train(
    config: Config,
    out: Path,
    *,
    cache: Path,
    resume: bool = False,
    overwrite: bool = False,
    command: str = "",
    n_processes: int = 1,
    progress: Progress | None = None,
    make_setup: MakeSetup = simulated,
    page: bool = True,
    leaks: Sequence[Leak] | None = None,
) -> Result:
    """Run an experiment.

    Args:
        config: its settings.
        out: folder of the run.
        cache: folder of parsed windows.
        resume: go on with a run that was interrupted; what comes out is the same, bit for bit.
        overwrite: replace the run in ``out``.
        command: what made this run, for the report.
        n_processes: trainings that run at a time; what comes out does not depend on it.
        progress: what to tell of it.
        make_setup: makes each training's federation, where they run one at a time; by default all in this process.
        page: whether to write the report, which takes seconds; ``hcqsfl report`` writes it later.
        leaks: what the scan of these windows and folds found, where it was made for another run of them.

    Raises:
        ValueError, OSError: the settings, the recordings or the folder do not allow it; see the message.
        LeakError: the scan found a leak that no flag allows.
    """
    progress = progress or Progress()
    torch.set_num_threads(config.training.threads)
    arms = build.arms(config)
    build.circuit(config)
    windows = build.windows(config, cache, progress.say)
    folds = build.make_folds(config, windows)
    if leaks is None:
        progress.say("scanning for leaks")
        leaks = build.scan(config, windows, folds)
    folder = RunFolder.open(out, config, resume=resume, overwrite=overwrite)

    todo = [Job(arm, seed, fold) for fold in folds for seed in config.evaluation.seeds for arm in arms]
    progress.start(len(todo) * config.federation.rounds)
    run_jobs(config, todo, windows, folder, cache, progress, n_processes, make_setup)

    progress.say("scoring")
    trained = []
    for job in todo:
        where = folder.job(job.arm.name, job.seed, job.fold.name)
        kept = None if job.arm.reference else where / "checkpoint.safetensors"
        trained.append(Trained(job.arm, job.seed, job.fold, where, kept))
    compare = [(arms[0].name, arm.name) for arm in arms[1:]]
    return score(config, arms, trained, windows, list(leaks), folder, command=command, compare=compare, page=page)
