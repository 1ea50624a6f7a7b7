"""One clip of a batch, in whichever process, thread or machine it is made."""

from __future__ import annotations

import os
import platform
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from lipsync_nb.avatar.avatar import Avatar
from lipsync_nb.config.render_config import RenderConfig
from lipsync_nb.errors import LipsyncError, OutputError
from lipsync_nb.network.providers import CPU, first_provider
from lipsync_nb.pipeline.audio_features import load_speech
from lipsync_nb.pipeline.part_renders import PartPlan
from lipsync_nb.pipeline.parts import discard_parts
from lipsync_nb.pipeline.render import RenderResult, render
from lipsync_nb.pipeline.timing import Timings
from lipsync_nb.system.background import wait_for_background
from lipsync_nb.system.limits import at_most_cores
from lipsync_nb.system.outputs import cannot_write
from lipsync_nb.system.quiet import without_warnings

from .backends import within_a_clip
from .fingerprints import Fingerprints
from .jobs import ClipJob
from .manifest import Entry, Manifest
from .results import ClipOutcome


@dataclass(frozen=True)
class PartsMade:
    """What workers made of a clip, and what it took of all of them together.

    Attributes:
        num_frames: that were rendered.
        seconds: with opening.
        steady_seconds: without.
    """

    num_frames: int = 0
    seconds: float = 0.0
    steady_seconds: float = 0.0

    def __add__(self, other: PartsMade) -> PartsMade:
        return PartsMade(
            self.num_frames + other.num_frames,
            self.seconds + other.seconds,
            self.steady_seconds + other.steady_seconds,
        )


@dataclass(frozen=True)
class Order:
    """What a worker is told of a clip.

    Attributes:
        index: of the job.
        job: the clip.
        manifest: its file.
        cores: that the clip may use.
        redo: also what is there already.
        wait_seconds: for another batch that is making it.
        made: in parts before.
    """

    index: int
    job: ClipJob
    manifest: Path
    cores: int
    redo: bool = False
    wait_seconds: float = 0.0
    made: PartsMade = PartsMade()


def carry_out(order: Order) -> tuple[int, ClipOutcome]:
    """Make a clip unless it is there; what goes wrong is its outcome, and stops nobody else.

    Returns:
        The job's index, and what became of it, which the manifest says too.
    """
    try:
        return order.index, _carried_out(order)
    except (LipsyncError, OSError, MemoryError) as error:
        return order.index, _failed(order.job, _sentence(error))
    except Exception as error:  # whatever a clip may bring with it
        return order.index, _failed(order.job, f"{type(error).__name__}: {error}")


def _carried_out(order: Order) -> ClipOutcome:
    job, manifest = order.job, Manifest(order.manifest)
    make_folder(Path(job.out))
    with manifest.claimed(job.out, order.wait_seconds) as is_mine:
        if not is_mine:
            return ClipOutcome(str(job.out), "elsewhere")
        try:
            fingerprints = Fingerprints()
            fingerprint = fingerprints.of(job)
            manifest.read()
            known = None if order.redo else done_already(manifest, job, fingerprint)
            if known is not None:
                # Those that were made here while another batch made the whole.
                discard_parts(job.out)
                return kept(job, known)
            manifest.add(Entry(str(job.out), "started", fingerprint))
            return _made(order, manifest, fingerprint, fingerprints.avatar(job)[0])
        except Exception as error:
            manifest.add(Entry(str(job.out), "failed", error=_sentence(error)))
            raise


def make_folder(out: Path) -> None:
    """Make the folder that an output lies in; OutputError where it cannot be."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(out, error) from error


def _made(order: Order, manifest: Manifest, fingerprint: str, avatar: Avatar) -> ClipOutcome:
    job, start = order.job, time.perf_counter()
    with without_warnings, within_a_clip(), at_most_cores(order.cores):
        config = within(job.config, order.cores)
        result = render(avatar, load_speech(job.speech), job.out, config)
        if not config.overlap:
            # What is kept for the next clip is written with this one's cores.
            wait_for_background()
    joined = result.timings
    seconds = time.perf_counter() - start
    made = order.made + PartsMade(joined.num_frames, seconds, joined.steady_seconds)
    entry = manifest.add(_entry(job, result, fingerprint, made))
    return replace(kept(job, entry), state="rendered")


def within(config: RenderConfig, cores: int) -> RenderConfig:
    """A configuration whose clip takes so many cores, where it says nothing of threads itself.

    On one core stages follow each other in one thread: those that work ahead, in threads of their
    own, would take the cores of other clips. Beside a GPU they overlap all the same, as otherwise
    it would wait for each of them.
    """
    if config.num_threads:
        return config
    is_usual = config.threads == "auto" and not config.streams and config.n_jobs == 1
    in_turn = cores == 1 and is_usual and first_provider(config.device) == CPU
    return replace(config, num_threads=cores, overlap=config.overlap and not in_turn)


def _entry(job: ClipJob, result: RenderResult, fingerprint: str, made: PartsMade) -> Entry:
    size, modified = state_of(job.out)
    fps = made.num_frames / made.steady_seconds if made.steady_seconds > 0 else 0.0
    return Entry(
        str(job.out),
        "rendered",
        fingerprint,
        result.num_frames,
        made.seconds,
        fps,
        size,
        modified,
        notes=(*result.shortfalls, *result.notes, *_untimed(result.num_frames, made.num_frames)),
    )


def _untimed(num_frames: int, num_made: int) -> tuple[str, ...]:
    """A line where a run that was broken off had made some: what it took is not known."""
    count = num_frames - num_made
    if count <= 0:
        return ()
    return (f"{count} of {num_frames} frames are of an earlier run; its seconds are not counted.",)


def state_of(out: str | Path) -> tuple[int, int]:
    """Bytes and time of an output, by which it is known again; of a folder, of what is in it.

    Raises:
        OutputError: it is not there.
    """
    try:
        if not os.path.isdir(out):
            status = os.stat(out)
            return status.st_size, status.st_mtime_ns
        with os.scandir(out) as files:
            found = [file.stat() for file in files]
    except OSError as error:
        raise OutputError(f"{out}: is not there any more ({error.strerror}).") from error
    newest = max((status.st_mtime_ns for status in found), default=0)
    return sum(status.st_size for status in found), newest


def done_already(manifest: Manifest, job: ClipJob, fingerprint: str) -> Entry | None:
    """What the manifest says of a clip that is there and made from the same; else None.

    What was begun or failed since left the output as it was, where its size and time still fit.
    """
    entry = manifest.last_rendered(job.out)
    if entry is None or entry.fingerprint != fingerprint:
        return None
    try:
        is_same = state_of(job.out) == (entry.bytes, entry.modified_ns)
    except OutputError:
        return None
    return entry if is_same else None


def kept(job: ClipJob, entry: Entry) -> ClipOutcome:
    """The outcome of a clip that is there already."""
    worker = f"{entry.host}:{entry.pid}"
    figures = entry.num_frames, entry.seconds, entry.fps
    return ClipOutcome(str(job.out), "kept", *figures, notes=entry.notes, worker=worker)


@dataclass(frozen=True)
class PartOrder:
    """What a worker is told of some parts of a long clip.

    Attributes:
        index: of the job.
        job: the clip.
        numbers: of the parts.
        manifest: its file.
        cores: that they may use.
        redo: also where the clip is there already.
    """

    index: int
    job: ClipJob
    numbers: range
    manifest: Path
    cores: int
    redo: bool = False


def plan_of(job: ClipJob, cores: int) -> PartPlan:
    """The parts of a clip.

    Raises:
        LipsyncError: as of `render`.
    """
    with without_warnings:
        avatar, _ = Fingerprints().avatar(job)
        return PartPlan(avatar, load_speech(job.speech), job.out, within(job.config, cores))


def carry_out_parts(order: PartOrder) -> tuple[int, PartsMade]:
    """Render some parts; what goes wrong, the clip itself tells when it is put together.

    Returns:
        The job's index, and what was made and took its time; nothing where the whole clip is
        there by now.
    """
    start, timings = time.perf_counter(), Timings()
    with (
        suppress(LipsyncError, OSError, MemoryError),
        without_warnings,
        within_a_clip(),
        at_most_cores(order.cores),
    ):
        if order.redo or not _is_there(order):
            timings = plan_of(order.job, order.cores).render(order.numbers)
    seconds = time.perf_counter() - start
    return order.index, PartsMade(timings.num_frames, seconds, timings.steady_seconds)


def _is_there(order: PartOrder) -> bool:
    """Whether another batch has made the clip meanwhile."""
    manifest = Manifest(order.manifest)
    manifest.read()
    if manifest.last_rendered(order.job.out) is None:
        return False
    return done_already(manifest, order.job, Fingerprints().of(order.job)) is not None


def _failed(job: ClipJob, error: str) -> ClipOutcome:
    worker = f"{platform.node()}:{os.getpid()}"
    return ClipOutcome(str(job.out), "failed", error=error, worker=worker)


def _sentence(error: BaseException) -> str:
    if isinstance(error, LipsyncError):
        return str(error)
    if isinstance(error, MemoryError):
        return f"there is not enough memory ({error or 'for what was asked'})."
    return f"{type(error).__name__}: {error}"
