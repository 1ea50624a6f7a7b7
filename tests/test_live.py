"""Live playback without a browser: fragments of the file's own packets, and who is sent what."""

import io
import itertools
import math
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from builders import speech_like, tone_speech, write_synctalk_avatar

import lipsync_nb as lnb
from lipsync_nb.errors import OutputError
from lipsync_nb.media.fragments import Fragment, FragmentWriter
from lipsync_nb.types.records import Progress
from lipsync_nb.widgets import playing
from lipsync_nb.widgets.live_player import WINDOW_SECONDS, LivePlayer, LiveStream
from lipsync_nb.widgets.live_view import LiveView

FRAMES = 60


@pytest.fixture(scope="module")
def long_speech(tmp_path_factory: pytest.TempPathFactory) -> lnb.Speech:
    path = tmp_path_factory.mktemp("long") / "tone.wav"
    return lnb.load_speech(tone_speech(path, FRAMES / 25 + 0.04, 22_050, 2))


@pytest.fixture(scope="module")
def odd_avatar(tmp_path_factory: pytest.TempPathFactory) -> lnb.Avatar:
    folder = tmp_path_factory.mktemp("odd") / "person"
    return lnb.load_avatar(write_synctalk_avatar(folder, 3, (161, 121)))


def rendered(
    avatar: lnb.Avatar, speech: lnb.Speech, out: Path, config: lnb.RenderConfig
) -> list[Fragment]:
    pieces: list[Fragment] = []
    lnb.render(avatar, speech, out, config, fragments=FragmentWriter(pieces.append))
    return pieces


def boxes(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Kind and content of the boxes in a row; raises where they are not whole."""
    while content:
        size, kind = struct.unpack(">I4s", content[:8])
        assert 8 <= size <= len(content)
        yield kind.decode(), content[8:size]
        content = content[size:]


def packets(file: Any, kind: str) -> list[tuple[bytes, bool, float]]:
    """Each packet's bytes, whether it is a key frame, and its time."""
    with av.open(file) as container:
        stream = container.streams.get({kind: 0})[0]
        return [
            (bytes(p), p.is_keyframe, float(p.pts * p.time_base))
            for p in container.demux(stream)
            if p.size
        ]


def decoded(file: Any, kind: str) -> list[np.ndarray]:
    with av.open(file) as container:
        return [frame.to_ndarray() for frame in container.decode(**{kind: 0})]


@pytest.mark.parametrize(
    "config",
    [
        lnb.RenderConfig(),
        lnb.RenderConfig(preset="ultrafast", crf=30),
        lnb.RenderConfig(preset="medium", encoders=2),
    ],
    ids=["default", "no B-frames", "two encoders"],
)
def test_what_is_played_is_what_is_written(
    avatar: lnb.Avatar, long_speech: lnb.Speech, tmp_path: Path, config: lnb.RenderConfig
) -> None:
    out = tmp_path / "out.mp4"
    pieces = rendered(avatar, long_speech, out, config)
    played = b"".join(piece.content for piece in pieces)
    shift = pieces[0].offset_seconds
    for kind in ("video", "audio"):
        written, given = packets(str(out), kind), packets(io.BytesIO(played), kind)
        assert [p[:2] for p in given] == [p[:2] for p in written]
        late = [g[2] - w[2] for g, w in zip(given, written, strict=True)]
        assert max(abs(seconds - shift) for seconds in late) < 0.001
    one, other = decoded(str(out), "video"), decoded(io.BytesIO(played), "video")
    assert len(one) == FRAMES
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    # The file says that the encoder's first 1024 samples are not heard; a player is told by time.
    sound = np.concatenate(decoded(str(out), "audio"), axis=1)
    heard = np.concatenate(decoded(io.BytesIO(played), "audio"), axis=1)
    assert np.array_equal(heard[:, 1024:], sound)


def test_every_fragment_parses_and_follows_the_one_before(
    avatar: lnb.Avatar, long_speech: lnb.Speech, tmp_path: Path
) -> None:
    pieces = rendered(avatar, long_speech, tmp_path / "out.mp4", lnb.RenderConfig())
    assert [kind for kind, _ in boxes(pieces[0].content)] == ["ftyp", "moov"]
    assert pieces[0].is_start
    assert pieces[0].codecs.startswith("avc1.64")
    assert pieces[0].codecs.endswith(",mp4a.40.2")
    ends, numbers = [], []
    for piece in pieces[1:]:
        (moof_kind, moof), (mdat_kind, mdat) = boxes(piece.content)
        assert (moof_kind, mdat_kind, piece.is_start) == ("moof", "mdat", False)
        inner = list(boxes(moof))
        numbers.append(struct.unpack(">I", inner[0][1][4:])[0])
        sizes = 0
        for kind, track in inner[1:]:
            assert kind == "traf"
            trun = dict(boxes(track))["trun"]
            (count,) = struct.unpack(">I", trun[4:8])
            rows = [struct.unpack(">IIIi", trun[12 + 16 * k : 28 + 16 * k]) for k in range(count)]
            sizes += sum(row[1] for row in rows)
        assert sizes == len(mdat)
        ends.append(piece.end_seconds)
        # It can be decoded behind those before it.
        so_far = b"".join(p.content for p in pieces[: len(ends) + 1])
        assert decoded(io.BytesIO(so_far), "video")
    assert numbers == list(range(1, len(pieces)))
    assert ends == sorted(ends)
    assert ends[0] <= 0.2
    assert max(b - a for a, b in itertools.pairwise(ends)) <= 0.8


def test_fragments_come_while_it_is_rendered(
    avatar: lnb.Avatar, long_speech: lnb.Speech, tmp_path: Path
) -> None:
    pieces: list[Fragment] = []
    had: list[int] = []
    config = lnb.RenderConfig(preset="superfast")
    lnb.render(
        avatar,
        long_speech,
        tmp_path / "out.mp4",
        config,
        lambda progress: had.append(len(pieces)),
        FragmentWriter(pieces.append),
    )
    assert had[0] == 0
    # x264 holds some twenty frames; the first ones are given with the next.
    assert had[34] >= 2
    assert had[-1] < len(pieces)


def test_a_feature_track_has_no_sound(avatar: lnb.Avatar, tmp_path: Path) -> None:
    speech = lnb.Speech(features=np.zeros((30, 512), np.float32))
    pieces = rendered(avatar, speech, tmp_path / "out.mp4", lnb.RenderConfig())
    assert "mp4a" not in pieces[0].codecs
    played = io.BytesIO(b"".join(piece.content for piece in pieces))
    assert len(decoded(played, "video")) == 30
    with av.open(io.BytesIO(played.getvalue())) as container:
        assert not container.streams.audio


def test_odd_sizes_and_few_frames(
    odd_avatar: lnb.Avatar, speech: lnb.Speech, tmp_path: Path
) -> None:
    for count in (1, 2):
        config = lnb.RenderConfig(max_frames=count)
        pieces = rendered(odd_avatar, speech, tmp_path / "out.mp4", config)
        played = b"".join(piece.content for piece in pieces)
        given, written = (
            decoded(io.BytesIO(played), "video"),
            decoded(str(tmp_path / "out.mp4"), "video"),
        )
        assert len(given) == count
        assert all(np.array_equal(a, b) for a, b in zip(given, written, strict=True))


class Stopped(Exception):
    """What a progress callback ends a render with."""


def test_a_render_that_is_stopped_ends_its_fragments_in_order(
    avatar: lnb.Avatar, long_speech: lnb.Speech, tmp_path: Path
) -> None:
    pieces: list[Fragment] = []

    def stop(progress: Progress) -> None:
        if progress.done == 45:
            raise Stopped

    with pytest.raises(Stopped):
        lnb.render(
            avatar, long_speech, tmp_path / "out.mp4", None, stop, FragmentWriter(pieces.append)
        )
    assert list(tmp_path.iterdir()) == []
    shown = decoded(io.BytesIO(b"".join(piece.content for piece in pieces)), "video")
    assert 5 < len(shown) < 45


def test_pictures_in_a_folder_are_not_played(
    avatar: lnb.Avatar, speech: lnb.Speech, tmp_path: Path
) -> None:
    with pytest.raises(OutputError, match="frames: only a video is played in fragments"):
        lnb.render(avatar, speech, tmp_path / "frames", fragments=FragmentWriter(print))
    assert list(tmp_path.iterdir()) == []


# ---- who is sent what


def piece(number: int, seconds: float = 1.0) -> Fragment:
    content = bytes([number % 256]) * 10
    return Fragment(content, number == 0, number * seconds, "avc1.640029", 0.08, 0.04)


class Sent:
    """The messages of a stream, as a page gets them."""

    def __init__(self) -> None:
        self.messages: list[tuple[dict[str, Any], list[bytes]]] = []
        self.stream = LiveStream(lambda m, b: self.messages.append((m, b)), "a")

    @property
    def kinds(self) -> list[str]:
        return [message["kind"] for message, _ in self.messages]

    @property
    def numbers(self) -> list[int]:
        """Of the pieces that were sent, in this order."""
        found: list[int] = []
        for message, buffers in self.messages:
            if message["kind"] == "pieces":
                count, first = message["count"], message["first"]
                assert buffers[0] == b"".join(piece(n).content for n in range(first, first + count))
                found += range(first, first + count)
        return found


def test_a_page_is_sent_what_it_can_use_soon() -> None:
    sent = Sent()
    for number in range(60):
        sent.stream.add(piece(number))
    most = math.floor(WINDOW_SECONDS) + 1
    assert sent.numbers == list(range(most))
    said = {"stream": "a", "is_playing": False}
    sent.stream.report({**said, "played_seconds": 10.5})
    assert sent.numbers == list(range(most + 10))
    sent.stream.report({**said, "played_seconds": 10.5})
    assert sent.numbers == list(range(most + 10))
    sent.stream.report({**said, "played_seconds": 59.0})
    sent.stream.end(is_complete=True)
    assert sent.numbers == list(range(60))
    assert sent.messages[-1][0] == {
        "kind": "end",
        "stream": "a",
        "count": 60,
        "is_complete": True,
    }


def test_a_kernel_that_hears_nothing_sends_at_the_speed_of_playing() -> None:
    sent = Sent()
    for number in range(60):
        sent.stream.add(piece(number))
    assert sent.stream._watched is not None
    sent.stream._watched.at -= 5
    sent.stream.pump()
    assert sent.numbers == list(range(math.floor(WINDOW_SECONDS) + 6))


def test_a_page_that_is_opened_late_gets_all_and_one_that_lost_some_the_rest() -> None:
    sent = Sent()
    for number in range(10):
        sent.stream.add(piece(number))
    sent.messages.clear()
    sent.stream.want({"kind": "want", "stream": None, "next": 0})
    assert sent.kinds[0] == "begin"
    assert sent.numbers == list(range(10))
    sent.messages.clear()
    sent.stream.want({"kind": "want", "stream": "a", "next": 7})
    assert "begin" not in sent.kinds
    assert sent.numbers == [7, 8, 9]
    sent.stream.end(is_complete=False)
    sent.messages.clear()
    sent.stream.want({"kind": "want", "stream": None, "next": "x"})
    assert sent.messages[1][0]["is_complete"] is False
    sent.stream.close()
    sent.messages.clear()
    sent.stream.add(piece(10))
    sent.stream.want({"kind": "want", "stream": None, "next": 0})
    assert sent.messages == []


def test_large_pieces_come_in_messages_of_their_own() -> None:
    sent = Sent()
    sent.stream.want({"kind": "want", "stream": "a", "next": 0})
    content = bytes(700_000)
    for number in range(3):
        sent.stream.add(Fragment(content, number == 0, number * 0.1, "avc1.640029", 0.0, 0.04))
    sent.messages.clear()
    sent.stream.want({"kind": "want", "stream": None, "next": 0})
    assert [m["count"] for m, _ in sent.messages if m["kind"] == "pieces"] == [1, 1, 1]


def test_the_rest_of_a_render_is_reckoned_with_what_the_encoder_holds() -> None:
    sent = Sent()
    sent.stream.add(piece(0))
    # 10 frames a second, and of 20 frames (0.8 s) half a second was given.
    for done in range(1, 21):
        sent.stream.note(Progress(done, 100, done / 10))
    sent.stream.add(piece(1, 0.5))
    speed = sent.messages[-1][0]["speed"]
    assert speed["fps"] == pytest.approx(10)
    assert speed["shown_fps"] == pytest.approx(25)
    assert speed["total_seconds"] == pytest.approx(4)
    assert speed["made_seconds"] == pytest.approx(0.5)
    assert speed["eta_seconds"] == pytest.approx(8 + 0.3)
    # It gets slower: the last two seconds count, not the whole.
    for done in range(21, 26):
        sent.stream.note(Progress(done, 100, 2 + (done - 20)))
    sent.stream.add(piece(2, 0.5))
    assert sent.messages[-1][0]["speed"]["fps"] < 3


def test_a_player_forgets_the_stream_before() -> None:
    moments: list[str] = []
    player = LivePlayer(moments.append)
    sent: list[dict[str, Any]] = []
    player.send = lambda message, buffers=None: sent.append(message)
    first = player.begin()
    second = player.begin()
    first.add(piece(0))
    first.end(is_complete=True)
    assert [m["kind"] for m in sent] == ["begin", "clear", "begin"]
    assert first.name != second.name
    player._on_message(None, {"kind": "playing", "stream": first.name}, [])
    assert moments == []
    player._on_message(None, {"kind": "playing", "stream": second.name}, [])
    player._on_message(None, "nonsense", [])
    assert (moments, player.is_playing) == (["playing"], True)
    player.close()


# ---- what a person sees


def finished_view(tmp_path: Path) -> LiveView:
    out = tmp_path / "a.mp4"
    out.write_bytes(b"a video")
    view = LiveView()
    view.begin(out)
    return view


def message(view: LiveView, kind: str, stream: object = "") -> None:
    name = view.player.stream.name if stream == "" and view.player.stream else stream
    view.player._on_message(None, {"kind": kind, "stream": name, "next": 0}, [])


@pytest.mark.parametrize("last", ["ended", "unable", "want"])
def test_the_finished_video_waits_until_the_live_one_was_played(tmp_path: Path, last: str) -> None:
    view = finished_view(tmp_path)
    assert view.video.layout.display == "none"
    message(view, "playing")
    view.finish(tmp_path / "a.mp4")
    assert "<video" in view.video.value
    assert view.video.layout.display == "none"
    # A page that is opened now has missed it.
    message(view, last, None if last == "want" else "")
    assert view.video.layout.display == ""
    assert view.player.stream is None
    view.close()


def test_where_nothing_plays_the_finished_video_is_shown_at_once(tmp_path: Path) -> None:
    view = finished_view(tmp_path)
    message(view, "unable")
    view.finish(tmp_path / "a.mp4")
    assert view.video.layout.display == ""
    view.close()


class Shell:
    """What a notebook's kernel gives."""

    kernel = True
    execution_count = 1

    def get_parent(self) -> dict[str, Any]:
        return {}


@pytest.fixture
def in_notebook(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """As in a notebook; what was displayed."""
    shown: list[object] = []
    shell = Shell()
    monkeypatch.setattr(playing, "get_ipython", lambda: shell)
    monkeypatch.setattr(playing, "display", shown.append)
    return shown


def test_play_shows_itself_and_gives_its_result(
    avatar: lnb.Avatar, speech: lnb.Speech, tmp_path: Path, in_notebook: list[object]
) -> None:
    playback = lnb.play(avatar, speech, path=tmp_path / "out.mp4")
    result = playback.result(120)
    assert result.path == tmp_path / "out.mp4"
    assert result.num_frames == len(decoded(str(result.path), "video"))
    assert in_notebook == [playback.panel]
    playback._ipython_display_()
    assert in_notebook == [playback.panel]
    assert "done" in repr(playback)
    playback.panel.close()


def test_a_played_render_is_cancelled_or_fails_in_a_sentence(
    avatar: lnb.Avatar, tmp_path: Path, in_notebook: list[object]
) -> None:
    speech = lnb.Speech(features=np.zeros((3000, 512), np.float32))
    playback = lnb.play(avatar, speech, path=tmp_path / "out.mp4")
    with pytest.raises(TimeoutError):
        playback.result(0.2)
    playback.cancel()
    with pytest.raises(OutputError, match="was cancelled, nothing was written"):
        playback.result(60)
    assert list(tmp_path.iterdir()) == []
    playback.panel.close()
    failed = lnb.play("nowhere", speech)
    folder = failed.panel.path.parent
    with pytest.raises(lnb.LipsyncError, match="nowhere: no such avatar folder"):
        failed.result(60)
    failed.panel.close()
    assert not folder.exists()
    with pytest.raises(OutputError, match="only a video can be played"):
        lnb.play(avatar, speech, path=tmp_path / "frames")


def test_a_played_render_says_that_nothing_was_written_once_that_is_sure(
    avatar: lnb.Avatar, tmp_path: Path, in_notebook: list[object]
) -> None:
    speech = lnb.Speech(features=np.zeros((3000, 512), np.float32))
    playback = lnb.play(avatar, speech, path=tmp_path / "out.mp4")
    said: list[tuple[str, str]] = []
    playback.panel._text.observe(lambda c: said.append((playback.state, c["new"])), "value")
    playback.cancel()
    with pytest.raises(OutputError, match="was cancelled"):
        playback.result(60)
    assert [state for state, text in said if "nothing was written" in text] == ["cancelled"]
    assert "Cancelling." in said[-2][1]
    playback.panel.close()


def test_in_a_program_play_says_what_to_call(avatar: lnb.Avatar) -> None:
    sound = lnb.Speech(samples=speech_like(0.5))
    with pytest.raises(OutputError, match="found no notebook to play in") as caught:
        lnb.play(avatar, sound)
    assert "lnb.render(" in str(caught.value)
    assert sys.modules["IPython"]
