"""What is fuzzed: for each reader of files some that are sound, and how they are read."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from random import Random

import cv2
import numpy as np
from broken import encoder_of, generator_of
from builders import (
    template_frames,
    tiny_networks,
    tone_speech,
    video_with_sound,
    write_origin_avatar,
    write_synctalk_avatar,
)
from videos import write_coded

import lipsync_nb as lnb
from lipsync_nb.__main__ import main
from lipsync_nb.experiments.ablations import Ablation
from lipsync_nb.experiments.runs import Benchmark
from lipsync_nb.experiments.sweeps import Sweep
from lipsync_nb.many.manifest import Entry, Manifest
from lipsync_nb.media.h264 import H264Settings, open_segments
from lipsync_nb.media.imaging import bgr_to_i420
from lipsync_nb.media.packets import read_packets, write_packets
from lipsync_nb.media.picture_files import read_picture
from lipsync_nb.media.sound import Decoded, resampled
from lipsync_nb.media.video import VideoFile
from lipsync_nb.network.inference import audio_encoder
from lipsync_nb.notebook.report import write_report
from lipsync_nb.system.background import wait_for_background

CACHE = "LIPSYNC_NB_CACHE"
_SMALL = (96, 64)
_TEXT_SUFFIXES = {".json", ".jsonl", ".csv", ".tsv", ".lms", ".txt"}


@dataclass(frozen=True)
class Reader:
    """A reader of files.

    Attributes:
        name: in the table.
        make: writes sound inputs, each a folder, into a folder.
        targets: patterns of the files within such a folder that are mutated.
        use: reads a folder as a user would; a `LipsyncError` is a fine outcome.
    """

    name: str
    make: Callable[[Path], None]
    targets: tuple[str, ...]
    use: Callable[[Path], object]

    def is_text(self, file: Path) -> bool:
        return file.suffix in _TEXT_SUFFIXES

    def files(self, folder: Path) -> list[Path]:
        """The files of an input that are mutated."""
        found = {file for target in self.targets for file in folder.glob(target)}
        return sorted(file for file in found if file.is_file())


def _sound(suffix: str) -> Reader:
    make = partial(_make_sound, suffix)
    return Reader(f"sound {suffix}", make, (f"speech{suffix}",), _use_sound)


def _make_sound(suffix: str, folder: Path) -> None:
    for number, (rate, channels) in enumerate([(16_000, 1), (48_000, 2)]):
        path = folder / str(number) / f"speech{suffix}"
        path.parent.mkdir()
        if suffix == ".mp4":
            video_with_sound(path, 0.5, seed=number)
        else:
            tone_speech(path, 2.5 if suffix == ".ogg" else 0.7, rate, channels, seed=number)


def _use_sound(folder: Path) -> None:
    (path,) = folder.glob("speech.*")
    speech = lnb.load_speech(path)
    if speech.sound is not None:
        for _ in resampled(Decoded(speech.sound), 48_000, 2):
            pass


def _make_features(folder: Path) -> None:
    for number, dtype in enumerate(("<f4", "<f8", "<f2", ">f4")):
        (folder / str(number)).mkdir()
        track = np.random.default_rng(number).normal(size=(3, 512)).astype(dtype)
        np.save(folder / str(number) / "speech.npy", track)


def _make_pictures(folder: Path) -> None:
    image = template_frames(1, _SMALL)[0]
    progressive = [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]
    kinds: list[tuple[str, list[int]]] = [
        (".jpg", []), (".jpg", progressive), (".png", []), (".bmp", []), (".webp", []),
    ]  # fmt: skip
    for number, (suffix, options) in enumerate(kinds):
        (folder / str(number)).mkdir()
        cv2.imwrite(str(folder / str(number) / f"picture{suffix}"), image, options)


def _use_picture(folder: Path) -> None:
    (path,) = folder.glob("picture.*")
    read_picture(path)


def _make_videos(folder: Path) -> None:
    kinds = [("h264", ".mp4"), ("hevc", ".mkv"), ("mpeg4", ".avi"), ("vp9", ".webm"),
             ("mjpeg", ".mov"), ("h264", ".mkv")]  # fmt: skip
    for number, (codec, suffix) in enumerate(kinds):
        (folder / str(number)).mkdir()
        write_coded(
            folder / str(number) / f"video{suffix}", codec, times=[40 * i for i in range(9)]
        )


def _use_video(folder: Path) -> None:
    (path,) = folder.glob("video.*")
    video = VideoFile(path)
    for frame in islice(video.decoded(), 20):
        video.bgr(frame)
    for index in {len(video) - 1, len(video) // 2}:
        video.read(index)


def _make_pictures_avatar(folder: Path) -> None:
    write_synctalk_avatar(folder / "0", 3, (128, 96))
    shutil.rmtree(folder / "0" / "models")


def _make_video_avatar(folder: Path) -> None:
    write_origin_avatar(folder / "0", 3, (128, 96))
    shutil.rmtree(folder / "0" / "models")


def _use_avatar(folder: Path) -> None:
    avatar = lnb.load_avatar(folder)
    for _ in islice(avatar.source.frames(), 4):
        pass
    template = avatar.open_template("memory", "bgr")
    template.canvas(len(template) - 1)


def _make_generator(folder: Path) -> None:
    tiny_networks(folder / "0")
    (folder / "0" / "audio_encoder.onnx").unlink()
    # Next to no weights: the mutations meet its structure.
    (folder / "1").mkdir()
    (folder / "1" / "generator.onnx").write_bytes(generator_of())


def _make_encoder(folder: Path) -> None:
    tiny_networks(folder / "0")
    (folder / "0" / "generator.onnx").unlink()
    (folder / "1").mkdir()
    (folder / "1" / "audio_encoder.onnx").write_bytes(encoder_of())


def _use_generator(folder: Path) -> None:
    avatar = replace(_avatar_in(folder), generator=folder / "generator.onnx")
    speech = lnb.Speech(features=np.zeros((2, 512), np.float32))
    config = lnb.RenderConfig(max_frames=1, warmup="included", streams=1, num_threads=1)
    for _ in lnb.iter_frames(avatar, speech, config):
        pass


def _avatar_in(folder: Path) -> lnb.Avatar:
    """A sound avatar, made once a process and beside what is mutated."""
    home = folder.parent / "sound avatar"
    if not home.is_dir():
        write_synctalk_avatar(home, 1, (128, 96))
    return lnb.load_avatar(home)


def _use_encoder(folder: Path) -> None:
    audio_encoder(folder / "audio_encoder.onnx", num_threads=1)(
        np.zeros((2, 1, 80, 16), np.float32)
    )


def _make_template_cache(folder: Path) -> None:
    for number, pixels in enumerate(("bgr", "i420")):
        home = folder / str(number)
        write_synctalk_avatar(home, 2, (96, 64))
        shutil.rmtree(home / "models")
        _prepare(home, pixels)


def _prepare(home: Path, pixels: str) -> None:
    before = os.environ.pop(CACHE, None)
    try:
        template = lnb.load_avatar(home).open_template("mmap", pixels)  # type: ignore[arg-type]
        template.canvas(0)
    finally:
        if before is not None:
            os.environ[CACHE] = before


def _use_template_cache(folder: Path) -> None:
    for pixels in ("bgr", "i420"):
        _prepare(folder, pixels)


def _make_network_cache(folder: Path) -> None:
    tiny_networks(folder / "0")
    (folder / "0" / "audio_encoder.onnx").unlink()
    _use_network_cache(folder / "0")
    wait_for_background()
    shutil.rmtree(folder / "sound avatar")


def _use_network_cache(folder: Path) -> None:
    before, os.environ[CACHE] = os.environ.get(CACHE), str(folder / "cache")
    try:
        _use_generator(folder)
        wait_for_background()
    finally:
        if before is None:
            del os.environ[CACHE]
        else:
            os.environ[CACHE] = before


def _make_results(folder: Path) -> None:
    home = folder / "avatar"
    write_synctalk_avatar(home, 2, (128, 96))
    avatar = lnb.load_avatar(home)
    speech = lnb.Speech(features=np.zeros((4, 512), np.float32))
    (folder / "0").mkdir()
    (folder / "1").mkdir()
    runs = {"repeats": 1, "max_frames": 2}
    lnb.experiments.benchmark(avatar, speech, ["baseline", "cached"], **runs).save(
        folder / "0" / "results.json"
    )
    lnb.experiments.sweep(avatar, speech, batch_size=[1, 2], **runs).save(
        folder / "1" / "results.json"
    )
    shutil.rmtree(home)


def _use_results(folder: Path) -> None:
    for kind in (Benchmark, Ablation, Sweep):
        try:
            result = kind.load(folder / "results.json")
        except lnb.LipsyncError:
            continue
        str(result)
        write_report(folder / "report.html", result)


def _make_config(folder: Path) -> None:
    options = {"batch_size": "4", "n_jobs": "-1", "order": "index", "max_frames": "0",
               "cache": "mmap", "precision": "fp32", "crf": "18"}  # fmt: skip
    (folder / "0").mkdir()
    (folder / "0" / "config.json").write_text(json.dumps(options), encoding="utf-8")


def _use_config(folder: Path) -> None:
    text = (folder / "config.json").read_bytes().decode("utf-8", "replace")
    words = [word for word in text.replace('"', "").strip("{}").split(",") if word]
    pairs = [word.partition(":")[::2] for word in words]
    options = [f"--{name.strip().replace('_', '-')}={value.strip()}" for name, value in pairs]
    nowhere = str(folder / "nothing.wav")
    try:
        main(["render", str(folder), nowhere, str(folder / "out.mp4"), *options])
    except SystemExit as error:  # argparse's own refusal
        if error.code not in (0, 2):
            raise
    values = {name.strip(): _python_value(value.strip()) for name, value in pairs}
    try:
        lnb.RenderConfig(**values)
    except TypeError as error:
        if "unexpected keyword" not in str(error) and "keywords must be" not in str(error):
            raise


def _python_value(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _make_jobs(folder: Path) -> None:
    rows = [("person", f"{n}.wav", f"out/{n}.mp4", str(20 + n)) for n in range(3)]
    head = ("avatar", "speech", "out", "crf")
    texts = [s.join(cells) for s in ",;" for cells in (head, *rows)]
    tables = {"jobs.csv": texts[:4], "jobs.tsv": texts[4:]}
    lines = [json.dumps(dict(zip(head, (*row[:3], 20), strict=True))) for row in rows]
    for number, (name, table) in enumerate({**tables, "jobs.jsonl": lines}.items()):
        (folder / str(number)).mkdir()
        (folder / str(number) / name).write_text("\n".join(table), encoding="utf-8")


def _use_jobs(folder: Path) -> None:
    (path,) = folder.glob("jobs.*")
    for job in lnb.read_jobs(path):
        assert folder.resolve() in Path(job.out).resolve().parents


def _make_manifest(folder: Path) -> None:
    (folder / "0").mkdir()
    manifest = Manifest(folder / "0" / "manifest.jsonl")
    for number in range(3):
        entry = Entry(str(folder / "0" / f"{number}.mp4"), "rendered", "f" * 64, 9, 1.0, 9.0)
        manifest.add(replace(entry, notes=("a note",)))


def _use_manifest(folder: Path) -> None:
    manifest = Manifest(folder / "manifest.jsonl")
    manifest.read()
    for number in range(3):
        manifest.last(folder / f"{number}.mp4")
    manifest.add(Entry(str(folder / "new.mp4"), "started"))
    manifest.read()
    assert manifest.last(folder / "new.mp4") is not None


def _make_parts(folder: Path) -> None:
    for number, size in enumerate(((64, 48), (96, 64))):
        (folder / str(number)).mkdir()
        settings = H264Settings(*size, 25, 30, "superfast", threads=1)
        path = folder / str(number) / "0.part"
        encoder = open_segments(settings, lambda packets, path=path: write_packets(path, packets))
        for index, image in enumerate(template_frames(3, size)):
            encoder.write(bgr_to_i420(image), index)
        encoder.finish()


def _use_parts(folder: Path) -> None:
    # What `Parts.read` takes for damage.
    with suppress(OSError, ValueError, TypeError, KeyError, ArithmeticError, RecursionError):
        read_packets(folder / "0.part")


READERS = (
    Reader("job tables", _make_jobs, ("jobs.*",), _use_jobs),
    Reader("manifest", _make_manifest, ("manifest.jsonl",), _use_manifest),
    Reader("parts of a video", _make_parts, ("0.part",), _use_parts),
    *(_sound(suffix) for suffix in (".wav", ".mp3", ".flac", ".ogg", ".m4a", ".mp4")),
    Reader("features .npy", _make_features, ("speech.npy",), _use_sound),
    Reader("pictures", _make_pictures, ("picture.*",), _use_picture),
    Reader("videos", _make_videos, ("video.*",), _use_video),
    Reader("avatar of pictures", _make_pictures_avatar, ("landmarks/*.lms", "full_body_img/*.jpg"),
           _use_avatar),
    Reader("avatar of a video", _make_video_avatar, ("cache/*.json", "full_body_video.mp4"),
           _use_avatar),
    Reader("generator", _make_generator, ("generator.onnx",), _use_generator),
    Reader("audio encoder", _make_encoder, ("audio_encoder.onnx",), _use_encoder),
    Reader("template cache", _make_template_cache, (".lipsync_nb/*/*",), _use_template_cache),
    Reader("network cache", _make_network_cache, ("cache/*/*", "cache/*/*/*"), _use_network_cache),
    Reader("results", _make_results, ("results.json",), _use_results),
    Reader("configuration", _make_config, ("config.json",), _use_config),
)  # fmt: skip


def input_of(reader: Reader, seeds: Path, place: Path, rng: Random) -> None:
    """Copy one of a reader's sound inputs to a place, and mutate a file of it."""
    from .mutations import mutated

    sound = sorted(folder for folder in (seeds / reader.name).iterdir() if folder.is_dir())
    shutil.copytree(rng.choice(sound), place)
    files = reader.files(place)
    others = [file for folder in sound for file in reader.files(folder)]
    for file in rng.sample(files, min(len(files), rng.choice((1, 1, 1, 2)))):
        other = rng.choice(others).read_bytes()
        file.write_bytes(mutated(file.read_bytes(), other, rng, reader.is_text(file)))
