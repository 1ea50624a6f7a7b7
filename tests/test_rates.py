"""Avatars at their own rate: told exactly from time stamps, asked for, or said in a file."""

import json
import re
import warnings
from fractions import Fraction
from pathlib import Path

import av
import pytest
from videos import number_in, write_coded

import lipsync_nb as lnb
from lipsync_nb.__main__ import main
from lipsync_nb.errors import AvatarError, ConfigError
from lipsync_nb.experiments import golden
from lipsync_nb.media.rates import rate_of, rate_text, recorded_rate

BOX = (4, 4, 60, 60)
NTSC_FILM, NTSC = Fraction(24000, 1001), Fraction(30000, 1001)
RATES = [
    NTSC_FILM, Fraction(24), Fraction(25), NTSC, Fraction(30), Fraction(50), 2 * NTSC, Fraction(60)
]  # fmt: skip


def stamps(rate: Fraction, ticks_a_second: int, count: int) -> list[int]:
    """As a container of this time base rounds them."""
    return [round(i / rate * ticks_a_second) for i in range(count)]


@pytest.mark.parametrize("rate", RATES, ids=rate_text)
@pytest.mark.parametrize("ticks", [1000, 15_360, 30_000, 90_000, 10**9])
def test_common_rates_are_told_exactly(rate: Fraction, ticks: int) -> None:
    for count in (24, 900):
        assert recorded_rate(stamps(rate, ticks, count), Fraction(1, ticks)) == (rate, True)


@pytest.mark.parametrize(
    ("times", "ticks", "expected"),
    [
        ([0], 25, (Fraction(25), True)),
        ([33 * i for i in range(200)], 1000, (Fraction(1000, 33), True)),
        ([i for i in range(40) if i != 17], 30, (Fraction(30), False)),
        ([0, 33, 70, 101, 130, 168, 199, 260, 300], 1000, (Fraction(30), False)),
        ([0, 16, 33, 50, 83, 100, 117, 134, 184], 1000, (2 * NTSC, False)),
        # Uneven about 25, with a median that is nearer to 24; and 30 with gaps, 25 in the mean.
        ([0, 41, 80, 121, 162, 198, 240, 281, 320], 1000, (Fraction(25), False)),
        ([0, 33, 67, 100, 133, 167, 200, 233, 320], 1000, (Fraction(30), False)),
        ([0, 2000, 4000, 6100], 1000, (Fraction(25), False)),
        ([0, 1, 2, 4], 1000, (Fraction(240), False)),
    ],
)
def test_other_recordings(times: list[int], ticks: int, expected: tuple[Fraction, bool]) -> None:
    assert recorded_rate(times, Fraction(1, ticks)) == expected


@pytest.mark.parametrize(
    ("value", "rate"),
    [
        (25, Fraction(25)), (29.97, NTSC), ("29.97", NTSC), ("30000/1001", NTSC), (NTSC, NTSC),
        (23.976, NTSC_FILM), (23.98, NTSC_FILM), (59.94, 2 * NTSC), (12.5, Fraction(25, 2)),
        (30.0, Fraction(30)), ("30", Fraction(30)), ("2997/100", Fraction(2997, 100)),
    ],
)  # fmt: skip
def test_rates_as_they_are_asked_for(value: float | str, rate: Fraction) -> None:
    assert rate_of(value) == rate


@pytest.mark.parametrize(
    "value", [0, -25, 0.5, 241, "fast", "", "1/0", float("nan"), float("inf"), True, None, [25],
              "1000001/1000000", "9" * 5000]
)  # fmt: skip
def test_what_is_no_rate(value: object, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^fps: found .+, expected frames a second from 1 to"):
        rate_of(value)  # type: ignore[arg-type]


@pytest.mark.parametrize("rate", RATES, ids=rate_text)
@pytest.mark.parametrize("container", ["mp4", "mkv", "avi"])
def test_a_video_is_rendered_at_its_own_rate(
    tmp_path: Path, rate: Fraction, container: str
) -> None:
    avatar = lnb.load_avatar(write_coded(tmp_path / f"v.{container}", rate=rate), box=BOX)
    assert avatar.fps == rate
    assert avatar.notes == ()
    assert [number_in(frame) for frame in avatar.source.frames()] == list(range(24))


def test_a_varying_rate_becomes_the_nearest_usual_one(tmp_path: Path) -> None:
    times = [0, 33, 66, 101, 130, 163, 196, 330, 363, 396]
    path = write_coded(tmp_path / "v.mp4", times=times)
    with pytest.warns(UserWarning, match=r"22\.73 frames a second, at a rate that varies: 30 a"):
        avatar = lnb.load_avatar(path, box=BOX)
    assert avatar.fps == 30
    # The frame before the gap is on screen for as long as it was.
    taken = [number_in(frame) for frame in avatar.source.frames()]
    assert taken == [0, 1, 2, 3, 4, 5, 6, 6, 6, 6, 7, 8, 9]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of twelve numbered pictures."""
    import cv2
    from videos import numbered_pictures

    folder = tmp_path / "person"
    (folder / "full_body_img").mkdir(parents=True)
    for number, image in enumerate(numbered_pictures(12)):
        cv2.imwrite(str(folder / "full_body_img" / f"{number}.png"), image)
    return folder


def numbers(folder: Path, fps: float | None = None) -> tuple[Fraction, list[int]]:
    """An avatar's rate, and the pictures it takes by each way of reading them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        avatar = lnb.load_avatar(folder, box=BOX, fps=fps)
    found = [number_in(frame) for frame in avatar.source.frames()]
    assert [number_in(avatar.source.read(i)) for i in range(len(avatar))] == found
    planar = avatar.open_template("memory", "i420").frames
    assert [number_in(planar[i]) for i in range(len(avatar))] == found
    return avatar.fps, found


def test_pictures_are_25_a_second_unless_it_is_said(pictures: Path) -> None:
    assert numbers(pictures) == (25, list(range(12)))
    assert numbers(pictures, 29.97) == (NTSC, list(range(12)))
    (pictures / "avatar.json").write_text('{"made by": "me"}')
    assert numbers(pictures) == (25, list(range(12)))
    (pictures / "avatar.json").write_text('{"fps": "30000/1001"}')
    assert numbers(pictures) == (NTSC, list(range(12)))
    # Of a known rate: as a video is.
    assert numbers(pictures, 25) == (25, [0, 1, 2, 4, 5, 6, 7, 8, 10, 11])
    with pytest.warns(UserWarning, match=r"full_body_img was recorded at 29\.97 .+: 25 a second"):
        lnb.load_avatar(pictures, box=BOX, fps=25)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", r"avatar\.json: not readable as JSON"),
        (b"\xff", r"avatar\.json: not readable as JSON"),
        (b"[25]", r'avatar\.json: found a list, expected \{"fps": "30000/1001"\}'),
        (b'{"fps": 0}', r"avatar\.json: fps: found 0, expected frames a second from 1 to 240"),
        (b'{"fps": NaN}', r"avatar\.json: fps: found nan, expected"),
        (b'{"fps": {}}', r"avatar\.json: fps: found {}, expected"),
    ],
)
def test_a_file_that_says_no_rate_is_told(pictures: Path, content: bytes, message: str) -> None:
    (pictures / "avatar.json").write_bytes(content)
    with pytest.raises(AvatarError, match=message):
        lnb.load_avatar(pictures, box=BOX)


@pytest.mark.parametrize("fps", ["24", "29.97", "60"])
def test_files_have_the_rate_and_sound_as_long_as_the_pictures(
    tmp_path: Path, synctalk_folder: Path, speech_file: Path, fps: str
) -> None:
    out, rate = tmp_path / "o.mp4", rate_of(fps)
    command = ["render", str(synctalk_folder), str(speech_file), str(out), "--fps", fps]
    assert main([*command, "--provider", "cpu"]) == 0
    with av.open(str(out)) as container:
        stream = container.streams.video[0]
        times = [frame.pts * stream.time_base for frame in container.decode(stream)]
        assert stream.average_rate == rate
    assert times == [i / rate for i in range(len(times))]
    facts = golden.video_facts(out)
    # The track of 0.9 s has 21 rows.
    assert 0 <= len(times) / rate - Fraction(21, 25) < 1 / rate
    assert facts.audio_seconds == pytest.approx(float(len(times) / rate), abs=0.001)


def test_a_rate_on_the_command_line_that_is_none(
    tmp_path: Path, synctalk_folder: Path, speech_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["render", str(synctalk_folder), str(speech_file), str(tmp_path / "o.mp4")]
    assert main([*command, "--fps", "fast"]) == 2
    assert re.match(r"lipsync-nb: fps: found 'fast', expected .+\n$", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"order": "loop"}, [0, 1, 2, 3, 4, 0, 1]),
        ({"order": "index", "start_frame": 3}, [3, 4, 0, 1, 2, 3, 4]),
        ({"start_frame": 0}, [0, 1, 2, 3, 4, 3, 2]),
        ({"start_frame": 4}, [4, 3, 2, 1, 0, 1, 2]),
        ({"order": "once"}, [0, 1, 2, 3, 4]),
        ({"order": "once", "start_frame": 3}, [3, 4]),
    ],
)
def test_orders_and_starts(
    avatar: lnb.Avatar, speech: lnb.Speech, config: dict[str, object], expected: list[int]
) -> None:
    wanted = lnb.RenderConfig(max_frames=7, **config)  # type: ignore[arg-type]
    stream = lnb.FrameStream(avatar, speech, wanted)
    assert stream.order.tolist() == expected
    assert [frame.template_index for frame in stream] == expected


def test_a_start_that_is_not_there(avatar: lnb.Avatar, speech: lnb.Speech) -> None:
    config = lnb.RenderConfig(start_frame=5)
    with pytest.raises(ConfigError, match="start_frame: found 5, expected 0 to 4, or -1"):
        lnb.FrameStream(avatar, speech, config)


def test_once_ends_with_the_recording_and_says_so(
    avatar: lnb.Avatar, speech: lnb.Speech, tmp_path: Path
) -> None:
    config = lnb.RenderConfig(order="once", start_frame=1, feature_files=False)
    result = lnb.render(avatar, speech, tmp_path / "o.mp4", config)
    assert result.num_frames == 4
    assert "order once: the recording ends after 0.16 s, the speech would go on to 0.84 s." in (
        result.notes
    )
    facts = golden.video_facts(tmp_path / "o.mp4")
    assert (facts.decoded_frames, facts.fps) == (4, 25)
    assert facts.audio_seconds == pytest.approx(0.16, abs=0.001)
    # Nothing is seen twice, so that nothing of it is kept for that.
    assert any("none of them again" in note for note in result.notes)
    short = lnb.render(
        avatar, speech, tmp_path / "s.mp4", lnb.RenderConfig(order="once", max_frames=2)
    )
    assert not any("order once" in note for note in short.notes)


def test_the_rate_goes_with_the_files_of_an_avatar(pictures: Path) -> None:
    """Another rate, other frames: what is kept of the one is not taken for the other."""
    (pictures / "avatar.json").write_text(json.dumps({"fps": 30}))
    own = lnb.load_avatar(pictures, box=BOX)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        slower = lnb.load_avatar(pictures, box=BOX, fps=25)
    assert own.fingerprint != slower.fingerprint
