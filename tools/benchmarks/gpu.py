"""What a GPU gives: right pictures, the network alone, frames in RAM, frames in an mp4.

    python -m tools.benchmarks.gpu [--provider cuda] [--parts verify network ram mp4 encoder ratio]

Compares CUDA's frames with the CPU's, sweeps numbers, batches, workers and encoders, runs the
origin's loop on the same device, and writes a dated file of figures as text and JSON, with the
stage table and the timeline of the fastest video. With ``--provider cpu`` the same graphs run
on the processor, which says nothing of a GPU's speed.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

import lipsync_nb as lnb
from lipsync_nb.config.thread_plan import plan_threads
from lipsync_nb.experiments.baselines import render_origin
from lipsync_nb.experiments.environment import environment
from lipsync_nb.experiments.results import write_results, write_text
from lipsync_nb.experiments.runs import Spread
from lipsync_nb.network.normal_form import input_names
from lipsync_nb.network.preparation import (
    QuantizationSettings,
    prepare_halves,
    prepare_whole,
)
from lipsync_nb.network.providers import DeviceOptions
from lipsync_nb.network.runtime import cuda_build, ort
from lipsync_nb.network.unet328 import untrained_generator
from lipsync_nb.pipeline.batches import Inputs, batch_frames, template_order
from lipsync_nb.pipeline.compositing import Compositor
from lipsync_nb.pipeline.patches import PatchOpener, PatchPredictor
from lipsync_nb.pipeline.shares import Remarks
from lipsync_nb.pipeline.sinks import open_sink
from lipsync_nb.system.limits import available_cores
from lipsync_nb.types.patches import FinishedPatches
from lipsync_nb.types.records import Predictions
from tools.benchmarks.fused import RESULTS, WIDTHS

PARTS = ("verify", "network", "ram", "mp4", "encoder", "ratio")
VERIFY_FRAMES, ORIGIN_FRAMES, ROUNDS = 60, 200, 3


@dataclass(frozen=True)
class Figure:
    """One pass.

    Attributes:
        part: of the benchmark.
        name: what was varied.
        frames, seconds: of the pass, without opening and warming up.
        more: what else was found.
    """

    part: str
    name: str
    frames: int
    seconds: float
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def fps(self) -> float:
        return self.frames / self.seconds

    def __str__(self) -> str:
        more = "  ".join(f"{key} {_short(value)}" for key, value in self.more.items())
        return f"{self.part:<9}{self.name:<58}{self.fps:>9.1f} FPS  {more}"


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


class Bench:
    """What all parts share: an avatar with an untrained network, and a track of noise."""

    def __init__(self, avatar: lnb.Avatar, provider: str, frames: int, folder: Path) -> None:
        self.avatar, self.provider, self.frames, self.folder = avatar, provider, frames, folder
        rng = np.random.default_rng(0)
        self.track = rng.normal(size=(frames, 512)).astype(np.float32)
        self.figures: list[Figure] = []
        self.failed: list[str] = []
        self.fastest: lnb.RenderResult | None = None
        self._prepared: dict[object, dict[str, bytes]] = {}

    def speech(self, frames: int) -> lnb.Speech:
        return lnb.Speech(features=self.track[:frames])

    def note(self, figure: Figure) -> None:
        self.figures.append(figure)
        print(figure, flush=True)

    def config(self, **values: Any) -> lnb.RenderConfig:
        base = lnb.RenderConfig(
            provider=self.provider, cache="memory", feature_files=False, compositing="network"
        )
        return replace(base, **values)

    @contextmanager
    def told(self, name: str) -> Iterator[None]:
        """What cannot be run is told, and the others run."""
        try:
            yield
        except Exception as error:  # ONNX Runtime and CUDA raise many kinds
            self.failed.append(f"{name}: {type(error).__name__}: {error}")
            print("failed", self.failed[-1], flush=True)

    # The network alone.

    def predictor(self, options: DeviceOptions, **values: Any) -> PatchPredictor:
        """The network with patches, opened with options that no `RenderConfig` has."""
        config = self.config(pixels="i420", **values)
        template = self.avatar.open_template("memory", "i420")
        inputs = Inputs(template, self.track, "zero")
        path = self.avatar.require_generator()
        opener = PatchOpener.of(
            self.avatar, inputs, self.order, self.names, config, plan_threads(config), path
        )
        opener = replace(opener, setting=replace(opener.setting, options=options))
        return opener.best(
            lambda use: use(self._whole(config.precision)),
            lambda dtype, use: use(self._halves(config.precision, dtype)),
            config.precision,
            Remarks(),
        )

    @property
    def order(self) -> np.ndarray:
        return template_order(len(self.avatar), self.frames)

    @property
    def names(self) -> tuple[str, ...]:
        path = self.avatar.require_generator()
        return tuple(input_names(path, path.read_bytes(), self.avatar.spec.input_shapes))

    def _whole(self, precision: Any) -> dict[str, bytes]:
        content = self.avatar.require_generator().read_bytes()
        return self._made(
            precision, lambda: prepare_whole(content, QuantizationSettings(precision))
        )

    def _halves(self, precision: Any, dtype: Any) -> dict[str, bytes]:
        content, names = self.avatar.require_generator().read_bytes(), self.names
        return self._made(
            (precision, dtype),
            lambda: prepare_halves(content, names[1], dtype, QuantizationSettings(precision)),
        )

    def _made(self, key: object, make: Callable[[], dict[str, bytes]]) -> dict[str, bytes]:
        if key not in self._prepared:
            self._prepared[key] = make()
        return self._prepared[key]


def run_predictor(predictor: PatchPredictor, order: np.ndarray) -> float:
    """Seconds for all frames, once the features and buffers are there."""
    batches = list(batch_frames(order, predictor.batch_size))
    # Every template frame is used in the first round of the template, to and fro.
    first = batches[: -(-2 * (int(order.max()) + 1) // predictor.batch_size)]

    def run(batches: list[tuple[np.ndarray, np.ndarray]]) -> None:
        for frames, template_frames in batches:
            release(predictor(predictor.batch(frames, template_frames)))

    count = predictor.streams
    with ThreadPoolExecutor(count) as pool:
        list(pool.map(run, [first[k::count] for k in range(count)]))
        start = time.perf_counter()
        list(pool.map(run, [batches[k::count] for k in range(count)]))
        return time.perf_counter() - start


def release(predictions: Predictions) -> None:
    """Give the memory of patches back that nobody reads."""
    if isinstance(predictions, FinishedPatches):
        predictions.release()


def verify(bench: Bench) -> None:
    """Frames of the device against those of the plain file on the processor."""
    frames = min(VERIFY_FRAMES, bench.frames)
    plain = lnb.RenderConfig(provider="cpu", prepare=False, pixels="i420", cache="memory")
    speech = bench.speech(frames)
    expected = [f.picture.copy() for f in lnb.iter_frames(bench.avatar, speech, plain)]
    ways = {
        "network fp32": {},
        "network fp32, features off": {"feature_cache": "off"},
        "workers fp32": {"compositing": "workers", "feature_cache": "off"},
        "network fp16": {"precision": "fp16"},
    }
    for name, values in ways.items():
        with bench.told(f"verify {name}"):
            stream = lnb.FrameStream(bench.avatar, speech, bench.config(pixels="i420", **values))
            start = time.perf_counter()
            found = [frame.picture.copy() for frame in stream]
            seconds = time.perf_counter() - start
            more = {**differences(found, expected, bench), "provider": stream.generator.provider}
            bench.note(Figure("verify", name, frames, seconds, more))
    for name, options in {
        "fp32 with TF32": DeviceOptions(tf32=True),
        "fp32, channels last": DeviceOptions(channels_last=True),
    }.items():
        with bench.told(f"verify {name}"):
            predictor = bench.predictor(options)
            bench.note(_verified(bench, predictor, name, expected))


def _verified(
    bench: Bench, predictor: PatchPredictor, name: str, expected: Sequence[np.ndarray]
) -> Figure:
    template = bench.avatar.open_template("memory", "i420")
    order, found = bench.order[: len(expected)], []
    start = time.perf_counter()
    with Compositor(template) as compositor:
        for frames, template_frames in batch_frames(order, predictor.batch_size):
            window = predictor(predictor.batch(frames, template_frames))
            found += [picture.copy() for picture in compositor.pictures(window)]
    seconds = time.perf_counter() - start
    return Figure("verify", name, len(order), seconds, differences(found, expected, bench))


def differences(
    found: Sequence[np.ndarray], expected: Sequence[np.ndarray], bench: Bench
) -> dict[str, float]:
    """Of I420 pictures: the largest, the share over 2 of 255, PSNR of the luma within the box."""
    largest, over, squares, count = 0, 0, 0.0, 0
    for one, other, index in zip(found, expected, bench.order, strict=False):
        box = bench.avatar.boxes[index]
        pair = [p[box.rows, box.columns].astype(np.int16) for p in (one, other)]
        difference = np.abs(pair[0] - pair[1])
        largest = max(largest, int(np.abs(one.astype(np.int16) - other).max()))
        over += int((difference > 2).sum())
        squares += float((difference.astype(np.float64) ** 2).sum())
        count += difference.size
    psnr = 10 * np.log10(255**2 / max(squares / count, 1e-9))
    return {"largest": largest, "over_2": over / count, "psnr_box": float(psnr)}


def network(bench: Bench) -> None:
    """The network alone, its patches in RAM: numbers and layouts, then batches, then streams."""
    fp16 = {"precision": "fp16"}
    nhwc = DeviceOptions(channels_last=True)
    ways: list[tuple[str, DeviceOptions, dict[str, Any]]] = [
        ("fp32", DeviceOptions(), {}),
        ("fp32 tf32", DeviceOptions(tf32=True), {}),
        ("fp32 tf32 channels-last", DeviceOptions(tf32=True, channels_last=True), {}),
        ("fp16", DeviceOptions(), fp16),
        ("fp16 channels-last", nhwc, fp16),
        ("fp16 channels-last exhaustive", replace(nhwc, search="EXHAUSTIVE"), fp16),
        ("fp16 exhaustive", DeviceOptions(search="EXHAUSTIVE"), fp16),
        ("fp16 channels-last features off", nhwc, {**fp16, "feature_cache": "off"}),
    ]
    for name, options, values in ways:
        _network(bench, name, options, {"batch_size": 8, "streams": 2, **values})
    best = max((f for f in bench.figures if f.part == "network"), key=lambda f: f.fps).name
    options, values = next((o, v) for name, o, v in ways if best.startswith(f"{name}, "))
    for batch in (1, 2, 4, 16, 32):
        what = {"batch_size": batch, "streams": 2, **values}
        _network(bench, next(n for n, o, v in ways if o is options and v is values), options, what)
    for streams in (1, 3):
        what = {"batch_size": 16, "streams": streams, **values}
        _network(bench, next(n for n, o, v in ways if o is options and v is values), options, what)


def _network(bench: Bench, name: str, options: DeviceOptions, values: dict[str, Any]) -> None:
    name = f"{name}, batch {values['batch_size']}, streams {values['streams']}"
    with bench.told(f"network {name}"):
        start = time.perf_counter()
        predictor = bench.predictor(options, **values)
        opened = time.perf_counter() - start
        seconds = run_predictor(predictor, bench.order)
        bench.note(Figure("network", name, bench.frames, seconds, {"opened_s": opened}))


def _precisions(bench: Bench) -> tuple[str, ...]:
    return ("fp32",) if bench.provider == "cpu" else ("fp32", "fp16")


def _in_ram(bench: Bench, part: str, name: str, values: dict[str, Any]) -> None:
    """Finished I420 frames in RAM; each is given back once it was there."""
    timings = lnb.Timings()
    speech, config = bench.speech(bench.frames), bench.config(**values)
    stream = lnb.FrameStream(bench.avatar, speech, config, timings, for_video=True)
    for frame in stream:
        stream.recycle(frame)
    timings.finish(len(stream))
    bench.note(Figure(part, name, len(stream), timings.steady_seconds, stages(timings)))


def ram(bench: Bench) -> None:
    """Frames in RAM by numbers, batches and workers: the first render of each, and the next."""
    for precision in _precisions(bench):
        for batch, streams, jobs in ((8, 1, 1), (8, 2, 1), (8, 3, 1), (8, 2, 4), (16, 2, 1)):
            name = f"{precision}, batch {batch}, streams {streams}, n_jobs {jobs}"
            values = {
                "precision": precision, "batch_size": batch, "streams": streams, "n_jobs": jobs,
            }  # fmt: skip
            for time_ in ("first", "again"):
                with bench.told(f"ram {name}"):
                    _in_ram(bench, "ram", f"{name}, {time_}", values)
    values = {"compositing": "workers", "batch_size": 8, "n_jobs": 4, "feature_cache": "off"}
    with bench.told("ram workers"):
        _in_ram(bench, "ram", "fp32, composited by 4 workers, batch 8", values)


def stages(timings: lnb.Timings) -> dict[str, float]:
    """Milliseconds a frame of each stage, and the network's share of the wall time."""
    rows = {row.stage: row for row in timings.stages}
    names = ("batch", "inference", "composite", "encode", "close")
    found = {name: rows[name].ms_per_frame for name in names if name in rows}
    share = rows["inference"].seconds / timings.steady_seconds
    return {**found, "network_share": share}


def _to_mp4(bench: Bench, part: str, name: str, values: dict[str, Any]) -> None:
    path = bench.folder / "out.mp4"
    result = lnb.render(bench.avatar, bench.speech(bench.frames), path, bench.config(**values))
    timings = result.timings
    more = {**stages(timings), "megabytes": path.stat().st_size / 1e6}
    bench.note(Figure(part, name, result.num_frames, timings.steady_seconds, more))
    if bench.fastest is None or timings.steady_fps > bench.fastest.timings.steady_fps:
        bench.fastest = result


def mp4(bench: Bench) -> None:
    """A whole render to a video, by presets and encoders."""
    precision = _precisions(bench)[-1]
    for preset in ("superfast", "ultrafast"):
        for encoders in (1, 2, 3, 4):
            name = f"{precision}, {preset}, encoders {encoders}"
            values = {
                "precision": precision, "preset": preset, "encoders": encoders, "batch_size": 8,
            }  # fmt: skip
            with bench.told(f"mp4 {name}"):
                _to_mp4(bench, "mp4", name, values)


def encoder(bench: Bench) -> None:
    """x264 alone, on frames that are ready."""
    speech = bench.speech(64)
    config = bench.config(batch_size=8)
    pictures = [
        f.picture.copy() for f in lnb.FrameStream(bench.avatar, speech, config, for_video=True)
    ]
    for preset in ("superfast", "ultrafast"):
        for encoders in (1, 2, 4):
            wanted = replace(config, preset=preset, encoders=encoders)
            start = time.perf_counter()
            path = bench.folder / "encoder.mp4"
            with open_sink(path, speech, 25, wanted, available_cores()) as sink:
                for k in range(bench.frames):
                    # To and fro, as a render goes.
                    at = k % (2 * len(pictures) - 2)
                    sink.write(pictures[min(at, 2 * len(pictures) - 2 - at)])
            seconds = time.perf_counter() - start
            bench.note(Figure("encoder", f"{preset}, encoders {encoders}", bench.frames, seconds))


def ratio(bench: Bench) -> None:
    """In turn: the origin's parallel loop on the same device, frames in RAM, a video."""
    frames = min(ORIGIN_FRAMES, bench.frames)
    values = {"precision": _precisions(bench)[-1], "batch_size": 8}
    for number in range(ROUNDS):
        with bench.told("origin"):
            folder = bench.folder / f"origin-{number}"
            result = render_origin(
                bench.avatar, bench.speech(frames), folder, provider=bench.provider
            )
            timings = result.timings
            more = {**stages(timings), "provider": result.provider}
            bench.note(Figure("ratio", "origin", frames, timings.steady_seconds, more))
        for precision in _precisions(bench):
            values = {"precision": precision, "batch_size": 8}
            with bench.told(f"ratio {precision}"):
                _in_ram(bench, "ratio", f"{precision}, frames in RAM", values)
                _to_mp4(bench, "ratio", f"{precision}, mp4", values)


def ratios(figures: Sequence[Figure]) -> list[str]:
    """How many times as fast as the origin each is, within each round."""
    rounds: dict[str, list[Figure]] = {}
    for figure in figures:
        if figure.part == "ratio":
            rounds.setdefault(figure.name, []).append(figure)
    lines = []
    for name, own in rounds.items():
        pairs = zip(own, rounds.get("origin", []), strict=False)
        times = [one.fps / two.fps for one, two in pairs]
        if times and name != "origin":
            fps = Spread.of([figure.fps for figure in own])
            lines.append(f"{name}: {fps} FPS, {Spread.of(times)} times the origin's")
    return lines


class Card:
    """Samples a GPU's power and memory by ``nvidia-smi`` while it is entered."""

    def __init__(self) -> None:
        self.samples: list[list[float]] = []
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Card:
        if shutil.which("nvidia-smi"):
            query = "--query-gpu=power.draw,memory.used,utilization.gpu"
            self._process = subprocess.Popen(
                ["nvidia-smi", query, "--format=csv,noheader,nounits", "-lms", "250"],
                stdout=subprocess.PIPE,
                text=True,
            )
            threading.Thread(target=self._read, daemon=True).start()
        return self

    def _read(self) -> None:
        if self._process is not None and self._process.stdout is not None:
            for line in self._process.stdout:
                with suppress(ValueError):
                    self.samples.append([float(value) for value in line.split(",")])

    def __exit__(self, *error: object) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()

    def summary(self) -> str:
        if not self.samples:
            return "no GPU was sampled"
        power, memory, used = zip(*self.samples, strict=True)
        return (
            f"GPU: power {statistics.median(power):.0f} W in the middle, {max(power):.0f} W at "
            f"most; memory {max(memory):,.0f} MiB at most; busy {statistics.median(used):.0f} %"
        )


def machine() -> dict[str, str]:
    """The environment, with the GPU and its driver where there is one."""
    found = {**environment(), "onnxruntime": ort.__version__, "cuda": cuda_build() or "none"}
    if shutil.which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
        done = subprocess.run(query, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            found["gpu"] = done.stdout.strip().splitlines()[0]
    return found


FUNCTIONS: Mapping[str, Callable[[Bench], None]] = {
    "verify": verify, "network": network, "ram": ram, "mp4": mp4, "encoder": encoder,
    "ratio": ratio,
}  # fmt: skip


def write(bench: Bench, card: Card, command: str, folder: Path) -> Path:
    """Write the figures; gives the text file, whose name says the date and the device."""
    found = machine()
    device = found.get("gpu", f"{found['cores']}-cores").split(",")[0].replace(" ", "-").lower()
    stem = f"{found['date'].split()[0]}_{device}_gpu"
    lines = [
        command, "", *map(str, bench.figures), *(f"failed {text}" for text in bench.failed), "",
        *ratios(bench.figures), "", card.summary(), "",
    ]  # fmt: skip
    if bench.fastest is not None:
        lines += ["The fastest video's stages", "", str(bench.fastest), ""]
        trace = bench.fastest.timings.to_chrome_trace()
        write_text(folder / f"{stem}_timeline.json", trace)
    lines.append(", ".join(f"{key} {value}" for key, value in found.items()))
    data = {"environment": found, "command": command, "failed": bench.failed}
    entries = [asdict(figure) for figure in bench.figures]
    write_results(folder / f"{stem}.json", "gpu", {**data, "figures": entries})
    return write_text(folder / f"{stem}.txt", "\n".join(lines) + "\n")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--provider", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--frames", type=int, default=1500, help="of each pass, default 1500")
    parser.add_argument("--width", choices=WIDTHS, default="full", help="of the network")
    parser.add_argument("--avatar", default="demo", help="its frames and boxes; default: demo")
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=list(PARTS))
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the files")
    given = parser.parse_args(arguments)
    given.out.mkdir(parents=True, exist_ok=True)
    command = (
        f"python -m tools.benchmarks.gpu --provider {given.provider} --frames {given.frames} "
        f"--width {given.width} --avatar {given.avatar} --parts {' '.join(given.parts)}"
    )
    with tempfile.TemporaryDirectory(prefix="lipsync_nb-") as name, Card() as card:
        folder = Path(name)
        generator = folder / "generator.onnx"
        generator.write_bytes(untrained_generator(WIDTHS[given.width]).SerializeToString())
        avatar = lnb.load_avatar(given.avatar, generator=generator)
        bench = Bench(avatar, given.provider, given.frames, folder)
        for part in given.parts:
            FUNCTIONS[part](bench)
        path = write(bench, card, command, given.out)
    print(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
