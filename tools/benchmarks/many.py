"""What a second worker gives: the same clips by two Dask workers and by one.

    python -m tools.benchmarks.many [--clips 8] [--seconds 4] [--pairs 3] [--width full] [--polling]

Each worker is a process with one thread and one core. A serial run in this process fills the caches
of the disk. Then clusters of one and of two workers take turns, in pairs. Each is started for its
turn, since one that idles takes time from the other, and makes a short clip a worker, which opens
everything there, before it is timed. The files of both are compared with those of the serial run,
byte for byte. Prints, and writes a dated file; about six minutes on two cores.

Dask's servers look at themselves many times a second, which takes a tenth of one of two cores; with
`QUIET`, a fiftieth. ``--polling`` measures Dask as it comes.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import dask
import joblib
from dask.distributed import Client, LocalCluster

import lipsync_nb as lnb
from lipsync_nb.experiments.environment import environment
from lipsync_nb.experiments.results import write_results, write_text
from lipsync_nb.experiments.runs import Spread
from lipsync_nb.media.imaging import write_image
from lipsync_nb.media.picture_files import read_picture
from tools.benchmarks.engine import write_avatar
from tools.benchmarks.fused import WIDTHS

RESULTS = Path(__file__).parent / "results"
TEMPLATE_FRAMES, OPENING_FRAMES, FPS = 50, 10, 25
# Pixels of the blur that makes frames of noise as easy for x264 as a recording is.
CALM = 9
CLUSTERS = {"one": 1, "two": 2}
# A worker that renders needs no stack sample each 10 ms, nor a look at memory each 200.
QUIET = {
    "distributed.worker.profile.enabled": False,
    "distributed.worker.memory.monitor-interval": "2s",
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "5s",
}


@dataclass(frozen=True)
class Batch:
    """One batch of one cluster.

    Attributes:
        cluster: ``one`` or ``two`` workers.
        seconds: of the whole call.
        worker_cpu_seconds: of all workers together.
        client_cpu_seconds: of this process, with the scheduler.
        shares: how many clips each worker made.
    """

    cluster: str
    seconds: float
    worker_cpu_seconds: float
    client_cpu_seconds: float
    shares: tuple[int, ...] = ()

    @property
    def cores(self) -> float:
        """That the workers used on average."""
        return self.worker_cpu_seconds / self.seconds


@contextlib.contextmanager
def workers(count: int) -> Iterator[Any]:
    """A cluster of so many workers on this machine, without a dashboard."""
    with (
        LocalCluster(
            n_workers=count, threads_per_worker=1, host="127.0.0.1", dashboard_address=None
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


def worker_cpu(client: Any) -> float:
    """CPU seconds of all workers until now."""
    return float(sum(client.run(time.process_time).values()))


def batch_of(name: str, client: Any, jobs: list[lnb.ClipJob]) -> Batch:
    """All clips, by a cluster."""
    cpu, own, start = worker_cpu(client), time.process_time(), time.perf_counter()
    with joblib.parallel_config("dask", client=client):
        result = lnb.render_many(jobs, redo=True)
    seconds = time.perf_counter() - start
    result.raise_if_failed()
    shares = Counter(clip.worker for clip in result.outcomes).values()
    figures = worker_cpu(client) - cpu, time.process_time() - own
    return Batch(name, seconds, *figures, tuple(sorted(shares)))


def write_person(folder: Path, channels: tuple[int, ...]) -> None:
    """An avatar of calm frames, with an untrained network of this width."""
    write_avatar(folder, TEMPLATE_FRAMES, channels)
    for file in sorted((folder / "full_body_img").iterdir()):
        write_image(file, cv2.GaussianBlur(read_picture(file), (0, 0), CALM))


def jobs_in(folder: Path, name: str, count: int, frames: int) -> list[lnb.ClipJob]:
    """The same clips in a folder of their own."""
    config = lnb.RenderConfig(provider="cpu", max_frames=frames)
    speeches, encoder = list(lnb.demo_speeches().values()), lnb.load_avatar("demo").audio_encoder
    return [
        lnb.ClipJob(
            folder / "person",
            speeches[n % len(speeches)],
            folder / name / f"{n}.mp4",
            config,
            audio_encoder=encoder,
        )
        for n in range(count)
    ]


def measured(folder: Path, clips: int, frames: int, pairs: int) -> Iterator[Batch]:
    """The batches of both clusters, which take turns."""
    for pair in range(pairs):
        for name in sorted(CLUSTERS, reverse=bool(pair % 2)):
            with workers(CLUSTERS[name]) as client:
                batch_of(name, client, jobs_in(folder, "opening", CLUSTERS[name], OPENING_FRAMES))
                yield batch_of(name, client, jobs_in(folder, name, clips, frames))


def are_equal(folder: Path, clips: int) -> bool:
    """Whether the files of both clusters are those of the serial run."""
    return all(
        (folder / name / f"{n}.mp4").read_bytes() == (folder / "serial" / f"{n}.mp4").read_bytes()
        for name in CLUSTERS
        for n in range(clips)
    )


def report(batches: list[Batch], clips: int, equal: bool) -> str:
    """The figures, a line each."""
    by = {name: [b for b in batches if b.cluster == name] for name in CLUSTERS}
    pairs = list(zip(by["one"], by["two"], strict=True))
    ratio = Spread.of([one.seconds / two.seconds for one, two in pairs])
    lines = [f"two workers over one: {ratio}; of each pair's wall time, median and range"]
    for name, found in by.items():
        seconds, cores = (Spread.of([getattr(b, n) for b in found]) for n in ("seconds", "cores"))
        cpu = Spread.of([b.worker_cpu_seconds for b in found])
        own = Spread.of([b.client_cpu_seconds for b in found])
        lines.append(
            f"{name}: {seconds} s, {cores} cores, {cpu} CPU seconds of workers, {own} of the client"
        )
    each = statistics.median(b.worker_cpu_seconds for b in batches) / clips
    lines.append(f"a clip: {each:.2f} CPU seconds")
    equality = "yes" if equal else "NO"
    return "\n".join([*lines, f"files equal to those of a serial run, byte for byte: {equality}"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--width", choices=WIDTHS, default="full")
    parser.add_argument("--polling", action="store_true", help="Dask's own intervals")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    settings = {} if options.polling else QUIET
    frames, batches = round(FPS * options.seconds), list[Batch]()
    with dask.config.set(settings), tempfile.TemporaryDirectory(prefix="lipsync_nb-") as name:
        folder = Path(name)
        write_person(folder / "person", WIDTHS[options.width])
        lnb.render_many(jobs_in(folder, "serial", options.clips, frames)).raise_if_failed()
        for batch in measured(folder, options.clips, frames, options.pairs):
            batches.append(batch)
            shares = " and ".join(map(str, batch.shares))
            cores = f"{batch.cores:.2f} cores"
            print(f"{batch.cluster}: {batch.seconds:.1f} s, {cores}, {shares} clips", flush=True)
        equal = are_equal(folder, options.clips)
    where = environment()
    text = f"{options.clips} clips of {frames} frames, {options.width} width, FP32"
    text += ", Dask's own intervals\n" if options.polling else "\n"
    text += f"{report(batches, options.clips, equal)}\n"
    text += "".join(f"{key} {value}\n" for key, value in where.items())
    options.out.mkdir(parents=True, exist_ok=True)
    stem = f"{where['date'][:10]}_{where['cores']}-cores_many"
    write_text(options.out / f"{stem}.txt", text)
    figures = {"batches": [asdict(b) for b in batches], "equal": equal, "environment": where}
    write_results(options.out / f"{stem}.json", "many", figures)
    print(text)


if __name__ == "__main__":
    main()
