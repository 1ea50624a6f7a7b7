"""The fastest configuration of a network on this machine: a short search, and its memory."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Hashable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from lipsync_nb.avatar.avatar import Avatar
from lipsync_nb.avatar.loading import demo_speeches
from lipsync_nb.config.render_config import RenderConfig, kept_by
from lipsync_nb.errors import BenchmarkError
from lipsync_nb.network.providers import CUDA, first_provider
from lipsync_nb.pipeline.audio_features import load_speech
from lipsync_nb.pipeline.encoding import encode_speech
from lipsync_nb.system.limits import available_cores
from lipsync_nb.system.outputs import scratch_folder
from lipsync_nb.types.records import Speech

from .benchmarks import Meter, RunProgress
from .candidates import Changing, Target, candidates, check_allowed, check_target, name_of
from .clips import run_clip
from .environment import environment
from .one_clip import ClipJob
from .search import Search, Trials
from .tuned import SEARCH_VERSION, Tuned, remember, remember_last, remembered

# By target: the frames of a trial, and when the search begins nothing new.
TRIAL_FRAMES: dict[Target, int] = {"steady": 32, "first-clip": 100}
BUDGET_SECONDS: dict[Target, float] = {"steady": 40.0, "first-clip": 150.0}
_SPEECH = "hello"


def autotune(
    avatar: Avatar,
    *,
    target: Target = "steady",
    allow: Collection[Changing] = (),
    base: RenderConfig | None = None,
    speech: str | Path | None = None,
    max_frames: int | None = None,
    seconds: float | None = None,
    renew: bool = False,
    progress: RunProgress | None = None,
) -> Tuned:
    """Find the fastest streams, workers, fusion, features and order of work for this machine.

    Short trials of all candidates, turn by turn; after each round the slower half drops out. The
    result is kept by target, machine, versions, network, frame size, ``allow`` and ``base``, and
    found again.

    Args:
        target: ``steady``: frames a second of a process that is warm, also over batch sizes;
            ``first-clip``: seconds from the start of a process to its finished file, with the
            avatar prepared on disk; each trial is a process of its own, which loads the avatar
            from its path.
        allow: fields that change the output and are left alone otherwise: ``precision``, of which
            8-bit numbers change pictures a little (see `compare_precision`), and ``preset``, the
            H.264 encoder's: a faster one makes larger files of the same ``crf``.
        base: the other fields, as they will be used. Default: `RenderConfig`.
        speech: sound file or feature track of first clips, and what INT8 is calibrated on where
            the avatar has no features of its own. Default: a demo clip.
        max_frames: of each trial. Default: 32, of first clips 100.
        seconds: the search begins nothing new after so long; the result says so in a line where
            not everything was tried. Default: 40, for first clips 150.
        renew: search even if there is a result.
        progress: called with a text and a `Progress` over the frames of the whole search.

    Raises:
        BenchmarkError: ``seconds`` or ``max_frames`` is not positive, an unknown target or field;
            or a process failed.
        NetworkError: the avatar has no generator, or it does not run.

    Example:
        >>> config = autotune(load_avatar("demo")).config
    """
    check_target(target)
    check_allowed(allow)
    seconds = BUDGET_SECONDS[target] if seconds is None else seconds
    frames = TRIAL_FRAMES[target] if max_frames is None else max_frames
    if seconds <= 0 or frames < 1:
        text = f"seconds: found {seconds}, max_frames: found {frames}"
        raise BenchmarkError(f"{text}, expected more than 0.")
    base = base or RenderConfig()
    digest = _digest(avatar, (target, sorted(set(allow)), frames, base))
    if not renew and (found := remembered(digest)) is not None:
        remember_last(found)
        return found
    has_cuda = first_provider(base.provider) == CUDA
    tried = candidates(base, available_cores(), target, allow, has_cuda=has_cuda)
    speech = speech or demo_speeches()[_SPEECH]
    with scratch_folder() as folder:
        trials: Trials
        if target == "steady":
            trials = SteadyTrials(avatar, _steady_speech(avatar, speech, allow, frames), frames)
        else:
            trials = FirstClipTrials(avatar, speech, frames, folder)
        search = Search(target, trials, {name_of(c): c for c in tried}, seconds, progress)
        result = search.run()
    remember(digest, result)
    return result


def _steady_speech(
    avatar: Avatar, path: str | Path, allow: Collection[Changing], frames: int
) -> Speech:
    """Noise, since the network's speed does not depend on what is said.

    Real speech where INT8 may be calibrated on it: calibrations are kept.
    """
    spec = avatar.spec
    has_own = spec.audio == "features" and (avatar.path / spec.features_file).is_file()
    if "precision" in allow and not has_own:
        return Speech(features=np.asarray(encode_speech(avatar, load_speech(path))))
    rows = spec.num_rows + math.ceil(frames * spec.rows_fps / avatar.fps)
    noise = np.random.default_rng(0).normal(size=(rows, *spec.row_shape))
    return Speech(features=noise.astype(np.float32))


class SteadyTrials:
    """Frames a second of renders in this process, opening not counted.

    Args:
        speech: what is spoken; the network's speed does not depend on it.
    """

    # A process holds one template and one set of features for an avatar.
    is_lasting = False

    def __init__(self, avatar: Avatar, speech: Speech, frames: int) -> None:
        self._avatar, self._speech, self._frames = avatar, speech, frames

    def group(self, config: RenderConfig) -> Hashable:
        return kept_by(config)

    def run(
        self, name: str, config: RenderConfig, number: int, progress: RunProgress | None
    ) -> float:
        meter = Meter(self._speech, self._frames, False, progress)
        return meter.run(self._avatar, name, config, number).fps

    def score(self, figure: float) -> float:
        return figure


class FirstClipTrials:
    """Seconds from the start of a process of its own to the finished file of its one clip."""

    is_lasting = True

    def __init__(self, avatar: Avatar, speech: str | Path, frames: int, folder: Path) -> None:
        self._job = ClipJob(
            name="",
            avatar=str(avatar.path),
            generator=_text(avatar.generator),
            audio_encoder=_text(avatar.audio_encoder),
            spec=asdict(avatar.spec),
            box=avatar.boxes[0].corners if avatar.boxes_from.startswith("box ") else None,
            fps=str(avatar.fps),
            speech=str(speech),
            out=str(folder),
            max_frames=frames,
        )

    def group(self, config: RenderConfig) -> Hashable:
        # Of what is kept on disk some depends on each of the other fields.
        return replace(config, batch_size=0, n_jobs=1, streams=0, overlap=True, preset="fast")

    def run(
        self, name: str, config: RenderConfig, number: int, progress: RunProgress | None
    ) -> float:
        job = replace(self._job, name=name, config=asdict(config))
        return run_clip(job, number, progress).wall_seconds

    def score(self, figure: float) -> float:
        return -figure


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _digest(avatar: Avatar, asked: tuple[object, ...]) -> str:
    """Of all that the speed depends on."""
    generator = avatar.require_generator()
    machine = {key: text for key, text in environment().items() if key != "date"}
    network = hashlib.sha256(generator.read_bytes()).hexdigest()
    box = avatar.boxes[0]
    size = avatar.width, avatar.height, box.width, box.height
    what = (SEARCH_VERSION, machine, network, size, asked)
    return hashlib.sha256(repr(what).encode()).hexdigest()[:24]
