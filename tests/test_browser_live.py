"""Live playback, the microphone and uploads, in a real browser."""

import base64
import hashlib
import importlib.util
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import speech_like, tone_speech, write_synctalk_avatar

import lipsync_nb as lnb
from lipsync_nb.media.fragments import Fragment, FragmentWriter
from lipsync_nb.widgets.scripts import script
from tools.benchmarks.live import PLAYER, STUDIO, choose, watched_run, write_notebook
from tools.lab import Page, browse, chromium, open_notebook, serve

pytestmark = [
    pytest.mark.skipif(chromium() is None, reason="no Chromium here"),
    pytest.mark.skipif(importlib.util.find_spec("playwright") is None, reason="no Playwright here"),
]
UPLOAD_BYTES = 60_000_000
FRAMES = 50

# A page with the player alone, and what a notebook gives it: messages to and fro.
MODEL = """async (source) => {
  const module = await import('data:text/javascript;base64,' + source);
  const listeners = new Set();
  const model = {
    sent: [],
    send: (message) => model.sent.push(message),
    on: (kind, listener) => listeners.add(listener),
    off: (kind, listener) => listeners.delete(listener),
  };
  window.model = model;
  window.tell = (message, content) => {
    const bytes = content && Uint8Array.from(atob(content), (c) => c.charCodeAt(0));
    for (const listener of listeners) listener(message, bytes ? [new DataView(bytes.buffer)] : []);
  };
  document.body.replaceChildren();
  const el = document.createElement('div');
  document.body.append(el);
  window.leave = module.default.render({ model, el });
}"""


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> list[Fragment]:
    """A video of two seconds in fragments."""
    folder = tmp_path_factory.mktemp("pieces")
    avatar = lnb.load_avatar(write_synctalk_avatar(folder / "person", 5))
    speech = lnb.load_speech(tone_speech(folder / "tone.wav", FRAMES / 25 + 0.04))
    found: list[Fragment] = []
    lnb.render(avatar, speech, folder / "a.mp4", fragments=FragmentWriter(found.append))
    return found


@pytest.fixture(scope="module")
def browser(folder: Path) -> Iterator[Page]:
    """A page whose microphone hears a file."""
    fake = [
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-audio-capture={folder / 'mic.wav'}",
    ]
    with browse(flags=fake) as page:
        yield page


@pytest.fixture
def player(browser: Page) -> Iterator[Any]:
    """The page of a player that has no stream yet."""
    source = base64.b64encode(script("live_player.js").encode()).decode()
    browser.errors.clear()
    browser.page.evaluate(MODEL, source)
    yield browser.page
    browser.page.evaluate("() => window.leave()")
    assert browser.errors == []


def tell(
    page: Any, kind: str, content: bytes | None = None, stream: str = "a", **facts: Any
) -> None:
    encoded = base64.b64encode(content).decode() if content is not None else None
    page.evaluate(
        "([m, c]) => window.tell(m, c)", [{"kind": kind, "stream": stream, **facts}, encoded]
    )


def joined(pieces: list[Fragment], first: int, last: int) -> tuple[bytes, dict[str, Any]]:
    """Pieces as a message has them."""
    contents = [piece.content for piece in pieces[first:last]]
    counts = {"first": first, "count": last - first, "sizes": [len(c) for c in contents]}
    return b"".join(contents), counts


def give(
    page: Any,
    pieces: list[Fragment],
    first: int,
    last: int,
    eta_seconds: float,
    stream: str = "a",
) -> None:
    """Send some pieces, and how long the rest will take."""
    speed = {
        "made_seconds": pieces[last - 1].end_seconds,
        "total_seconds": FRAMES / 25,
        "fps": 10.0,
        "shown_fps": 25.0,
        "eta_seconds": eta_seconds,
    }
    facts = {"codecs": pieces[0].codecs, "offset_seconds": pieces[0].offset_seconds}
    content, counts = joined(pieces, first, last)
    tell(page, "pieces", content, stream=stream, speed=speed, **counts, **facts)


def wait_for(page: Any, state: str, timeout_seconds: float = 10) -> None:
    page.wait_for_selector(
        f"{PLAYER}[data-state={state}]", state="attached", timeout=1000 * timeout_seconds
    )


def seen(page: Any) -> dict[str, Any]:
    found: dict[str, Any] = page.evaluate(
        """() => {
          const root = document.querySelector('.lipsync-live');
          const video = root.querySelector('video');
          return { seconds: video.currentTime, heard: video.webkitAudioDecodedByteCount,
            frames: video.getVideoPlaybackQuality().totalVideoFrames, stalls: root.dataset.stalls,
            state: root.dataset.state, text: root.textContent, duration: video.duration,
            sent: window.model.sent, hidden: root.hidden };
        }"""
    )
    return found


def test_it_plays_all_from_the_first_picture_to_the_last(
    player: Any, pieces: list[Fragment]
) -> None:
    tell(player, "begin")
    for number in range(len(pieces)):
        give(player, pieces, number, number + 1, 0.1)
    tell(player, "end", count=len(pieces), is_complete=True)
    wait_for(player, "ended")
    found = seen(player)
    assert found["frames"] == FRAMES
    assert found["duration"] == pytest.approx(FRAMES / 25, abs=0.03)
    assert found["seconds"] == pytest.approx(found["duration"], abs=0.03)
    assert found["heard"] > 5000
    assert found["stalls"] == "0"
    kinds = [message["kind"] for message in found["sent"]]
    assert kinds[0] == "want"
    assert kinds.count("playing") == kinds.count("ended") == 1


def test_it_waits_until_the_rest_will_be_there_in_time_and_says_so(
    player: Any, pieces: list[Fragment]
) -> None:
    tell(player, "begin")
    half = len(pieces) // 2
    give(player, pieces, 0, half, 60.0)
    wait_for(player, "waiting")
    player.wait_for_timeout(400)
    found = seen(player)
    assert found["seconds"] == 0
    slower = "Rendering at 10.0 FPS, slower than the 25 it is shown at"
    assert f"{slower}: plays in about" in found["text"]
    # The estimate was wrong: it plays to the end of what is there.
    give(player, pieces, half, half + 1, 0.1)
    wait_for(player, "playing")
    give(player, pieces, half, half + 1, 60.0)
    wait_for(player, "waiting")
    stopped = seen(player)
    assert stopped["stalls"] == "1"
    assert "goes on in about" in stopped["text"]
    # Of what is reordered more is there than is surely whole.
    assert 0.3 < stopped["seconds"] <= pieces[half].end_seconds + 0.2
    give(player, pieces, half + 1, len(pieces), 0.0)
    tell(player, "end", count=len(pieces), is_complete=True)
    wait_for(player, "ended")
    assert seen(player)["frames"] == FRAMES


def test_what_is_lost_is_asked_for(player: Any, pieces: list[Fragment]) -> None:
    tell(player, "begin")
    give(player, pieces, 0, 2, 60.0)
    player.wait_for_timeout(1100)
    give(player, pieces, 3, 4, 60.0)
    wanted = [m for m in seen(player)["sent"] if m["kind"] == "want"]
    assert wanted[-1] == {"kind": "want", "stream": "a", "next": 2}
    # What comes twice is played once.
    give(player, pieces, 0, 4, 60.0)
    give(player, pieces, 2, len(pieces), 0.0)
    tell(player, "end", count=len(pieces), is_complete=True)
    wait_for(player, "ended")
    assert seen(player)["frames"] == FRAMES


def wanted(page: Any) -> list[tuple[str | None, int]]:
    return [(m["stream"], m["next"]) for m in seen(page)["sent"] if m["kind"] == "want"]


def wait_for_want(page: Any, stream: str | None, following: int) -> None:
    page.wait_for_function(
        "([stream, next]) => window.model.sent.some("
        "(m) => m.kind === 'want' && m.stream === stream && m.next === next)",
        arg=[stream, following],
        timeout=10_000,
    )


@pytest.mark.parametrize("what", ["the last piece", "the end", "all"])
def test_what_nothing_follows_is_asked_for_too(
    player: Any, pieces: list[Fragment], what: str
) -> None:
    count = len(pieces)
    here = {"the last piece": count - 1, "the end": count, "all": 0}[what]
    tell(player, "begin")
    if here:
        give(player, pieces, 0, here, 0.0)
    if what != "the end":
        tell(player, "end", count=count, is_complete=True)
    wait_for_want(player, "a", here)
    # As the kernel answers: the end once more, and what is missing.
    tell(player, "end", count=count, is_complete=True)
    if here < count:
        give(player, pieces, here, count, 0.0)
    wait_for(player, "ended")
    found = seen(player)
    assert found["frames"] == FRAMES
    assert [m["kind"] for m in found["sent"]].count("ended") == 1
    # What has all asks for nothing more.
    before = wanted(player)
    player.wait_for_timeout(1500)
    assert wanted(player) == before


def test_a_lost_beginning_is_asked_for(player: Any, pieces: list[Fragment]) -> None:
    player.wait_for_timeout(1100)
    give(player, pieces, 0, 1, 60.0)
    assert wanted(player) == [(None, 0), (None, 0)]
    assert seen(player)["state"] == "empty"


def test_a_kernel_that_is_busy_is_asked_ever_more_rarely(
    player: Any, pieces: list[Fragment]
) -> None:
    player.evaluate(
        """() => {
          window.asked = [];
          window.model.send = (message) => {
            if (message.kind === 'want') window.asked.push(performance.now());
          };
        }"""
    )
    tell(player, "begin")
    give(player, pieces, 0, 2, 60.0)
    player.wait_for_function("() => window.asked.length > 2", timeout=30_000)
    first, second, third = player.evaluate("() => window.asked.slice(0, 3)")
    # 1000 ms at first, and twice as long each time; clocks in a page are coarse.
    assert second - first >= 1900
    assert third - second >= 3800


def test_a_cancelled_stream_ends_and_the_next_one_plays(
    player: Any, pieces: list[Fragment]
) -> None:
    tell(player, "begin")
    give(player, pieces, 0, len(pieces) - 1, 0.1)
    wait_for(player, "playing")
    tell(player, "end", count=len(pieces) - 1, is_complete=False)
    wait_for(player, "empty")
    assert seen(player)["hidden"]
    tell(player, "begin", stream="b")
    # What still comes of the one before is passed over.
    give(player, pieces, 0, 1, 60.0)
    assert seen(player)["state"] == "empty"
    give(player, pieces, 0, len(pieces), 0.1, stream="b")
    wait_for(player, "playing")
    tell(player, "clear")


def test_where_media_sources_are_missing_the_kernel_is_told(browser: Page) -> None:
    page = browser.page
    page.evaluate("() => { window.kept = window.MediaSource; delete window.MediaSource; }")
    source = base64.b64encode(script("live_player.js").encode()).decode()
    page.evaluate(MODEL, source)
    tell(page, "begin")
    assert seen(page)["sent"][-1] == {"kind": "unable", "stream": "a"}
    page.evaluate("() => { window.leave(); window.MediaSource = window.kept; }")


# ---- in JupyterLab


def write_wav(path: Path, sound: np.ndarray, rate: int) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((sound * 32767).astype("<i2").tobytes())
    return path


def write_large(path: Path) -> Path:
    """A WAV file of 60 MB that is not easily read as something else: noise."""
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (UPLOAD_BYTES - 44) // 2)
    return write_wav(path, noise, 96_000)


CELLS = (
    "import lipsync_nb as lnb\nstudio = lnb.Studio('person', out='out.mp4')\nstudio",
    "import hashlib\nprint('sum', hashlib.sha256(studio.panel.upload.receiver.path.read_bytes())"
    ".hexdigest())",
    "print(lnb.play('person', 'mic.wav').state)",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("live")
    write_synctalk_avatar(target / "person", 5)
    write_wav(target / "mic.wav", speech_like(4.0, 48_000), 48_000)
    write_large(target / "large voice.wav")
    write_notebook(target / "live.ipynb", *CELLS)
    return target


def own_errors(page: Page) -> list[str]:
    return [error for error in page.errors if "favicon" not in error and "404" not in error]


def run_cell(page: Page, number: int) -> None:
    """Run one cell by the keyboard."""
    page.page.locator(".jp-CodeCell .jp-InputArea-editor").nth(number).click()
    page.page.keyboard.press("Control+Enter")


def uploads_whole(page: Page, file: Path) -> None:
    shown = page.page
    choose(page, "microphone", "(uploaded file)")
    shown.locator(".lipsync-upload input").set_input_files(str(file))
    shown.wait_for_selector(".lipsync-upload[data-state=arrived]", timeout=60_000)
    shown.wait_for_selector(f"text={file.name}, 312.5 s", timeout=30_000)
    run_cell(page, 1)
    shown.wait_for_selector("text=/^sum /", timeout=20_000)
    told = shown.locator("text=/^sum /").inner_text().split()[1]
    assert told == hashlib.sha256(file.read_bytes()).hexdigest()


def records_and_renders(page: Page) -> dict[str, float]:
    shown = page.page
    choose(page, "microphone", "(microphone)")
    shown.click(".lipsync-recorder button:has-text('Record')")
    shown.wait_for_selector(".lipsync-recorder[data-state=recording]")
    shown.wait_for_function(
        "() => document.querySelector('.lipsync-recorder meter').value > 0.05", timeout=10_000
    )
    shown.wait_for_timeout(2500)
    shown.click(".lipsync-recorder button:has-text('Stop')")
    shown.wait_for_selector("text=/recording.webm, [2-6].\\d s/", timeout=20_000)
    assert shown.locator(".lipsync-studio audio:visible").count() == 1
    return watched_run(page, 120)


def test_upload_and_microphone_in_the_studio_and_play_in_a_cell(
    folder: Path, browser: Page
) -> None:
    page = browser
    with serve(folder) as lab:
        open_notebook(page, lab, "live.ipynb")
        page.errors.clear()
        run_cell(page, 0)
        page.page.wait_for_selector(STUDIO, timeout=60_000)
        uploads_whole(page, folder / "large voice.wav")
        # A key that would cut the cell stays in the control that has the focus.
        page.page.locator(".lipsync-upload button:visible").focus()
        page.page.keyboard.press("x")
        page.page.locator(f"{STUDIO} select").first.focus()
        page.page.keyboard.press("x")
        assert page.page.locator(".jp-CodeCell").count() == len(CELLS)
        played = records_and_renders(page)
        assert played["heard"] > 0
        assert played["seconds"] > 1.5
        assert played["stalls"] == 0
        assert (folder / "out.mp4").stat().st_size > 10_000
        run_cell(page, 2)
        cell = page.page.locator(".jp-CodeCell").nth(2)
        cell.locator(f"{PLAYER}[data-state=playing]").wait_for(timeout=60_000)
        assert cell.locator("text=running").count() == 1
        assert own_errors(page) == []
