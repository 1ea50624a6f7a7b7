"""Workers, the scheduler and whole batches that are killed: the next call does the rest."""

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import joblib
import pytest
from builders import tone_speech
from joblib.parallel import ThreadingBackend
from test_many import alone, folder, frames_of, jobs_in, material, states, wait_for, write_table

import lipsync_nb as lnb
from lipsync_nb.errors import BatchError
from lipsync_nb.many.manifest import Entry, Manifest

__all__ = ["alone", "folder", "material"]  # fixtures

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="kills processes")


def started(folder: Path, out: str) -> list[int]:
    """Processes that began a clip, by the manifest."""
    path = folder / "out" / "manifest.jsonl"
    if not path.exists():
        path = folder / "manifest.jsonl"
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    entries = [json.loads(line) for line in lines if line.endswith("\n")]
    return [e["pid"] for e in entries if Path(e["out"]).name == out and e["outcome"] == "started"]


def killer(folder: Path, out: str, times: int) -> threading.Thread:
    """Kills the workers that begin a clip, the first few times."""

    def kill() -> None:
        for number in range(times):
            wait_for(lambda number=number: len(started(folder, out)) > number)
            pid = started(folder, out)[number]
            assert pid != os.getpid()
            os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    return thread


@pytest.mark.parametrize(("times", "state"), [(1, "rendered"), (2, "failed")])
def test_a_worker_that_is_killed(
    folder: Path, alone: list[list[bytes]], times: int, state: str
) -> None:
    """Its clip is tried once more; one that kills each of its workers stops no other."""
    jobs = jobs_in(folder)
    thread = killer(folder, "1.mp4", times)
    result = lnb.render_many(jobs, 2)
    thread.join()
    assert states(result) == ["rendered", state, "rendered", "rendered"]
    assert any("a worker was lost" in note for note in result.notes)
    if state == "failed":
        assert "its worker was killed twice" in result.outcomes[1].error
        result = lnb.render_many(jobs, 2)
        assert states(result) == ["kept", "rendered", "kept", "kept"]
    assert [frames_of(Path(job.out)) for job in jobs] == alone


def without_memory(folder: Path, out: str) -> threading.Thread:
    """Takes the memory of the worker that begins a clip: it may have no more addresses."""
    import resource

    def take() -> None:
        wait_for(lambda: started(folder, out))
        (pid,) = started(folder, out)
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[0])
        most = pages * os.sysconf("SC_PAGE_SIZE")
        resource.prlimit(pid, resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))

    thread = threading.Thread(target=take)
    thread.start()
    return thread


@pytest.mark.skipif(sys.platform != "linux", reason="limits another process")
def test_a_worker_without_memory(folder: Path, alone: list[list[bytes]]) -> None:
    """Its clip fails with a sentence; the others are made."""
    jobs = jobs_in(folder)
    # A clip that takes more than what is left: its speech is long.
    tone_speech(folder / "long.wav", 300.0, 44_100, 2)
    jobs[3] = replace(jobs[3], speech=folder / "long.wav")
    thread = without_memory(folder, "3.mp4")
    result = lnb.render_many(jobs, 2)
    thread.join()
    assert states(result) == ["rendered"] * 3 + ["failed"]
    (failure,) = result.failures
    assert len(failure.error.splitlines()) == 1
    assert "memory" in failure.error
    assert [frames_of(Path(job.out)) for job in jobs[:3]] == alone[:3]


def test_a_batch_that_is_killed(folder: Path, alone: list[list[bytes]]) -> None:
    table = write_table(folder, 6)
    options = ["--provider", "cpu", "--crf", "30", "--workers", "2"]
    command = [sys.executable, "-m", "lipsync_nb", "batch", str(table), *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True)
    wait_for(lambda: len(list((folder / "out").glob("[0-9].mp4"))) >= 2)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert process.stderr is not None
    process.stderr.close()
    done = len(list((folder / "out").glob("[0-9].mp4")))
    again = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert again.returncode == 0, again.stderr
    assert f"{done} kept" in again.stdout or f"{done - 1} kept" in again.stdout
    assert [frames_of(folder / "out" / f"{n}.mp4") for n in range(6)] == [*alone, *alone[:2]]
    left = [p.name for p in (folder / "out").iterdir() if not p.name[0].isdigit()]
    assert left == [], "what the killed workers had in the making"


def test_a_disk_that_is_full_in_the_middle(
    folder: Path, alone: list[list[bytes]], tmp_path: Path
) -> None:
    """Clips that have no room fail, the manifest too; with room again the next call does them."""
    table, place = write_table(folder, 6), folder / "out"
    place.mkdir()
    options = ["--provider", "cpu", "--crf", "30", "--manifest", str(place / "m.jsonl")]
    command = shlex.join([sys.executable, "-m", "lipsync_nb", "batch", str(table), *options])
    lines = f"""
        mount -t tmpfs -o size=200k none {place} || exit 77
        {command} > {tmp_path}/first 2> {tmp_path}/errors
        echo $? >> {tmp_path}/first
        mount -o remount,size=50m {place}
        {command} > {tmp_path}/second 2>> {tmp_path}/errors
        echo $? >> {tmp_path}/second
        cp {place}/*.mp4 {tmp_path}"""
    done = subprocess.run(
        ["unshare", "-rm", "bash", "-c", lines], capture_output=True, text=True, check=False
    )
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("no file systems of one's own here")
    first, second = ((tmp_path / name).read_text() for name in ("first", "second"))
    assert first.splitlines()[-1] == "2"
    assert "No space left on device" in first
    assert "rendered" in first.splitlines()[0]
    assert second.splitlines()[-1] == "0", (tmp_path / "errors").read_text()
    assert "kept" in second.splitlines()[0]
    assert [frames_of(tmp_path / f"{n}.mp4") for n in range(6)] == [*alone, *alone[:2]]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Any]:
    """A scheduler and two workers in processes of their own, on this machine alone."""
    distributed = pytest.importorskip("distributed", reason="no dask.distributed here")
    with Processes(tmp_path) as processes:
        processes.address = processes.scheduler()
        for _ in range(2):
            processes.worker(processes.address)
        with distributed.Client(processes.address, timeout=10) as client:
            client.wait_for_workers(2, timeout=60)
            processes.client = client
            yield processes


class Processes:
    """A cluster whose parts can be killed one by one."""

    def __init__(self, folder: Path) -> None:
        self._folder, self.all = folder, list[subprocess.Popen[bytes]]()
        self.client: Any = None
        self.address = ""

    def __enter__(self) -> "Processes":
        return self

    def _started(self, *command: str) -> subprocess.Popen[bytes]:
        log = (self._folder / f"{len(self.all)}.log").open("wb")
        quiet = {**os.environ, "DASK_DISTRIBUTED__LOGGING__DISTRIBUTED": "error"}
        process = subprocess.Popen(
            [sys.executable, "-m", "distributed.cli." + command[0], *command[1:]],
            stdout=log, stderr=log, env=quiet, cwd=self._folder,
        )  # fmt: skip
        log.close()
        self.all.append(process)
        return process

    def scheduler(self) -> str:
        file = self._folder / "scheduler.json"
        self._started(
            "dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard",
            "--scheduler-file", str(file),
        )  # fmt: skip
        wait_for(file.exists)
        wait_for(lambda: file.read_text(encoding="utf-8").rstrip().endswith("}"))
        return str(json.loads(file.read_text(encoding="utf-8"))["address"])

    def worker(self, address: str) -> None:
        self._started(
            "dask_worker", address, "--nthreads", "1", "--no-dashboard", "--no-nanny",
            "--host", "127.0.0.1", "--memory-limit", "0",
            "--local-directory", str(self._folder),
        )  # fmt: skip

    def __exit__(self, *error: object) -> None:
        for process in self.all:
            process.kill()
            process.wait()


def on_cluster(run: Callable[[], Any]) -> Any:
    with joblib.parallel_config("dask"):
        return run()


def test_a_cluster_and_a_worker_of_it_that_is_killed(
    folder: Path, alone: list[list[bytes]], cluster: Processes
) -> None:
    """Another machine, or the same one, comes back while the rest is made."""
    jobs = jobs_in(folder, 8)
    thread = killer(folder, "2.mp4", 1)

    def come_back() -> None:
        wait_for(lambda: any(process.poll() is not None for process in cluster.all[1:]))
        cluster.worker(cluster.address)

    newcomer = threading.Thread(target=come_back)
    newcomer.start()
    result = on_cluster(lambda: lnb.render_many(jobs))
    thread.join()
    newcomer.join()
    assert states(result) == ["rendered"] * 8
    assert [frames_of(Path(job.out)) for job in jobs] == [*alone, *alone]
    made = {outcome.worker for outcome in result.outcomes}
    workers = {f"{os.uname().nodename}:{process.pid}" for process in cluster.all[1:]}
    assert made <= workers
    assert states(on_cluster(lambda: lnb.render_many(jobs))) == ["kept"] * 8


def test_a_machine_that_stands_still_for_a_while(
    folder: Path, alone: list[list[bytes]], cluster: Processes
) -> None:
    """The other one goes on; when it comes back it makes its own."""
    jobs = jobs_in(folder, 8)
    asleep = list[int]()

    def stand_still() -> None:
        wait_for(lambda: started(folder, "1.mp4"))
        asleep.append(started(folder, "1.mp4")[0])
        os.kill(asleep[0], signal.SIGSTOP)
        try:
            wait_for(lambda: len(list((folder / "out").glob("[0-9].mp4"))) >= 3)
        finally:
            os.kill(asleep[0], signal.SIGCONT)

    thread = threading.Thread(target=stand_still)
    thread.start()
    result = on_cluster(lambda: lnb.render_many(jobs))
    thread.join()
    assert states(result) == ["rendered"] * 8
    assert result.outcomes[1].worker.endswith(f":{asleep[0]}")
    assert [frames_of(Path(job.out)) for job in jobs] == [*alone, *alone]
    text = (folder / "out" / "manifest.jsonl").read_text(encoding="utf-8")
    rendered = Counter(
        e["out"] for e in map(json.loads, text.splitlines()) if e["outcome"] == "rendered"
    )
    assert set(rendered.values()) == {1}


def test_a_scheduler_that_is_killed(
    folder: Path, alone: list[list[bytes]], cluster: Processes
) -> None:
    dask = pytest.importorskip("dask")
    jobs = jobs_in(folder, 8)

    def kill() -> None:
        wait_for(lambda: (folder / "out" / "0.mp4").exists())
        cluster.all[0].kill()

    thread = threading.Thread(target=kill)
    thread.start()
    gone = pytest.raises(BatchError, match=r"the workers are gone.*the next call does the rest")
    with gone, dask.config.set({"distributed.comm.timeouts.connect": "3s"}):
        on_cluster(lambda: lnb.render_many(jobs))
    thread.join()
    result = lnb.render_many(jobs)
    counts = Counter(states(result))
    assert counts["kept"] >= 1
    assert counts["kept"] + counts["rendered"] == 8
    assert [frames_of(Path(job.out)) for job in jobs] == [*alone, *alone]


class GoneBackend(ThreadingBackend):
    """Workers that are not there."""

    def submit(self, func: object, callback: object = None) -> object:
        raise ConnectionError("no scheduler")


def test_what_an_earlier_call_had_begun_is_not_blamed(folder: Path) -> None:
    """It was killed in the middle of a clip; in this call there are no workers at all."""
    job = jobs_in(folder, 1)[0]
    Path(job.out).parent.mkdir(exist_ok=True)
    manifest = Manifest(Path(job.out).parent / "manifest.jsonl")
    manifest.add(Entry(str(job.out), "started", "f" * 64))
    joblib.register_parallel_backend("gone", GoneBackend)
    with (
        joblib.parallel_config("gone", n_jobs=2),
        pytest.raises(BatchError, match=r"the workers are gone \(ConnectionError"),
    ):
        lnb.render_many([job], split=False)
