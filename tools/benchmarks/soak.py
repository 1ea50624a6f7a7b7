"""Whether an hour of rendering leaves anything behind: memory, threads, open files.

    python -m tools.benchmarks.soak [--minutes 60] [--out FOLDER]

Renders one clip after the other in one process, each with another configuration, of two small
avatars in turn; prints a line a minute. The verdict compares the medians of the last third with
those of the second: what is held once (networks, features, compiled code) is there by then.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import psutil

import lipsync_nb as lnb
from lipsync_nb.experiments.environment import environment
from lipsync_nb.experiments.results import write_results, write_text
from lipsync_nb.system.background import wait_for_background
from lipsync_nb.types.table import Column, Table
from tools.benchmarks.engine import TINY_CHANNELS, write_avatar

RESULTS = Path(__file__).parent / "results"
CHOICES: dict[str, tuple[Any, ...]] = {
    "precision": ("fp32", "int8"),
    "batch_size": (0, 3),
    "cache": ("auto", "memory", "none", "mmap"),
    "n_jobs": (1, 2),
    "overlap": (True, False),
    "feature_cache": ("auto", "off"),
    "compositing": ("workers", "network"),
    "resume": ("off", "on"),
    "encoders": (1, 2),
}
LARGEST_GROWTH = 0.05


@dataclass(frozen=True)
class Sample:
    """The process after a render.

    Attributes:
        minutes: since the beginning.
        rss_bytes: resident memory.
    """

    minutes: float
    renders: int
    rss_bytes: int
    threads: int
    files: int


def configurations() -> Iterator[lnb.RenderConfig]:
    """One after the other, in an order in which neighbours differ in several fields; for ever."""
    every = [dict(zip(CHOICES, v, strict=True)) for v in itertools.product(*CHOICES.values())]
    step = 389  # has no divisor in common with their number
    for number in itertools.count():
        yield lnb.RenderConfig(provider="cpu", **every[number * step % len(every)])


def soak(minutes: float, folder: Path) -> list[Sample]:
    """Render until the time is over."""
    avatars = [_avatar(folder / name, seed) for seed, name in enumerate(("one", "other"))]
    speech = lnb.load_speech(lnb.demo_speeches()["hello"], 2.0)
    process, start, samples, said = psutil.Process(), time.monotonic(), list[Sample](), 0.0
    for number, config in enumerate(configurations(), 1):
        lnb.render(avatars[number // 8 % 2], speech, folder / "clip.mp4", config)
        wait_for_background()
        gc.collect()
        passed = (time.monotonic() - start) / 60
        rss = process.memory_info().rss
        samples.append(Sample(passed, number, rss, process.num_threads(), process.num_fds()))
        if passed >= said:
            said += 1
            print(_line(samples[-1]), flush=True)
        if passed >= minutes:
            return samples
    raise AssertionError("configurations never end")


def _avatar(folder: Path, seed: int) -> lnb.Avatar:
    write_avatar(folder, 12 + seed, TINY_CHANNELS)
    return lnb.load_avatar(folder, audio_encoder=lnb.load_avatar("demo").audio_encoder)


def _line(sample: Sample) -> str:
    return (
        f"{sample.minutes:5.1f} min  {sample.renders:5d} renders  {sample.rss_bytes / 1e6:7.1f} MB"
        f"  {sample.threads:3d} threads  {sample.files:3d} files"
    )


def verdict(samples: Sequence[Sample]) -> Table:
    """Medians of the second and the last third, and whether they are the same."""
    third = len(samples) // 3
    middle, last = samples[third : 2 * third], samples[2 * third :]
    names = {"rss_bytes": "memory MB", "threads": "threads", "files": "open files"}
    rows = []
    for name, title in names.items():
        scale = 1e6 if name == "rss_bytes" else 1
        before, after = (median(getattr(s, name) for s in part) / scale for part in (middle, last))
        flat = after <= before * (1 + LARGEST_GROWTH)
        rows.append((title, f"{before:.1f}", f"{after:.1f}", "flat" if flat else "grows"))
    heads = ("", "second third", "last third", "verdict")
    columns = [
        Column(head, lambda row, k=k: row[k], is_text=k in (0, 3)) for k, head in enumerate(heads)
    ]
    return Table.of(columns, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        samples = soak(options.minutes, Path(folder))
    where = environment()
    table = verdict(samples)
    text = f"{len(samples)} renders in {samples[-1].minutes:.1f} minutes\n{table}\n"
    text += "".join(f"{key} {value}\n" for key, value in where.items())
    stem = f"{where['date'][:10]}_soak"
    options.out.mkdir(parents=True, exist_ok=True)
    write_text(options.out / f"{stem}.txt", text)
    rows = [asdict(sample) for sample in samples[:: max(1, len(samples) // 500)]]
    write_results(options.out / f"{stem}.json", "soak", {"samples": rows, "environment": where})
    print(text)


if __name__ == "__main__":
    main()
