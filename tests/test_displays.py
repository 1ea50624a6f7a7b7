"""What objects show of themselves: complete, standing alone, in text and in HTML."""

import os
import re
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from comparison import assert_same

import lipsync_nb as lnb
from lipsync_nb.experiments.runs import Benchmark, Run
from lipsync_nb.notebook import charts, playable
from lipsync_nb.notebook.displays import kept_html
from lipsync_nb.pipeline.frame_trace import FrameTracer
from lipsync_nb.pipeline.timing import StageRow, Timings
from lipsync_nb.types.arrays import ImageArray


@pytest.fixture(scope="module")
def result(
    avatar: lnb.Avatar, speech: lnb.Speech, tmp_path_factory: pytest.TempPathFactory
) -> lnb.RenderResult:
    folder = tmp_path_factory.mktemp("result")
    return lnb.render(avatar, speech, folder / "out.mp4", lnb.RenderConfig(max_frames=12))


def runs() -> Benchmark:
    rows = (StageRow("inference", 1.0, 10, 100.0, 120.0), StageRow("encode", 0.1, 10, 9.0, 12.0))
    made = [Run(n, r, 10, 1.0 + r, 0.5, 1.0, 5, "CPU", 2, rows) for r in range(3) for n in "ab"]
    return Benchmark(tuple(made), {"cores": "2 <many>"})


def bundle_of(thing: object) -> dict[str, str]:
    found: dict[str, str] = thing._repr_mimebundle_()  # type: ignore[attr-defined]
    return found


THINGS: dict[str, tuple[Callable[..., object], list[str]]] = {
    "avatar": (lambda a, s, r: a, ["Avatar person", "5 of 320x240", "<img"]),
    "speech": (lambda a, s, r: s, ["tone.wav", 'alt="waveform', "<audio", "mel spectrogram"]),
    "features": (
        lambda a, s, r: lnb.Speech(features=np.eye(40, 512, dtype=np.float32)),
        ["40 feature rows", "<img"],
    ),
    "config": (lambda a, s, r: lnb.RenderConfig(batch_size=7), ["<b>7</b>", "default 0", "crf"]),
    "result": (
        lambda a, s, r: r,
        ["<video", "poster=", "video/mp4", "inference", "12 frames", "Settings: max_frames=12"],
    ),
    "timings": (
        lambda a, s, r: r.timings,
        ['class="chart"', "milliseconds a frame by stage: this run", "composite", "p95", "steady"],
    ),
    "benchmark": (lambda a, s, r: runs(), ["FPS", "2 &lt;many&gt;", "low-high"]),
    "inside": (lambda a, s, r: FrameTracer(a, s)[3], ["Output frame 3", "prediction", "masked R"]),
}


@pytest.mark.parametrize("name", THINGS)
def test_things_show_themselves(
    name: str, avatar: lnb.Avatar, speech: lnb.Speech, result: lnb.RenderResult
) -> None:
    make, words = THINGS[name]
    bundle = bundle_of(make(avatar, speech, result))
    assert set(bundle) == {"text/plain", "text/html"}
    for word in words:
        assert word in bundle["text/html"], word
    assert 0 < len(bundle["text/plain"]) < 5000
    assert not re.search(
        r"&lt;/?(div|p|span|h4|table|t[dhr]|b|svg|text|img)\b", bundle["text/html"]
    )
    sources = re.findall(r'(?:src|href)="([^"]{0,8})', bundle["text/html"])
    assert all(source.startswith("data:") for source in sources)
    assert "http" not in bundle["text/html"]


def test_a_large_video_is_named_and_not_shown(
    result: lnb.RenderResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(playable, "INLINE_LIMIT_BYTES", 1000)
    html = bundle_of(result)["text/html"]
    assert "<video" not in html
    assert "over the 0 MB that are shown inline" in html


def test_a_folder_of_frames_is_a_contact_sheet(
    avatar: lnb.Avatar, speech: lnb.Speech, tmp_path: Path
) -> None:
    made = lnb.render(avatar, speech, tmp_path / "frames", lnb.RenderConfig(max_frames=5))
    assert bundle_of(made)["text/html"].count("<figure") == 5
    for file in made.path.iterdir():
        file.unlink()
    made.path.rmdir()
    assert "is not there any more" in bundle_of(made)["text/html"]
    os.mkfifo(made.path)
    assert "is not there any more" in bundle_of(made)["text/html"]


def test_an_avatar_whose_network_is_gone_shows_itself(avatar: lnb.Avatar, tmp_path: Path) -> None:
    own = replace(avatar, generator=tmp_path / "gone.onnx")
    assert "gone.onnx, not there any more" in bundle_of(own)["text/html"]


def test_timeline_shows_what_overlaps_in_lanes() -> None:
    timings = Timings()
    start = timings._origin
    for i in range(4):
        timings.add("inference", start + i, start + i + 0.9, 4)
    timings.finish(16)
    svg = charts.timeline(timings, 2.0)
    # Two spans, and the colour's key.
    assert svg.count("<rect") == 3
    assert "main" in svg
    assert "No work" in charts.timeline(Timings())


def test_lanes_and_keys_are_in_the_order_of_the_work() -> None:
    timings = Timings()
    work = {
        "render": "encode", "composite": "composite", "inference 10": "inference",
        "inference 2": "batch", "speech": "features",
    }  # fmt: skip
    for worker, stage in work.items():
        start = timings._origin
        span = threading.Thread(target=timings.add, args=(stage, start, start + 1, 4), name=worker)
        span.start()
        span.join()
    timings.finish(4)
    names = re.findall(r"<text[^>]*>([a-z]+[a-z 0-9]*)</text>", charts.timeline(timings))
    assert names == [
        "speech", "inference 2", "inference 10", "composite", "main",
        "features", "batch", "inference", "composite", "encode",
    ]  # fmt: skip


def test_a_result_names_both_of_its_speeds(result: lnb.RenderResult) -> None:
    both = result.timings.speed_text
    assert f"with opening {result.timings.fps:.1f} FPS" in both
    assert f"without {result.timings.steady_fps:.1f} FPS" in both
    assert both in str(result).splitlines()[0]
    html = bundle_of(result)["text/html"]
    assert both in html[: html.index("</h4>")]
    assert both in kept_html(result)


def test_long_names_have_room_or_are_cut_with_the_whole_at_hand() -> None:
    name = "batch_size=4, n_jobs=2"
    assert f">{name}</text>" in charts.figure_bars({name: (1.0, 1.0, 1.0)}, "FPS")
    longer = "a<" + 60 * "b"
    svg = charts.figure_bars({longer: (1.0, 1.0, 1.0)}, "FPS")
    assert f"…<title>a&lt;{60 * 'b'}</title>" in svg


def test_many_short_spans_become_few_rectangles() -> None:
    timings = Timings()
    for i in range(3000):
        timings.add("encode", timings._origin + i / 1000, timings._origin + (i + 0.9) / 1000, 1)
    timings.finish(3000)
    # A rectangle takes two pixels at least, whatever the number of spans.
    assert 200 < charts.timeline(timings, 3.0).count("<rect") < 1200


def test_inside_a_frame_is_what_is_rendered(
    avatar: lnb.Avatar, speech: lnb.Speech, reference: list[ImageArray]
) -> None:
    tracer = FrameTracer(avatar, speech)
    assert len(tracer) == len(reference)
    frames = [lnb.Frame(i, 0, i / 25, tracer[i].frame) for i in range(6)]
    assert_same(frames, reference[:6])
    step = tracer[5]
    assert step.audio.shape == (16, 512)
    assert step.first_row == -3
    assert not step.audio[:3].any()
    assert not step.masked[5:310, 5:315].any()
    assert step.difference[step.box.rows, step.box.columns].any()
    with pytest.raises(lnb.LipsyncError, match=f"found {len(tracer)}, expected 0 to"):
        tracer[len(tracer)]
