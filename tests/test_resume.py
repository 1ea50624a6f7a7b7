"""A long render that is broken off goes on from its finished segments."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import av
import pytest
from builders import tone_speech, write_synctalk_avatar

import lipsync_nb as lnb
from lipsync_nb.errors import NetworkError, OutputError
from lipsync_nb.media.video import iter_video
from lipsync_nb.pipeline.parts import RESUMED_FRAMES, Parts, is_resumed, parts_folder
from lipsync_nb.types.records import Progress

CONFIG = lnb.RenderConfig(provider="cpu", crf=30, resume="on")
SEGMENT = 250


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small avatar, and 24 s of speech: two segments and a half."""
    root = tmp_path_factory.mktemp("resume")
    write_synctalk_avatar(root / "person", num_frames=5)
    tone_speech(root / "s.wav", 24.0, 16_000, 1)
    return root


@pytest.fixture(scope="module")
def avatar(material: Path) -> lnb.Avatar:
    return lnb.load_avatar(material / "person")


@pytest.fixture(scope="module")
def speech(material: Path) -> lnb.Speech:
    return lnb.load_speech(material / "s.wav")


@pytest.fixture(scope="module")
def unbroken(
    material: Path, avatar: lnb.Avatar, speech: lnb.Speech, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    path = tmp_path_factory.mktemp("unbroken") / "whole.mp4"
    result = lnb.render(avatar, speech, path, CONFIG)
    assert result.num_frames > 2 * SEGMENT
    assert list(path.parent.iterdir()) == [path]
    return path


class _Stop(Exception):
    pass


def stopped_after(frames: int) -> lnb.ProgressBar:
    def stop(progress: Progress) -> None:
        if progress.done == frames:
            raise _Stop

    return stop  # type: ignore[return-value]


def broken_off(
    avatar: lnb.Avatar,
    speech: lnb.Speech,
    out: Path,
    frames: int,
    config: lnb.RenderConfig = CONFIG,
) -> None:
    with pytest.raises(_Stop):
        lnb.render(avatar, speech, out, config, progress=stopped_after(frames))
    assert not out.exists()


@pytest.mark.parametrize("config", [CONFIG, replace(CONFIG, encoders=2, batch_size=3)])
def test_it_goes_on_where_it_was_broken_off(
    avatar: lnb.Avatar, speech: lnb.Speech, unbroken: Path, tmp_path: Path, config: lnb.RenderConfig
) -> None:
    out, seen = tmp_path / "v.mp4", list[Progress]()
    broken_off(avatar, speech, out, SEGMENT + 60, config)
    assert parts_folder(out).is_dir()
    result = lnb.render(avatar, speech, out, config, progress=seen.append)
    assert seen[0].done == SEGMENT + 1
    assert seen[0].num_kept == SEGMENT
    assert seen[-1].done == seen[-1].total == result.num_frames
    assert any(f"{SEGMENT} of {result.num_frames} frames were there" in n for n in result.notes)
    assert out.read_bytes() == unbroken.read_bytes()
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("change", ["speech", "config", "avatar", "damage"])
def test_parts_of_something_else_are_not_used(
    material: Path, avatar: lnb.Avatar, speech: lnb.Speech, tmp_path: Path, change: str
) -> None:
    out, config = tmp_path / "v.mp4", CONFIG
    broken_off(avatar, speech, out, SEGMENT + 60)
    if change == "speech":
        tone_speech(tmp_path / "other.wav", 24.0, 16_000, 2)
        speech = lnb.load_speech(tmp_path / "other.wav")
    elif change == "config":
        config = replace(CONFIG, crf=31)
    elif change == "avatar":
        shutil.copytree(material / "person", tmp_path / "person")
        image = tmp_path / "person" / "full_body_img" / "2.jpg"
        shutil.copyfile(tmp_path / "person" / "full_body_img" / "3.jpg", image)
        avatar = lnb.load_avatar(tmp_path / "person")
    else:
        part = parts_folder(out) / "000000.part"
        content = bytearray(part.read_bytes())
        content[-10] ^= 1
        part.write_bytes(content)
    config = replace(config, max_frames=SEGMENT + 10) if change != "damage" else config
    result = lnb.render(avatar, speech, out, config)
    assert not any("were there" in note for note in result.notes)
    assert not parts_folder(out).exists()


def test_one_process_at_a_time_makes_it(
    avatar: lnb.Avatar, speech: lnb.Speech, tmp_path: Path
) -> None:
    out = tmp_path / "v.mp4"

    def another(progress: Progress) -> None:
        if progress.done == 5:
            with pytest.raises(OutputError, match=r"v\.mp4: another process is making it"):
                lnb.render(avatar, speech, out, CONFIG)
            raise _Stop

    with pytest.raises(_Stop):
        lnb.render(avatar, speech, out, CONFIG, progress=another)


def test_when_it_is_done_so() -> None:
    auto = lnb.RenderConfig()
    assert is_resumed(auto, RESUMED_FRAMES)
    assert not is_resumed(auto, RESUMED_FRAMES - 1)
    assert not is_resumed(replace(auto, resume="off"), RESUMED_FRAMES)
    assert is_resumed(replace(auto, resume="on"), 1)


@pytest.mark.skipif(sys.platform == "win32", reason="kills processes")
def test_killed_at_ten_moments(material: Path, unbroken: Path, tmp_path: Path) -> None:
    """``kill -9`` each time; pictures and sound are those of an unbroken run."""
    out, rng = tmp_path / "v.mp4", random.Random(0)
    command = [
        sys.executable, "-m", "lipsync_nb", "render", str(material / "person"),
        str(material / "s.wav"), str(out), "--provider", "cpu", "--crf", "30", "--resume", "on",
    ]  # fmt: skip
    kills = 0
    while kills < 10:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        begun = time.monotonic()
        while process.poll() is None and not parts_folder(out).exists():
            assert time.monotonic() < begun + 60
            time.sleep(0.02)
        time.sleep(rng.uniform(0.0, 1.2))
        if process.poll() is not None:
            break
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        kills += 1
    assert kills == 10
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert out.read_bytes() == unbroken.read_bytes()
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.skipif(sys.platform == "win32", reason="sends signals")
def test_an_interrupted_command_says_that_it_goes_on(material: Path, tmp_path: Path) -> None:
    out = tmp_path / "v.mp4"
    command = [
        sys.executable, "-m", "lipsync_nb", "render", str(material / "person"),
        str(material / "s.wav"), str(out), "--provider", "cpu", "--resume", "on",
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    end = time.monotonic() + 60
    while not any(parts_folder(out).glob("*.part")):
        assert time.monotonic() < end
        assert process.poll() is None
        time.sleep(0.02)
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    last = errors.decode().splitlines()[-1]
    assert last.endswith(
        "ended by SIGTERM, nothing was written; its finished parts are kept, and the same command "
        "goes on from there."
    )


def test_workers_share_a_long_clip(material: Path, unbroken: Path, tmp_path: Path) -> None:
    """Each renders parts of it, and they are put together as they are."""
    config = replace(CONFIG, resume="auto")
    job = lnb.ClipJob(material / "person", material / "s.wav", tmp_path / "v.mp4", config)
    result = lnb.render_many([job], 2)
    assert [outcome.state for outcome in result.outcomes] == ["rendered"]
    assert Path(job.out).read_bytes() == unbroken.read_bytes()
    notes = result.outcomes[0].notes
    assert any("frames were there" in note for note in notes), notes
    assert lnb.render_many([job], 2).count("kept") == 1


def test_no_parts_are_left_of_what_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        Parts(tmp_path / "nowhere" / "v.mp4", "key")
    assert list(tmp_path.iterdir()) == []


def test_frames_are_those_of_an_ordinary_render(
    avatar: lnb.Avatar, speech: lnb.Speech, tmp_path: Path
) -> None:
    """Before they are encoded; a part hears what the whole does."""
    from lipsync_nb.pipeline.render import FrameStream

    config = replace(CONFIG, max_frames=480)
    whole = [frame.data.copy() for frame in lnb.iter_frames(avatar, speech, config)]
    part = list(FrameStream(avatar, speech, config, part=range(300, 340)))
    assert [frame.index for frame in part] == list(range(300, 340))
    for frame in part:
        assert (frame.data == whole[frame.index]).all()


def test_the_video_plays(unbroken: Path) -> None:
    with av.open(str(unbroken)) as container:
        video, sound = container.streams.video[0], container.streams.audio[0]
        assert abs(float(video.duration * video.time_base) - 24) < 0.2
        assert abs(float(sound.duration * sound.time_base) - 24) < 0.2
    assert sum(1 for _ in iter_video(unbroken)) > 2 * SEGMENT


def test_a_render_of_something_else_takes_no_parts_away(
    avatar: lnb.Avatar, speech: lnb.Speech, tmp_path: Path
) -> None:
    """While a video is made, who would make another one in its place is told so."""
    out, whole, config = tmp_path / "v.mp4", tmp_path / "w.mp4", replace(CONFIG, max_frames=260)
    lnb.render(avatar, speech, whole, config)

    def another(progress: Progress) -> None:
        if progress.done == 255:
            with pytest.raises(OutputError, match=r"v\.mp4: another process is making it"):
                lnb.render(avatar, speech, out, replace(config, crf=40))

    lnb.render(avatar, speech, out, config, progress=another)
    assert out.read_bytes() == whole.read_bytes()
    assert sorted(tmp_path.iterdir()) == [out, whole]


def test_parts_go_when_the_whole_is_made_without_them(
    avatar: lnb.Avatar, speech: lnb.Speech, tmp_path: Path
) -> None:
    """Unless another process is at work with them."""
    out, config = tmp_path / "v.mp4", replace(CONFIG, max_frames=SEGMENT + 10)
    broken_off(avatar, speech, out, SEGMENT + 5, config)
    whole = replace(config, resume="off", max_frames=3)
    with Parts(out, "somebody else's").claimed():
        lnb.render(avatar, speech, out, whole)
        assert parts_folder(out).is_dir()
    lnb.render(avatar, speech, out, whole)
    assert list(tmp_path.iterdir()) == [out]


def test_a_part_says_what_it_is_of(avatar: lnb.Avatar, speech: lnb.Speech, tmp_path: Path) -> None:
    """A worker that is late with a part of something else does no harm."""
    out, other, config = tmp_path / "v.mp4", tmp_path / "o.mp4", replace(CONFIG, max_frames=260)
    whole = tmp_path / "w.mp4"
    lnb.render(avatar, speech, whole, config)
    broken_off(avatar, speech, other, 255, replace(config, crf=40))
    broken_off(avatar, speech, out, 255, config)
    names = [parts_folder(path) / "000000.part" for path in (other, out)]
    shutil.copyfile(*names)
    result = lnb.render(avatar, speech, out, config)
    assert not any("were there" in note for note in result.notes)
    assert out.read_bytes() == whole.read_bytes()


def test_a_render_that_cannot_begin_leaves_nothing(
    material: Path, speech: lnb.Speech, tmp_path: Path
) -> None:
    network = tmp_path / "network.onnx"
    network.write_bytes(b"no network")
    avatar = lnb.load_avatar(material / "person", network)
    with pytest.raises(NetworkError):
        lnb.render(avatar, speech, tmp_path / "v.mp4", CONFIG)
    assert list(tmp_path.iterdir()) == [network]
