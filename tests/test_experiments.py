"""The story, precisions, tuning, profile and memory: what they are made of; never a speed."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

import lipsync_nb as lnb
from lipsync_nb.__main__ import main
from lipsync_nb.errors import BenchmarkError, ConfigError, NetworkError, OutputError
from lipsync_nb.experiments.ablations import ORIGIN_FIGURES
from lipsync_nb.experiments.precision import PrecisionRow
from lipsync_nb.experiments.quality import Likeness, likeness, pearson, psnr_db
from lipsync_nb.experiments.runs import Spread

FRAMES = 6
STEPS = ["baseline", "cached", "parallel", "engine"]


@pytest.fixture(scope="module")
def told(avatar: lnb.Avatar, speech: lnb.Speech) -> lnb.experiments.Ablation:
    return lnb.experiments.ablation(avatar, speech, steps=STEPS, repeats=2, max_frames=FRAMES)


def test_story_compares_each_step(told: lnb.experiments.Ablation) -> None:
    steps = told.steps
    assert [step.name for step in steps] == STEPS
    assert steps[0].over_before.median == steps[0].over_first.median == 1
    for step, before in zip(steps[1:], steps, strict=False):
        pairs = zip(
            told.benchmark.steady(step.name), told.benchmark.steady(before.name), strict=True
        )
        ratios = [one.fps / other.fps for one, other in pairs]
        assert step.over_before.median == pytest.approx(np.median(ratios))
        assert step.tie == step.fps.ties_with(before.fps)
        assert {"batch", "inference", "composite", "encode"} <= set(step.stages_ms)
    assert steps[1].origin == ORIGIN_FIGURES["cached"]
    assert steps[3].origin is None


def test_story_survives_its_file(told: lnb.experiments.Ablation, tmp_path: Path) -> None:
    assert lnb.experiments.Ablation.load(told.save(tmp_path / "story.json")) == told
    assert "17.34" in str(told)
    assert "times as fast" in told.verdict
    assert "41.11" in told.to_html()


def test_story_needs_steps(avatar: lnb.Avatar, speech: lnb.Speech) -> None:
    with pytest.raises(BenchmarkError, match="found 1 steps"):
        lnb.experiments.ablation(avatar, speech, steps=["cached"])
    with pytest.raises(ConfigError, match="found 'fast'"):
        lnb.experiments.ablation(avatar, speech, steps=["cached", "fast"])


@pytest.fixture(scope="module")
def compared(avatar: lnb.Avatar, speech: lnb.Speech) -> lnb.experiments.PrecisionComparison:
    return lnb.experiments.compare_precision(avatar, speech, repeats=2, max_frames=FRAMES)


def test_precisions_side_by_side(compared: lnb.experiments.PrecisionComparison) -> None:
    rows = {row.precision: row for row in compared.rows}
    assert list(rows) == ["fp32", "fp16", "int8", "int8-dynamic"]
    first = rows["fp32"].likeness
    assert first is not None
    assert (first.psnr_db, first.ssim, first.largest) == (100, pytest.approx(1), 0)
    for row in compared.rows:
        assert not row.reason
        assert len(row.runs) == 2
        assert row.likeness is not None
        assert row.likeness.psnr_db > 25
        assert row.r is None
        assert row.pictures is not None
        assert row.pictures.shape == (len(compared.shown_frames), 320, 320, 3)
    assert rows["fp16"].size_bytes < rows["fp32"].size_bytes
    best = compared.best.precision
    kept = "Stay with fp32: " if best == "fp32" else f"Use {best}: "
    assert compared.verdict.startswith(kept)
    assert best in {row.precision for row in compared.rows if row.likeness.psnr_db >= 36}


def test_comparison_shows_itself(
    compared: lnb.experiments.PrecisionComparison, tmp_path: Path
) -> None:
    html = compared.to_html()
    assert html.count("<img") == len(compared.shown_frames) * (1 + 3 * 2)
    assert "int8-dynamic" in str(compared)
    assert '"verdict"' in compared.save(tmp_path / "precision.json").read_text()


def precision_row(name: str, seconds: float, psnr: float, r: float | None) -> PrecisionRow:
    from test_sweeps import row

    runs = row(1, seconds, 1.01 * seconds).runs
    return PrecisionRow(name, 1, runs, Likeness(psnr, 1.0, 0, 0), r)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("seconds", "psnr", "r", "best"),
    [
        (1.0, 40.0, 0.95, "int8"),
        (1.0, 30.0, 0.95, "fp32"),
        (1.0, 40.0, 0.90, "fp32"),
        (2.01, 40.0, 0.95, "fp32"),
        (3.0, 40.0, 0.95, "fp32"),
    ],
)
def test_conclusion_follows_from_the_figures(
    seconds: float, psnr: float, r: float, best: str
) -> None:
    rows = (precision_row("fp32", 2.0, 100, 0.955), precision_row("int8", seconds, psnr, r))
    result = lnb.experiments.PrecisionComparison(rows, (0,))
    assert result.best.precision == best
    assert ("INT8 gains n" in result.verdict) == (seconds > 2)
    kept = "Stay with fp32: nothing" if best == "fp32" else "Use int8: 2.00 times as fast as fp32"
    assert result.verdict.startswith(kept)


def test_quantized_network_is_a_generator(
    avatar: lnb.Avatar, speech: lnb.Speech, tmp_path: Path
) -> None:
    network = lnb.experiments.quantize(avatar, "int8", speech)
    kinds = {node.op_type for node in onnx.load_from_string(network.model).graph.node}
    assert {"QuantizeLinear", "DequantizeLinear", "Conv"} <= kinds
    path = network.save(tmp_path / "int8.onnx")
    other = replace(avatar, generator=path)
    config = lnb.RenderConfig(max_frames=FRAMES, prepare=False, feature_cache="off")
    frames = [frame.data for frame in lnb.iter_frames(other, speech, config)]
    plain = [frame.data for frame in lnb.iter_frames(avatar, speech, config)]
    assert likeness(np.stack(frames), np.stack(plain)).psnr_db > 30
    with pytest.raises(ConfigError, match="found 'int4', expected one of fp32"):
        lnb.experiments.quantize(avatar, "int4")  # type: ignore[arg-type]
    with pytest.raises(NetworkError, match="found no features to calibrate on"):
        lnb.experiments.quantize(avatar, "int8")
    with pytest.raises(NetworkError, match="found no generator"):
        lnb.experiments.quantize(replace(avatar, generator=None))
    with pytest.raises(OutputError, match="does not exist"):
        network.save(tmp_path / "none" / "int8.onnx")


def test_demo_clips_have_a_truth() -> None:
    demo = lnb.load_avatar("demo")
    speech = lnb.load_speech(lnb.demo_speeches()["hello"])
    result = lnb.experiments.compare_precision(demo, speech, ["fp32"], repeats=1, max_frames=40)
    assert result.rows[0].r is not None
    assert result.rows[0].r > 0.85


def test_likeness_of_known_pictures() -> None:
    rng = np.random.default_rng(0)
    pictures = rng.integers(40, 200, (2, 32, 32, 3)).astype(np.uint8)
    changed = pictures.copy()
    changed[1, 3, 4] += 10
    found = likeness(changed, pictures)
    error = 3 * 10**2 / pictures.size
    assert found.psnr_db == pytest.approx(10 * np.log10(255**2 / error), abs=1e-4)
    assert (found.largest, found.worst) == (10, 1)
    assert 0.99 < found.ssim < 1
    assert psnr_db(0) == 100
    assert pearson(np.zeros(4), np.arange(4.0)) == 0


@pytest.mark.parametrize(
    ("config", "graph"),
    [
        (lnb.RenderConfig(), "audio half"),
        (lnb.RenderConfig(feature_cache="off"), "whole"),
        (lnb.preset("batched"), "the file"),
    ],
    ids=["audio half", "whole", "file"],
)
def test_profile_adds_up(
    avatar: lnb.Avatar, speech: lnb.Speech, config: lnb.RenderConfig, graph: str
) -> None:
    profile = lnb.experiments.profile_network(avatar, speech, config, repeats=2)
    assert profile.graph == graph
    for rows in (profile.kinds, profile.nodes):
        assert sum(row.ms_per_frame for row in rows) == pytest.approx(profile.ms_per_frame)
        assert sum(row.share for row in rows) == pytest.approx(1)
        times = [row.ms_per_frame for row in rows]
        assert times == sorted(times, reverse=True)
    assert "Conv" in {row.kind for row in profile.kinds}
    assert sum(row.count for row in profile.kinds) == len(profile.nodes)
    assert "ms a frame" in profile.to_html()


def test_memory_is_as_reckoned(avatar: lnb.Avatar) -> None:
    result = lnb.experiments.memory_table(avatar, frames=(40, 80))
    assert [(row.num_frames, row.pixels) for row in result.rows] == [
        (40, "bgr"), (40, "i420"), (80, "bgr"), (80, "i420"),
    ]  # fmt: skip
    for row in result.rows:
        template = avatar.estimate_memory("memory", row.pixels).total_bytes / len(avatar)
        assert row.estimate_bytes == pytest.approx(template * row.num_frames, rel=0.1)
    unmeasured = lnb.experiments.memory_table(avatar, frames=(1000,), measure=False)
    assert {row.measured_bytes for row in unmeasured.rows} == {None}
    assert "origin MB" in str(result)
    with pytest.raises(ConfigError, match="expected lengths of 1 to 1000000000000"):
        lnb.experiments.memory_table(avatar, frames=(0,))


@pytest.mark.parametrize(("name", "frames"), [("", 400), ("demo", 200)])
def test_memory_that_is_measured_is_what_was_reckoned(
    avatar: lnb.Avatar, name: str, frames: int
) -> None:
    """In a new process: this one has memory that was freed, and is taken again.

    The demo's own frames, all decoded for it and let go, are as large as its template.
    """
    program = (
        "import sys, lipsync_nb as lnb\n"
        "avatar, frames = lnb.load_avatar(sys.argv[1]), int(sys.argv[2])\n"
        "table = lnb.experiments.memory_table(avatar, frames=(frames,))\n"
        "for row in table.rows:\n"
        "    print(row.pixels, row.measured_bytes / row.estimate_bytes)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, name or str(avatar.path), str(frames)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    shares = dict(line.split() for line in done.stdout.splitlines())
    assert {name: float(share) for name, share in shares.items()} == {
        "bgr": pytest.approx(1, abs=0.1),
        "i420": pytest.approx(1, abs=0.1),
    }


def test_report_stands_alone(
    told: lnb.experiments.Ablation, avatar: lnb.Avatar, tmp_path: Path
) -> None:
    path = lnb.write_report(tmp_path / "story.html", told, avatar, title="A <story>")
    text = path.read_text(encoding="utf-8")
    assert "A &lt;story&gt;" in text
    assert "http" not in text.replace("http://www.w3.org", "")
    assert list(tmp_path.iterdir()) == [path]


def test_commands(
    synctalk_folder: Path, speech_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    person, speech = str(synctalk_folder), str(speech_file)
    few = ["--repeats", "1", "--frames", "5"]
    told = ["ablation", person, speech, *few, "--steps", "cached,engine"]
    assert main([*told, "--report", str(tmp_path / "story.html")]) == 0
    compare = ["precision", person, speech, *few, "--recipes", "fp32,int8"]
    assert main([*compare, "--out", str(tmp_path / "precision.json")]) == 0
    assert main(["quantize", person, speech, "--out", str(tmp_path / "n.onnx")]) == 0
    assert main(["memory", person, "--frames", "10"]) == 0
    assert main(["profile", person, "--batch-size", "2"]) == 0
    shown = capsys.readouterr().out
    for word in ("times as fast", "PSNR dB", "int8: ", "origin MB", "the ten longest"):
        assert word in shown
    assert {"story.html", "precision.json", "n.onnx"} == {f.name for f in tmp_path.iterdir()}
    assert main(["memory", person, "--frames", "x"]) == 2
    assert "--frames: found 'x', expected a whole number" in capsys.readouterr().err


def test_spread_of_one_is_a_point() -> None:
    assert Spread.of([3.0]).ties_with(Spread.of([3.0]))
    assert not Spread.of([3.0]).ties_with(Spread.of([3.1]))
