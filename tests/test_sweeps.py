"""Sweeps: structure, order, resume, ties and bad input; never a speed."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lipsync_nb as lnb
from lipsync_nb.__main__ import main
from lipsync_nb.config.thread_plan import plan_threads
from lipsync_nb.errors import BenchmarkError, ConfigError, NotFoundError
from lipsync_nb.experiments.runs import Run
from lipsync_nb.experiments.sweeps import SweepRow
from lipsync_nb.pipeline.timing import StageRow
from lipsync_nb.types.records import Progress

FRAMES = 6


def row(name: int, *seconds: float, reason: str = "") -> SweepRow:
    stages = (StageRow("inference", 1.0, 10, 100.0, 120.0),)
    runs = tuple(Run("", i, 10, s, 0.5, 1.0, 5, "CPU", 2, stages) for i, s in enumerate(seconds, 1))
    config = lnb.RenderConfig(batch_size=name)
    return SweepRow({"batch_size": name, "n_jobs": 1}, config, runs, reason)


def test_rows_of_the_grid(avatar: lnb.Avatar, speech: lnb.Speech) -> None:
    seen: list[tuple[str, int, int]] = []

    def note(label: str, progress: Progress) -> None:
        seen.append((label, progress.done, progress.total))

    result = lnb.experiments.sweep(
        avatar, speech, batch_size=[2, 4, 2], n_jobs=[1, 2], repeats=2, max_frames=FRAMES,
        progress=note,
    )  # fmt: skip
    assert [tuple(r.values.values()) for r in result.rows] == [(2, 1), (2, 2), (4, 1), (4, 2)]
    assert all(r.config == lnb.RenderConfig(**r.values) for r in result.rows)
    assert [[run.repeat for run in r.runs] for r in result.rows] == [[1, 2]] * 4
    assert {run.num_frames for r in result.rows for run in r.runs} == {FRAMES}
    assert result.names == ("batch_size", "n_jobs")
    labels = list(dict.fromkeys(label for label, _, _ in seen))
    assert labels == [r.name for r in result.rows]
    assert seen[-1][1:] == (8 * FRAMES, 8 * FRAMES)
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)


def test_turns_alternate(avatar: lnb.Avatar, speech: lnb.Speech, tmp_path: Path) -> None:
    """Each repeat renders every configuration before the next one begins."""
    states: list[list[int]] = []
    path = tmp_path / "sweep.json"

    def note(label: str, progress: Progress) -> None:
        if path.exists() and progress.frame is not None and progress.frame.index == 0:
            states.append([len(r.runs) for r in lnb.experiments.Sweep.load(path).rows])

    lnb.experiments.sweep(
        avatar, speech, batch_size=[2, 3], repeats=2, max_frames=FRAMES, path=path, progress=note
    )
    assert states == [[1, 0], [1, 1], [2, 1]]


def test_lanes_add_up(avatar: lnb.Avatar, speech: lnb.Speech) -> None:
    """Work, waiting and a rest under 5 % are the wall time of every worker.

    Of a few repeats one must do: a busy machine can keep a worker that is due from running, which
    no single short run can tell from time that nobody accounted for.
    """
    result = lnb.experiments.sweep(avatar, speech, overlap=[True, False], repeats=5, max_frames=20)
    for r in result.rows:
        rests: dict[str, list[float]] = {}
        for run in r.runs:
            assert len(run.lanes) == (2 + plan_threads(r.config).streams if r.config.overlap else 1)
            for lane in run.lanes:
                assert lane.seconds == pytest.approx(run.seconds, rel=1e-6)
                rests.setdefault(lane.worker, []).append(abs(lane.rest_seconds) / lane.seconds)
        assert len(rests) == len(r.runs[0].lanes)
        for worker, shares in rests.items():
            assert min(shares) <= 0.05, (worker, shares)


def test_interrupted_sweep_goes_on(avatar: lnb.Avatar, speech: lnb.Speech, tmp_path: Path) -> None:
    path, options = tmp_path / "sweep.json", {"repeats": 1, "max_frames": FRAMES}

    def stop(label: str, progress: Progress) -> None:
        if label == "batch_size=3":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lnb.experiments.sweep(
            avatar, speech, batch_size=[2, 3], path=path, progress=stop, **options
        )
    before = lnb.experiments.Sweep.load(path)
    assert [len(r.runs) for r in before.rows] == [1, 0]
    after = lnb.experiments.sweep(avatar, speech, batch_size=[2, 3], path=path, **options)
    assert after.rows[0].runs == before.rows[0].runs
    assert len(after.rows[1].runs) == 1
    wider = lnb.experiments.sweep(avatar, speech, batch_size=[3, 5], path=path, **options)
    assert [r.values["batch_size"] for r in wider.rows] == [3, 5, 2]
    assert wider.rows[0].runs == after.rows[1].runs
    assert lnb.experiments.Sweep.load(path) == wider
    assert list(tmp_path.iterdir()) == [path]


def test_file_of_another_sweep(avatar: lnb.Avatar, speech: lnb.Speech, tmp_path: Path) -> None:
    path = tmp_path / "sweep.json"
    lnb.experiments.sweep(avatar, speech, batch_size=[2], repeats=1, max_frames=FRAMES, path=path)
    kept = path.read_bytes()
    with pytest.raises(BenchmarkError, match="found a sweep of another avatar"):
        lnb.experiments.sweep(avatar, speech, batch_size=[2], repeats=1, max_frames=4, path=path)
    assert path.read_bytes() == kept


def test_a_failure_is_a_row(avatar: lnb.Avatar, speech: lnb.Speech) -> None:
    result = lnb.experiments.sweep(
        avatar, speech, precision=["fp32", "int8"], prepare=[False], repeats=1, max_frames=FRAMES
    )
    assert [bool(r.reason) for r in result.rows] == [False, True]
    assert "expected True for int8" in result.rows[1].reason
    assert result.best is result.rows[0]
    assert "expected True for int8" in str(result)
    assert result.to_rows()[1]["fps"] is None
    broken = replace(avatar, generator=avatar.audio_encoder)
    nothing = lnb.experiments.sweep(broken, speech, batch_size=[2], repeats=1, max_frames=FRAMES)
    assert "found inputs" in nothing.rows[0].reason
    with pytest.raises(BenchmarkError, match="found no configuration that runs"):
        _ = nothing.best


def test_included_warm_up_starts_cold(avatar: lnb.Avatar, speech: lnb.Speech) -> None:
    result = lnb.experiments.sweep(
        avatar, speech, batch_size=[4], warmup="included", repeats=2, max_frames=FRAMES
    )
    for run in result.rows[0].runs:
        assert "warm-up" not in {stage.stage for stage in run.stages}
    apart = lnb.experiments.sweep(avatar, speech, batch_size=[4], repeats=1, max_frames=FRAMES)
    assert "warm-up" in {stage.stage for stage in apart.rows[0].runs[0].stages}


def test_the_smallest_batch_is_taken_among_ties_alone() -> None:
    slow, tie, best = row(1, 2.0, 2.2), row(2, 1.1, 1.3), row(8, 1.0, 1.2)
    result = lnb.experiments.Sweep((best, slow, tie))
    assert (result.best, result.choice) == (best, tie)
    assert result.verdict.endswith("The smallest of these is batch_size=2, n_jobs=1.")
    assert lnb.experiments.Sweep((slow, best)).choice is best


def test_best_and_ties() -> None:
    result = lnb.experiments.Sweep(
        (row(1, 2.0, 2.2), row(4, 1.0, 1.2), row(8, 1.1, 1.3), row(9, reason="No."))
    )
    assert result.best.values["batch_size"] == 4
    assert [r.values["batch_size"] for r in result.ties] == [8]
    assert "a tie with batch_size=8" in result.verdict
    assert result.choice is result.best
    assert "smallest" not in result.verdict
    assert [r["fps"] for r in result.to_rows()][3] is None
    lines = result.to_csv().splitlines()
    assert lines[0].startswith("batch_size,n_jobs,fps,fps_low")
    assert len(lines) == 5


def test_data_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    result = lnb.experiments.Sweep((row(1, 2.0),))
    pandas = pytest.importorskip("pandas")
    frame = result.to_dataframe()
    assert isinstance(frame, pandas.DataFrame)
    assert frame["fps"].tolist() == [5.0]
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    with pytest.raises(BenchmarkError, match="pandas is not installed"):
        result.to_dataframe()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"batchsize": [1]}, "batchsize: no such field, expected one of batch_size"),
        ({"batch_size": []}, r"batch_size: found \[\], expected a list"),
        ({"batch_size": 4}, "batch_size: found 4, expected a list"),
        ({"precision": "int8"}, "precision: found 'int8', expected a list"),
        ({"batch_size": [-1]}, "batch_size: found -1, expected at least 0"),
        ({"precision": ["int4"]}, "precision: found 'int4', expected one of"),
        ({"n_jobs": [200]}, "n_jobs: found 200, expected at most"),
        ({}, "found no field to sweep"),
        ({"batch_size": [1], "repeats": 0}, "repeats: found 0"),
        ({"batch_size": [1], "warmup": "none"}, "warmup: found 'none'"),
    ],
)
def test_bad_input(
    avatar: lnb.Avatar, speech: lnb.Speech, values: dict[str, Any], message: str
) -> None:
    with pytest.raises((ConfigError, BenchmarkError), match=message):
        lnb.experiments.sweep(avatar, speech, **values)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not a file of results"),
        ('{"kind": "benchmark", "version": 2}', "found results of kind 'benchmark'"),
        ('{"kind": "sweep", "version": 1}', "is of version 1, expected 2"),
        ('{"kind": "sweep", "version": 2}', "rows: is missing"),
        (
            json.dumps({"kind": "sweep", "version": 2, "rows": [{}]}),
            r"rows\[0\]\.values: is missing",
        ),
    ],
)
def test_files_that_are_not_right(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "sweep.json").write_text(text)
    with pytest.raises(BenchmarkError, match=message):
        lnb.experiments.Sweep.load(tmp_path / "sweep.json")
    with pytest.raises(NotFoundError, match="no such file of results"):
        lnb.experiments.Sweep.load(tmp_path / "none.json")


def test_command(
    synctalk_folder: Path, speech_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, page = tmp_path / "sweep.json", tmp_path / "sweep.html"
    arguments = ["sweep", str(synctalk_folder), str(speech_file), "--repeats", "1"]
    wanted = ["--frames", "5", "--set", "batch-size=1,2", "--set", "overlap=yes,no"]
    assert main([*arguments, *wanted, "--out", str(out), "--report", str(page)]) == 0
    loaded = lnb.experiments.Sweep.load(out)
    assert [r.config.overlap for r in loaded.rows] == [True, False, True, False]
    assert "Best: batch_size=" in capsys.readouterr().out
    assert 'class="heat"' in page.read_text()
    for wrong, text in (("batch_size", "found 'batch_size'"), ("batch_size=x", "found 'x'")):
        assert main([*arguments, "--set", wrong]) == 2
        assert text in capsys.readouterr().err


def test_heat_map_is_in_the_page() -> None:
    result = lnb.experiments.Sweep((row(1, 2.0), row(4, 1.0), row(9, reason="No <b>.")))
    html = result.to_html()
    assert html.count("border:2px solid") == 1
    assert "No &lt;b&gt;." in html
    assert np.isclose(result.best.runs[0].fps, 10)
