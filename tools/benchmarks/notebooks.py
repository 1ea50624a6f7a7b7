"""Prints how long each notebook takes, executed in a fresh kernel, and how much memory.

    python -m tools.benchmarks.notebooks [03_choosing_a_configuration ...] [--kept] [--cells 3]
        [--out FOLDER]

Each is executed without a page, in an empty folder and with empty caches, as by whoever opens it
first; ``--kept`` uses the user's own caches. Three figures:

* seconds, which others on the machine make longer;
* CPU seconds of the kernel and its processes over the cores: about what an idle machine needs;
* the largest memory of the kernel alone, and of all its processes, where a page of memory that
  several of them share counts once.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import nbformat
import psutil
from nbclient import NotebookClient

from lipsync_nb.experiments.environment import environment
from lipsync_nb.experiments.results import write_results, write_text
from lipsync_nb.types.table import Column, Table

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
LARGEST_SECONDS, LARGEST_BYTES = 180, 4e9
_SAMPLE_SECONDS = 0.5
_CELL_SECONDS = 900


@dataclass(frozen=True)
class Run:
    """One notebook, executed.

    Attributes:
        seconds: from the start of its kernel to its end.
        cpu_seconds: that its kernel and the processes of that worked, all cores added up.
        kernel_bytes: the kernel's largest resident memory.
        all_bytes: the largest memory of all processes, what they share counted once.
        cells: the seconds of each cell of code, and how it begins.
    """

    name: str
    seconds: float
    cpu_seconds: float
    kernel_bytes: int
    all_bytes: int
    cells: tuple[tuple[float, str], ...]


class Watch:
    """Samples the memory of this process's children while it is entered."""

    def __init__(self) -> None:
        self.kernel_bytes = self.all_bytes = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        this = psutil.Process()
        while not self._stop.wait(_SAMPLE_SECONDS):
            kernels = [_resident(child) for child in this.children()]
            self.kernel_bytes = max(self.kernel_bytes, *kernels, 0)
            together = sum(map(_own_share, this.children(recursive=True)))
            self.all_bytes = max(self.all_bytes, together)


def _resident(process: psutil.Process) -> int:
    with suppress(psutil.Error):
        return int(process.memory_info().rss)
    return 0


def _own_share(process: psutil.Process) -> int:
    """Of a page that several processes have, each counts its part."""
    with suppress(psutil.Error):
        return int(process.memory_full_info().pss)
    return 0


def measure(path: Path) -> Run:
    """Execute a notebook in a folder of its own."""
    notebook = nbformat.read(path, as_version=4)
    before, start = _children_seconds(), time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="lipsync_nb-") as folder, Watch() as watch:
        resources = {"metadata": {"path": folder}}
        NotebookClient(notebook, timeout=_CELL_SECONDS, resources=resources).execute()
        seconds = time.perf_counter() - start
    cpu = _children_seconds() - before
    return Run(path.stem, seconds, cpu, watch.kernel_bytes, watch.all_bytes, _cells(notebook))


def _children_seconds() -> float:
    """CPU seconds of the children that have ended, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _cells(notebook: Any) -> tuple[tuple[float, str], ...]:
    found = []
    for cell in notebook.cells:
        times = cell.metadata.get("execution", {})
        with suppress(KeyError):
            first, last = (_moment(times[f"iopub.{name}"]) for name in ("execute_input", _LAST))
            line = next(line for line in cell.source.splitlines() if line.strip())
            found.append(((last - first).total_seconds(), line))
    return tuple(found)


_LAST = "status.idle"


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


@contextmanager
def empty_caches() -> Iterator[None]:
    """The caches of what is started within lie in a folder that is removed after it."""
    before = os.environ.get("LIPSYNC_NB_CACHE")
    with tempfile.TemporaryDirectory(prefix="lipsync_nb-") as folder:
        os.environ["LIPSYNC_NB_CACHE"] = folder
        try:
            yield
        finally:
            os.environ.pop("LIPSYNC_NB_CACHE")
            os.environ.update({} if before is None else {"LIPSYNC_NB_CACHE": before})


def table(runs: list[Run]) -> Table:
    """A row for each notebook."""
    cores = len(os.sched_getaffinity(0))
    return Table.of(
        [
            Column("notebook", lambda run: run.name, is_text=True),
            Column("seconds", lambda run: f"{run.seconds:.0f}"),
            Column("CPU seconds", lambda run: f"{run.cpu_seconds:.0f}"),
            Column("CPU seconds a core", lambda run: f"{run.cpu_seconds / cores:.0f}"),
            Column("kernel MB", lambda run: f"{run.kernel_bytes / 1e6:,.0f}"),
            Column("all processes MB", lambda run: f"{run.all_bytes / 1e6:,.0f}"),
            Column("", _remark, is_text=True),
        ],
        runs,
    )


def _remark(run: Run) -> str:
    remarks = ["too long"] if run.seconds > LARGEST_SECONDS else []
    remarks += ["too large"] if run.all_bytes > LARGEST_BYTES else []
    return ", ".join(remarks)


def _slowest(run: Run, count: int) -> str:
    slowest = sorted(run.cells, reverse=True)[:count]
    return "".join(f"    {seconds:6.1f} s  {line}\n" for seconds, line in slowest)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", help="of notebooks; all of them without")
    parser.add_argument("--kept", action="store_true", help="with the user's own caches")
    parser.add_argument("--cells", type=int, default=0, help="name so many of the slowest cells")
    parser.add_argument("--out", type=Path, help="folder for the text and the JSON file")
    options = parser.parse_args()
    names = options.names or [path.stem for path in sorted(NOTEBOOKS.glob("*.ipynb"))]
    runs = []
    for name in names:
        if options.kept:
            runs.append(measure(NOTEBOOKS / f"{name}.ipynb"))
        else:
            with empty_caches():
                runs.append(measure(NOTEBOOKS / f"{name}.ipynb"))
        print(f"{table(runs[-1:])}\n{_slowest(runs[-1], options.cells)}", flush=True)
    where = environment()
    text = f"{table(runs)}\n" + "".join(f"{key} {value}\n" for key, value in where.items())
    print(text)
    if options.out is not None:
        stem = f"{where['date'][:10]}_{where['cores']}-cores_notebooks"
        write_text(options.out / f"{stem}.txt", text)
        rows = [asdict(run) for run in runs]
        write_results(
            options.out / f"{stem}.json", "notebooks", {"runs": rows, "environment": where}
        )


if __name__ == "__main__":
    main()
