"""Who makes the clips of a batch, and how much of its machine each takes."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import joblib
import pytest
from test_many import CONFIG, alone, folder, frames_of, jobs_in, material, states
from test_many_faults import Processes, cluster, on_cluster

import lipsync_nb as lnb
from lipsync_nb.config.thread_plan import plan_threads
from lipsync_nb.errors import BatchError
from lipsync_nb.many.worker import within
from lipsync_nb.pipeline.prefetch import Ahead
from lipsync_nb.system.limits import at_most_cores, available_cores

__all__ = ["alone", "cluster", "folder", "material"]  # fixtures

# Each works beside the thread that makes the clip.
AHEAD = {"inference", "composite", "speech", "template", "encode"}


@contextmanager
def begun_threads() -> Iterator[set[str]]:
    """Names of the threads that are begun meanwhile, without the numbers of the pools'."""
    names: set[str] = set()

    def note(frame: FrameType, event: str, argument: object) -> None:
        names.add(threading.current_thread().name.partition("_")[0].rstrip(" 0123456789"))
        sys.setprofile(None)

    threading.setprofile(note)
    try:
        yield names
    finally:
        threading.setprofile(None)


@pytest.mark.parametrize("cores", [1, 2])
def test_a_clip_with_one_core_is_made_in_one_thread(
    folder: Path, alone: list[list[bytes]], cores: int
) -> None:
    """Stage after stage, what is kept for the next one too; with more they overlap."""
    job = jobs_in(folder, 1)[0]
    with begun_threads() as names:
        result = lnb.render_many([job], cores=cores)
        running = {thread.name for thread in threading.enumerate()}
    assert states(result) == ["rendered"]
    assert bool(names & AHEAD) == (cores > 1), names
    assert cores > 1 or not running & {"features", "template files"}
    assert frames_of(Path(job.out)) == alone[0]


def test_what_a_clip_takes_of_its_machine() -> None:
    usual = lnb.RenderConfig(provider="cpu")
    with at_most_cores(1):
        plan = plan_threads(within(usual, 1))
    assert (plan.network, plan.streams, plan.encoder) == (1, 1, 1)
    assert within(usual, 1) == replace(usual, num_threads=1, overlap=False)
    assert within(usual, 4) == replace(usual, num_threads=4)
    for chosen in ({"num_threads": 3}, {"streams": 2}, {"n_jobs": 2}, {"threads": "each"}):
        config = replace(usual, **chosen)  # type: ignore[arg-type]
        found = within(config, 1)
        assert found.overlap
        assert found.num_threads == (config.num_threads or 1)


def test_threads_are_planned_for_the_cores_that_are_given() -> None:
    """In this thread, and where its work is done ahead; elsewhere nothing changes."""
    found = available_cores()
    elsewhere: list[int] = []
    with at_most_cores(1):
        assert available_cores() == 1
        assert Ahead(available_cores, "ahead").result() == 1
        thread = threading.Thread(target=lambda: elsewhere.append(available_cores()))
        thread.start()
        thread.join()
    assert elsewhere == [found]
    assert available_cores() == found
    with at_most_cores(found + 1):
        assert available_cores() == found


def test_a_cluster_of_one_worker(folder: Path, alone: list[list[bytes]], tmp_path: Path) -> None:
    """It makes the clips, not this process."""
    distributed = pytest.importorskip("distributed", reason="no dask.distributed here")
    jobs = jobs_in(folder, 2)
    with Processes(tmp_path) as processes:
        address = processes.scheduler()
        with distributed.Client(address, timeout=10) as client:
            nobody = pytest.raises(BatchError, match="the cluster has no workers, expected one")
            with nobody, joblib.parallel_config("dask", wait_for_workers_timeout=1):
                lnb.render_many(jobs)
            processes.worker(address)
            client.wait_for_workers(1, timeout=60)
            result = on_cluster(lambda: lnb.render_many(jobs))
    assert states(result) == ["rendered"] * 2
    pid = processes.all[1].pid
    assert {outcome.worker.rpartition(":")[2] for outcome in result.outcomes} == {str(pid)}
    assert [frames_of(Path(job.out)) for job in jobs] == alone[:2]


def test_frames_are_sent_to_no_other_machine(
    folder: Path, alone: list[list[bytes]], cluster: Processes
) -> None:
    """Those who composite for a clip are threads of its worker, on a cluster too."""
    jobs = [replace(job, config=replace(CONFIG, n_jobs=2)) for job in jobs_in(folder, 2)]
    result = on_cluster(lambda: lnb.render_many(jobs))
    tasks = tasks_of(cluster.client)
    assert states(result) == ["rendered"] * 2
    assert "carry_out" in tasks
    assert "composite" not in tasks
    assert [frames_of(Path(job.out)) for job in jobs] == alone[:2]


def tasks_of(client: Any) -> str:
    """What the cluster's workers have carried out, as their logs name it."""

    def log(dask_worker: Any) -> str:
        return str(list(dask_worker.state.log))

    return "".join(client.run(log).values())
