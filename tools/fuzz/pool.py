"""Worker processes that read one input each: crashes, hangs and great allocations are caught."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from random import Random
from typing import Any

import psutil

from .readers import CACHE, Reader, input_of

MEMORY_BYTES = 4 * 2**30
# Of processor time; the machine may be busy with other things.
LIMIT_SECONDS = 20.0
_LONGEST_WAIT = 10 * LIMIT_SECONDS
_START_SECONDS = 120.0
# The C library keeps the address space of what damaged videos claimed, not the memory: after some
# thousands of inputs little is left within the limit.
_INPUTS_OF_A_WORKER = 500
_SPAWN = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Job:
    """One input: its reader and number, from which and the seed its mutations follow."""

    reader: str
    number: int


@dataclass(frozen=True)
class Outcome:
    """What became of an input: ``result``, ``refusal`` or ``finding``, and what is to be told."""

    job: Job
    kind: str
    text: str
    seconds: float


class _Worker:
    """A process that reads inputs; it is started anew where it died or hung."""

    def __init__(
        self, readers: Sequence[Reader], seeds: Path, home: Path, seed: int, limit_seconds: float
    ) -> None:
        self.home, self._limit_seconds = home, limit_seconds
        self.home.mkdir(parents=True, exist_ok=True)
        self._arguments = (readers, seeds, home, seed)
        self.job: Job | None = None
        self._start()

    def _start(self) -> None:
        self._num_given = 0
        self.connection, theirs = _SPAWN.Pipe()
        self.process = _SPAWN.Process(target=_work, args=(theirs, *self._arguments), daemon=True)
        self.process.start()
        theirs.close()
        if not self.connection.poll(_START_SECONDS):
            raise RuntimeError("a worker does not start")
        self.connection.recv()

    def give(self, job: Job) -> None:
        """Have it read an input; the process is another one after so many."""
        if self._num_given == _INPUTS_OF_A_WORKER:
            self.close()
            self._start()
        self._num_given += 1
        self.job, self.since, self._used = job, time.monotonic(), self._processor_seconds()
        self.connection.send(job)

    def _processor_seconds(self) -> float:
        try:
            times = psutil.Process(self.process.pid).cpu_times()
        except psutil.Error:  # it died
            return 0.0
        return float(times.user + times.system)

    def _hangs(self, seconds: float) -> bool:
        used = self._processor_seconds() - self._used
        return used > self._limit_seconds or seconds > _LONGEST_WAIT

    def take(self) -> Outcome | None:
        """The outcome of its job; None: it is still at work."""
        if self.job is None:
            return None
        seconds = time.monotonic() - self.since
        if not self.connection.poll(0):
            return self._failed("hangs", seconds) if self._hangs(seconds) else None
        try:
            kind, text = self.connection.recv()
        except EOFError:
            return self._failed("died", seconds)
        outcome = Outcome(self.job, kind, text, seconds)
        self.job = None
        return outcome

    def _failed(self, what: str, seconds: float) -> Outcome:
        job = self.job
        if job is None:
            raise RuntimeError("a worker without a job failed")
        if what == "hangs" and self.process.pid is not None:
            os.kill(self.process.pid, signal.SIGUSR1)
            time.sleep(0.5)
        self.close()
        trace = (self.home / "crash.txt").read_text(encoding="utf-8", errors="replace")
        text = f"the process {what} (exit code {self.process.exitcode})\n{trace}"
        self.job = None
        self._start()
        return Outcome(job, "finding", text, seconds)

    def close(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()


def run(
    jobs: Iterator[Job],
    readers: Sequence[Reader],
    home: Path,
    seed: int,
    keep: Path | None = None,
    *,
    workers: int = 2,
    limit_seconds: float = LIMIT_SECONDS,
) -> Iterator[Outcome]:
    """Outcomes of jobs, as they come; the inputs of findings are copied into ``keep``.

    Args:
        home: a folder to work in, with the sound inputs in ``seeds``.
        limit_seconds: of processor time for an input.
    """
    pool = [
        _Worker(readers, home / "seeds", home / str(number), seed, limit_seconds)
        for number in range(workers)
    ]
    try:
        for worker in pool:
            _give_next(worker, jobs)
        while any(worker.job for worker in pool):
            wait([worker.connection for worker in pool if worker.job], timeout=0.5)
            for worker in pool:
                outcome = worker.take()
                if outcome is None:
                    continue
                if outcome.kind == "finding" and keep is not None:
                    _keep(outcome, worker.home / "input", keep)
                yield outcome
                _give_next(worker, jobs)
    finally:
        for worker in pool:
            worker.close()


def _give_next(worker: _Worker, jobs: Iterator[Job]) -> None:
    job = next(jobs, None)
    if job is not None:
        worker.give(job)


def _keep(outcome: Outcome, content: Path, keep: Path) -> None:
    folder = keep / f"{outcome.job.reader}-{outcome.job.number}".replace(" ", "-")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(content, folder)
    (folder / "finding.txt").write_text(outcome.text, encoding="utf-8")


def _work(
    connection: Connection, known: Sequence[Reader], seeds: Path, home: Path, seed: int
) -> None:
    """A worker's life: silent, and with limits of memory of its own."""
    crash = open(home / "crash.txt", "w", encoding="utf-8")  # noqa: SIM115
    faulthandler.enable(crash)
    faulthandler.register(signal.SIGUSR1, crash)
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    sys.setrecursionlimit(1000)
    warnings.simplefilter("ignore")
    readers = {reader.name: reader for reader in known}
    connection.send("ready")
    while True:
        job = connection.recv()
        crash.truncate(0)
        reader, place, cache = readers[job.reader], home / "input", home / "cache"
        for folder in (place, cache):
            shutil.rmtree(folder, ignore_errors=True)
        os.environ[CACHE] = str(cache)
        input_of(reader, seeds, place, Random(f"{seed}/{job.reader}/{job.number}"))
        connection.send(outcome_of(reader.use, place))


def outcome_of(use: Callable[[Path], Any], place: Path) -> tuple[str, str]:
    """What comes of reading an input: its kind, and what is to be told."""
    from lipsync_nb import LipsyncError
    from lipsync_nb.system.background import wait_for_background

    try:
        use(place)
        wait_for_background()
    except LipsyncError as error:
        sentence = str(error)
        if not sentence or "\n" in sentence:
            return "finding", f"not one line: {sentence!r}"
        return "refusal", sentence
    except BaseException:
        return "finding", traceback.format_exc()
    return "result", ""
