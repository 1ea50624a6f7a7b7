"""What a process holds of avatars between renders, and what is written once a render is done."""

import copy
import os
import pickle
import threading
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from builders import write_synctalk_avatar

import lipsync_nb as lnb
from lipsync_nb.avatar.session import SESSION, Session
from lipsync_nb.errors import SpeechError
from lipsync_nb.pipeline.prefetch import Started
from lipsync_nb.pipeline.track import EncodedTrack
from lipsync_nb.system.background import wait_for_background


@dataclass
class Thing:
    ram_bytes: int
    file_bytes: int = 0


def test_the_least_recently_used_is_let_go_first() -> None:
    session = Session(lambda: 100)
    for name in "abc":
        session.put(name, "template", "key", Thing(20), name)
    assert session.get("a", "template", "key") == Thing(20)
    session.put("d", "features", "key", Thing(1000), "d")
    # Of 60 bytes of the others 50 may stay: b was used the longest time ago.
    assert [row.name for row in session.memory().rows] == ["c", "a", "d"]
    assert session.memory().ram_bytes == 1040
    assert session.get("c", "template", "other key") is None
    session.let_go("d")
    assert "c" in str(session.memory())
    assert session.last("d", "features") is None


def test_what_is_mapped_takes_no_room() -> None:
    session = Session(lambda: 0)
    for name in "abc":
        session.put(name, "template", "key", Thing(0, 10**9), name)
    assert len(session.memory().rows) == 3


def test_who_loads_the_same_avatar_again_finds_what_was_opened(
    synctalk_folder: Path, speech: lnb.Speech
) -> None:
    config = lnb.RenderConfig(provider="cpu", cache="memory", feature_files=False)
    for _ in range(3):
        stream = lnb.FrameStream(lnb.load_avatar(synctalk_folder), speech, config)
        list(stream)
    held = lnb.experiments.session_memory()
    assert [row.kind for row in held.rows] == ["template", "features"]
    assert held.rows[0].ram_bytes == stream.template.ram_bytes
    assert held.rows[1].ram_bytes > 0
    html = held.to_html()
    assert "person" in html
    assert "template" in html


def test_a_recording_that_changed_is_another_avatar(tmp_path: Path) -> None:
    folder = write_synctalk_avatar(tmp_path / "person", 2)
    template = lnb.load_avatar(folder).open_template("memory")
    assert lnb.load_avatar(folder).open_template("memory") is template
    os.utime(folder / "full_body_img" / "0.jpg", ns=(1, 1))
    assert lnb.load_avatar(folder).open_template("memory") is not template


def test_the_next_process_maps_the_template(
    synctalk_folder: Path, speech: lnb.Speech, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIPSYNC_NB_CACHE", str(tmp_path))
    pictures = []
    for policy in ("memory", "mmap"):
        SESSION.clear()
        stream = lnb.FrameStream(lnb.load_avatar(synctalk_folder), speech, for_video=True)
        assert (stream.template.policy, stream.template.pixels) == (policy, "i420")
        pictures.append([frame.picture.copy() for frame in stream])
        wait_for_background()
    assert all(map(np.array_equal, *pictures))


def test_rows_are_waited_for() -> None:
    blocks = [np.full((3, 512), value, np.float32) for value in (0, 1, 2)]
    track = EncodedTrack(9, Started(iter(blocks), 1, "speech"), None)
    assert track[np.array([[0, 3], [3, 0]])][..., 0].tolist() == [[0, 1], [1, 0]]
    assert np.asarray(track)[:, 0].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    track.close()


def test_rows_that_are_no_numbers_are_told() -> None:
    blocks = [np.zeros((3, 512), np.float32), np.full((3, 512), np.nan, np.float32)]
    track = EncodedTrack(6, Started(iter(blocks), 1, "speech"), Path("speech.wav"))
    assert track[np.array([2])].shape == (1, 512)
    with pytest.raises(
        SpeechError, match=r"speech.wav: found NaN or infinity in 3 of 3 rows, .* 3"
    ):
        track.wait_for(4)
    track.close()
    with pytest.raises(SpeechError, match="ended early"):
        track.wait_for(6)


def test_what_fails_ahead_is_raised_where_it_is_asked_for() -> None:
    def items() -> object:
        yield 1
        raise ValueError("broken")

    started = Started(items(), 2, "failing")  # type: ignore[arg-type, var-annotated]
    assert started.next() == 1
    with pytest.raises(ValueError, match="broken"):
        started.next()
    assert started.next() is None


def test_what_is_dropped_ends_its_thread() -> None:
    started = Started(iter(range(1000)), 1, "dropped")
    (thread,) = (thread for thread in threading.enumerate() if thread.name == "dropped")
    del started
    thread.join(10)
    assert not thread.is_alive()


def test_avatars_go_to_other_processes_without_what_is_held(avatar: lnb.Avatar) -> None:
    own = replace(avatar, session=Session())
    own.open_template("memory", "bgr")
    assert pickle.loads(pickle.dumps(avatar)).session is SESSION
    other = pickle.loads(pickle.dumps(own))
    assert other.session is not own.session
    assert own.session.memory().rows
    assert not other.session.memory().rows
    assert copy.deepcopy(avatar).session is SESSION
