"""What takes long before the first frame is told, shown, and can be cancelled."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import lipsync_nb as lnb
from lipsync_nb.system.steps import Step, steps_told_to, told
from lipsync_nb.widgets.job import RenderJob

INT8 = lnb.RenderConfig(precision="int8", provider="cpu")


@pytest.fixture
def fresh(
    synctalk_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[lnb.Avatar]:
    """An avatar of which nothing is kept."""
    monkeypatch.setenv("LIPSYNC_NB_CACHE", str(tmp_path / "cache"))
    avatar = lnb.load_avatar(shutil.copytree(synctalk_folder, tmp_path / "person"))
    yield avatar
    avatar.forget()


def slow(count: int) -> Iterator[int]:
    for number in range(count):
        time.sleep(0.1)
        yield number


def test_a_step_as_a_line() -> None:
    assert Step("calibrating int8", 8, 32, 4.0).text == "calibrating int8: 8 of 32, 12 s to go"
    assert Step("calibrating int8", 0, 32, 0.0).text == "calibrating int8: 0 of 32"


def test_the_first_render_in_8_bits_tells_its_steps(
    fresh: lnb.Avatar, speech: lnb.Speech, tmp_path: Path
) -> None:
    """Also what is done in a thread of its own: frames are read while sound is encoded."""
    heard: list[Step] = []
    with steps_told_to(heard.append):
        lnb.render(fresh, speech, tmp_path / "clip.mp4", INT8)
    ends = {step.what: (step.done, step.total) for step in heard}
    assert list(ends) == ["reading frames", "reading frames to calibrate on", "calibrating int8"]
    assert all(done == total > 0 for done, total in ends.values())
    assert ends["reading frames"][1] == len(fresh)
    for what, (_, total) in ends.items():
        done = [step.done for step in heard if step.what == what]
        assert done == list(range(1, total + 1))
    heard.clear()
    with steps_told_to(heard.append):
        lnb.render(fresh, speech, tmp_path / "clip.mp4", INT8)
    assert heard == []


def test_frames_that_are_written_are_told(fresh: lnb.Avatar) -> None:
    heard: list[Step] = []
    with steps_told_to(heard.append):
        fresh.open_template("mmap", "bgr")
    assert {step.what for step in heard} == {"keeping frames in files"}
    assert [step.done for step in heard] == list(range(1, len(fresh) + 1))


def test_nobody_is_told_of_what_nobody_waits_for() -> None:
    heard: list[Step] = []
    with steps_told_to(heard.append):
        pass
    assert list(told("adding", [3, 4], 2)) == [3, 4]
    assert heard == []


def test_a_long_step_has_a_line_that_goes(capfd: pytest.CaptureFixture[str]) -> None:
    with lnb.ProgressBar("clip") as bar:
        assert list(told("reading frames", slow(10), 10)) == list(range(10))
        assert list(told("calibrating int8", slow(10), 10)) == list(range(10))
        for done in range(1, 4):
            bar(lnb.Progress(done, 3, 0.1 * done))
    shown = capfd.readouterr().err
    assert "reading frames:" in shown
    assert "calibrating int8:" in shown
    (line,) = (line.rsplit("\r", 1)[-1].strip() for line in shown.strip().split("\n"))
    assert line.startswith("clip: 100%")
    assert "3/3" in line


def test_a_short_step_has_none(capfd: pytest.CaptureFixture[str]) -> None:
    with lnb.ProgressBar("clip"):
        list(told("reading frames", range(100), 100))
    assert capfd.readouterr().err == ""


def test_a_job_is_cancelled_within_a_step(
    fresh: lnb.Avatar, speech: lnb.Speech, tmp_path: Path
) -> None:
    told_steps: list[Step] = []

    def on_step(step: Step) -> None:
        told_steps.append(step)
        if step.what == "calibrating int8":
            job.cancel()

    made = tmp_path / "made"
    made.mkdir()
    out = made / "clip.mp4"
    job = RenderJob(
        lambda: (fresh, speech), out, INT8, lambda _: None, lambda _: None, on_step=on_step
    )
    job.start()
    assert job.wait(120)
    assert (job.state, job.error) == ("cancelled", "")
    assert list(made.iterdir()) == []
    last = told_steps[-1]
    assert (last.what, last.done < last.total) == ("calibrating int8", True)
    # Nothing half done is kept: the next render calibrates anew, and is in 8 bits.
    assert lnb.render(fresh, speech, out, INT8).shortfalls == ()
