"""Several trainings at a time, each in a process of its own; what comes out is the same."""

import multiprocessing
import queue
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, as_completed, wait
from pathlib import Path
from typing import Any, TypeVar

import torch

from hcqsfl import build
from hcqsfl.config import Config
from hcqsfl.data.windows import Windows
from hcqsfl.recipes.job import Job, MakeSetup, run_job, simulated
from hcqsfl.recipes.progress import Progress
from hcqsfl.recipes.run_folder import RunFolder

T = TypeVar("T")
R = TypeVar("R")


def each_apart(function: Callable[[T], R], items: Sequence[T], n_processes: int, threads: int) -> Iterator[R]:
    """Yield what a function makes of each item, as it comes.

    Where it fails, nothing more is begun, what is under way is still yielded, and then the failure is raised.

    Args:
        function: what is to be done; where there are several processes, it and the items can be pickled.
        items: to do it to.
        n_processes: at a time; with one it is done here, in order.
        threads: of PyTorch in each process.
    """
    if n_processes == 1:
        yield from map(function, items)
        return
    context = multiprocessing.get_context("spawn")  # forking a process that has threads may hang it
    failed: Future[R] | None = None
    with ProcessPoolExecutor(n_processes, context, torch.set_num_threads, (threads,)) as pool:
        futures = [pool.submit(function, item) for item in items]
        for future in as_completed(futures):
            if future.cancelled():
                continue
            if future.exception() is None:
                yield future.result()
                continue
            failed = failed or future
            for each in futures:
                each.cancel()
    if failed is not None:
        failed.result()


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
