"""The studio without a browser: what it chooses, compares, keeps, and gives away."""

import gc
import html
import io
import json
import os
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

import av
import ipywidgets
import numpy as np
import pytest
from builders import tone_speech

import lipsync_nb as lnb
from lipsync_nb.config.presets import PRESETS, preset, preset_of
from lipsync_nb.media.video import VideoFile, iter_video
from lipsync_nb.widgets.file_browser import FileBrowser
from lipsync_nb.widgets.recipe import Recipe
from lipsync_nb.widgets.tooltips import Tooltips
from lipsync_nb.widgets.viewer import GAIN

SHORT = lnb.RenderConfig(max_frames=12)


@pytest.fixture
def studio(synctalk_folder: Path, speech_file: Path, tmp_path: Path) -> Iterator[lnb.Studio]:
    made = lnb.Studio(synctalk_folder, speech_file, SHORT, tmp_path / "out.mp4")
    yield made
    made.close()


def rendered(studio: lnb.Studio, preview: bool = False) -> lnb.RenderResult:
    studio.panel.start(preview)
    assert studio.panel.wait(120)
    assert studio.panel.job.state == "done", studio.panel.job.error
    return studio.panel.job.result


def widgets_in(widget: ipywidgets.Widget) -> Iterator[ipywidgets.Widget]:
    yield widget
    for child in getattr(widget, "children", ()):
        yield from widgets_in(child)


def test_a_preset_changes_its_own_fields_alone() -> None:
    form = lnb.widgets.ConfigForm(lnb.RenderConfig(max_frames=9, crf=30))
    for entry in PRESETS:
        form.presets.value = entry.name
        assert preset_of(form.value) == entry
        assert (form.value.max_frames, form.value.crf) == (9, 30)


def test_quality_in_words_is_a_preset_and_says_what_was_measured(studio: lnb.Studio) -> None:
    quality = studio.quality
    assert quality.choice.value == "Best picture"
    assert "Not measured" in quality._text.value
    quality.choice.value = "Fastest"
    assert studio.form.value == lnb.RenderConfig(max_frames=12, precision="int8")
    studio.form["batch_size"].value = 3
    assert quality.choice.value == "As set under More"
    quality.choice.value = "Best picture"
    assert studio.form.value == SHORT
    speed = rendered(studio).timings.steady_fps
    assert f"{speed:.1f} FPS" in quality._text.value


def test_a_job_knows_nothing_of_those_before_it(studio: lnb.Studio) -> None:
    rendered(studio)
    first = weakref.ref(studio.panel.job)
    rendered(studio)
    gc.collect()
    assert first() is None


def test_every_control_has_a_name_of_its_own_and_says_what_it_does(studio: lnb.Studio) -> None:
    kinds = (
        ipywidgets.Button, ipywidgets.ToggleButton, ipywidgets.Text, ipywidgets.Dropdown,
        ipywidgets.IntSlider, ipywidgets.FloatSlider, ipywidgets.BoundedIntText,
        ipywidgets.Checkbox,
    )  # fmt: skip
    found = [w for w in widgets_in(studio) if isinstance(w, kinds)]
    assert len(found) > 50
    assert [w.description for w in found if not (w.description and w.tooltip)] == []
    run = [w for w in widgets_in(studio.tabs._stack.children[0]) if isinstance(w, kinds)]
    # Both lists of files have the same buttons.
    repeated = ("Browse", "Home", "Up", "Open")
    fields = [w.description for w in run if w.description not in repeated]
    assert len(fields) == len(set(fields))


def test_tooltips_reach_the_page_for_every_kind_of_field(studio: lnb.Studio) -> None:
    tips = {k: v for w in widgets_in(studio) if isinstance(w, Tooltips) for k, v in w.tips.items()}
    shown = {tips[name] for w in widgets_in(studio) for name in w._dom_classes if name in tips}
    for field in (studio.panel.avatar, studio.panel.speech, studio.form["overlap"]):
        assert field.tooltip in shown
    assert studio.form["batch_size"].tooltip in shown
    assert studio.footage.footage.tooltip in shown
    assert studio.timings._seconds.tooltip in shown
    assert len(shown) > 30


def test_a_preview_is_short_and_writes_nothing(studio: lnb.Studio, tmp_path: Path) -> None:
    studio.form["max_frames"].value = 0
    speech = tone_speech(tmp_path / "long.wav", 4.0)
    studio.panel.path.value = str(speech)
    result = rendered(studio, preview=True)
    assert result.num_frames == 50
    assert not (tmp_path / "out.mp4").exists()
    assert str(result.path) not in studio.panel.message.value
    assert result.path.is_file()
    studio.panel.release()
    assert not result.path.exists()


def test_cancel_clears_the_text_and_leaves_the_video_of_before(
    studio: lnb.Studio, tmp_path: Path
) -> None:
    rendered(studio)
    panel, before = studio.panel, studio.panel.video.value
    assert "<video" in before
    np.save(tmp_path / "long.npy", np.zeros((3000, 512), np.float32))
    panel.path.value, studio.form["max_frames"].value = str(tmp_path / "long.npy"), 0
    panel.start()
    while not panel._text.value.startswith("1") and panel.job.state == "running":
        time.sleep(0.02)
    panel.stop()
    assert panel.wait(20)
    assert (panel._text.value, panel.progress.value) == ("", 0)
    assert (panel.video.value, panel.video.layout.display) == (before, "")
    assert "out.mp4" in panel.message.value
    assert panel.bar.layout.display == ""
    panel.path.value = str(tmp_path / "nothing.wav")
    panel.start()
    assert panel.wait(20)
    assert (panel.job.state, panel.video.value, panel._text.value) == ("failed", before, "")


def test_it_takes_objects(avatar: lnb.Avatar, speech: lnb.Speech, tmp_path: Path) -> None:
    studio = lnb.Studio(avatar, speech=speech, config=SHORT, out=tmp_path / "out.mp4")
    rendered(studio)
    assert studio.panel.job.avatar is avatar
    assert studio.panel.job.speech is speech
    assert "<audio" in studio.panel.given.card.value
    studio.close()


def test_the_code_of_a_run_does_the_same(
    studio: lnb.Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    studio.form["batch_size"].value = 2
    first = rendered(studio)
    code = studio.panel.bar.code
    assert "RenderConfig(batch_size=2, max_frames=12)" in code
    kept = tmp_path / "kept.mp4"
    first.path.rename(kept)
    exec(code, {})
    assert all(
        np.array_equal(one, other)
        for one, other in zip(iter_video(kept), iter_video(first.path), strict=True)
    )


def test_the_code_of_the_demo_names_it() -> None:
    code = Recipe("demo", "hello", "", "a.mp4").code(preset("engine"))
    assert "config" not in code
    assert "lnb.demo_speeches()['hello']" in code


def test_a_report_is_one_page_beside_the_output(studio: lnb.Studio, tmp_path: Path) -> None:
    result = rendered(studio)
    bar = studio.panel.bar
    assert bar.path == str(tmp_path / "out.mp4")
    assert bar.save_report() == tmp_path / "out.report.html"
    page = (tmp_path / "out.report.html").read_text(encoding="utf-8")
    assert "out.mp4: 12 frames" in page
    # It names avatar and speech.
    assert html.unescape(page.split("<pre>")[1].split("</pre>")[0]) == bar.code
    result.path.unlink()
    assert bar.save_report() is None
    assert bar.said.startswith(f"{result.path}: was removed")
    # Its frames were kept, and the viewer tells.
    studio.viewer._choose({})
    assert "was removed since" in studio.viewer._figures.value
    assert studio.viewer.picture.shape == (240, 320, 3)


def test_two_runs_to_one_file_are_compared(studio: lnb.Studio, tmp_path: Path) -> None:
    one = rendered(studio)
    frames = list(iter_video(one.path))
    studio.panel.path.value = str(tone_speech(tmp_path / "other.wav", 1.0, seed=3))
    studio.form["max_frames"].value = 10
    other = list(iter_video(rendered(studio).path))
    viewer = studio.viewer
    assert list(viewer.left.options) == ["original", "1: engine", "2: engine"]
    viewer.left.value = "1: engine"
    assert viewer.index.max == 9
    viewer.view.value, viewer.index.value = "side by side", 4
    assert np.array_equal(viewer.picture, np.hstack([frames[4], other[4]]))
    viewer._make_clip()
    viewer._maker.wait(60)
    errors = errors_in_box(studio, frames, other)
    assert viewer.alike.worst == int(np.argmax(errors))
    assert viewer.alike.psnr_db == pytest.approx(10 * np.log10(255**2 / np.mean(errors)), abs=1e-3)
    viewer._go_to_worst()
    assert viewer.index.value == viewer.alike.worst
    assert "run 2 minus" not in viewer.index.caption
    viewer.view.value = "difference"
    assert f"run 2 minus run 1, {GAIN} times as strong" in viewer.index.caption


def errors_in_box(
    studio: lnb.Studio, frames: list[np.ndarray], others: list[np.ndarray]
) -> list[float]:
    run = studio.runs.all[-1]
    boxes = [run.avatar.boxes[int(index)] for index in run.order]
    return [
        float(((one.astype(float) - other)[box.rows, box.columns] ** 2).mean())
        for one, other, box in zip(frames, others, boxes, strict=False)
    ]


def test_the_clip_has_both_pictures_and_the_sound(studio: lnb.Studio) -> None:
    result = rendered(studio)
    viewer = studio.viewer
    viewer._make_clip()
    viewer._maker.wait(60)
    with av.open(io.BytesIO(viewer.index.clip)) as clip:
        pictures = [frame.to_ndarray(format="bgr24") for frame in clip.decode(video=0)]
        clip.seek(0)
        seconds = sum(f.samples / f.sample_rate for f in clip.decode(audio=0))
    assert len(pictures) == result.num_frames
    assert pictures[0].shape == (240, 640, 3)
    assert 0.3 < seconds < 0.6
    for index in (0, 7):
        viewer.index.value, viewer.view.value = index, "side by side"
        assert np.abs(pictures[index].astype(int) - viewer.picture).mean() < 6


def test_the_box_is_seen_in_the_difference(studio: lnb.Studio) -> None:
    rendered(studio)
    viewer = studio.viewer
    viewer.view.value = "difference"
    plain = viewer.picture
    viewer.box.value = True
    box = studio.runs.all[0].avatar.boxes[int(viewer._order[0])]
    assert not np.array_equal(viewer.picture[box.y1, box.x1], plain[box.y1, box.x1])
    viewer.zoom.value = True
    green = (viewer.picture == (80, 220, 80)).all(axis=2)
    assert green.any(axis=0).sum() > 0.5 * viewer.picture.shape[1]


def test_pictures_that_were_removed_are_told(studio: lnb.Studio, tmp_path: Path) -> None:
    studio.panel.out.value = str(tmp_path / "pictures")
    result = rendered(studio)
    assert studio.viewer.picture is not None
    next(result.path.iterdir()).unlink()
    studio.viewer._choose({})
    assert "run it again" in studio.viewer._caption.value
    assert studio.viewer.picture is None


def test_a_file_browser_walks_and_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "me" / "full_body_img").mkdir(parents=True)
    for name in ("a.wav", "b.txt", ".hidden"):
        (tmp_path / name).touch()
    taken: list[Path] = []
    browser = FileBrowser(taken.append, "speech", (".wav",), "~")
    assert [name for _, name in browser.entries.options] == ["me", "a.wav"]
    assert browser.entries.options[0][0].endswith("(an avatar)")
    browser.enter()
    assert browser.folder == tmp_path / "me"
    browser.go_up()
    assert (browser.folder, browser.entries.value) == (tmp_path, "me")
    browser.entries.value = "a.wav"
    browser.choose()
    assert taken == [tmp_path / "a.wav"]
    browser.go(tmp_path / "nowhere")
    assert "No such file" in browser.place.value
    assert browser.folder == tmp_path


# What needs the superuser's rights is imported first: the interpreter may lie in a closed folder.
IN_A_CLOSED_PLACE = """
import json, os, sys
import lipsync_nb as lnb
from lipsync_nb.widgets.file_browser import FileBrowser
lnb.Studio().close()
os.chdir(sys.argv[1])
if os.getuid() == 0:
    os.setgroups([])
    os.setgid(12345)
    os.setuid(12345)
browser = FileBrowser(print, "avatar", (), "mine")
browser.go("closed")
said = browser.place.value, browser.folder.name
browser.go(".")
lnb.Studio().close()
print(json.dumps([*said, browser.entries.options]))
"""


def test_a_folder_that_may_not_be_read_stops_no_list(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        root, closed = Path(name), Path(name) / "closed"
        root.chmod(0o755)
        (root / "mine").mkdir()
        (root / "mine").chmod(0o777)
        (closed / "within").mkdir(parents=True)
        (root / "link").symlink_to(closed / "within")
        closed.chmod(0)
        try:
            done = subprocess.run(
                [sys.executable, "-c", IN_A_CLOSED_PLACE, name],
                env={**os.environ, "HOME": name, "PYTHONPATH": str(Path(__file__).parents[1])},
                capture_output=True, text=True, check=False, timeout=300, cwd=tmp_path,
            )  # fmt: skip
        finally:
            closed.chmod(0o755)
    assert done.returncode == 0, done.stderr
    said, folder, options = json.loads(done.stdout)
    assert "closed: Permission denied." in said
    assert folder == "mine"
    assert options == [["closed/", "closed"], ["mine/", "mine"]]


def test_the_home_folder_is_understood(
    synctalk_folder: Path, speech_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(synctalk_folder.parent))
    studio = lnb.Studio(f"~/{synctalk_folder.name}", speech_file, SHORT, tmp_path / "out.mp4")
    rendered(studio)
    studio.panel.card.wait(20)
    assert "5 frames of 320x240" in studio.panel.card._view.value
    assert len(VideoFile(tmp_path / "out.mp4")) == 12
    studio.close()
