"""Video in and out: sizes, colours, sound, and results that appear only when complete."""

import os
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from builders import tone_speech, write_video
from videos import COUNT, ORIENTATIONS, number_in, set_matrix, write_coded

import lipsync_nb as lnb
from lipsync_nb.config.render_config import RenderConfig
from lipsync_nb.errors import AvatarError, OutputError
from lipsync_nb.media.video import VideoFile, iter_video
from lipsync_nb.pipeline.sinks import ImageFolderSink, Mp4Sink, open_sink
from lipsync_nb.types.arrays import ImageArray
from lipsync_nb.types.records import Speech


def picture(width: int, height: int, shift: int = 0) -> ImageArray:
    y, x = np.mgrid[:height, :width]
    colours = [(x + shift) * 255 // (width + 20), y * 255 // height, (x + y) % 256 // 2 + 60]
    return np.stack(colours, axis=-1).astype(np.uint8)


def silent(frames: int) -> Speech:
    return Speech(features=np.zeros((frames, 512), np.float32))


def write_all(sink: Any, images: list[ImageArray]) -> None:
    with sink:
        for image in images:
            sink.write(image)


def write_then_fail(sink: Any, error: BaseException) -> None:
    with sink:
        sink.write(picture(64, 48))
        raise error


@pytest.mark.parametrize(("width", "height"), [(160, 96), (161, 97), (64, 200)])
def test_mp4_keeps_frames_and_colours(tmp_path: Path, width: int, height: int) -> None:
    images = [picture(width, height, i) for i in range(12)]
    write_all(Mp4Sink(tmp_path / "v.mp4", silent(12), 25, RenderConfig(crf=8)), images)
    read = list(iter_video(tmp_path / "v.mp4"))
    assert len(read) == 12
    for found, image in zip(read, images, strict=True):
        inside = found[:height, :width].astype(int)
        assert np.abs(inside - image).mean() < 4


def test_mp4_is_tagged_and_has_its_index_in_front(tmp_path: Path) -> None:
    write_all(Mp4Sink(tmp_path / "v.mp4", silent(3), 25, RenderConfig()), [picture(64, 64)] * 3)
    data = (tmp_path / "v.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    with av.open(str(tmp_path / "v.mp4")) as container:
        context = container.streams.video[0].codec_context
        assert (context.pix_fmt, context.colorspace, context.color_range) == ("yuv420p", 1, 1)
        assert not container.streams.audio


@pytest.mark.parametrize(
    ("name", "rate", "channels", "expected_rate"),
    [("s.wav", 16_000, 1, 16_000), ("s.flac", 96_000, 2, 48_000), ("s.mp3", 44_100, 2, 44_100)],
)
def test_sound_track_ends_with_the_pictures(
    tmp_path: Path, name: str, rate: int, channels: int, expected_rate: int
) -> None:
    tone_speech(tmp_path / name, 3.0, rate, channels)
    speech = lnb.load_speech(tmp_path / name)
    images = [picture(64, 48, i) for i in range(74)]
    write_all(Mp4Sink(tmp_path / "v.mp4", speech, 25, RenderConfig()), images)
    with av.open(str(tmp_path / "v.mp4")) as container:
        audio, video = container.streams.audio[0], container.streams.video[0]
        assert (audio.codec_context.name, audio.codec_context.sample_rate) == ("aac", expected_rate)
        assert audio.codec_context.layout.nb_channels == channels
        seconds = [float(s.duration * s.time_base) for s in (audio, video)]
        assert abs(seconds[0] - seconds[1]) < 1 / 25
        assert video.frames == 74


def test_sound_in_the_video_is_in_time(tmp_path: Path) -> None:
    """A click at 1.6 s of the samples is at 1.6 s of the decoded sound track."""
    samples = np.zeros(3 * 16_000, np.float32)
    samples[25_600:25_700] = 0.9
    images = [picture(64, 48)] * 75
    write_all(Mp4Sink(tmp_path / "v.mp4", Speech(samples=samples), 25, RenderConfig()), images)
    with av.open(str(tmp_path / "v.mp4")) as container:
        blocks = [(f.time, f.to_ndarray()[0]) for f in container.decode(audio=0)]
    times = np.concatenate([t + np.arange(len(b)) / 16_000 for t, b in blocks])
    loud = times[np.abs(np.concatenate([b for _, b in blocks])) > 0.4]
    assert loud.min() == pytest.approx(1.6, abs=0.005)


def test_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "v.mp4"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt):
        write_then_fail(Mp4Sink(path, silent(9), 25, RenderConfig()), KeyboardInterrupt())
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("kind", ["jpg", "png"])
def test_folder_of_frames(tmp_path: Path, kind: str) -> None:
    images = [picture(80, 60, i) for i in range(3)]
    config = RenderConfig(image_format=kind)
    write_all(ImageFolderSink(tmp_path / "out", config), images)
    files = sorted((tmp_path / "out").iterdir())
    assert [f.name for f in files] == [f"00000{i}.{kind}" for i in range(3)]
    import cv2

    for file, image in zip(files, images, strict=True):
        difference = np.abs(cv2.imread(str(file)).astype(int) - image)
        assert difference.mean() < (3 if kind == "jpg" else 1e-9)


@pytest.mark.parametrize("name", ["v.mp4", "frames"])
def test_nothing_to_write_is_told(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError, match="there were no frames to write"):
        write_all(open_sink(tmp_path / name, silent(1), 25, RenderConfig()), [])
    assert list(tmp_path.iterdir()) == []


def test_failed_folder_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="stop"):
        write_then_fail(ImageFolderSink(tmp_path / "out", RenderConfig()), ValueError("stop"))
    assert list(tmp_path.iterdir()) == []


def unwritable(tmp_path: Path) -> list[tuple[Path, str]]:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a.txt").write_text("mine")
    (tmp_path / "folder.mp4").mkdir()
    return [
        (tmp_path / "no" / "v.mp4", "does not exist"),
        (tmp_path / "v.avi", r"found suffix \.avi"),
        (tmp_path / "full", "expected a new or empty folder"),
        (tmp_path / "folder.mp4", "is a folder, expected a file name"),
    ]


@pytest.mark.parametrize("case", range(4))
def test_unwritable_outputs(tmp_path: Path, case: int) -> None:
    path, message = unwritable(tmp_path)[case]
    with pytest.raises(OutputError, match=message):
        open_sink(path, silent(1), 25, RenderConfig())


def broken_videos() -> list[tuple[str, Callable[[bytes], bytes], str]]:
    return [
        ("truncated", lambda data: data[: len(data) * 2 // 3], "is damaged or breaks off"),
        ("empty", lambda data: b"", "not decodable as video"),
        ("text", lambda data: b"not a video", "not decodable as video"),
    ]


@pytest.mark.parametrize(("name", "damage", "message"), broken_videos())
def test_broken_videos(
    tmp_path: Path, name: str, damage: Callable[[bytes], bytes], message: str
) -> None:
    rng = np.random.default_rng(0)
    noisy = [rng.integers(0, 255, (96, 160, 3)).astype(np.uint8) for _ in range(30)]
    write_all(Mp4Sink(tmp_path / "v.mp4", silent(30), 25, RenderConfig()), noisy)
    broken = tmp_path / f"{name}.mp4"
    broken.write_bytes(damage((tmp_path / "v.mp4").read_bytes()))
    with pytest.raises(AvatarError, match=rf"{name}\.mp4: {message}"):
        list(iter_video(broken))


def test_a_file_without_pictures_is_no_video(tmp_path: Path) -> None:
    tone_speech(tmp_path / "s.m4a", 1.0, 44_100, 1)
    with pytest.raises(AvatarError, match="found no pictures"):
        list(iter_video(tmp_path / "s.m4a"))


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_marked_videos_are_read_upright(tmp_path: Path, name: str) -> None:
    matrix, upright = ORIENTATIONS[name]
    path = write_coded(tmp_path / "v.mp4")
    stored = [upright(frame) for frame in iter_video(path)]
    planes = [frame.copy() for frame in luma_of(path)]
    video = VideoFile(set_matrix(path, matrix))
    assert video.index.first.shape == stored[0].shape
    for index, frame in enumerate(iter_video(path)):
        np.testing.assert_array_equal(frame, stored[index])
        np.testing.assert_array_equal(video.read(index), stored[index])
    for index in (0, 7):
        luma = video.read_i420(index)[: stored[0].shape[0]]
        np.testing.assert_array_equal(luma, upright(planes[index]))


def luma_of(path: Path) -> list[ImageArray]:
    """The luma of each frame as `VideoFile` gives it."""
    video = VideoFile(path)
    return [video.read_i420(i)[: video.index.first.shape[0]] for i in range(len(video))]


def test_a_phones_recording_comes_out_upright(tmp_path: Path, speech: Speech) -> None:
    """Rotated and at 30 a second: portrait at 25, with the mouth where the rectangles are."""
    path = set_matrix(write_coded(tmp_path / "v.mp4", rate=30), (0, 1, -1, 0))
    own = lnb.load_avatar(path, box=(4, 30, 60, 86))
    assert (own.width, own.height, len(own), own.fps, own.notes) == (64, 96, 24, 30, ())
    with pytest.warns(UserWarning, match="recorded at 30"):
        avatar = lnb.load_avatar(path, box=(4, 30, 60, 86), fps=25)
    assert (avatar.width, avatar.height, len(avatar)) == (64, 96, 20)
    template = avatar.open_template("memory", "i420")
    assert template.shape == (96, 64, 3)
    expected = np.rot90(picture(96, 64), -1)
    assert template.frames[0].shape == expected.shape
    for index in (0, 9):
        difference = template.frames[index].astype(int) - avatar.source.read(index)
        assert np.abs(difference).mean() < 4


@pytest.mark.parametrize(("matrix", "aspect"), [("as stored", (4, 3)), ("90", (3, 4))])
def test_the_pixels_aspect_is_kept(
    tmp_path: Path, matrix: str, aspect: tuple[int, int], synctalk_folder: Path, speech: Speech
) -> None:
    path = write_coded(tmp_path / "v.mp4", pixel_aspect=Fraction(4, 3))
    set_matrix(path, ORIENTATIONS[matrix][0])
    networks = synctalk_folder / "models"
    avatar = lnb.load_avatar(
        path,
        networks / "generator.onnx",
        networks / "audio_encoder.onnx",
        box=(4, 4, 60, 60),
    )
    assert avatar.sample_aspect_ratio == Fraction(*aspect)
    lnb.render(avatar, speech, tmp_path / "out.mp4", RenderConfig(max_frames=3))
    assert VideoFile(tmp_path / "out.mp4").index.first.pixel_aspect == Fraction(*aspect)


@pytest.mark.parametrize("container", ["mp4", "mov", "mkv", "avi", "webm"])
@pytest.mark.parametrize("part", [0.5, 0.9])
def test_videos_that_break_off_are_told(tmp_path: Path, container: str, part: float) -> None:
    codec = "vp9" if container == "webm" else "h264"
    whole = write_coded(tmp_path / f"whole.{container}", codec)
    data = moved_in_front(whole) if container in ("mp4", "mov") else whole.read_bytes()
    cut = tmp_path / f"cut.{container}"
    cut.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(AvatarError, match=rf"cut\.{container}: .*breaks off"):
        VideoFile(cut)


def moved_in_front(path: Path) -> bytes:
    """The bytes of an MP4 with its index in front, so that a cut takes pictures only."""
    target = path.with_name(f"front{path.suffix}")
    options = {"movflags": "+faststart"}
    with av.open(str(path)) as source, av.open(str(target), "w", options=options) as out:
        copied = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.size:
                packet.stream = copied
                out.mux(packet)
    return target.read_bytes()


def test_a_damaged_frame_is_told(tmp_path: Path) -> None:
    path = write_coded(tmp_path / "v.mp4", "mpeg4", gop="one key frame")
    data = bytearray(path.read_bytes())
    middle = data.index(b"mdat") + (len(data) - data.index(b"mdat")) // 3
    data[middle : middle + 60] = np.random.default_rng(0).bytes(60)
    path.write_bytes(data)
    with pytest.raises(AvatarError, match=r"v\.mp4: frame \d+ is damaged"):
        list(iter_video(path))


def test_bytes_after_the_end_are_nothing(tmp_path: Path) -> None:
    path = write_coded(tmp_path / "v.mkv")
    expected = list(iter_video(path))
    path.write_bytes(path.read_bytes() + b"motion photo" * 99)
    np.testing.assert_array_equal(list(iter_video(path)), expected)


@pytest.mark.parametrize("name", ["12:30.mp4", "http:x.mp4", "pipe:0.mp4", "a%03d*?.mp4"])
@pytest.mark.skipif(sys.platform == "win32", reason="no such names there")
def test_names_are_names(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write_coded(tmp_path / "v.mp4").rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert len(list(iter_video(name))) == COUNT
    assert number_in(VideoFile(Path(name)).read(11)) == 11


@pytest.mark.skipif(sys.platform != "linux", reason="names are text there")
def test_a_name_that_is_no_text_does_not_end_the_process(tmp_path: Path) -> None:
    name = tmp_path / os.fsdecode(b"caf\xe9.mp4")
    write_video(tmp_path / "v.mp4", [picture(64, 48, i) for i in range(4)]).rename(name)
    program = (
        "import os, sys, lipsync_nb as lnb\n"
        "avatar = lnb.load_avatar(os.fsdecode(os.fsencode(sys.argv[1])), box=(2, 2, 40, 40))\n"
        "print(len(avatar.open_template('mmap', 'i420')), avatar.fingerprint[:0])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, os.fsencode(name)], capture_output=True, check=False
    )
    assert (done.returncode, done.stdout.split()) == (0, [b"4"]), done.stderr


@pytest.mark.parametrize(
    "text",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{other}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile '{other}'\n",
    ],
)
def test_a_list_of_other_files_opens_none(tmp_path: Path, text: str) -> None:
    other = write_coded(tmp_path / "other.mp4")
    for named in (other, other.name):
        (tmp_path / "v.mp4").write_text(text.format(other=named))
        with pytest.raises(AvatarError, match=r"v\.mp4: not decodable as video"):
            list(iter_video(tmp_path / "v.mp4"))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_tags_that_are_no_text_do_not_matter(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"v{suffix}"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "a title of its own"
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(3):
            frame = av.VideoFrame.from_ndarray(picture(64, 48), format="bgr24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    data = path.read_bytes()
    assert b"a title" in data
    path.write_bytes(data.replace(b"a title", b"\xe9 t\xeftle"))
    assert len(list(iter_video(path))) == 3
