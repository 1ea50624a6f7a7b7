"""What a speech comes from in a page: a file in pieces, a recording, a text."""

import io
import zlib
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from builders import speech_like, tone_speech

import lipsync_nb as lnb
from lipsync_nb.errors import SpeechError
from lipsync_nb.media import espeak
from lipsync_nb.widgets.receiving import Receiver
from lipsync_nb.widgets.spoken_text import is_installed
from lipsync_nb.widgets.upload import SentFile

PIECE = 1000


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


class Sender:
    """What a page does, and what it is answered."""

    def __init__(self) -> None:
        self.answers: list[dict[str, Any]] = []
        self.changes = 0
        self.receiver = Receiver(self.answers.append, self._changed)

    def _changed(self) -> None:
        self.changes += 1

    def begin(self, key: str, size: object, name: str = "voice.wav") -> None:
        self.receiver.handle({"kind": "begin", "id": key, "name": name, "size": size}, [])

    def piece(self, key: str, number: int, content: bytes) -> None:
        part = content[number * PIECE : (number + 1) * PIECE]
        self.receiver.handle({"kind": "piece", "id": key, "number": number}, [memoryview(part)])

    def end(self, key: str, content: bytes) -> None:
        self.receiver.handle({"kind": "end", "id": key, "crc": zlib.crc32(content)}, [])

    def send(self, key: str, content: bytes) -> None:
        self.begin(key, len(content))
        for number in range(-(-len(content) // PIECE)):
            self.piece(key, number, content)
        self.end(key, content)

    @property
    def last(self) -> dict[str, Any]:
        return self.answers[-1]


def content_of(size: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).bytes(size)


def test_a_file_arrives_whole_whatever_is_lost_or_comes_twice(temporary: Path) -> None:
    sender, content = Sender(), content_of(5500)
    sender.begin("a", len(content))
    sender.begin("a", len(content))
    assert sender.last == {"kind": "next", "id": "a", "next": 0, "is_gap": False}
    for number in (0, 1, 1):
        sender.piece("a", number, content)
    sender.piece("a", 4, content)
    assert (sender.last["next"], sender.last["is_gap"]) == (2, True)
    assert "0.0 of 0.0 MB have arrived so far" in sender.receiver.problem
    assert sender.receiver.path is None
    for number in (2, 3, 4, 5, 0):
        sender.piece("a", number, content)
    sender.end("a", content)
    sender.end("a", content)
    assert sender.answers[-2:] == [{"kind": "arrived", "id": "a"}] * 2
    path = sender.receiver.path
    assert path is not None
    assert (path.name, path.read_bytes()) == ("voice.wav", content)
    assert path.parent.stat().st_mode & 0o077 == 0
    sender.receiver.clear()
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("fault", ["a byte", "the end", "too much", "stop", "empty", "no size"])
def test_an_upload_that_fails_takes_the_one_before_with_it(temporary: Path, fault: str) -> None:
    sender, content = Sender(), content_of(2500)
    sender.send("a", content)
    assert sender.receiver.path is not None
    if fault in ("empty", "no size"):
        sender.begin("b", 0 if fault == "empty" else "many")
    else:
        sender.begin("b", len(content))
        assert sender.receiver.path is None
        sender.piece("b", 0, content)
    if fault == "a byte":
        sender.piece("b", 1, content)
        sender.piece("b", 2, bytes(2000) + content_of(500, 1))
        sender.end("b", content)
        assert "with the checksum" in sender.last["text"]
    elif fault == "the end":
        sender.end("b", content)
        assert "1000 bytes" in sender.last["text"]
    elif fault == "too much":
        sender.receiver.handle({"kind": "piece", "id": "b", "number": 1}, [bytes(3000)])
        assert "more than the 2500 bytes" in sender.last["text"]
    elif fault == "stop":
        sender.receiver.handle({"kind": "stop", "id": "b"}, [])
        assert "was cancelled" in sender.receiver.problem
    else:
        assert "is empty" in sender.last["text"]
    assert sender.receiver.path is None
    assert sender.receiver.problem.startswith("uploaded voice.wav: ")
    assert list(temporary.iterdir()) == []
    sender.send("c", content)
    assert sender.receiver.path is not None
    assert len(list(temporary.iterdir())) == 1
    sender.receiver.clear()


@pytest.mark.parametrize(
    ("name", "kept"),
    [("../../a.wav", "a.wav"), ("C:\\b\\a.wav", "a.wav"), ("/", "upload"), ("\ud800.wav", "?.wav")],
)
def test_a_name_is_of_one_file_in_its_own_folder(temporary: Path, name: str, kept: str) -> None:
    sender, content = Sender(), content_of(10)
    sender.begin("a", len(content), name)
    sender.piece("a", 0, content)
    sender.end("a", content)
    assert sender.receiver.path is not None
    assert sender.receiver.path.name == kept
    assert sender.receiver.path.parent.parent == temporary
    sender.receiver.clear()


def test_messages_of_no_transfer_are_passed_over(temporary: Path) -> None:
    sender = Sender()
    for message in (None, {}, {"id": 3, "kind": "begin"}, {"id": "", "kind": "begin"}):
        sender.receiver.handle(message, [])
    assert sender.answers == []
    sender.piece("unknown", 0, b"x")
    assert sender.last["kind"] == "refused"


def test_where_there_is_no_room_a_sentence_says_so(temporary: Path) -> None:
    sender = Sender()
    sender.begin("a", 10**15)
    assert "uploaded voice.wav: cannot be written (No space left" in sender.last["text"]


def sent(source: SentFile, content: bytes, name: str, key: str = "a") -> None:
    sender = Sender()
    sender.receiver = source.receiver
    sender.begin(key, len(content), name)
    for number in range(-(-len(content) // PIECE)):
        sender.piece(key, number, content)
    sender.end(key, content)
    source.wait(60)


def test_an_upload_shows_what_arrived_and_never_gives_an_older_one(
    temporary: Path, tmp_path: Path
) -> None:
    upload = lnb.widgets.Upload()
    with pytest.raises(SpeechError, match="no file was uploaded yet"):
        upload.chosen()
    content = tone_speech(tmp_path / "a.wav", 1.5).read_bytes()
    sent(upload, content, "<b>.wav")
    assert upload.chosen().duration_seconds == pytest.approx(1.5)
    card = upload.card.value
    assert "&lt;b&gt;.wav, 1.5 s" in card
    charts, players = (
        card.count(f'src="data:{kind};base64,') for kind in ("image/svg+xml", "audio/wav")
    )
    assert charts == players == 1
    # Another one is on its way: now there is none.
    upload.receiver.handle({"kind": "begin", "id": "b", "name": "b.wav", "size": 9}, [])
    with pytest.raises(SpeechError, match=r"uploaded b.wav: 0.0 of 0.0 MB have arrived so far"):
        upload.chosen()
    assert upload.card.value == ""
    sent(upload, b"no sound", "c.wav", "c")
    with pytest.raises(SpeechError, match=r"uploaded c.wav: not decodable as sound"):
        upload.chosen()
    assert "uploaded c.wav" in upload.card.value
    features = tmp_path / "d.npy"
    np.save(features, np.zeros((25, 512), np.float32))
    sent(upload, features.read_bytes(), "d.npy", "d")
    assert upload.chosen().features is not None
    assert "a feature track, without sound" in upload.card.value
    upload.close()
    assert list(temporary.iterdir()) == []


class Pipe:
    """A file that cannot be moved in, as what a browser's recorder writes into."""

    def __init__(self) -> None:
        self.content = bytearray()

    def write(self, data: bytes) -> int:
        self.content += data
        return len(data)


def recorded(seconds: float) -> bytes:
    """Opus in WebM as MediaRecorder makes it: its header says nothing of the length."""
    pipe, sound = Pipe(), speech_like(seconds, 48_000)
    with av.open(pipe, "w", format="webm", options={"live": "1"}) as container:
        stream = container.add_stream("libopus", rate=48_000, format="flt", layout="mono")
        for start in range(0, len(sound), 960):
            block = np.zeros(960, np.float32)
            part = sound[start : start + 960]
            block[: len(part)] = part
            frame = av.AudioFrame.from_ndarray(block[None], format="flt", layout="mono")
            frame.sample_rate, frame.pts = 48_000, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return bytes(pipe.content)


def test_a_recording_without_a_length_in_its_header_is_read_whole(temporary: Path) -> None:
    content = recorded(2.0)
    with av.open(io.BytesIO(content)) as container:
        assert container.duration is None
    recorder = lnb.widgets.Recorder()
    with pytest.raises(SpeechError, match="nothing was recorded yet"):
        recorder.chosen()
    sent(recorder, content, "recording.webm")
    speech = recorder.chosen()
    assert speech.duration_seconds == pytest.approx(2.0, abs=0.03)
    assert speech.notes == ()
    assert "recording.webm, 2.0 s" in recorder.card.value
    recorder.close()


needs_espeak = pytest.mark.skipif(not is_installed(), reason="espeak-ng is not installed")


@needs_espeak
def test_a_text_is_spoken_and_spoken_anew_when_it_changes(temporary: Path) -> None:
    spoken = lnb.widgets.SpokenText()
    spoken.text.value = '-v "x"; $(exit 3) `exit 3` \0 | one two three'
    first = spoken.chosen()
    assert first.duration_seconds > 1
    assert spoken.chosen() is first
    assert "text.wav, " in spoken.card.value
    spoken.speed.value = 300
    assert spoken.chosen().duration_seconds < first.duration_seconds
    spoken.text.value = "  "
    spoken.speak.click()
    assert "the text is empty" in spoken.card.value
    with pytest.raises(SpeechError, match="the text is empty"):
        spoken.chosen()
    spoken.close()
    assert list(temporary.iterdir()) == []


@needs_espeak
def test_what_espeak_is_given_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    with pytest.raises(SpeechError, match="has 5001 letters, expected 5000 at most"):
        espeak.speak_to_file("a" * 5001, path)
    with pytest.raises(SpeechError, match=r"found voice '\.\./x', expected a language"):
        espeak.speak_to_file("hello", path, "../x")
    assert not path.exists()
    assert all(voice.code and voice.name for voice in espeak.voices())


@pytest.mark.parametrize("is_there", [False, True])
def test_without_espeak_no_text_is_offered(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, is_there: bool
) -> None:
    if is_there:  # and broken
        (tmp_path / "espeak-ng").write_text("#!/bin/sh\nexit 3\n")
        (tmp_path / "espeak-ng").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    espeak.voices.cache_clear()
    try:
        assert espeak.voices() == ()
        with pytest.raises(lnb.LipsyncError, match=r"espeak-ng is not|found voice 'en-us', exp"):
            espeak.speak_to_file("hello", tmp_path / "a.wav")
        panel = lnb.widgets.RunPanel()
        assert panel.speech.options[-1] == "(microphone)"
        panel.close()
    finally:
        espeak.voices.cache_clear()
