"""Several trainings at a time, each in a process of its own; what comes out is the same."""

import multiprocessing
import queue
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any

import torch

from hcqsfl import build
from hcqsfl.config import Config
from hcqsfl.data.windows import Windows
from hcqsfl.recipes.job import Job, MakeSetup, run_job, simulated
from hcqsfl.recipes.progress import Progress
from hcqsfl.recipes.run_folder import RunFolder


def run_jobs(
    config: Config,
    todo: Sequence[Job],
    windows: Windows,
    run: RunFolder,
    cache: Path,
    progress: Progress,
    n_processes: int = 1,
    make_setup: MakeSetup = simulated,
) -> None:
    """Train all that is to be trained.

    Args:
        config: settings.
        todo: what to train; neighbours that share a fold share its scaled windows.
        windows: all windows.
        run: the run's folder.
        cache: folder of parsed windows, from which other processes take them.
        progress: what to tell of it.
        n_processes: trainings that run at a time.
        make_setup: makes each training's federation, where they run one at a time.
    """
    if n_processes == 1:
        worker = _Worker(config, windows, run, progress, make_setup)
        for job in todo:
            worker.train(job)
        return
    context = multiprocessing.get_context("spawn")  # forking a process that has threads may hang it
    told = context.Queue()
    begin = (config, run, cache, told)
    with ProcessPoolExecutor(n_processes, mp_context=context, initializer=_begin, initargs=begin) as pool:
        running = {pool.submit(_train, job) for job in todo}
        while running:
            done, running = wait(running, timeout=0.2, return_when=FIRST_EXCEPTION)
            _pass_on(told, progress)
            for future in done:
                if future.exception() is not None:
                    pool.shutdown(wait=False, cancel_futures=True)
                    future.result()
        _pass_on(told, progress)


class _Worker:
    """Trains one job after the other, and keeps the windows of the last fold."""

    def __init__(
        self,
        config: Config,
        windows: Windows,
        run: RunFolder,
        progress: Progress,
        make_setup: MakeSetup = simulated,
    ) -> None:
        self.config, self.windows, self.run, self.progress = config, windows, run, progress
        self.make_setup = make_setup
        self.prepared: build.Prepared | None = None

    def train(self, job: Job) -> None:
        if self.prepared is None or self.prepared.fold.name != job.fold.name:
            self.prepared = build.prepare(self.config, self.windows, job.fold)
        run_job(self.config, job, self.prepared, self.run, self.progress, self.make_setup)


_worker: _Worker | None = None


def _begin(config: Config, run: RunFolder, cache: Path, told: Any) -> None:
    global _worker
    torch.set_num_threads(config.training.threads)
    progress = Progress(step=lambda name, row: told.put((name, row)))
    _worker = _Worker(config, build.windows(config, cache), run, progress)


def _train(job: Job) -> None:
    if _worker is None:
        raise RuntimeError("this process was not begun")
    _worker.train(job)


def _pass_on(told: Any, progress: Progress) -> None:
    while True:
        try:
            progress.step(*told.get_nowait())
        except queue.Empty:
            return
