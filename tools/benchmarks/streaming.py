"""Prints how late the frames of a speech are that is streamed as fast as it is spoken.

    python -m tools.benchmarks.streaming [--speech hello] [--seconds 20] [--chunk-ms 20]
        [--fragments] [--runs 3] [--out FOLDER]

The sound of a demo speech comes in chunks, each at the moment at which its last sample would have
been spoken. For every frame three latencies are taken, all to the moment at which the frame, or
with ``--fragments`` the piece of the video that it is in, is handed over:

* from the frame's own time: when its sound at ``index / fps`` came;
* from the last sample that it needs, ``needed_samples(index)``: what the work takes;
* the floor: how long after a frame's own time the sound ends that it needs; no machine is below.

The first frame waits for the floor, and for nothing else: all is opened before the sound begins.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

import lipsync_nb as lnb
from lipsync_nb.experiments.environment import environment
from lipsync_nb.experiments.latencies import StreamLatency, stream_latency
from lipsync_nb.types.table import Column, Table


def table(runs: list[StreamLatency]) -> Table:
    """A row for each run and kind of latency."""
    rows = [
        (number, run, name, np.asarray(values))
        for number, run in enumerate(runs, 1)
        for name, values in (("frame's own time", run.total_ms), ("last sample", run.work_ms))
    ]
    return Table.of(
        [
            Column("run", lambda row: row[0]),
            Column("frames", lambda row: len(row[3])),
            Column("FPS", lambda row: f"{row[1].given_fps:.1f}"),
            Column("chunks late ms", lambda row: f"{row[1].chunks_late_ms:.0f}"),
            Column("latency from", lambda row: row[2], is_text=True),
            Column("p50 ms", lambda row: f"{np.percentile(row[3], 50):.0f}"),
            Column("p95 ms", lambda row: f"{np.percentile(row[3], 95):.0f}"),
            Column("worst ms", lambda row: f"{row[3].max():.0f}"),
        ],
        rows,
    )


def _figures(run: StreamLatency) -> dict[str, object]:
    """What the JSON file keeps of a run: percentiles and the worst, in milliseconds."""
    kinds = {"total_ms": run.total_ms, "work_ms": run.work_ms}
    figures = {k: [*np.percentile(v, [50, 95]).tolist(), max(v)] for k, v in kinds.items()}
    late = {"floor_ms": run.floor_ms, "late_ms": run.chunks_late_ms}
    return {"frames": len(run.total_ms), **figures, **late, "fps": run.given_fps}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--speech", default="hello", help="one of the demo's")
    parser.add_argument("--seconds", type=float, default=20.0, help="it is said again for so long")
    parser.add_argument("--chunk-ms", type=int, default=20)
    parser.add_argument("--fragments", action="store_true")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--out", type=Path, help="folder for the text and the JSON file")
    given = parser.parse_args(arguments)
    if given.out is not None:
        # What cannot be written is told before all is measured.
        given.out.mkdir(parents=True, exist_ok=True)
    avatar = lnb.load_avatar(lnb.demo_folder())
    speech = lnb.load_speech(lnb.demo_speeches()[given.speech])
    how = {"seconds": given.seconds, "chunk_ms": given.chunk_ms, "as_fragments": given.fragments}
    runs = [stream_latency(avatar, speech, **how) for _ in range(given.runs)]
    facts, what = environment(), " --fragments" if given.fragments else ""
    command = (
        f"python -m tools.benchmarks.streaming --runs {given.runs} --speech {given.speech} "
        f"--seconds {given.seconds:g} --chunk-ms {given.chunk_ms}{what}"
    )
    floor = f"floor: {runs[0].floor_ms:.0f} ms of sound beyond a frame's own time"
    lines = [command, *(f"{k} {v}" for k, v in facts.items()), "", floor, str(table(runs))]
    text = "\n".join(lines)
    print(text)
    if given.out is not None:
        kind = "streaming-fragments" if given.fragments else "streaming"
        stem = f"{facts['date'].split()[0]}_{facts['cores']}-cores_{kind}"
        data = {"environment": facts, "runs": [_figures(run) for run in runs]}
        (given.out / f"{stem}.txt").write_text(f"{text}\n", encoding="utf-8")
        (given.out / f"{stem}.json").write_text(json.dumps(data, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
