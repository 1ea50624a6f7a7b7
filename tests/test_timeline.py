"""Frames are taken by their true times where another rate is asked for than the recording's."""

import json
import warnings
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from builders import tiny_networks
from videos import number_in, write_coded

import lipsync_nb as lnb
from lipsync_nb.avatar.frame_source import FrameSource
from lipsync_nb.errors import AvatarError
from lipsync_nb.media.timeline import frames_on_screen

BOX = (4, 4, 60, 60)


def load(path: Path, box: tuple[int, int, int, int] | None = BOX) -> lnb.Avatar:
    """The avatar at 25 frames a second, where a line about its rate is no failure."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return lnb.load_avatar(path, box=box, fps=25)


def shown_at(times: list[float], fps: int = 25) -> list[int]:
    """The rule in other words: for each slot the last frame that starts before its middle."""
    last = times[-1] + float(np.median(np.diff(times)))
    count = int((last - times[0]) * fps + 0.5)
    middles = [times[0] + (slot + 0.5) / fps for slot in range(count)]
    return [max(i for i, t in enumerate(times) if t < middle - 1e-9) for middle in middles]


@pytest.mark.parametrize(
    ("rate", "recorded", "taken"),
    [
        (Fraction(25), 60, 60),
        (Fraction(30), 60, 50),
        (Fraction(24), 48, 50),
        (Fraction(50), 60, 30),
        (Fraction(60000, 1001), 60, 25),
        (Fraction(15), 30, 50),
        (Fraction(30000, 1001), 300, 250),
        (Fraction(25, 2), 1, 1),
    ],
)
def test_steady_rates(rate: Fraction, recorded: int, taken: int) -> None:
    times = [i * rate.denominator for i in range(recorded)]
    chosen = frames_on_screen(times, Fraction(1, rate.numerator), 25)
    assert len(chosen) == taken
    assert chosen == sorted(chosen)
    for slot, frame in enumerate(chosen):
        assert abs(frame / rate - Fraction(slot, 25)) <= max(Fraction(1, 50), 1 / rate)


def test_thirty_a_second_by_hand() -> None:
    assert frames_on_screen(list(range(12)), Fraction(1, 30), 25) == [
        0,
        1,
        2,
        4,
        5,
        6,
        7,
        8,
        10,
        11,
    ]


def test_stamps_that_are_a_little_off_lose_nothing() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        times = (40 * np.arange(200) + rng.integers(-1, 2, 200)).tolist()
        assert frames_on_screen(times, Fraction(1, 1000), 25) == list(range(200))


def test_a_varying_rate() -> None:
    rng = np.random.default_rng(1)
    times = np.cumsum(rng.integers(5, 90, 120)).tolist()
    expected = shown_at([time / 1000 for time in times])
    assert frames_on_screen(times, Fraction(1, 1000), 25) == expected


def test_stamps_of_days_are_told() -> None:
    with pytest.raises(AvatarError, match="time stamps span 2000 hours"):
        frames_on_screen([0, 3_600_000], Fraction(1), 5)


@pytest.mark.parametrize("container", ["mp4", "mkv", "avi"])
def test_a_plain_recording_gives_its_frames_once(tmp_path: Path, container: str) -> None:
    avatar = lnb.load_avatar(write_coded(tmp_path / f"v.{container}"), box=BOX)
    assert [number_in(frame) for frame in avatar.source.frames()] == list(range(24))
    assert avatar.notes == ()


@pytest.mark.parametrize("container", ["mp4", "mkv"])
def test_recordings_of_a_varying_rate(tmp_path: Path, container: str) -> None:
    times = [0, 30, 70, 75, 160, 200, 210, 300, 310, 400]
    path = write_coded(tmp_path / f"v.{container}", times=times)
    with pytest.warns(UserWarning, match=r"22\.5 frames a second, at a rate that varies: 25"):
        avatar = lnb.load_avatar(path, box=BOX)
    expected = shown_at([time / 1000 for time in times])
    assert [number_in(frame) for frame in avatar.source.frames()] == expected
    assert [number_in(avatar.source.read(i)) for i in range(len(avatar))] == expected
    assert len(avatar.notes) == 1
    assert avatar.notes[0] in str(avatar)


@pytest.mark.parametrize(("cache", "pixels"), [("memory", "bgr"), ("mmap", "bgr"), ("none", "bgr")])
def test_templates_hold_the_frames_on_screen(tmp_path: Path, cache: str, pixels: str) -> None:
    path = write_coded(tmp_path / "v.mp4", rate=30)
    template = load(path).open_template(cache, pixels)
    expected = frames_on_screen(list(range(24)), Fraction(1, 30), 25)
    assert [number_in(template.frames[i]) for i in range(len(template))] == expected


def test_another_rate_of_the_network(tmp_path: Path) -> None:
    source = FrameSource((write_coded(tmp_path / "v.mp4"),), True, Fraction(20))
    assert [number_in(frame) for frame in source.frames()] == list(source.picks)
    assert source.count == round(24 / 25 * 20)


def folder_with(tmp_path: Path, count: int) -> Path:
    """A recording at 30 a second of 24 frames, and a rectangle for each of ``count``."""
    folder = tmp_path / "person"
    (folder / "cache").mkdir(parents=True)
    write_coded(folder / "full_body_video.mp4", rate=30)
    entries = {str(i): {"rect": [i, 2, i + 40, 42]} for i in range(count)}
    (folder / "cache" / "crop_rectangles.json").write_text(json.dumps(entries))
    tiny_networks(folder / "models")
    return folder


def test_boxes_of_recorded_frames_go_with_them(tmp_path: Path) -> None:
    avatar = load(folder_with(tmp_path, 24), None)
    assert [box.x1 for box in avatar.boxes] == list(avatar.source.picks)
    assert len(avatar) == 20


def test_boxes_of_taken_frames_are_taken_as_they_are(tmp_path: Path) -> None:
    avatar = load(folder_with(tmp_path, 20), None)
    assert [box.x1 for box in avatar.boxes] == list(range(20))


def test_other_numbers_of_boxes_are_told(tmp_path: Path) -> None:
    expected = "found 22 rectangles, expected 24 as there are frames, or 20 as are taken at 25 a"
    with pytest.raises(AvatarError, match=expected):
        load(folder_with(tmp_path, 22), None)


def test_the_rate_is_in_the_result(tmp_path: Path, speech: lnb.Speech) -> None:
    avatar = load(folder_with(tmp_path, 24), None)
    result = lnb.render(avatar, speech, tmp_path / "o.mp4", lnb.RenderConfig(max_frames=3))
    assert avatar.notes[0] in result.notes
