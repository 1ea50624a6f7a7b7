"""Free memory: the machine's, and what is left in each control group that holds the process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lipsync_nb.system.limits import available_cores, free_memory_bytes

GIB = 2**30


def system(root: Path, files: dict[str, str]) -> Path:
    """A folder that looks like a Linux system's proc and sys."""
    files = {"proc/meminfo": f"MemTotal: 99 kB\nMemAvailable:  {8 * 2**20} kB\n", **files}
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def group(folder: str, limit: str, used: int, names: tuple[str, str, str]) -> dict[str, str]:
    stat = f"anon 5\n{names[2]} {GIB // 4}\nslab 3\n"
    values = {names[0]: limit, names[1]: str(used), "memory.stat": stat}
    return {f"sys/fs/cgroup/{folder}{name}": text + "\n" for name, text in values.items()}


V2 = ("memory.max", "memory.current", "inactive_file")
V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def test_without_groups_it_is_the_machine(tmp_path: Path) -> None:
    assert free_memory_bytes(system(tmp_path, {})) == 8 * GIB


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (group("a/b/", str(2 * GIB), GIB, V2), GIB + GIB // 4),
        (group("a/", str(2 * GIB), GIB, V2) | group("a/b/", "max", GIB, V2), GIB + GIB // 4),
        (group("", str(2 * GIB), GIB, V2), GIB + GIB // 4),
        (group("a/b/", str(GIB), 2 * GIB, V2), 0),
        (group("a/b/", "max", GIB, V2), 8 * GIB),
        (group("a/b/", str(64 * GIB), GIB, V2), 8 * GIB),
    ],
    ids=["own", "parent", "of a container", "over the limit", "no limit", "more than there is"],
)
def test_version_2(tmp_path: Path, files: dict[str, str], expected: int) -> None:
    root = system(tmp_path, {"proc/self/cgroup": "0::/a/b\n", **files})
    assert free_memory_bytes(root) == expected


def test_version_1(tmp_path: Path) -> None:
    files = group("memory/job/", str(2 * GIB), GIB, V1)
    lines = "12:cpu,cpuacct:/job\n5:memory:/job\n1:name=systemd:/x\n"
    root = system(tmp_path, {"proc/self/cgroup": lines, **files})
    assert free_memory_bytes(root) == GIB + GIB // 4


def test_this_machine_has_some() -> None:
    assert 2**20 < free_memory_bytes() < 2**50


ARENAS = """
import ctypes, re, sys, threading
from lipsync_nb.system.limits import bound_arenas
if sys.argv[1] == "bound":
    bound_arenas()
libc, barrier = ctypes.CDLL(None), threading.Barrier(24)
libc.malloc.restype = libc.fopen.restype = ctypes.c_void_p
def hold():
    libc.malloc(ctypes.c_size_t(50_000))
    barrier.wait()
threads = [threading.Thread(target=hold) for _ in range(24)]
for thread in threads: thread.start()
for thread in threads: thread.join()
file = libc.fopen(sys.argv[2].encode(), b"w")
libc.malloc_info(0, ctypes.c_void_p(file))
libc.fclose(ctypes.c_void_p(file))
print(len(re.findall("<heap nr=", open(sys.argv[2]).read())))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="made for glibc")
def test_threads_share_arenas_as_many_as_cores(tmp_path: Path) -> None:
    def count(how: str, **told: str) -> int:
        command = [sys.executable, "-c", ARENAS, how, str(tmp_path / "arenas.xml")]
        environment = {k: v for k, v in os.environ.items() if k != "MALLOC_ARENA_MAX"} | told
        return int(subprocess.run(command, env=environment, check=True, capture_output=True).stdout)

    most = max(2, available_cores())
    assert count("bound") <= most < count("as usual")
    assert count("bound", MALLOC_ARENA_MAX=str(most + 3)) > most


ENDS = """
import ctypes, os, sys, threading
from lipsync_nb.system.limits import bound_arenas, give_back_memory
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
if sys.argv[1] == "bound":
    bound_arenas()
# What is learned from a large block that is freed.
libc.free(libc.malloc(ctypes.c_size_t(30 << 20)))
freed, barrier = threading.Event(), threading.Barrier(3)
def hold():
    blocks = [libc.malloc(ctypes.c_size_t(1 << 20)) for _ in range(40)]
    for block in blocks:
        ctypes.memset(block, 1, 1 << 20)
    for block in reversed(blocks):
        libc.free(block)
    barrier.wait()
    freed.wait()
threads = [threading.Thread(target=hold) for _ in range(2)]
for thread in threads: thread.start()
barrier.wait()
give_back_memory()
print(int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
freed.set()
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="made for glibc")
def test_what_threads_free_is_given_back() -> None:
    """By glibc's own rule two threads would keep 40 MB each."""

    def resident(how: str, **told: str) -> int:
        command = [sys.executable, "-c", ENDS, how]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")} | told
        return int(subprocess.run(command, env=environment, check=True, capture_output=True).stdout)

    usual = resident("as usual")
    assert resident("bound") < usual - 60_000_000
    told = {"MALLOC_TRIM_THRESHOLD_": str(64 << 20), "MALLOC_MMAP_THRESHOLD_": str(32 << 20)}
    told["MALLOC_ARENA_MAX"] = "16"
    assert resident("bound", **told) > usual - 20_000_000


LATE = """
import ctypes, os, sys, threading, time
from lipsync_nb.system.limits import memory_given_back
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
freed = threading.Event()
def hold():
    blocks = [libc.malloc(ctypes.c_size_t(1 << 20)) for _ in range(60)]
    for block in blocks:
        ctypes.memset(block, 1, 1 << 20)
    taken.set()
    freed.wait()
    for block in blocks[:-1]:
        libc.free(block)
def held():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
taken, more = threading.Event(), memory_given_back()
with memory_given_back():
    thread = threading.Thread(target=hold)
    thread.start()
    taken.wait()
if sys.argv[1] == "busy":
    more.__enter__()  # and never left, as a stream of frames that nobody closes
before = held()
freed.set()
thread.join()
end = time.monotonic() + float(sys.argv[2])
while time.monotonic() < end and before - held() < 40 << 20:
    time.sleep(0.05)
print(before - held())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="made for glibc")
def test_what_is_freed_late_is_given_back_once_nothing_runs() -> None:
    """A block at the arena's end is kept: what lies before it is given by ``malloc_trim`` alone."""

    def given(how: str, most_seconds: float) -> int:
        command = [sys.executable, "-c", LATE, how, str(most_seconds)]
        run = subprocess.run(command, check=True, capture_output=True, timeout=100)
        return int(run.stdout)

    assert given("idle", 20) > 50_000_000
    assert given("busy", 1.5) < 20_000_000
