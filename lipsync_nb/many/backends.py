"""joblib's backends: who carries clips out, and what carries out the work within one."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from lipsync_nb.errors import BatchError

_DASK = "DaskDistributedBackend"


def count_workers(n_jobs: int | None) -> tuple[int, bool]:
    """How many clips are made at once, and whether by a cluster.

    Raises:
        BatchError: the cluster has no workers, and none comes.
    """
    from joblib import effective_n_jobs

    is_cluster = type(_active()).__name__ == _DASK
    try:
        return effective_n_jobs(n_jobs), is_cluster
    except TimeoutError as error:
        raise BatchError("the cluster has no workers, expected one or more.") from error


def sending_backend() -> Any:
    """A backend that sends clips to a cluster of one thread too; None: the one that is active.

    joblib makes everything in the calling process where it counts one worker, and that is not the
    machine that was meant.
    """
    active = _active()
    if type(active).__name__ != _DASK:
        return None

    class Sending(type(active)):  # type: ignore[misc]
        def effective_n_jobs(self, n_jobs: int) -> int:
            return max(2, int(super().effective_n_jobs(n_jobs)))

    waits = active.wait_for_workers_timeout
    return Sending(client=active.client, wait_for_workers_timeout=waits, **active.submit_kwargs)


def within_a_clip() -> AbstractContextManager[object]:
    """Entered while a clip is made: its own workers are threads of its process.

    On a cluster joblib would send the work on each frame to other machines.
    """
    from joblib import parallel_config

    backend: AbstractContextManager[object] = parallel_config("threading")
    return backend


def _active() -> Any:
    from joblib.parallel import get_active_backend

    return get_active_backend()[0]
