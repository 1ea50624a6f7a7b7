"""What is measured and kept is what is said: cold runs, truths at other rates, tunings."""

import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from builders import tone_speech, write_synctalk_avatar

import lipsync_nb as lnb
from lipsync_nb.avatar.frame_source import FrameSource
from lipsync_nb.avatar.session import SESSION
from lipsync_nb.errors import ConfigError
from lipsync_nb.experiments import autotune, last_tuned
from lipsync_nb.experiments.demo_truths import demo_truth
from lipsync_nb.experiments.sweeps import sweep
from lipsync_nb.network.boundary import BoundaryTensor
from lipsync_nb.pipeline.feature_cache import FeatureCache
from lipsync_nb.pipeline.feature_files import FeatureFiles
from lipsync_nb.pipeline.feature_plan import FeatureCosts, FilesState, plan_features
from lipsync_nb.pipeline.predictors import PictureHalf
from lipsync_nb.pipeline.render import FrameStream
from lipsync_nb.system.kept_files import trusted_owners


@pytest.fixture(autouse=True)
def _no_cache_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIPSYNC_NB_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A line for each batch of the picture half, and for each decoding of a template."""
    lines: list[str] = []
    run_into, stored = PictureHalf.run_into, FrameSource.stored

    def run(self, *arguments):
        lines.append("half")
        return run_into(self, *arguments)

    def decode(self, *arguments, **options):
        lines.append("decode")
        return stored(self, *arguments, **options)

    monkeypatch.setattr(PictureHalf, "run_into", run)
    monkeypatch.setattr(FrameSource, "stored", decode)
    return lines


def test_every_cold_run_of_a_sweep_is_cold(
    avatar: lnb.Avatar, speech: lnb.Speech, counted: list[str]
) -> None:
    seen: list[tuple[str, tuple[str, ...]]] = []

    def progress(name: str, run: lnb.Progress) -> None:
        if run.frame is not None and run.frame.index == 0:
            seen.append((name, ()))
            counted.append("begin")

    sweep(avatar, speech, warmup="included", repeats=2, max_frames=8, n_jobs=[1, 2],
          base=lnb.RenderConfig(cache="memory", feature_cache="on"), progress=progress)  # fmt: skip
    assert len(seen) == 4
    assert counted.count("decode") == 4
    halves = counted.count("half")
    assert halves
    assert halves % 4 == 0


def test_what_is_kept_for_one_configuration_is_not_let_go_for_another(
    avatar: lnb.Avatar, speech: lnb.Speech, counted: list[str]
) -> None:
    base = lnb.RenderConfig(feature_files=False, feature_cache="on")
    once = sweep(
        avatar, speech, base=base, repeats=1, max_frames=8, feature_dtype=["float32", "float16"]
    )
    after_one = counted.count("half")
    counted.clear()
    sweep(avatar, speech, base=base, repeats=3, max_frames=8, feature_dtype=["float32", "float16"])
    assert len(once.rows) == 2
    assert counted.count("half") == after_one


def test_a_sweep_that_goes_on_measures_what_is_asked_for(
    avatar: lnb.Avatar, speech: lnb.Speech, tmp_path: Path
) -> None:
    path = tmp_path / "sweep.json"
    sweep(avatar, speech, repeats=1, max_frames=2, path=path, batch_size=[1, 2])
    found = sweep(avatar, speech, repeats=2, max_frames=2, path=path, batch_size=[3])
    runs = {row.config.batch_size: len(row.runs) for row in found.rows}
    assert runs == {3: 2, 1: 1, 2: 1}


def test_the_demo_s_truth_is_taken_at_the_frames_times() -> None:
    speech = lnb.load_speech(lnb.demo_speeches()["hello"])
    drawn = demo_truth(lnb.load_avatar("demo"), speech)
    with pytest.warns(UserWarning, match="30 a second are taken"):
        faster = lnb.load_avatar("demo", fps=30)
    found = demo_truth(faster, speech)
    assert drawn is not None
    assert found is not None
    assert len(found) == len(drawn) * 30 // 25
    np.testing.assert_allclose(found[::6], drawn[::5][: len(found[::6])], atol=1e-6)
    # Frame 3 of 30 a second is at 0.1 s, in the middle of frames 2 and 3 of 25 a second.
    assert found[3] == pytest.approx((drawn[2] + drawn[3]) / 2, abs=1e-6)


def test_features_that_are_fresh_are_not_let_go(tmp_path: Path) -> None:
    boundary = (BoundaryTensor("x", (64, 64), np.dtype("float32")),)
    owners = trusted_owners(tmp_path)

    def files() -> FeatureFiles:
        return FeatureFiles((tmp_path,), owners, "a" * 64, ("k",), boundary, 4, "n")

    first = FeatureCache(boundary, np.arange(4), files())
    first.put(0, [np.ones((64, 64), np.float32)])
    first._write(files())
    cache = FeatureCache(boundary, np.arange(4), files())
    assert cache.num_found == 1

    class Slow(set):
        """What another thread does while frames are noted as filled."""

        def update(self, frames):
            super().update(frames)
            cache.let_go(np.array(list(frames)))

    cache._filled = Slow(cache._filled)
    (slots,) = cache.slots(np.array([1]))
    slots[0][:] = 7
    cache.mark(np.array([1]))
    np.testing.assert_array_equal(cache.gather(np.array([1]), {})[0], 7)


def test_what_is_shown_leaves_what_is_held(
    avatar: lnb.Avatar, speech: lnb.Speech, tmp_path: Path, counted: list[str]
) -> None:
    config = lnb.RenderConfig(cache="memory")
    lnb.render(avatar, speech, tmp_path / "a.mp4", config)
    avatar.to_html()
    lnb.experiments.quantize(avatar, "int8", speech)
    counted.clear()
    lnb.render(avatar, speech, tmp_path / "a.mp4", config)
    assert "decode" not in counted
    SESSION.clear()


@pytest.mark.parametrize("overlap", [True, False])
def test_features_that_do_not_fit_calibrate_nothing(tmp_path: Path, overlap: bool) -> None:
    folder = tmp_path / "person"
    write_synctalk_avatar(folder, 6)
    avatar = lnb.load_avatar(folder, fps=30)
    np.save(folder / avatar.spec.features_file, np.zeros((50, 1024), np.float32))
    tone_speech(tmp_path / "tone.wav", 4.0)
    speech = lnb.load_speech(tmp_path / "tone.wav")
    config = lnb.RenderConfig(precision="int8", max_frames=5, overlap=overlap)
    with pytest.warns(UserWarning, match="INT8 is calibrated on this speech instead"):
        result = lnb.render(avatar, speech, tmp_path / "a.mp4", config)
    assert result.shortfalls == ()
    # As one that is calibrated on the whole speech from the start.
    whole = [f.data.copy() for f in lnb.iter_frames(avatar, speech, replace(config, max_frames=0))]
    part = [frame.data.copy() for frame in lnb.iter_frames(avatar, speech, config)]
    np.testing.assert_array_equal(part, whole[:5])


def test_a_plan_says_where_features_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lipsync_nb.pipeline.feature_plan.free_memory_bytes", lambda: 10_000_000)
    order, costs = np.arange(100) % 10, FeatureCosts(10**9, 1_000_000)
    some = plan_features(order, 10, costs, 4096 * 10**6, "auto", FilesState(0, ""))
    assert len(some.frames) == 5
    assert "not in files: there is no room for all" in some.reason
    # What files hold is mapped, and needs no room.
    every = plan_features(order, 10, costs, 4096 * 10**6, "auto", FilesState(10, ""))
    assert len(every.frames) == 10
    assert "all are kept in 10 MB, and in files" in every.reason


def test_a_tuning_that_is_remembered_is_the_last(avatar: lnb.Avatar) -> None:
    for crf in (11, 33, 11):
        autotune(avatar, max_frames=2, seconds=0.01, base=lnb.RenderConfig(crf=crf))
    assert last_tuned().crf == 11


def test_a_wrong_start_leaves_no_thread(avatar: lnb.Avatar, tmp_path: Path) -> None:
    tone_speech(tmp_path / "long.wav", 30.0)
    speech = lnb.load_speech(tmp_path / "long.wav")
    with pytest.raises(ConfigError, match="start_frame") as kept:
        FrameStream(avatar, speech, lnb.RenderConfig(start_frame=99))
    end = time.monotonic() + 10
    while any(t.name == "speech" for t in threading.enumerate()) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(thread.name == "speech" for thread in threading.enumerate()), kept


def test_a_folder_s_whole_name_is_the_avatar_s(tmp_path: Path) -> None:
    folder = tmp_path / "anna.v2"
    write_synctalk_avatar(folder, 2)
    assert lnb.load_avatar(folder).name == "anna.v2"
