"""Benchmarks: what was run, in which order, and what the figures are made of; never a speed."""

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import write_video
from comparison import PACKED_SHARE, assert_same

import lipsync_nb as lnb
from lipsync_nb.__main__ import main
from lipsync_nb.avatar.session import SESSION, Session
from lipsync_nb.config.presets import PRESETS, preset
from lipsync_nb.errors import BenchmarkError, ConfigError
from lipsync_nb.experiments import benchmarks
from lipsync_nb.experiments.baselines import ORIGIN_STAGES, render_origin
from lipsync_nb.experiments.benchmarks import Meter
from lipsync_nb.experiments.runs import Benchmark, Run, Spread
from lipsync_nb.media.imaging import read_image
from lipsync_nb.pipeline.timing import StageRow
from lipsync_nb.types.arrays import ImageArray

NAMES = ["origin-cached", "onnxruntime", "engine"]


@pytest.fixture(scope="module")
def result(avatar: lnb.Avatar, speech: lnb.Speech) -> Benchmark:
    return lnb.experiments.benchmark(avatar, speech, NAMES, repeats=2, max_frames=10)


def test_configurations_take_turns(result: Benchmark) -> None:
    assert [(run.name, run.repeat) for run in result.runs] == [
        (name, repeat) for repeat in range(3) for name in NAMES
    ]
    assert result.names == tuple(NAMES)
    for run in result.runs:
        assert run.num_frames == 10
        assert run.rss_bytes > 10_000_000
        assert run.provider.endswith("ExecutionProvider")
        assert min(run.seconds, run.warmup_seconds, run.inference_seconds) > 0


def test_stages_are_a_part_of_the_whole(result: Benchmark) -> None:
    for run in result.runs:
        rows = {row.stage: row for row in run.stages}
        assert rows["inference"].frames == 10
        assert rows["inference"].seconds <= run.seconds * 1.001
    origin = {row.stage: row for row in result.steady("origin-cached")[0].stages}
    parts = sum(origin[s].seconds for s in ("batch", "inference", "composite", "encode"))
    assert parts <= result.steady("origin-cached")[0].seconds


def test_figures_survive_the_file(result: Benchmark, tmp_path: Path) -> None:
    path = result.save(tmp_path / "bench.json")
    assert list(tmp_path.iterdir()) == [path]
    assert Benchmark.load(path) == result
    assert {"date", "cores", "numpy"} <= set(result.environment)


def test_table_names_everything(result: Benchmark) -> None:
    text = str(result)
    for word in (*NAMES, "FPS", "first", "p95", "composite", "RSS", "threads", "numpy"):
        assert word in text


def run_of(name: str, repeat: int, seconds: float) -> Run:
    rows = (StageRow("inference", seconds, 10),)
    return Run(name, repeat, 10, seconds, 1.0, seconds / 2, 5, "CPU", 2, rows)


def test_ratios_are_taken_repeat_by_repeat() -> None:
    runs = [run_of("a", 0, 9.0), run_of("b", 0, 9.0)]
    for repeat, (slow, fast) in enumerate([(4.0, 1.0), (6.0, 3.0), (9.0, 3.0)], start=1):
        runs += [run_of("a", repeat, slow), run_of("b", repeat, fast)]
    result = Benchmark(tuple(runs))
    assert result.ratio("b", over="a") == Spread(3.0, 2.0, 4.0)
    assert result.overlap_ratio("a") == Spread(0.5, 0.5, 0.5)
    assert result.fps("a").median == pytest.approx(10 / 6)
    assert result.first("a").seconds == 9.0
    assert Spread(2, 1, 3).ties_with(Spread(4, 3, 5))
    assert not Spread(2, 1, 3).ties_with(Spread(5, 4, 6))
    with pytest.raises(BenchmarkError, match="found no runs of 'c', expected a, b"):
        result.fps("c")


def test_own_configurations_have_their_names(avatar: lnb.Avatar, speech: lnb.Speech) -> None:
    own = {"mine": lnb.RenderConfig(batch_size=2), "engine": lnb.RenderConfig(batch_size=1)}
    seen = []
    result = lnb.experiments.benchmark(
        avatar,
        speech,
        own,
        repeats=1,
        max_frames=4,
        progress=lambda name, p: seen.append((name, p.done, p.total)),
    )
    assert result.names == ("mine", "engine")
    assert seen[0] == ("mine, first run", 1, 4)
    assert seen[-1] == ("engine, repeat 1", 4, 4)


def test_a_name_given_twice_counts_once(avatar: lnb.Avatar, speech: lnb.Speech) -> None:
    result = lnb.experiments.benchmark(
        avatar, speech, ["cached", "cached"], repeats=1, max_frames=2
    )
    assert [(run.name, run.repeat) for run in result.runs] == [("cached", 0), ("cached", 1)]
    with pytest.raises(BenchmarkError, match="found 1 steps"):
        lnb.experiments.ablation(avatar, speech, steps=["cached", "cached"])


@pytest.mark.parametrize(
    ("configs", "repeats", "error", "message"),
    [
        ([], 3, BenchmarkError, "found 0 configurations"),
        (["engine"], 0, BenchmarkError, "0 repeats, expected 1 or more"),
        (["engin"], 1, ConfigError, "found 'engin', expected one of origin-baseline"),
    ],
)
def test_bad_requests(
    avatar: lnb.Avatar,
    speech: lnb.Speech,
    configs: list[str],
    repeats: int,
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        lnb.experiments.benchmark(avatar, speech, configs, repeats=repeats)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not a file of results"),
        ('{"kind": "sweep", "version": 2}', "found results of kind 'sweep', expected 'benchmark'"),
        ('{"kind": "benchmark", "version": 1}', "is of version 1, expected 2"),
        ('{"kind": "benchmark", "version": 2}', "runs: is missing"),
        (
            json.dumps({"kind": "benchmark", "version": 2, "runs": [{}], "environment": {}}),
            r"runs\[0\]\.name: is missing",
        ),
    ],
)
def test_files_that_are_not_right(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "bench.json").write_text(text)
    with pytest.raises(BenchmarkError, match=message):
        Benchmark.load(tmp_path / "bench.json")


@pytest.mark.parametrize("stage", ORIGIN_STAGES)
def test_the_origins_programs_make_the_same_frames(
    avatar: lnb.Avatar,
    speech: lnb.Speech,
    reference: list[ImageArray],
    tmp_path: Path,
    stage: str,
) -> None:
    made = render_origin(avatar, speech, tmp_path / "frames", stage, max_frames=9)
    files = sorted(made.path.iterdir())
    assert len(files) == made.num_frames == 9
    for file, expected in zip(files, reference, strict=False):
        assert np.abs(read_image(str(file)).astype(int) - expected).mean() < 3


def test_the_origins_stages_never_run_at_the_same_time(
    avatar: lnb.Avatar, speech: lnb.Speech, tmp_path: Path
) -> None:
    made = render_origin(avatar, speech, tmp_path / "frames", max_frames=9)
    spans = [s for s in made.timings.spans if s.frames and s.stage != "features"]
    assert [span.stage for span in spans[:4]] == ["batch", "inference", "composite", "encode"]
    for one, following in itertools.pairwise(spans):
        assert one.end_seconds <= following.start_seconds
    with pytest.raises(ConfigError, match="found 'origin', expected one of origin-baseline"):
        render_origin(avatar, speech, tmp_path / "other", "origin")


@pytest.mark.parametrize("name", [p.name for p in PRESETS if p.name != "int8"])
def test_presets_make_the_same_frames(
    avatar: lnb.Avatar, speech: lnb.Speech, reference: list[ImageArray], name: str
) -> None:
    frames = lnb.iter_frames(avatar, speech, preset(name))
    # The last keeps features, in 8 bits.
    assert_same(frames, reference, share=PACKED_SHARE if name == "engine" else 0.0)


def test_unknown_preset() -> None:
    with pytest.raises(ConfigError, match="found 'fast', expected one of baseline, cached"):
        preset("fast")


def test_command(
    synctalk_folder: Path, speech_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "bench.json"
    arguments = ["bench", str(synctalk_folder), str(speech_file), "--configs", "cached,engine"]
    assert main([*arguments, "--repeats", "1", "--frames", "5", "--out", str(out)]) == 0
    assert Benchmark.load(out).names == ("cached", "engine")
    assert "cached" in capsys.readouterr().out
    assert main([*arguments[:3], "--configs", "fast"]) == 2
    assert "found 'fast'" in capsys.readouterr().err


def test_template_video_is_reopened_for_every_frame(
    origin_folder: Path, speech: lnb.Speech, tmp_path: Path
) -> None:
    """The baseline reads the file at each use: frames follow when it is replaced meanwhile."""
    avatar = lnb.load_avatar(origin_folder)
    template = avatar.open_template("none")
    before = template.frames[2].copy()
    video = origin_folder / "full_body_video.mp4"
    kept = video.read_bytes()
    try:
        write_video(video, [np.zeros((240, 320, 3), np.uint8)] * 5)
        assert template.frames[2].mean() < before.mean() / 2
    finally:
        video.write_bytes(kept)


def test_contenders_keep_what_they_opened(
    avatar: lnb.Avatar, speech: lnb.Speech, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those whose templates and features differ do not drive out each other's, turn by turn."""
    puts: list[object] = []

    class Recorded(Session):
        def put(self, *args: Any) -> None:
            puts.append(args[1])
            super().put(*args)

    monkeypatch.setattr(benchmarks, "Session", Recorded)
    base = lnb.RenderConfig(feature_cache="on", feature_files=False, cache="memory")
    configs = {"i420": base, "bgr": replace(base, pixels="bgr", feature_dtype="float32")}
    lnb.experiments.benchmark(
        avatar, speech, configs, repeats=2, max_frames=4, measure_inference=False
    )
    assert sorted(puts) == ["features"] * 2 + ["template"] * 2


def test_short_runs_keep_features(avatar: lnb.Avatar, speech: lnb.Speech) -> None:
    """A few frames use every template frame once, but the repeats use them again."""
    avatar.forget()
    Meter(speech, 3, False, None).run(avatar, "short", lnb.RenderConfig(feature_files=False), 0)
    held = SESSION.last(avatar._owner, "features")
    assert len(held) == 3
    avatar.forget()
    config = lnb.RenderConfig(feature_files=False)
    Meter(speech, 3, False, None, again=False).run(avatar, "short", config, 0)
    assert SESSION.last(avatar._owner, "features") is None
