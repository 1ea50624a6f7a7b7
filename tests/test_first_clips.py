"""First clips: real processes, their times in order, and what is said where one fails."""

from dataclasses import replace
from pathlib import Path

import pytest

import lipsync_nb as lnb
from lipsync_nb.__main__ import main
from lipsync_nb.errors import BenchmarkError, ConfigError
from lipsync_nb.experiments.clips import Clip, FirstClips

NAMES = ["origin-parallel", "onnxruntime", "engine"]


@pytest.fixture(scope="module")
def measured(
    synctalk_folder: Path, speech_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> FirstClips:
    seen: list[str] = []
    result = lnb.experiments.first_clips(
        synctalk_folder,
        speech_file,
        NAMES,
        repeats=2,
        max_frames=6,
        progress=lambda label, progress: seen.append(f"{label}, {progress.done}"),
    )
    assert "engine, process 2, 6" in seen
    assert "onnxruntime, preparing, 6" in seen
    return result


def test_each_process_is_timed_from_its_start(measured: FirstClips) -> None:
    assert measured.names == tuple(NAMES)
    for name in NAMES:
        assert [clip.repeat for clip in measured.steady(name)] == [1, 2]
    for clip in measured.clips:
        # A process that imports this package takes longer than 50 ms, and 30 MB.
        assert 0.05 < clip.first_frame_seconds <= clip.wall_seconds
        assert clip.num_frames == 6
        assert clip.peak_bytes > 30e6
        assert clip.cpu_seconds > 0.05
        assert clip.warm_fps > 0
        assert clip.ms_per_frame == pytest.approx(1000 * clip.wall_seconds / 6)


def test_the_order_turns(measured: FirstClips) -> None:
    order = [clip.name for clip in measured.clips]
    assert order[3:6] == [NAMES[1], NAMES[2], NAMES[0]]
    assert sorted(order[6:]) == sorted(NAMES)


def test_it_shows_and_keeps_itself(measured: FirstClips, tmp_path: Path) -> None:
    again = FirstClips.load(measured.save(tmp_path / "first.json"))
    assert again == measured
    text, html = str(again), again.to_html()
    for name in NAMES:
        assert name in text
        assert name in html
    assert "warm FPS" in text
    once = FirstClips(tuple(replace(clip, warm_fps=0.0) for clip in measured.clips))
    assert "warm FPS" not in str(once)
    ratio = measured.ratio("engine", "origin-parallel")
    engine, origin = measured.steady("engine"), measured.steady("origin-parallel")
    pairs = [one.wall_seconds / two.wall_seconds for one, two in zip(engine, origin, strict=True)]
    # A quotient of milliseconds a frame is that of seconds but for the last bit.
    assert [ratio.low, ratio.high] == pytest.approx([min(pairs), max(pairs)])
    assert ratio.median == pytest.approx(sum(pairs) / 2)


def test_what_fails_is_one_sentence(synctalk_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match=r"^engine: .*nowhere\.wav: no such"):
        lnb.experiments.first_clips(
            synctalk_folder, tmp_path / "nowhere.wav", ["engine"], repeats=1
        )
    with pytest.raises(ConfigError, match="expected one of"):
        lnb.experiments.first_clips(synctalk_folder, "x.wav", ["engines"])
    with pytest.raises(BenchmarkError, match="expected 1 or more"):
        lnb.experiments.first_clips(synctalk_folder, "x.wav", [])


def test_records_check_their_figures() -> None:
    clip = Clip("a", 1, 10, 1.0, 0.5, 2.0, 100, 20.0, 0.9)
    with pytest.raises(BenchmarkError, match="wall_seconds: found 0"):
        replace(clip, wall_seconds=0)
    with pytest.raises(BenchmarkError, match="found no repeat of 'a'"):
        FirstClips((replace(clip, repeat=0),))
    with pytest.raises(BenchmarkError, match="found none"):
        FirstClips(())


def test_command(synctalk_folder: Path, speech_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "first.json"
    words = ["first", synctalk_folder, speech_file, "--repeats", "1", "--frames", "3"]
    assert main([*map(str, words), "--configs", "engine", "--out", str(out)]) == 0
    assert FirstClips.load(out).names == ("engine",)
