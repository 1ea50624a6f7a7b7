"""Prints how soon the studio plays what it renders, whether it stalls, and what its kernel holds.

    python -m tools.benchmarks.live [--runs 4] [--speech hello] [--preset engine] [--out FOLDER]

It serves JupyterLab on the loopback interface, opens a studio in the system's Chromium without a
window, presses Run, and watches the page every 10 ms. A video plays once its time advances and
sound was decoded. The first run opens and compiles what the later ones find. ``--out`` writes the
text, and the figures as JSON, as well.

    python -m tools.benchmarks.live --notebook notebooks/01_quickstart.ipynb [--runs 3]

runs all cells of a notebook so many times in one kernel, and prints what its kernel holds after
each; ``--out`` writes that.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from lipsync_nb.experiments.environment import environment
from lipsync_nb.types.table import Column, Table
from tools.lab import Page, browse, open_notebook, run_all, serve

STUDIO, PLAYER = ".lipsync-studio", ".lipsync-live"
FINISHED = f"{STUDIO} .lipsync-finished video"
CELL = "import lipsync_nb as lnb\nlnb.Studio()"
_WATCH = """() => {
  window.lipsync = { pressed: 0, playing: 0, seconds: 0, stalls: 0, heard: 0, frames: 0 };
  const pressed = (event) => { if (event.target.closest('button')?.textContent.includes('Run'))
    window.lipsync = { ...window.lipsync, pressed: performance.now() }; };
  document.addEventListener('click', pressed, { capture: true, once: true });
  clearInterval(window.lipsyncTimer);
  window.lipsyncTimer = setInterval(() => {
    const seen = window.lipsync, video = document.querySelector('.lipsync-live video');
    if (!video || !seen.pressed || video.parentElement.dataset.state !== 'playing') return;
    if (!video.webkitAudioDecodedByteCount) return;
    if (!seen.playing && video.currentTime > 0) seen.playing = performance.now();
    seen.seconds = Math.max(seen.seconds, video.currentTime);
    seen.heard = Math.max(seen.heard, video.webkitAudioDecodedByteCount);
    seen.frames = Math.max(seen.frames, video.getVideoPlaybackQuality().totalVideoFrames);
    seen.stalls = Number(video.parentElement.dataset.stalls);
  }, 10);
}"""


@dataclass(frozen=True)
class Run:
    """What was seen of one run.

    Attributes:
        start_seconds: from the press of Run to a video that plays with sound; None: it never did.
        played_seconds: of the video, while it was made and after.
        frames: decoded by the page.
        stalls: how often it had to wait for the render once it had begun.
        render_fps: steady frames a second of the render, as the studio says.
        memory_bytes: resident in the kernel after the run.
    """

    start_seconds: float | None
    played_seconds: float
    frames: int
    stalls: int
    render_fps: float
    memory_bytes: int


def write_notebook(path: Path, *cells: str) -> None:
    """A notebook of these code cells."""
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    made = [
        {
            "cell_type": "code",
            "id": f"cell-{k}",
            "metadata": {},
            "execution_count": None,
            "outputs": [],
            "source": source,
        }
        for k, source in enumerate(cells)
    ]
    content = {
        "cells": made,
        "metadata": {"kernelspec": kernel},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    path.write_text(json.dumps(content), encoding="utf-8")


def watched_run(page: Page, timeout_seconds: float = 180) -> dict[str, float]:
    """Press the studio's Run, wait for its finished video, and tell what was played meanwhile."""
    shown = page.page
    shown.evaluate(_WATCH)
    shown.locator(f"{STUDIO} button:has-text('Run')").click()
    shown.wait_for_selector(FINISHED, state="detached", timeout=10_000)
    shown.wait_for_selector(FINISHED, state="visible", timeout=1000 * timeout_seconds)
    found: dict[str, float] = shown.evaluate("() => window.lipsync")
    return found


def kernel_bytes() -> int:
    """Resident memory of the kernels that this process's server runs."""
    found = 0
    for process in psutil.Process().children(recursive=True):
        if any("ipykernel" in part for part in process.cmdline()):
            found += process.memory_info().rss
    return found


def settled_bytes(page: Page, seconds: float = 15) -> int:
    """The same, once threads that a cell began are done: two seconds without a change of 1 %."""
    before, unchanged, end = 0, 0, time.monotonic() + seconds
    while unchanged < 2 and time.monotonic() < end:
        page.page.wait_for_timeout(1000)
        now = kernel_bytes()
        unchanged = unchanged + 1 if abs(now - before) < 0.01 * now else 0
        before = now
    return before


def measured(page: Page) -> Run:
    """One run, by its figures."""
    seen = watched_run(page)
    text = page.page.locator(f"{STUDIO} >> text=/ FPS$/").first.inner_text()
    start = (seen["playing"] - seen["pressed"]) / 1000 if seen["playing"] else None
    fps = float(text.split()[-2])
    return Run(
        start, seen["seconds"], int(seen["frames"]), int(seen["stalls"]), fps, kernel_bytes()
    )


def measure(runs: int, speech: str, preset: str) -> list[Run]:
    """So many runs of one studio in one kernel, one after the other."""
    with tempfile.TemporaryDirectory(prefix="lipsync_nb-") as place:
        write_notebook(Path(place) / "live.ipynb", CELL)
        with serve(Path(place)) as lab, browse() as page:
            open_notebook(page, lab, "live.ipynb")
            run_all(page)
            page.page.wait_for_selector(STUDIO, timeout=60_000)
            choose(page, "microphone", speech)
            choose(page, "baseline", preset)
            return [measured(page) for _ in range(runs)]


def measure_notebook(notebook: Path, runs: int) -> list[int]:
    """Bytes of the kernel after each time that all cells of a notebook were run in it."""
    with tempfile.TemporaryDirectory(prefix="lipsync_nb-") as place:
        shutil.copy(notebook, place)
        with serve(Path(place)) as lab, browse() as page:
            open_notebook(page, lab, notebook.name)
            found = []
            for _ in range(runs):
                run_all(page, 600)
                found.append(settled_bytes(page))
            return found


def choose(page: Page, known: str, option: str) -> None:
    """Choose in the studio's list that has a known entry, behind "More" where it is there."""
    found = page.page.locator(f"{STUDIO} select").filter(has_text=known)
    if not found.is_visible():
        page.page.click(f"{STUDIO} button:has-text('More')")
    found.select_option(option)


def table(runs: list[Run]) -> Table:
    """A row for each run."""
    columns: list[Column[Any]] = [
        Column("run", lambda item: str(item[0])),
        Column("to playing", lambda item: _seconds(item[1].start_seconds)),
        Column("played", lambda item: _seconds(item[1].played_seconds)),
        Column("frames", lambda item: str(item[1].frames)),
        Column("stalls", lambda item: str(item[1].stalls)),
        Column("render FPS", lambda item: f"{item[1].render_fps:.1f}"),
        Column("kernel", lambda item: f"{item[1].memory_bytes / 1e6:.0f} MB"),
    ]
    return Table.of(columns, list(enumerate(runs, 1)))


def _seconds(value: float | None) -> str:
    return "never" if value is None else f"{value:.2f} s"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, help="default 4, of a notebook 3")
    parser.add_argument("--notebook", type=Path, help="run all its cells instead")
    parser.add_argument("--speech", default="hello", help="one of the demo's")
    parser.add_argument("--preset", default="engine", help="one of the studio's")
    parser.add_argument("--out", type=Path, help="folder for the text and the JSON file")
    given = parser.parse_args(arguments)
    if given.out is not None:
        # What cannot be written is told before all is measured.
        given.out.mkdir(parents=True, exist_ok=True)
    facts, command = environment(), "python -m tools.benchmarks.live"
    if given.notebook is not None:
        count = given.runs or 3
        command, kind = f"{command} --notebook {given.notebook} --runs {count}", "live-notebook"
        held = measure_notebook(given.notebook, count)
        shown, found = held_text(held), {"kernel_bytes": held}
    else:
        count, kind = given.runs or 4, "live"
        how = f"--runs {count} --speech {given.speech} --preset {given.preset}"
        runs = measure(count, given.speech, given.preset)
        command, shown = f"{command} {how}", f"\n{table(runs)}"
        found = {"runs": [asdict(run) for run in runs]}
    text = "\n".join([command, *(f"{k} {v}" for k, v in facts.items()), shown])
    print(text)
    if given.out is not None:
        keep(given.out, kind, text, facts, found)


def held_text(held: list[int]) -> str:
    """A line for each time: what the kernel held, and how much more than after the first."""
    return "\n".join(
        f"run {number}: {size / 1e6:.0f} MB, {100 * (size / held[0] - 1):+.1f} %"
        for number, size in enumerate(held, 1)
    )


def keep(
    folder: Path, kind: str, text: str, facts: Mapping[str, Any], found: Mapping[str, Any]
) -> None:
    """Write the text, and the figures as JSON."""
    stem = folder / f"{facts['date'].split()[0]}_{facts['cores']}-cores_{kind}"
    data = {"environment": facts, **found}
    stem.with_name(f"{stem.name}.txt").write_text(f"{text}\n", encoding="utf-8")
    stem.with_name(f"{stem.name}.json").write_text(json.dumps(data, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
