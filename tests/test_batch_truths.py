"""What a batch, or a benchmark, says that it made is so, and lies where it was wanted."""

import importlib.util
import json
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path

import joblib
import pytest
from builders import tone_speech, write_synctalk_avatar

import lipsync_nb as lnb
from lipsync_nb.many.results import BatchResult
from lipsync_nb.many.worker import Order, PartOrder, carry_out, carry_out_parts, plan_of
from lipsync_nb.media.video import iter_video
from lipsync_nb.system.background import in_background, wait_for_background
from tools.benchmarks import live, streaming
from tools.lab import chromium

CONFIG = lnb.RenderConfig(provider="cpu", crf=30)
CLIPS = [Path("clips/0.mp4"), Path("clips/1.mp4")]


def test_who_waits_for_files_meets_no_thread_that_is_not_begun(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A busy machine takes a while to begin a thread; another clip is done meanwhile."""
    begin, begins, written = threading.Thread.start, threading.Event(), threading.Event()

    def slowly(thread: threading.Thread) -> None:
        if thread.name == "slow writer":
            begins.set()
            time.sleep(0.3)
        begin(thread)

    monkeypatch.setattr(threading.Thread, "start", slowly)
    other = threading.Thread(target=in_background, args=(written.set, "slow writer"))
    other.start()
    assert begins.wait(30)
    wait_for_background()
    assert written.is_set()
    other.join()


def test_names_are_those_of_the_callers_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers that are used again are at home in the folder of the call that began them."""
    for name, seconds in (("one", 0.4), ("two", 0.6)):
        folder = tmp_path / name
        write_synctalk_avatar(folder / "person", num_frames=3)
        rows = ["avatar,speech,out", *(f"person,{n}.wav,clips/{n}.mp4" for n in range(2))]
        (folder / "lessons.csv").write_text("\n".join(rows), encoding="utf-8")
        for number in range(2):
            tone_speech(folder / f"{number}.wav", seconds, 16_000, 1)
        monkeypatch.chdir(folder)
        result = lnb.render_many("lessons.csv", 2)
        assert [outcome.state for outcome in result.outcomes] == ["rendered"] * 2
        assert [Path(outcome.out) for outcome in result.outcomes] == CLIPS
        lengths = [len(list(iter_video(folder / clip))) for clip in CLIPS]
        assert [outcome.num_frames for outcome in result.outcomes] == lengths
        assert lnb.render_many("lessons.csv", 2).count("kept") == 2


def test_a_failure_hides_no_clip_that_is_there(tmp_path: Path) -> None:
    """Pictures that are there are not replaced: that fails, and they are as good as before."""
    write_synctalk_avatar(tmp_path / "person", num_frames=3)
    speech = tone_speech(tmp_path / "s.wav", 0.4, 16_000, 1)
    pictures = lnb.ClipJob(tmp_path / "person", speech, tmp_path / "out" / "pictures", CONFIG)
    video = replace(pictures, out=tmp_path / "out" / "a.mp4")
    jobs = [pictures, video]
    assert lnb.render_many(jobs).count("rendered") == 2
    assert [o.state for o in lnb.render_many(jobs, redo=True).outcomes] == ["failed", "rendered"]
    again = lnb.render_many(jobs)
    assert again.count("kept") == 2
    assert again.outcomes[0].num_frames == len(list((tmp_path / "out" / "pictures").iterdir()))

    speech.rename(tmp_path / "elsewhere.wav")
    assert lnb.render_many(jobs).count("failed") == 2
    (tmp_path / "elsewhere.wav").rename(speech)
    assert lnb.render_many(jobs).count("kept") == 2
    # Of something else, or changed since, it is not what was rendered.
    assert lnb.render_many([replace(video, config=replace(CONFIG, crf=40))]).count("rendered") == 1
    assert lnb.render_many([video]).count("rendered") == 1
    shutil.copyfile(speech, video.out)
    assert lnb.render_many([video]).count("rendered") == 1


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory: pytest.TempPathFactory) -> lnb.ClipJob:
    """Of a segment and a little."""
    root = tmp_path_factory.mktemp("long")
    write_synctalk_avatar(root / "person", num_frames=3, size=(160, 120))
    speech = tone_speech(root / "s.wav", 10.8, 16_000, 1)
    return lnb.ClipJob(root / "person", speech, root / "out" / "a.mp4", CONFIG)


def elsewhere(job: lnb.ClipJob, folder: Path) -> lnb.ClipJob:
    """The same clip, made in another folder."""
    return replace(job, out=folder / "out" / "a.mp4")


def made_in_parts(job: lnb.ClipJob) -> BatchResult:
    with joblib.parallel_config("threading", n_jobs=2):
        return lnb.render_many([job], split=True)


def test_a_clip_made_in_parts_took_what_all_of_them_took(
    long_clip: lnb.ClipJob, tmp_path: Path
) -> None:
    job = elsewhere(long_clip, tmp_path)
    outcome = made_in_parts(job).outcomes[0]
    assert outcome.num_frames == len(list(iter_video(Path(job.out)))) > 250
    assert any(f"{outcome.num_frames} frames were there, made in parts" in n for n in outcome.notes)
    assert not any("broken off" in n or "earlier run" in n for n in outcome.notes)
    # Every frame took its time, and opening and joining took some as well.
    assert outcome.fps > 0
    assert outcome.seconds > outcome.num_frames / outcome.fps
    last = (tmp_path / "out" / "manifest.jsonl").read_text(encoding="utf-8").splitlines()[-1]
    entry = json.loads(last)
    assert (entry["seconds"], entry["fps"]) == (outcome.seconds, outcome.fps)


def test_a_clip_that_goes_on_says_whose_seconds_are_not_counted(
    long_clip: lnb.ClipJob, tmp_path: Path
) -> None:
    job = elsewhere(replace(long_clip, config=replace(CONFIG, resume="on")), tmp_path)
    Path(job.out).parent.mkdir()

    def until_the_second_part(progress: lnb.Progress) -> None:
        if progress.done > 255:
            raise KeyboardInterrupt

    avatar, speech = lnb.load_avatar(job.avatar), lnb.load_speech(job.speech)
    with pytest.raises(KeyboardInterrupt):
        lnb.render(avatar, speech, job.out, job.config, until_the_second_part)
    outcome = lnb.render_many([job]).outcomes[0]
    whole = f"{outcome.num_frames} frames are of an earlier run"
    assert any(note.startswith(f"250 of {whole}") for note in outcome.notes), outcome.notes
    assert outcome.seconds > (outcome.num_frames - 250) / outcome.fps


def test_parts_of_a_clip_that_another_batch_made_are_left_nowhere(
    long_clip: lnb.ClipJob, tmp_path: Path
) -> None:
    """Step by step what a worker does while another batch is done with the whole."""
    job = elsewhere(replace(long_clip, config=replace(CONFIG, max_frames=260)), tmp_path)
    manifest, parts = tmp_path / "out" / "manifest.jsonl", tmp_path / "out" / ".a.mp4.lipsync-parts"
    manifest.parent.mkdir()
    last, first = (PartOrder(0, job, range(n, n + 1), manifest, 2) for n in (1, 0))
    assert carry_out_parts(last)[1].num_frames == 10
    assert list(parts.glob("*.part"))
    assert lnb.render_many([job]).count("rendered") == 1

    # The rest of what it was told.
    before = Path(job.out).read_bytes()
    plan_of(job, 2).open_parts()
    assert carry_out_parts(first)[1].num_frames == 0
    assert carry_out(Order(0, job, manifest, 2))[1].state == "kept"
    assert not parts.exists()
    # It was killed before.
    plan_of(job, 2).open_parts()
    assert lnb.render_many([job]).count("kept") == 1
    assert not parts.exists()
    # All anew where that is wanted.
    assert carry_out_parts(replace(last, redo=True))[1].num_frames == 10
    assert Path(job.out).read_bytes() == before


def test_figures_go_to_a_folder_that_is_made(tmp_path: Path) -> None:
    out = tmp_path / "new" / "folder"
    streaming.main(["--seconds", "1", "--runs", "1", "--out", str(out)])
    texts, figures = list(out.glob("*_streaming.txt")), list(out.glob("*_streaming.json"))
    assert "floor: " in texts[0].read_text(encoding="utf-8")
    assert len(json.loads(figures[0].read_text(encoding="utf-8"))["runs"]) == 1


@pytest.mark.skipif(
    chromium() is None or importlib.util.find_spec("playwright") is None, reason="no browser here"
)
def test_a_notebooks_figures_are_written_too(tmp_path: Path) -> None:
    live.write_notebook(tmp_path / "one.ipynb", "1 + 1")
    given = ["--notebook", str(tmp_path / "one.ipynb"), "--runs", "2"]
    live.main([*given, "--out", str(tmp_path / "new" / "folder")])
    text, figures = sorted((tmp_path / "new" / "folder").iterdir(), reverse=True)
    held = json.loads(figures.read_text(encoding="utf-8"))["kernel_bytes"]
    assert len(held) == 2
    assert min(held) > 0
    assert f"run 2: {held[1] / 1e6:.0f} MB" in text.read_text(encoding="utf-8")
