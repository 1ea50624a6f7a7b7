"""Many clips by joblib: threads, processes, or a cluster of machines."""

from __future__ import annotations

import os
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from lipsync_nb.avatar.avatar import Avatar
from lipsync_nb.errors import BatchError, LipsyncError
from lipsync_nb.pipeline.parts import discard_parts
from lipsync_nb.pipeline.sinks import is_video
from lipsync_nb.system.limits import available_cores
from lipsync_nb.system.quiet import without_warnings

from .backends import count_workers, sending_backend
from .fingerprints import Fingerprints
from .jobs import PATH_FIELDS, ClipJob, read_jobs
from .manifest import MANIFEST_FILE, Entry, Manifest, manifest_beside
from .results import BatchCallback, BatchProgress, BatchResult, ClipOutcome
from .worker import (
    Order,
    PartOrder,
    PartsMade,
    carry_out,
    carry_out_parts,
    done_already,
    kept,
    make_folder,
    plan_of,
)

# As many threads as a network may take.
MOST_CORES = 256
_WAIT_SECONDS = 24 * 3600.0
# Runs of parts for each worker, where a clip is cut: the first to be done takes another one.
_SHARES = 3

Given = TypeVar("Given")
Result = TypeVar("Result")


def render_many(
    jobs: str | Path | Iterable[ClipJob],
    n_jobs: int | None = None,
    *,
    manifest: str | Path | None = None,
    cores: int = 0,
    redo: bool = False,
    split: bool | None = None,
    progress: BatchCallback | None = None,
) -> BatchResult:
    """Render many clips; what is there already, made from the same, is kept.

    joblib carries them out: in this process, or in ``n_jobs`` processes of its own; within
    ``joblib.parallel_config("threading")`` in threads, within ``joblib.parallel_config("dask")``
    on a cluster. Each process holds its own networks, and maps the avatars' prepared frames,
    which are in RAM once. A clip that fails stops no other; one whose worker is killed is tried
    once more. What was done is on the disk when a call is broken off, and the next one does the
    rest. Two batches may work on the same clips: each is made by one of them.

    Args:
        jobs: a table for `read_jobs`, or jobs; no two with one output.
        n_jobs: as in joblib: None is 1, or what ``parallel_config`` says; -1 one a core.
        manifest: the file with a line for each clip; default: ``manifest.jsonl`` beside the
            table, or in the folder that all outputs lie in.
        cores: that a clip may use; 0: those of this machine shared among ``n_jobs``, and on a
            cluster one for each thread of its workers.
        redo: also what is there already.
        split: cut clips into parts that the workers share; the frames are the same. None: where
            there are fewer clips than workers.
        progress: called with a `BatchProgress` after each clip.

    Raises:
        BatchError: the table, a job or a number is not usable, or the workers are gone.
        OutputError: the manifest cannot be written.

    Example:
        >>> lnb.render_many("lessons.csv", n_jobs=2).head  # doctest: +SKIP
        '20 clips: 20 rendered in 95.2 s, 42.1 FPS together'
    """
    if n_jobs == 0:
        raise BatchError("n_jobs: found 0, expected 1 or more, or -1 for one a core.")
    if not 0 <= cores <= MOST_CORES:
        raise BatchError(f"cores: found {cores}, expected 0 to {MOST_CORES}.")
    todo = read_jobs(jobs) if isinstance(jobs, str | Path) else list(jobs)
    _check(todo)
    place = Path(manifest) if manifest is not None else _usual_manifest(jobs, todo)
    names = [str(job.out) for job in todo]
    batch = _Batch(list(map(_from_anywhere, todo)), names, Manifest(place), redo, progress)
    batch.look_for_done()
    batch.run(n_jobs, cores, split)
    return batch.result()


def _check(jobs: Sequence[ClipJob]) -> None:
    if not jobs:
        raise BatchError("found no jobs, expected one or more.")
    wrong = next((job for job in jobs if not isinstance(job, ClipJob)), None)
    if wrong is not None:
        raise BatchError(f"found {type(wrong).__name__} among the jobs, expected ClipJob.")
    names = Counter(os.path.normcase(os.path.abspath(job.out)) for job in jobs)
    name, count = names.most_common(1)[0]
    if count > 1:
        raise BatchError(f"{name}: is the output of {count} jobs, expected one.")


def _usual_manifest(jobs: object, todo: Sequence[ClipJob]) -> Path:
    if isinstance(jobs, str | Path):
        return manifest_beside(jobs)
    try:
        folder = os.path.commonpath([os.path.dirname(os.path.abspath(job.out)) for job in todo])
    except ValueError as error:  # several drives
        raise BatchError("the outputs have no folder in common, expected manifest=...") from error
    make_folder(Path(folder) / MANIFEST_FILE)
    return Path(folder) / MANIFEST_FILE


def _from_anywhere(job: ClipJob) -> ClipJob:
    """A job whose paths name the same files where a worker is at home in another folder."""
    given = {name: getattr(job, name) for name in PATH_FIELDS if not _is_demo(job, name)}
    # What is no path at all, its clip tells.
    paths: dict[str, Any] = {
        name: Path(path).absolute()
        for name, path in given.items()
        if isinstance(path, str | os.PathLike)
    }
    return replace(job, **paths)


def _is_demo(job: ClipJob, name: str) -> bool:
    return name == "avatar" and str(job.avatar) == "demo"


@dataclass
class _Batch:
    """A call's clips.

    Attributes:
        jobs: with paths that hold in every process.
        names: of the outputs, as the caller gave them.
    """

    jobs: Sequence[ClipJob]
    names: Sequence[str]
    manifest: Manifest
    redo: bool
    progress: BatchCallback | None
    outcomes: dict[int, ClipOutcome] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    start: float = field(default_factory=time.perf_counter)
    _suspects: set[int] = field(default_factory=set)
    _made: dict[int, PartsMade] = field(default_factory=dict)
    _frames: int = 0
    _failed: int = 0
    _kept: int = 0

    def take(self, index: int, outcome: ClipOutcome) -> None:
        """Note what became of a clip."""
        outcome = replace(outcome, out=self.names[index])
        self.outcomes[index] = outcome
        self._frames += outcome.num_frames if outcome.state == "rendered" else 0
        self._failed += outcome.state == "failed"
        self._kept += outcome.state == "kept"
        if self.progress is not None:
            elapsed = time.perf_counter() - self.start
            done, total = len(self.outcomes), len(self.jobs)
            figures = done, total, self._failed, self._frames, elapsed
            self.progress(BatchProgress(*figures, outcome, self._kept))

    def look_for_done(self) -> None:
        """Find those that are there already; what cannot be looked at, its worker tells."""
        self.manifest.read()
        if self.manifest.num_unreadable:
            count = self.manifest.num_unreadable
            self.notes.append(f"{self.manifest.path}: passed over {count} lines that are no entry.")
        if self.redo:
            return
        fingerprints = Fingerprints()
        for index, job in enumerate(self.jobs):
            if self.manifest.last_rendered(job.out) is None:
                continue
            try:
                known = done_already(self.manifest, job, fingerprints.of(job))
            except LipsyncError:
                continue
            if known is not None:
                with suppress(LipsyncError):  # somebody else's
                    self.manifest.clear_claim(job.out)
                discard_parts(job.out)
                self.take(index, kept(job, known))

    @property
    def _left(self) -> list[int]:
        return [index for index in range(len(self.jobs)) if index not in self.outcomes]

    def run(self, n_jobs: int | None, cores: int, split: bool | None) -> None:
        """Have the rest carried out, and wait for what others are making at the end."""
        if not self._left:
            return
        workers, is_cluster = count_workers(n_jobs)
        each = cores or (1 if is_cluster else min(MOST_CORES, max(1, available_cores() // workers)))
        if workers > 1:
            self._prepare()
            if split or (split is None and len(self._left) < workers):
                self._split(n_jobs, workers, each)
        elsewhere = self._carry_out(n_jobs, each, 0)
        if elsewhere:
            self._carry_out(n_jobs, each, _WAIT_SECONDS)

    def _carry_out(self, n_jobs: int | None, cores: int, wait_seconds: float) -> bool:
        """One pass over what is left; tells whether others are making some of it."""
        others: set[int] = set()

        def attempt(todo: Sequence[int]) -> None:
            orders = [self._order(index, cores, wait_seconds) for index in todo]
            self.manifest.read()
            before = {index: self.manifest.last(self.jobs[index].out) for index in todo}
            try:
                for index, outcome in _results(carry_out, orders, n_jobs):
                    if outcome.state == "elsewhere" and not wait_seconds:
                        others.add(index)
                    else:
                        self.take(index, outcome)
            except Exception as error:
                self._after_loss(before, error)

        while todo := [i for i in self._left if i not in others | self._suspects]:
            attempt(todo)
        # Each by itself: where its worker is killed once more, it is this clip that does it.
        for index in sorted(self._suspects - set(self.outcomes)):
            attempt([index])
        return bool(others)

    def _split(self, n_jobs: int | None, workers: int, cores: int) -> None:
        """Have the clips that are left made in parts; they are put together afterwards."""
        orders = [
            PartOrder(index, self.jobs[index], numbers, self._place, cores, self.redo)
            for index in self._left
            for numbers in _shares(self.jobs[index], workers, cores)
        ]
        if not orders:
            return
        split = {order.index for order in orders}
        self.jobs = [
            replace(job, config=replace(job.config, resume="on")) if index in split else job
            for index, job in enumerate(self.jobs)
        ]
        try:
            for index, made in _results(carry_out_parts, orders, n_jobs):
                self._made[index] = self._made.get(index, PartsMade()) + made
        except Exception as error:
            self.notes.append(f"a worker was lost ({type(error).__name__}: {error}).")

    def _order(self, index: int, cores: int, wait_seconds: float) -> Order:
        made = self._made.get(index, PartsMade())
        job = self.jobs[index]
        return Order(index, job, self._place, cores, self.redo, wait_seconds, made)

    @property
    def _place(self) -> Path:
        """Of the manifest, in every process."""
        return Path(os.path.abspath(self.manifest.path))

    def _after_loss(self, before: Mapping[int, Entry | None], error: Exception) -> None:
        """Workers were killed: the clips that they had begun are tried once more, one by one.

        Args:
            before: what was known of the clips when the workers began.

        Raises:
            BatchError: nothing had been begun: there are no workers.
        """
        self.manifest.read()
        left = set(self._left)
        begun = [i for i, entry in before.items() if i in left and self._is_begun(i, entry)]
        reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        if not begun:
            raise BatchError(
                f"the workers are gone ({reason}); {len(self.outcomes)} of {len(self.jobs)} clips "
                "are done, and the next call does the rest."
            ) from error
        self.notes.append(f"a worker was lost ({reason}).")
        if set(begun) <= self._suspects:
            text = "its worker was killed twice; out of memory?"
            self.take(begun[0], ClipOutcome(str(self.jobs[begun[0]].out), "failed", error=text))
        self._suspects.update(begun)

    def _is_begun(self, index: int, before: Entry | None) -> bool:
        """Whether a worker began a clip since then, and no more is known."""
        entry = self.manifest.last(self.jobs[index].out)
        return entry is not None and entry.outcome == "started" and entry != before

    def _prepare(self) -> None:
        """Write the frames of avatars that several clips share as files that workers map.

        What is wrong with an avatar, its clips tell.
        """
        fingerprints, avatars = Fingerprints(), dict[str, tuple[Avatar, int]]()
        for index in self._left:
            try:
                avatar, _ = fingerprints.avatar(self.jobs[index])
            except LipsyncError:
                continue
            _, count = avatars.get(avatar.fingerprint, (avatar, 0))
            avatars[avatar.fingerprint] = avatar, count + 1
        for avatar, count in avatars.values():
            if count > 1:
                with without_warnings, suppress(LipsyncError):
                    avatar.open_template("mmap", "auto")
                avatar.forget()

    def result(self) -> BatchResult:
        """What became of all."""
        seconds = time.perf_counter() - self.start
        outcomes = tuple(self.outcomes[index] for index in range(len(self.jobs)))
        return BatchResult(outcomes, seconds, str(self.manifest.path), tuple(self.notes))


def _shares(job: ClipJob, workers: int, cores: int) -> Iterator[range]:
    """The parts of a clip, in a few runs for each worker; none where it is short or not usable."""
    try:
        if not is_video(Path(job.out)):
            return
        make_folder(Path(job.out))
        plan = plan_of(job, cores)
        if plan.num_parts < 2:
            return
        plan.open_parts()
    except (LipsyncError, OSError, MemoryError):
        return
    size = -(-plan.num_parts // (workers * _SHARES))
    for first in range(0, plan.num_parts, size):
        yield range(first, min(first + size, plan.num_parts))


def _results(
    function: Callable[[Given], Result], orders: Sequence[Given], n_jobs: int | None
) -> Iterator[Result]:
    """What became of each, as it is known."""
    from joblib import Parallel

    calls: list[Any] = [(function, (order,), {}) for order in orders]
    parallel = Parallel(
        n_jobs=n_jobs,
        backend=sending_backend(),
        prefer="processes",
        return_as="generator_unordered",
        batch_size=1,
        # Whoever is done takes the next one. A cluster that is given more at once shares it out
        # ahead, and one worker may wait at the end while another has two to go.
        pre_dispatch="n_jobs",
    )
    with warnings.catch_warnings():
        # joblib's, where a pool is made anew after a worker was killed.
        warnings.filterwarnings("ignore", "A worker stopped while some jobs")
        yield from parallel(calls)
