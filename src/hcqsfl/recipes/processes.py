"""Several things at a time, each in a process of its own; what comes out is the same."""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from functools import partial
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

POLL = 0.2
"""Seconds after which what processes tell is looked for again."""


def each_apart(
    function: Callable[[T], R],
    items: Sequence[T],
    n_processes: int,
    threads: int,
    begin: Callable[[], None] | None = None,
    listen: Callable[..., None] | None = None,
) -> Iterator[R]:
    """Yield what a function makes of each item, as it comes.

    Where it fails, nothing more is begun, what is under way is still yielded, and then the failure is raised.

    Args:
        function: what is to be done; where there are several processes, it and the items can be pickled.
        items: to do it to.
        n_processes: at a time; with one it is done here, in order.
        threads: of PyTorch in each process.
        begin: called once in each of several processes, before anything else.
        listen: called here with what the function says there by ``tell``, before its result is yielded.
    """
    if n_processes == 1:
        yield from map(function, items)
        return
    context = multiprocessing.get_context("spawn")  # forking a process that has threads may hang it
    told = context.SimpleQueue()  # which writes at once: nothing is told after the result
    failed: Future[R] | None = None
    with ProcessPoolExecutor(n_processes, context, _begin, (threads, told, begin)) as pool:
        futures = [pool.submit(function, item) for item in items]
        running = set(futures)
        while running:
            over, running = wait(running, POLL, FIRST_COMPLETED)
            while not told.empty():
                message = told.get()
                if listen is not None:
                    listen(*message)
            for future in over:
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


_told: Any = None


def _begin(threads: int, told: Any, begin: Callable[[], None] | None) -> None:
    global _told
    _told = told
    torch.set_num_threads(threads)
    if begin is not None:
        begin()


def tell(*message: object) -> None:
    """Say something to who listens, from a process of ``each_apart``.

    Raises:
        RuntimeError: this is no such process.
    """
    if _told is None:
        raise RuntimeError("this process was not begun by each_apart: nobody listens to it")
    _told.put(message)


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
    begin = partial(_begin_training, config, run, cache)
    for _ in each_apart(_train, todo, n_processes, config.training.threads, begin, progress.step):
        pass


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


def _begin_training(config: Config, run: RunFolder, cache: Path) -> None:
    global _worker
    _worker = _Worker(config, build.windows(config, cache), run, Progress(step=tell))


def _train(job: Job) -> None:
    if _worker is None:
        raise RuntimeError("this process was not begun")
    _worker.train(job)
