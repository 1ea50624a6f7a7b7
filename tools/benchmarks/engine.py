"""Prints what the engine's parts cost: compositing, template memory, opening, memory over time.

    python -m tools.benchmarks.engine [composite] [memory] [open] [flat]

The whole pipeline is measured by ``lipsync-nb bench``.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import lipsync_nb as lnb
from lipsync_nb.avatar.cache import PlanarFrames, Template, patch_of
from lipsync_nb.media.imaging import bgr_to_i420, write_image
from lipsync_nb.network.unet328 import MOBILE_CHANNELS, untrained_generator
from lipsync_nb.pipeline.compositing import Scratch, composite_picture
from lipsync_nb.pipeline.picture_pool import PicturePool
from lipsync_nb.types.records import Box

SIZE = (1280, 720)
SIDE = 182
TINY_CHANNELS = (4, 8, 16, 32, 64)


def pictures(count: int) -> list[np.ndarray]:
    """Noise under a ramp, uint8 ``[720, 1280, 3]`` BGR."""
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 200, SIZE[0], dtype=np.float32)[None, :, None]
    return [
        (ramp + rng.integers(0, 55, (SIZE[1], SIZE[0], 3))).astype(np.uint8) for _ in range(count)
    ]


def boxes(count: int) -> list[Box]:
    """Square boxes at odd and even places."""
    places = [(500 + i % 7, 300 + i % 5) for i in range(count)]
    return [Box(x, y, x + SIDE, y + SIDE) for x, y in places]


def planar_template(count: int) -> Template:
    frames, found = pictures(count), boxes(count)
    patches = [patch_of(frame, box) for frame, box in zip(frames, found, strict=True)]
    planes = PlanarFrames([bgr_to_i420(frame) for frame in frames], patches, found)
    return Template(planes, found)


def composite(frames: int = 2000, rounds: int = 5) -> None:
    """CPU time of compositing a frame in one thread, with buffers that are used again."""
    template, pool = planar_template(40), PicturePool()
    scratch = Scratch(template)
    rng = np.random.default_rng(0)
    faces = rng.integers(0, 256, (8, 320, 320, 3)).astype(np.uint8)
    results = []
    for _ in range(rounds):
        start = time.thread_time()
        for i in range(frames):
            out = pool.take(template.picture_shape)
            pool.give(composite_picture(template, i % 40, faces[i % 8], out, scratch))
        results.append(1000 * (time.thread_time() - start) / frames)
    print(
        f"composite, {SIDE} px box, I420: {statistics.median(results[1:]):.3f} ms of CPU a frame "
        f"({min(results[1:]):.3f}-{max(results[1:]):.3f})"
    )


def memory() -> None:
    """Bytes of a template of 720p frames, used."""
    template = planar_template(40)
    for i in range(40):
        template.crop(i)
        template.canvas(i)
    report = template.memory_report()
    print(f"template memory: {report.bytes_per_frame / 1e6:.3f} MB a 720p frame\n{report}")


def write_avatar(folder: Path, count: int, channels: tuple[int, ...]) -> None:
    """A SyncTalk_2D folder of noisy frames, with an untrained network of this width."""
    (folder / "full_body_img").mkdir(parents=True)
    (folder / "models").mkdir()
    (folder / "cache").mkdir()
    for i, frame in enumerate(pictures(count)):
        write_image(folder / "full_body_img" / f"{i}.jpg", frame)
    entries = ", ".join(
        f'"{i}": {{"rect": [{b.x1}, {b.y1}, {b.x2}, {b.y2}]}}' for i, b in enumerate(boxes(count))
    )
    (folder / "cache" / "crop_rectangles.json").write_text(f"{{{entries}}}", encoding="utf-8")
    model = untrained_generator(channels)
    (folder / "models" / "generator.onnx").write_bytes(model.SerializeToString())


def opening(count: int = 500, rounds: int = 5) -> None:
    """Seconds to open a prepared template, in a new process each time."""
    program = (
        "import sys, time, lipsync_nb as lnb\n"
        "a = lnb.load_avatar(sys.argv[1])\n"
        "t = time.perf_counter()\n"
        "n = len(a.open_template('mmap', 'i420'))\n"
        "print(n, time.perf_counter() - t)"
    )
    with tempfile.TemporaryDirectory(prefix="lipsync_nb-") as folder:
        person = Path(folder) / "person"
        write_avatar(person, count, TINY_CHANNELS)
        seconds = []
        for _ in range(rounds + 1):
            done = subprocess.run(
                [sys.executable, "-c", program, str(person)],
                capture_output=True, text=True, check=True,
            )  # fmt: skip
            found, taken = done.stdout.split()
            seconds.append(float(taken))
        print(
            f"opening a prepared {found}-frame template: {statistics.median(seconds[1:]):.3f} s "
            f"({min(seconds[1:]):.3f}-{max(seconds[1:]):.3f}); preparing it: {seconds[0]:.1f} s"
        )


def flat(short: int = 500, long: int = 10_000) -> None:
    """Peak resident memory of a long render over that of a short one, a new process each."""
    with tempfile.TemporaryDirectory(prefix="lipsync_nb-") as folder:
        person = Path(folder) / "person"
        write_avatar(person, 100, MOBILE_CHANNELS)
        peaks = {}
        for frames in (short, long):
            arguments = [sys.executable, "-m", __spec__.name, "peak", str(person), str(frames)]
            done = subprocess.run(arguments, capture_output=True, text=True, check=True)
            peaks[frames] = int(done.stdout.split()[-1])
            print(f"peak memory at {frames} frames: {peaks[frames] / 1e6:.0f} MB", flush=True)
        print(f"peak memory, {long} frames over {short}: {peaks[long] / peaks[short]:.3f}")


def peak(person: str, frames: int) -> None:
    """Render so many frames, and print this process's peak memory in bytes."""
    rng = np.random.default_rng(0)
    speech = lnb.Speech(features=rng.normal(size=(frames, 512)).astype(np.float32))
    with tempfile.TemporaryDirectory(prefix="lipsync_nb-") as folder:
        lnb.render(lnb.load_avatar(person), speech, Path(folder) / "out.mp4")
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


PARTS = {"composite": composite, "memory": memory, "open": opening, "flat": flat}


def main() -> None:
    if sys.argv[1:2] == ["peak"]:
        peak(sys.argv[2], int(sys.argv[3]))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="default: all")
    for name in parser.parse_args().parts or PARTS:
        PARTS[name]()


if __name__ == "__main__":
    main()
