"""The command line's batches: ``lipsync-nb batch``."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any

from lipsync_nb.errors import BatchError, MissingLibraryError
from lipsync_nb.system.console import CONSOLE_ERRORS, tell

from .rendering import add_config, config_of

if TYPE_CHECKING:
    from lipsync_nb.many.results import BatchProgress


def add_commands(commands: Any) -> None:
    """Add ``batch`` to a parser's commands."""
    usage = "%(prog)s [options] jobs"
    batch = commands.add_parser("batch", help="render a table of clips", usage=usage)
    batch.add_argument(
        "jobs", help="CSV or JSON Lines with avatar, speech, out, and any option of a render"
    )
    batch.add_argument(
        "--workers", type=int, default=None, metavar="N", help="processes (-1: one a core)"
    )
    batch.add_argument(
        "--cores", type=int, default=0, metavar="N", help="cores that a clip may use (0: its share)"
    )
    batch.add_argument(
        "--manifest", metavar="FILE", help="lines of what was done (default: manifest.jsonl beside)"
    )
    batch.add_argument("--redo", action="store_true", help="also what is there already")
    batch.add_argument("--dask", metavar="ADDRESS", help="scheduler of a Dask cluster to use")
    add_config(batch)
    batch.set_defaults(run=_batch)


def _batch(options: argparse.Namespace) -> None:
    from lipsync_nb.many.batch import render_many
    from lipsync_nb.many.jobs import read_jobs
    from lipsync_nb.many.manifest import manifest_beside

    jobs = read_jobs(options.jobs, config_of(options))
    with _cluster(options.dask), ClipBar() as bar:
        result = render_many(
            jobs,
            options.workers,
            manifest=options.manifest or manifest_beside(options.jobs),
            cores=options.cores,
            redo=options.redo,
            progress=bar,
        )
    tell(str(result))
    if result.failures:
        raise BatchError(
            f"{options.jobs}: {len(result.failures)} of {len(jobs)} clips failed, see above; the "
            "next call tries them again."
        )


@contextmanager
def _cluster(address: str | None) -> Iterator[None]:
    """joblib's workers are those of a cluster, where an address is given."""
    if address is None:
        yield
        return
    try:
        from dask.distributed import Client
    except ImportError as error:
        raise MissingLibraryError(
            "--dask: found no dask.distributed, expected pip install 'lipsync_nb[dask]'."
        ) from error
    from joblib import parallel_config

    try:
        client: Any = Client(address, timeout="10s")  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise BatchError(f"--dask {address}: found no scheduler there ({error}).") from error
    with client, parallel_config("dask"):
        yield


class ClipBar:
    """A bar of clips with ETA, and the frames a second of all workers together."""

    def __init__(self) -> None:
        self._bar: Any = None

    def __enter__(self) -> ClipBar:
        return self

    def __call__(self, progress: BatchProgress) -> None:
        try:
            if self._bar is None:
                from tqdm import std

                self._bar = std.tqdm(total=progress.total, unit="clip", dynamic_ncols=True)
            failed = f", {progress.failed} failed" if progress.failed else ""
            self._bar.set_postfix_str(f"{progress.fps:.1f} FPS{failed}", refresh=False)
            self._bar.update(progress.done - self._bar.n)
        except CONSOLE_ERRORS:
            self._bar = None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()
