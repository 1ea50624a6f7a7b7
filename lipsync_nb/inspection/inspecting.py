"""`inspect`: look at whatever a path is, and say what was found and what to do."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from lipsync_nb.avatar.avatar import GENERATOR_FILES, Avatar
from lipsync_nb.avatar.face_boxes import find_boxes
from lipsync_nb.avatar.families import spec_for
from lipsync_nb.avatar.frame_source import IMAGE_SUFFIXES, FrameSource, find_frames
from lipsync_nb.avatar.loading import AUDIO_ENCODER_FILE, demo_folder, load_avatar
from lipsync_nb.avatar.session import Session
from lipsync_nb.config.render_config import RenderConfig
from lipsync_nb.errors import AvatarError, LipsyncError, NotFoundError, SpeechError
from lipsync_nb.media.video import VIDEO_SUFFIXES
from lipsync_nb.pipeline.audio_features import load_speech
from lipsync_nb.pipeline.family_audio import check_speech
from lipsync_nb.pipeline.render import RenderResult, render
from lipsync_nb.system.cache_folders import cache_folders
from lipsync_nb.system.inputs import given_path
from lipsync_nb.system.outputs import scratch_folder
from lipsync_nb.system.quiet import without_warnings
from lipsync_nb.system.steps import Step, tell_step
from lipsync_nb.types.records import SAMPLE_RATE, Box, ModelSpec, Progress, Speech

from .boxes import look_at_boxes
from .costs import TRIAL_FRAMES, look_at_memory, look_at_time
from .files import has_pictures, has_sound, has_speech, look_at_checkpoint
from .findings import (
    TOPICS,
    Evidence,
    Fact,
    Finding,
    Inspection,
    Part,
    Severity,
    SoundPicture,
    joined,
)
from .frames import look_at_frames
from .machine import look_at_machine
from .material import look_at_pictures
from .networks import is_encoder, look_at_encoder, look_at_generator
from .sounds import look_at_speech

CHECKPOINT_SUFFIXES = (".pt", ".pth", ".ckpt", ".tar", ".bin", ".safetensors")
RECORDING, BOXES = "a recording", "face boxes"
GENERATOR, ENCODER = "a generator network", "an audio encoder"
_TEST_SECONDS = 3.0
_MEASURED = ("recorded at", "leaves the frame", "give no frame")


def inspect(
    path_or_avatar: str | Path | Avatar,
    speech: str | Path | Speech | None = None,
    generator: str | Path | None = None,
    config: RenderConfig | None = None,
) -> Inspection:
    """Say what was found of an avatar, footage, a network, a checkpoint or a speech; what to do.

    What cannot be read becomes a finding, and the rest is still looked at. An avatar that can
    talk is tried: some frames are rendered, and what is prepared for them is kept as by a render.

    Args:
        path_or_avatar: an avatar or its folder (``"demo"`` too), a video, a picture, an ONNX
            file, a PyTorch checkpoint, a feature track, or a sound file.
        speech: what it is to say: a file, or a `Speech`.
        generator: network to use instead of the avatar's own.
        config: how it is to be rendered. Default: `RenderConfig`.

    Raises:
        NotFoundError: there is no such path, speech or generator.

    Example:
        >>> inspect("demo").problems
        ()
    """
    with without_warnings:
        if generator is not None:
            generator = _there(generator)
        wanted = _Wanted(_heard(speech), generator, config or RenderConfig())
        if isinstance(path_or_avatar, Avatar):
            avatar = path_or_avatar
            if generator is not None:
                spec, unknown = spec_for("auto", generator)
                avatar = replace(avatar, generator=generator, spec=spec, unknown=unknown)
            return _of_material(_Material.of(avatar), "avatar", wanted)
        is_demo = str(path_or_avatar) == "demo"
        return _of_path(demo_folder() if is_demo else _there(path_or_avatar), wanted)


def _there(path: str | Path) -> Path:
    found = given_path(path, "a file or folder")
    try:
        found.stat()
    except (OSError, ValueError) as error:
        raise NotFoundError(f"{path}: no such file or folder.") from error
    return found


@dataclass(frozen=True)
class _Heard:
    """A speech, where one was given and can be read, and what was found of it."""

    speech: Speech | None = None
    part: Part = field(default_factory=Part)
    picture: SoundPicture | None = None


@dataclass(frozen=True)
class _Wanted:
    """What is asked for beside the path."""

    heard: _Heard
    generator: Path | None
    config: RenderConfig


def _heard(speech: str | Path | Speech | None) -> _Heard:
    if speech is None:
        return _Heard()
    try:
        found = speech if isinstance(speech, Speech) else load_speech(_there(speech))
        part, picture = look_at_speech(found)
    except NotFoundError:
        raise
    except LipsyncError as error:
        advice = "Give a sound file, a video with sound, or a .npy track of float [n, 512]."
        text = f"the speech cannot be used: {error}".rstrip(".")
        return _Heard(part=Part((), (Finding("speech", "problem", text, advice),)))
    name = "sound" if found.path is None else found.path.name
    return _Heard(found, Part((Fact("speech", "file", name),)) + part, picture)


def _of_path(path: Path, wanted: _Wanted) -> Inspection:
    suffix = path.suffix.lower()
    if path.is_dir():
        return _of_material(_gathered(path, wanted.generator), "avatar folder", wanted)
    if suffix == ".onnx":
        return _of_network(path, wanted)
    if suffix in CHECKPOINT_SUFFIXES:
        lacks = (RECORDING, BOXES, "networks in ONNX form")
        return _made(path, "checkpoint", lacks, [look_at_checkpoint(path), wanted.heard.part])
    if suffix in IMAGE_SUFFIXES:
        return _of_material(_gathered(path, wanted.generator), "picture", wanted)
    if has_pictures(path):
        return _of_material(_gathered(path, wanted.generator), "video", wanted)
    if suffix not in VIDEO_SUFFIXES or has_speech(path):
        return _of_speech(path)
    return _of_material(_gathered(path, wanted.generator), "video", wanted)


def _of_network(path: Path, wanted: _Wanted) -> Inspection:
    encoder = False
    with suppress(LipsyncError):
        encoder = is_encoder(path)
    spec, unknown = spec_for("auto", path)
    look = look_at_encoder(path) if encoder else look_at_generator(path, spec, unknown)
    needs: tuple[str, ...] = (GENERATOR, ENCODER)
    if look.fits:
        needs = (GENERATOR,) if encoder else _heard_by(spec)
    kind = "audio encoder" if encoder else "generator" if look.fits else "network"
    parts = [look.part, wanted.heard.part]
    return _made(
        path, kind, (RECORDING, BOXES, *needs), parts, Evidence(sound=wanted.heard.picture)
    )


def _heard_by(spec: ModelSpec) -> tuple[str, ...]:
    """What a network of this family needs beside a speech."""
    if spec.audio == "encoder":
        return (ENCODER,)
    return () if spec.audio == "mel" else (f"a .npy track of {spec.features_name}",)


def _of_speech(path: Path) -> Inspection:
    heard = _heard(path)
    if heard.speech is None:
        part, kind = heard.part, "speech"
        if "not decodable" in part.findings[0].found:
            kind, text = "unknown file", f"{path.name} is nothing that is known here"
            advice = "Give an avatar folder, a video, an .onnx file, a checkpoint or a sound file."
            part = Part((), (Finding("file", "problem", text, advice),))
        return _made(path, kind, (RECORDING, BOXES, GENERATOR, ENCODER), [part])
    is_track = heard.speech.samples is None
    needs = (GENERATOR,) if is_track else (GENERATOR, ENCODER)
    kind = "feature track" if is_track else "speech"
    lacks = (RECORDING, BOXES, *needs)
    return _made(path, kind, lacks, [heard.part], Evidence(sound=heard.picture))


@dataclass(frozen=True)
class _Material:
    """An avatar, or what there is of one.

    Attributes:
        unknown: why the generator is of no known family; empty: it is, or there is none.
        faults: why frames or boxes are missing, and what was odd about them.
    """

    path: Path
    spec: ModelSpec
    unknown: str
    source: FrameSource | None = None
    boxes: tuple[Box, ...] | None = None
    boxes_from: str = ""
    generator: Path | None = None
    encoder: Path | None = None
    avatar: Avatar | None = None
    faults: Part = field(default_factory=Part)

    @classmethod
    def of(cls, avatar: Avatar) -> _Material:
        """All of an avatar."""
        # These are measured anew, with what to do.
        notes = [n for n in avatar.notes if not any(text in n for text in _MEASURED)]
        advice = "Look at the boxes on the pictures: do they sit on the face?"
        findings = tuple(Finding("face box", "hint", n.rstrip("."), advice) for n in notes)
        return cls(
            avatar.path, avatar.spec, avatar.unknown, avatar.source, tuple(avatar.boxes),
            avatar.boxes_from, avatar.generator, avatar.audio_encoder, avatar,
            Part((), findings),
        )  # fmt: skip


def _gathered(path: Path, generator: Path | None) -> _Material:
    """An avatar from disk, or what there is of one."""
    try:
        return _Material.of(load_avatar(path, generator))
    except (AvatarError, OSError):
        pass
    names = (*GENERATOR_FILES, AUDIO_ENCODER_FILE)
    own = [path / name if (path / name).is_file() else None for name in names]
    network = generator or own[0] or own[1]
    spec, unknown = spec_for("auto", network)
    found = _Material(path, spec, unknown, generator=network, encoder=own[2])
    try:
        source = find_frames(path)
        found = replace(found, source=source if source.count and source.shape else None)
    except (AvatarError, OSError) as error:
        return replace(found, faults=_no_frames(path, error))
    try:
        boxes = find_boxes(path, source)
        return replace(found, boxes=tuple(boxes.boxes), boxes_from=boxes.origin)
    except (AvatarError, OSError) as error:
        return replace(found, faults=_no_boxes(path, error))


def _no_frames(path: Path, error: Exception) -> Part:
    advice = "Copy or record it anew; ffmpeg -i IN OUT.mp4 mends some files."
    if path.is_dir():
        videos = sorted(f.name for f in path.iterdir() if f.suffix.lower() in VIDEO_SUFFIXES)
        advice = "Put pictures into full_body_img/, or a video there as full_body_video.mp4."
        loose = any(f.suffix.lower() in IMAGE_SUFFIXES for f in path.iterdir())
        if "found no frames" in str(error) and (videos or loose):
            advice = f"lipsync-nb prepare {path.name} OUT makes an avatar's folder of them."
            if videos:
                advice = f"Inspect the video {videos[0]} itself, or name it full_body_video.mp4."
    text = str(error).removeprefix(f"{path}: ").rstrip(".")
    return Part((), (Finding("frames", "problem", text, advice),))


def _no_boxes(path: Path, error: Exception) -> Part:
    text = str(error).removeprefix(f"{path}: ").rstrip(".")
    advice = (
        f"lipsync-nb prepare {path.name} OUT finds the face, or follows a square that you draw "
        "(--box); or give load_avatar a box=(x1, y1, x2, y2) that holds it in all frames."
    )
    return Part((), (Finding("face box", "problem", text, advice),))


def _of_material(material: _Material, kind: str, wanted: _Wanted) -> Inspection:
    """Look at all that there is, and try it where it can talk."""
    parts, lacks = [material.faults], []
    evidence = Evidence()
    if material.source is None:
        lacks.append(RECORDING)
    else:
        part, evidence = _pictures(material.source, material)
        parts.append(part)
    if material.boxes is None:
        lacks.append(BOXES)
    networks, missing, feature_bytes = _networks(material, wanted.heard.speech)
    lacks += missing
    parts += [networks, wanted.heard.part]
    if material.avatar is not None:
        parts.append(_costs(material.avatar, wanted, feature_bytes, can_talk=not lacks))
    evidence = replace(evidence, sound=wanted.heard.picture)
    return _made(material.path, kind, lacks, parts, evidence)


def _pictures(source: FrameSource, material: _Material) -> tuple[Part, Evidence]:
    spec = material.spec
    try:
        fps = float(source.fps)
        part = look_at_frames(source, fps)
        if source.is_video:
            sound = "yes" if has_sound(source.files[0]) else "no"
            part += Part((Fact("frames", "sound track", sound),))
        if material.boxes is not None:
            size = int(source.shape[1]), int(source.shape[0])
            part += look_at_boxes(material.boxes, material.boxes_from, size, fps, spec)
        found, evidence = look_at_pictures(source, material.boxes, spec, fps)
        return part + found, evidence
    except (AvatarError, OSError) as error:
        return _no_frames(source.files[0], error), Evidence()


def _networks(material: _Material, speech: Speech | None) -> tuple[Part, list[str], int]:
    """What was found of the networks, which of them is missing, and bytes of features."""
    part, missing, feature_bytes = Part(), [], 0
    if material.generator is None:
        advice = f"Put it at {GENERATOR_FILES[0]}, or give generator=...; lipsync-nb export "
        advice += "makes one of a checkpoint."
        part += Part((), (Finding("network", "problem", "there is no generator", advice),))
        missing.append(GENERATOR)
    else:
        look = look_at_generator(material.generator, material.spec, material.unknown)
        part, feature_bytes = part + look.part, look.feature_bytes
        missing += [] if look.fits else ["a generator that fits"]
    sound, needed = _sound_side(material, speech)
    return part + sound, [*missing, *needed], feature_bytes


def _sound_side(material: _Material, speech: Speech | None) -> tuple[Part, list[str]]:
    """The audio encoder, where the family has one, and whether the speech is what it hears."""
    spec, missing, part = material.spec, [], Part()
    if speech is not None:
        try:
            check_speech(speech, spec)
        except SpeechError as error:
            advice = f"Make {spec.track_text} of the speech with the family's own scripts."
            finding = Finding("speech", "problem", str(error).rstrip("."), advice)
            return Part((), (finding,)), [f"a .npy track of {spec.features_name}"]
    if spec.audio != "encoder":
        text = f"{spec.name} hears {spec.features_name}: no audio encoder is needed"
        return Part((), (Finding("network", "ok", text),)), []
    is_needed = speech is None or speech.samples is not None
    if material.encoder is None:
        advice = f"Put it at {AUDIO_ENCODER_FILE}, or speak ready feature tracks (.npy)."
        severity: Severity = "problem" if is_needed else "hint"
        part = Part((), (Finding("network", severity, "there is no audio encoder", advice),))
        return part, [ENCODER] if is_needed else []
    look = look_at_encoder(material.encoder, spec.row_shape)
    missing = ["an audio encoder that fits"] if is_needed and not look.fits else []
    return look.part, missing


def _costs(avatar: Avatar, wanted: _Wanted, feature_bytes: int, can_talk: bool) -> Part:
    heard, config = wanted.heard.speech, wanted.config
    part = look_at_memory(avatar, config, heard, feature_bytes)
    if not can_talk:
        return part
    trial = partial(_rendered, avatar, heard or _test_speech(avatar), config)
    return part + look_at_time(avatar, config, heard, trial)


def _rendered(avatar: Avatar, speech: Speech, config: RenderConfig) -> RenderResult:
    """Some frames, as a render makes them; nothing is left of the video."""
    count = min(config.max_frames or TRIAL_FRAMES, TRIAL_FRAMES)
    # What is held for other renders, one that may run now among them, is left alone.
    apart = replace(avatar, session=Session())
    with scratch_folder() as folder:
        trial = replace(config, max_frames=count)
        return render(apart, speech, folder / "trial.mp4", trial, progress=_tell_trial)


def _tell_trial(progress: Progress) -> None:
    tell_step(Step("trying", progress.done, progress.total, progress.elapsed_seconds))


def _test_speech(avatar: Avatar) -> Speech:
    """Noise that comes and goes four times a second, as syllables do; or features of noise."""
    rng, spec = np.random.default_rng(0), avatar.spec
    if spec.audio == "features":
        rows = rng.normal(0, 0.5, (round(_TEST_SECONDS * spec.rows_fps), *spec.row_shape))
        return Speech(features=rows.astype(np.float32))
    time = np.arange(round(_TEST_SECONDS * SAMPLE_RATE)) / SAMPLE_RATE
    noise = rng.uniform(-0.3, 0.3, len(time))
    return Speech(samples=(noise * np.abs(np.sin(4 * np.pi * time))).astype(np.float32))


def _made(
    path: Path,
    kind: str,
    lacks: list[str] | tuple[str, ...],
    parts: list[Part],
    evidence: Evidence | None = None,
) -> Inspection:
    """Everything in order, with the machine at the end."""
    whole = joined([*parts, look_at_machine(cache_folders(path))])
    order = TOPICS.index
    return Inspection(
        path,
        kind,
        tuple(lacks),
        tuple(sorted(whole.facts, key=lambda fact: order(fact.topic))),
        tuple(sorted(whole.findings, key=lambda finding: order(finding.topic))),
        evidence or Evidence(),
    )
