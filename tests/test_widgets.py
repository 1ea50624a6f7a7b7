"""Widgets without a browser: what they hold, what they do, and what they leave behind."""

import gc
import tempfile
import threading
import time
import weakref
import zlib
from dataclasses import fields
from html import escape
from pathlib import Path

import cv2
import numpy as np
import pytest
from IPython.core.events import EventManager, available_events
from IPython.core.interactiveshell import ExecutionInfo
from ipywidgets.widgets.widget import _instances
from onnxruntime import InferenceSession

import lipsync_nb as lnb
from lipsync_nb.config.presets import PRESETS
from lipsync_nb.many.results import BatchProgress, ClipOutcome
from lipsync_nb.widgets import studio as studio_module
from lipsync_nb.widgets.viewer import VIEWS, composed


def panel_of(
    folder: Path, speech_file: Path, out: Path | str, config: lnb.RenderConfig | None = None
) -> lnb.widgets.RunPanel:
    chosen = config or lnb.RenderConfig(max_frames=10)
    panel = lnb.widgets.RunPanel(lambda: chosen, out=out)
    panel.avatar.value, panel.speech.value = str(folder), "(path below)"
    panel.path.value = str(speech_file)
    return panel


def test_form_has_every_field_and_follows_presets() -> None:
    form = lnb.widgets.ConfigForm()
    assert form.value == lnb.RenderConfig()
    for option in fields(lnb.RenderConfig):
        assert form[option.name].value == option.default
        assert form[option.name].tooltip == option.metadata["help"]
    for preset in PRESETS:
        form.presets.value = preset.name
        assert form.value == preset.config
    form["batch_size"].value = 3
    assert form.value.batch_size == 3
    assert form.presets.value == "(custom)"


def test_form_says_what_is_not_allowed(avatar: lnb.Avatar) -> None:
    form = lnb.widgets.ConfigForm(avatar=avatar)
    assert "MB in RAM" in form._note.value
    form["precision"].value = "int8"
    form["prepare"].value = False
    assert "prepare: found False" in form._note.value
    assert form.value == lnb.RenderConfig(precision="int8")


@pytest.mark.parametrize(
    "config",
    [lnb.RenderConfig(cache="memory"), lnb.RenderConfig(cache="memory", pixels="i420")],
)
@pytest.mark.parametrize("name", ["out.mp4", "out"])
def test_the_form_estimates_what_a_render_keeps(
    avatar: lnb.Avatar, speech: lnb.Speech, tmp_path: Path, config: lnb.RenderConfig, name: str
) -> None:
    studio = lnb.Studio(config=config)
    studio.form.set_avatar(avatar)
    studio.panel.out.value = str(tmp_path / name)
    lnb.render(avatar, speech, tmp_path / name, config)
    opened = avatar.template
    assert opened.pixels == ("bgr" if config.pixels == "auto" and name == "out" else "i420")
    expected = avatar.estimate_memory("memory", opened.pixels).ram_bytes
    assert f"template: {expected / 1e6:.0f} MB in RAM" in studio.form._note.value
    studio.close()


def test_panel_renders(synctalk_folder: Path, speech_file: Path, tmp_path: Path) -> None:
    seen: list[lnb.RenderResult] = []
    panel = panel_of(synctalk_folder, speech_file, tmp_path / "out.mp4")
    panel._on_done = lambda avatar, speech, result: seen.append(result)
    panel.start()
    assert panel.run.disabled
    assert panel.wait(120)
    assert panel.job.state == "done", panel.job.error
    assert seen[0].path == tmp_path / "out.mp4"
    assert "<video" in panel.video.value
    assert seen[0].notes
    assert "out.mp4<br>" + "<br>".join(map(escape, seen[0].notes)) in panel.message.value
    assert (panel.progress.value, panel.progress.max) == (10, 10)
    live = cv2.imdecode(np.frombuffer(panel.live.value, np.uint8), cv2.IMREAD_COLOR)
    assert live.shape == (240, 320, 3)
    first = panel.job.avatar
    panel.start()
    assert panel.wait(120)
    assert panel.job.avatar is first


def test_cancel_leaves_nothing(synctalk_folder: Path, speech_file: Path, tmp_path: Path) -> None:
    track = np.zeros((3000, 512), np.float32)
    np.save(tmp_path / "long.npy", track)
    out = tmp_path / "made" / "out.mp4"
    out.parent.mkdir()
    panel = panel_of(synctalk_folder, tmp_path / "long.npy", out, lnb.RenderConfig())
    panel.start()
    while not panel.live.value and panel.job.state == "running":
        time.sleep(0.05)
    panel.stop()
    assert panel.wait(10)
    assert panel.job.state == "cancelled"
    assert "nothing was written" in panel.message.value
    assert (panel.run.disabled, panel.cancel.disabled) == (False, True)
    assert list(out.parent.iterdir()) == []
    panel.path.value = str(speech_file)
    panel.start()
    assert panel.wait(120)
    assert out.is_file()


def test_run_right_after_cancel(synctalk_folder: Path, speech_file: Path, tmp_path: Path) -> None:
    """The new render waits for the cancelled one to end; the press of the button is not lost."""
    np.save(tmp_path / "long.npy", np.zeros((3000, 512), np.float32))
    panel = panel_of(
        synctalk_folder, tmp_path / "long.npy", tmp_path / "out.mp4", lnb.RenderConfig()
    )
    panel.start()
    cancelled = panel.job
    panel.stop()
    panel.path.value = str(speech_file)
    panel.start()
    assert panel.job is not cancelled
    assert panel.wait(120)
    assert (cancelled.state, panel.job.state) == ("cancelled", "done")
    assert (tmp_path / "out.mp4").is_file()
    assert panel.cancel.disabled


@pytest.mark.parametrize(
    ("avatar", "speech", "message"),
    [
        ("nowhere", None, "nowhere: no such avatar folder."),
        (None, "nothing.wav", "nothing.wav: no such speech file."),
        (None, " ", "found an empty path, expected that of a speech."),
        (" ", None, "found an empty name, expected the folder or file of an avatar."),
    ],
)
def test_errors_are_one_sentence_in_the_panel(
    synctalk_folder: Path,
    speech_file: Path,
    tmp_path: Path,
    avatar: str | None,
    speech: str | None,
    message: str,
) -> None:
    panel = panel_of(synctalk_folder, speech_file, tmp_path / "out.mp4")
    panel.avatar.value = avatar or panel.avatar.value
    panel.path.value = speech or panel.path.value
    panel.start()
    assert panel.wait(60)
    assert panel.job.state == "failed"
    assert message in panel.message.value
    assert not panel.run.disabled


def test_a_video_without_a_name_is_not_begun(synctalk_folder: Path, speech_file: Path) -> None:
    panel = panel_of(synctalk_folder, speech_file, "")
    panel.start()
    assert panel.job is None
    assert "found an empty path, expected that of the video." in panel.message.value


def upload(panel: lnb.widgets.RunPanel, content: bytes, name: str) -> None:
    """What a page sends of a file, in one piece."""
    handle, key = panel.upload.receiver.handle, f"id of {name}"
    handle({"kind": "begin", "id": key, "name": name, "size": len(content)}, [])
    handle({"kind": "piece", "id": key, "number": 0}, [memoryview(content)])
    handle({"kind": "end", "id": key, "count": 1, "crc": zlib.crc32(content)}, [])
    panel.speech.value = "(uploaded file)"
    panel.start()
    assert panel.wait(120)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_an_uploaded_file_is_kept_until_the_panel_is_closed(
    synctalk_folder: Path, speech_file: Path, tmp_path: Path, temporary: Path
) -> None:
    panel = panel_of(synctalk_folder, speech_file, tmp_path / "out.mp4")
    upload(panel, speech_file.read_bytes(), "voice.wav")
    assert panel.job.state == "done", panel.job.error
    assert panel.job.speech.path.name == "voice.wav"
    assert len(list(temporary.iterdir())) == 1
    panel.close()
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("name", ["voice.wav", "../voice.wav", "..", "", "a\0b.wav", "<b>.wav"])
def test_an_upload_that_is_no_sound_is_told_by_its_name(
    synctalk_folder: Path, speech_file: Path, tmp_path: Path, temporary: Path, name: str
) -> None:
    panel = panel_of(synctalk_folder, speech_file, tmp_path / "out.mp4")
    upload(panel, b"no sound", name)
    assert panel.job.state == "failed"
    assert panel.job.error.startswith("uploaded ")
    assert str(temporary) not in panel.job.error
    panel.close()
    assert list(temporary.iterdir()) == []
    assert not (tmp_path / "voice.wav").exists()


def test_two_panels_do_not_disturb_each_other(
    synctalk_folder: Path, speech_file: Path, tmp_path: Path
) -> None:
    panels = [panel_of(synctalk_folder, speech_file, tmp_path / f"{i}.mp4") for i in range(2)]
    for panel in panels:
        panel.start()
    for panel in panels:
        assert panel.wait(180)
        assert panel.job.state == "done", panel.job.error
        assert panel.job.result.path.is_file()


def test_studio_shows_what_was_rendered(
    synctalk_folder: Path, speech_file: Path, tmp_path: Path
) -> None:
    studio = lnb.Studio(
        synctalk_folder, config=lnb.RenderConfig(max_frames=9), out=tmp_path / "out.mp4"
    )
    studio.panel.speech.value, studio.panel.path.value = "(path below)", str(speech_file)
    for count in (1, 2):
        studio.panel.start()
        assert studio.panel.wait(120)
        assert len(studio.timings.results) == count
    studio.tabs.go("Frame trace")
    assert studio.viewer.index.max == studio.microscope.index.max == 8
    assert studio.timings._comparison.value.count("<tr>") == 3
    assert "Output frame 8" in studio.microscope._view.value
    shapes = set()
    for view in VIEWS:
        studio.viewer.view.value = view
        shapes.add(studio.viewer.picture.shape)
    assert shapes == {(240, 320, 3), (240, 640, 3)}
    studio.viewer.index.value, studio.viewer.zoom.value = 5, True
    assert studio.viewer.picture.shape[1] == 480
    studio.close()


def test_closing_and_making_anew_leaves_no_threads(synctalk_folder: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "long.npy", np.zeros((3000, 512), np.float32))
    config = lnb.RenderConfig(streams=2, num_threads=2)
    before = set(threading.enumerate())
    for _ in range(3):
        panel = panel_of(synctalk_folder, tmp_path / "long.npy", tmp_path / "out.mp4", config)
        panel.start()
        while not panel.live.value and panel.job.state == "running":
            time.sleep(0.05)
        started = {thread.name for thread in set(threading.enumerate()) - before}
        assert {"render", "inference 1", "inference 2", "composite"} <= started
        panel.close()
        assert panel.wait(120)
        left = set(threading.enumerate()) - before
        assert left == set()


class Shell:
    """What a notebook's kernel gives: the running cell, and word of the next."""

    def __init__(self) -> None:
        self.events = EventManager(self, available_events)

    def run(self, cell: str) -> None:
        self.get_parent = lambda: {"metadata": {"cellId": cell}}
        info = ExecutionInfo("", False, False, True, cell)
        self.events.trigger("pre_run_cell", info)


def sessions() -> int:
    gc.collect()
    return sum(type(thing) is InferenceSession for thing in gc.get_objects())


def test_studios_of_two_cells_live_and_one_of_a_cell_run_again_does_not(
    synctalk_folder: Path, speech_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell = Shell()
    monkeypatch.setattr(studio_module, "get_ipython", lambda: shell)

    def studio_in(cell: str) -> lnb.Studio:
        shell.run(cell)
        made = lnb.Studio(
            synctalk_folder, config=lnb.RenderConfig(max_frames=6), out=tmp_path / f"{cell}.mp4"
        )
        made.panel.speech.value, made.panel.path.value = "(path below)", str(speech_file)
        made.panel.start()
        assert made.panel.wait(120)
        made.tabs.go("Frame trace")
        return made

    gc.collect()
    before = sessions(), len(_instances), set(threading.enumerate())
    first, second = studio_in("a"), studio_in("b")
    held = sessions(), len(_instances)
    assert [s.timings.results[0].path.stem for s in (first, second)] == ["a", "b"]
    assert held[0] > before[0]
    for _ in range(2):
        pages = weakref.ref(first.tabs)
        again = studio_in("a")
        assert first.comm is None
        # Though somebody has the studio still, as IPython does.
        gc.collect()
        assert pages() is None
        assert second.comm is not None
        assert (sessions(), len(_instances)) == held
        first = again
    first.close()
    second.close()
    assert (sessions(), len(_instances)) == before[:2]
    assert set(threading.enumerate()) <= before[2]


def test_without_a_kernel_a_line_of_text_is_shown() -> None:
    bundle = lnb.Studio()._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert "Studio: run this cell in a notebook with a live kernel" in bundle["text/html"]
    assert len(bundle["text/plain"]) < 100


def test_a_notebook_keeps_the_table_of_a_batch() -> None:
    table = lnb.widgets.BatchTable()
    assert "run this cell" in table.kept()
    made = ClipOutcome("one.mp4", "rendered", 50, 2.0, 31.5)
    table(BatchProgress(1, 2, 0, 50, 2.0, made))
    missing = ClipOutcome("two.mp4", "failed", error="two.wav: cannot be read.")
    table(BatchProgress(2, 2, 1, 50, 4.0, missing))
    for text in ("2 of 2 clips, 1 failed, 12.5 FPS together", "FPS without opening", "31.5"):
        assert text in table.kept()
    assert "two.wav: cannot be read." in table._kept_html()


def test_composed_views() -> None:
    original, result = np.full((4, 10, 3), 10, np.uint8), np.full((4, 10, 3), 20, np.uint8)
    wiped = composed(original, result, "wipe", 0.5)
    assert wiped[0, :4, 0].tolist() == [10] * 4
    assert wiped[0, 6:, 0].tolist() == [20] * 4
    assert composed(original, result, "difference", 0)[0, 0].tolist() == [208] * 3
    assert composed(original, result, "result", 0) is result
