"""Real faults around a render on the command line: what is left, what is said, what comes next.

Each fault is a case: how the command is run under it, what it must end with, and one sentence.
After each, the output's name holds a whole result or what was there before, nothing half made lies
anywhere, and the next run succeeds. The summary of the tests shows a table of them.
"""

import os
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

import lipsync_nb as lnb
from lipsync_nb.__main__ import main
from lipsync_nb.media.video import iter_video
from lipsync_nb.system import outputs as files

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="faults as Linux makes them")

ROOT = Path(__file__).parents[1]
OLD = b"what was there before"
FRAMES, SOME, MANY = 12, 300, 100_000
SOMEBODY = "12345"


@dataclass
class Scene:
    """An avatar, tracks of a short and an endless speech, and a place for the output."""

    root: Path
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def avatar(self) -> Path:
        return self.root / "person"

    @property
    def short(self) -> Path:
        return self.root / "short.npy"

    @property
    def long(self) -> Path:
        return self.root / "long.npy"

    @property
    def out(self) -> Path:
        return self.root / "out" / "v.mp4"

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(ROOT)}

    def command(self, speech: Path | None = None, *options: str, out: Path | None = None) -> str:
        words = [sys.executable, "-m", "lipsync_nb", "render", self.avatar]
        # What is kept of long renders, on purpose, is a matter of test_resume.
        words += [speech or self.short, out or self.out, "--resume", "off", *options]
        return shlex.join(str(word) for word in words)

    def start(self, script: str, **options: object) -> subprocess.Popen[str]:
        """Run a line of the shell in the background, its errors in a pipe."""
        given = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, **options}
        process = subprocess.Popen(
            ["bash", "-c", f"exec {script}"], text=True, env=self.environment, **given
        )  # type: ignore[call-overload]
        self.processes.append(process)
        return process

    def shell(self, script: str) -> tuple[int, str]:
        """Run lines of the shell; gives the exit status, and what was said on stderr."""
        process = subprocess.run(
            ["bash", "-c", script], capture_output=True, text=True, env=self.environment,
            check=False, timeout=120,
        )  # fmt: skip
        return process.returncode, process.stderr

    def partials(self, folder: Path | None = None) -> list[str]:
        folder = folder or self.root
        found = [*folder.rglob(f"{files.PARTIAL}*"), *(self.root / "temporary").iterdir()]
        return sorted({str(path.relative_to(self.root)) for path in found})

    def wait_for_work(self, process: subprocess.Popen[str]) -> None:
        """Until the partial output has content."""
        deadline = time.monotonic() + 60
        while not any(self._sizes()):
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def _sizes(self) -> list[int]:
        sizes = []
        for path in (self.root / "out").rglob("*"):
            with suppress(OSError):
                is_made = any(part.startswith(files.PARTIAL) for part in path.parts)
                sizes.append(path.stat().st_size if is_made and path.is_file() else 0)
        return sizes

    def ended(self, process: subprocess.Popen[str]) -> tuple[int, str]:
        """Exit status and errors of a process, which must end by itself."""
        _, errors = process.communicate(timeout=60)
        return process.returncode, errors or ""


@pytest.fixture(scope="session")
def prepared(synctalk_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An avatar with its prepared forms beside it; each fault gets a copy to break."""
    root = tmp_path_factory.mktemp("prepared")
    shutil.copytree(synctalk_folder, root / "person")
    np.save(root / "track.npy", np.zeros((FRAMES, 512), np.float32))
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("LIPSYNC_NB_CACHE")
        for options in ([], ["--cache", "mmap"]):
            words = [str(root / name) for name in ("person", "track.npy", "v.mp4")]
            assert main(["render", *words, *options]) == 0
    return root / "person"


@pytest.fixture
def scene(tmp_path: Path, prepared: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    for name in ("out", "temporary"):
        (tmp_path / name).mkdir()
    shutil.copytree(prepared, tmp_path / "person")
    np.save(tmp_path / "short.npy", np.zeros((FRAMES, 512), np.float32))
    # A file of holes: nobody writes the zeros of an hour's track.
    np.lib.format.open_memmap(tmp_path / "long.npy", "w+", np.float32, (MANY, 512))
    (tmp_path / "out" / "v.mp4").write_bytes(OLD)
    monkeypatch.delenv("LIPSYNC_NB_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return Scene(tmp_path)


Fault = Callable[[Scene], tuple[int, str]]


def under(limits: str) -> Fault:
    """A long render with limits of the shell."""
    return lambda scene: scene.shell(f"{limits}; exec {scene.command(scene.long)}")


def needs_mounts(scene: Scene) -> None:
    """Skip where this system lets nobody mount a file system of one's own."""
    place = shlex.quote(str(scene.root / "temporary"))
    tried = f"mount -t tmpfs none {place} && mount -o remount,ro,bind {place}"
    if scene.shell(f"unshare -rm bash -c {shlex.quote(tried)}")[0] != 0:
        pytest.skip("no file systems of one's own here")


def on_small_disk(options: str, out: str = "v.mp4", flags: str = "") -> Fault:
    """A long render to a file system in memory that has no room for it."""

    def run(scene: Scene) -> tuple[int, str]:
        needs_mounts(scene)
        place = scene.root / "out"
        lines = f"""
            mount -t tmpfs -o {options} none {place} || exit 77
            printf '{OLD.decode()}' > {place}/v.mp4
            {scene.command(scene.long, *shlex.split(flags), out=place / out)}
            status=$?
            ls -A {place} > {scene.root}/seen
            cat {place}/v.mp4 > {scene.root}/kept
            exit $status"""
        status, errors = scene.shell(f"unshare -rm bash -c {shlex.quote(lines)}")
        assert (scene.root / "seen").read_text() == "v.mp4\n"
        assert (scene.root / "kept").read_bytes() == OLD
        return status, errors

    return run


def small_place(name: str, flags: str = "") -> Fault:
    """A short render with a full disk where caches or temporary files lie."""

    def run(scene: Scene) -> tuple[int, str]:
        needs_mounts(scene)
        lines = f"""
            mkdir -p {scene.root}/{name}
            mount -t tmpfs -o size=64k none {scene.root}/{name} || exit 77
            export LIPSYNC_NB_CACHE={scene.root}/cache
            exec {scene.command(None, *shlex.split(flags))}"""
        return scene.shell(f"unshare -rm bash -c {shlex.quote(lines)}")

    return run


def read_only(folder: str) -> Fault:
    """A short render where a folder is mounted for reading alone."""

    def run(scene: Scene) -> tuple[int, str]:
        needs_mounts(scene)
        place = scene.root / folder
        lines = f"""
            mount --bind {place} {place} && mount -o remount,ro,bind {place} || exit 77
            exec {scene.command()}"""
        return scene.shell(f"unshare -rm bash -c {shlex.quote(lines)}")

    return run


def forbidden(name: str, mode: int = 0) -> Fault:
    """A short render as a user who may not read, or write in, one place."""

    def run(scene: Scene) -> tuple[int, str]:
        if os.getuid() == 0 and shutil.which("setpriv") is None:
            pytest.skip("a superuser may do all")
        for path in [scene.root, *scene.root.rglob("*")]:
            path.chmod(0o777 if path.is_dir() else 0o666)
        for parent in scene.root.parents:
            if parent.stat().st_uid == os.getuid() and not parent.stat().st_mode & 0o001:
                parent.chmod(0o755)
        path = scene.root / name
        before = path.stat().st_mode
        path.chmod(mode)
        become = f"setpriv --reuid {SOMEBODY} --regid {SOMEBODY} --clear-groups"
        command = f"{become} {scene.command()}" if os.getuid() == 0 else scene.command()
        if os.getuid() == 0 and scene.shell(f"{become} {sys.executable} -c 'import cv2'")[0] != 0:
            pytest.skip("nobody else may run this interpreter")
        try:
            return scene.shell(f"exec {command}")
        finally:
            path.chmod(before)

    return run


def signalled(*numbers: int, apart_seconds: float = 0.02, out: str = "v.mp4") -> Fault:
    """Signals in the middle of a long render."""

    def run(scene: Scene) -> tuple[int, str]:
        process = scene.start(scene.command(scene.long, out=scene.root / "out" / out))
        scene.wait_for_work(process)
        for number in numbers:
            process.send_signal(number)
            time.sleep(apart_seconds)
        return scene.ended(process)

    return run


def interrupted_early(scene: Scene) -> tuple[int, str]:
    """Ctrl-C while the networks are opened, before there is a frame."""
    process = scene.start(scene.command(scene.long))
    deadline = time.monotonic() + 60
    while not list((scene.root / "out").glob(f"{files.PARTIAL}*")):
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    return scene.ended(process)


def killed(scene: Scene) -> tuple[int, str]:
    process = scene.start(scene.command(scene.long))
    scene.wait_for_work(process)
    process.kill()
    return scene.ended(process)


def stopped_and_continued(scene: Scene) -> tuple[int, str]:
    process = scene.start(scene.command(scene.long, "--max-frames", str(SOME)))
    scene.wait_for_work(process)
    process.send_signal(signal.SIGSTOP)
    time.sleep(0.3)
    process.send_signal(signal.SIGCONT)
    return scene.ended(process)


def interrupted_after_the_end(scene: Scene) -> tuple[int, str]:
    """Ctrl-C when the file is in place, and the report waits for somebody to read it."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writing, bytes(4096))
    os.set_blocking(writing, True)
    try:
        process = scene.start(scene.command(), stdout=writing)
        deadline = time.monotonic() + 60
        while scene.out.read_bytes() == OLD:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        return scene.ended(process)
    finally:
        os.close(reading)
        os.close(writing)


def redirected(redirection: str, prefix: str = "") -> Fault:
    """A short render whose console is closed, full, or read no further."""
    return lambda scene: scene.shell(f"{prefix} {scene.command()} {redirection}")


def broken_pipe(scene: Scene) -> tuple[int, str]:
    return scene.shell(f"set -o pipefail; {scene.command()} | true")


def ascii_console(scene: Scene) -> tuple[int, str]:
    odd = scene.root / "out" / "spr\u00e4che \u53e3.mp4"
    command = scene.command(out=odd)
    status, errors = scene.shell(f"LC_ALL=C PYTHONIOENCODING=ascii PYTHONUTF8=0 exec {command}")
    assert len(list(iter_video(odd))) == FRAMES
    odd.rename(scene.out)
    return status, errors


def picture_removed(scene: Scene) -> tuple[int, str]:
    process = scene.start(scene.command(scene.long, "--cache", "none"))
    scene.wait_for_work(process)
    for picture in (scene.avatar / "full_body_img").iterdir():
        picture.unlink()
    return scene.ended(process)


def picture_damaged(scene: Scene) -> tuple[int, str]:
    process = scene.start(scene.command(scene.long, "--cache", "none"))
    scene.wait_for_work(process)
    for picture in (scene.avatar / "full_body_img").iterdir():
        picture.write_bytes(picture.read_bytes()[:500])
    return scene.ended(process)


def folder_removed(scene: Scene) -> tuple[int, str]:
    process = scene.start(scene.command(scene.long, "--max-frames", "400"))
    scene.wait_for_work(process)
    shutil.rmtree(scene.root / "out")
    ended = scene.ended(process)
    assert not (scene.root / "out").exists()
    (scene.root / "out").mkdir()
    scene.out.write_bytes(OLD)
    return ended


def folder_in_the_way(scene: Scene) -> tuple[int, str]:
    process = scene.start(scene.command(scene.long, "--max-frames", "400"))
    scene.wait_for_work(process)
    scene.out.unlink()
    scene.out.mkdir()
    ended = scene.ended(process)
    scene.out.rmdir()
    scene.out.write_bytes(OLD)
    return ended


def two_renders_to_one_folder(scene: Scene) -> tuple[int, str]:
    """Both begin when there is nothing; the slower one loses."""
    folder = scene.root / "out" / "frames"
    slow = scene.start(scene.command(scene.long, "--max-frames", str(SOME), out=folder))
    scene.wait_for_work(slow)
    slow.send_signal(signal.SIGSTOP)
    assert scene.shell(scene.command(out=folder))[0] == 0
    slow.send_signal(signal.SIGCONT)
    ended = scene.ended(slow)
    assert len(list(folder.iterdir())) == FRAMES
    shutil.rmtree(folder)
    return ended


def two_renders_to_one_file(scene: Scene) -> tuple[int, str]:
    slow = scene.start(scene.command(scene.long, "--max-frames", str(SOME)))
    scene.wait_for_work(slow)
    slow.send_signal(signal.SIGSTOP)
    assert scene.shell(scene.command())[0] == 0
    assert len(list(iter_video(scene.out))) == FRAMES
    slow.send_signal(signal.SIGCONT)
    status, errors = scene.ended(slow)
    assert len(list(iter_video(scene.out))) == SOME
    return status, errors


def output_is(name: str, link: str = "") -> Fault:
    """The output is a file that is read, or a link to one."""

    def run(scene: Scene) -> tuple[int, str]:
        read = scene.root / name
        if not read.exists():
            shutil.copy(lnb.demo_speeches()["hello"], read)
        before, out = read.read_bytes(), read
        if link:
            out = scene.root / "out" / "link.mp4"
            out.hardlink_to(read) if link == "hard" else out.symlink_to(read)
        speech = read if read.suffix == ".mp4" else scene.short
        ended = scene.shell(f"exec {scene.command(speech, out=out)}")
        assert read.read_bytes() == before
        return ended

    return run


def output_is_the_avatars_video(scene: Scene) -> tuple[int, str]:
    video = scene.root / "clip.mp4"
    shutil.copy(lnb.demo_folder() / "full_body_video.mp4", video)
    before = video.read_bytes()
    code = (
        "import sys, lipsync_nb as lnb\n"
        "a = lnb.load_avatar(sys.argv[1], box=(400, 200, 700, 500), generator=sys.argv[3])\n"
        "try:\n"
        "    lnb.render(a, lnb.load_speech(sys.argv[2]), sys.argv[1])\n"
        "except lnb.LipsyncError as error:\n"
        "    print('lipsync-nb:', error, file=sys.stderr); sys.exit(2)\n"
    )
    words = [sys.executable, "-c", code, video, scene.short, scene.avatar / "models/generator.onnx"]
    ended = scene.shell(shlex.join(map(str, words)))
    assert video.read_bytes() == before
    return ended


def experiment(*words: str) -> Fault:
    """Another command, whose output has no place."""

    def run(scene: Scene) -> tuple[int, str]:
        named = [
            w.replace("AVATAR", str(scene.avatar)).replace("ROOT", str(scene.root)) for w in words
        ]
        before = {p: p.read_bytes() for p in scene.avatar.rglob("*.onnx")}
        ended = scene.shell(shlex.join([sys.executable, "-m", "lipsync_nb", *named]))
        assert before == {p: p.read_bytes() for p in scene.avatar.rglob("*.onnx")}
        return ended

    return run


def sweep_ended(scene: Scene) -> tuple[int, str]:
    """SIGTERM in a sweep: what was measured so far is kept, and goes on in the next call."""
    out = scene.root / "out" / "sweep.json"
    words = ["sweep", scene.avatar, scene.short, "--out", out, "--repeats", "50", "--frames", "9"]
    command = shlex.join([sys.executable, "-m", "lipsync_nb", *map(str, words)])
    process = scene.start(command)
    deadline = time.monotonic() + 60
    while not out.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    ended = scene.ended(process)
    assert lnb.experiments.Sweep.load(out).rows
    out.unlink()
    return ended


def busy_kernel(restart: bool) -> Fault:
    """A notebook's kernel that renders is restarted, as the button does, or killed."""

    def run(scene: Scene) -> tuple[int, str]:
        from jupyter_client.manager import KernelManager

        manager = KernelManager(kernel_name="python3")
        manager.start_kernel(env=scene.environment, stdout=subprocess.DEVNULL)
        client = manager.blocking_client()
        client.start_channels()
        client.wait_for_ready(timeout=60)
        client.execute(
            f"import lipsync_nb as lnb\nlnb.render(lnb.load_avatar({str(scene.avatar)!r}), "
            f"lnb.load_speech({str(scene.long)!r}), {str(scene.out)!r}, "
            "lnb.RenderConfig(resume='off'))"
        )
        deadline = time.monotonic() + 60
        while not any(scene._sizes()):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        try:
            manager.restart_kernel(now=not restart)
            left = [*(scene.root / "out").glob(f"{files.PARTIAL}*")]
            assert bool(left) != restart
        finally:
            client.stop_channels()
            manager.shutdown_kernel(now=True)
        return 0, ""

    return run


def without_handles(scene: Scene) -> tuple[int, str]:
    """No more files may be opened, while a picture is written after the other."""
    process = scene.start(scene.command(scene.long, out=scene.root / "out" / "f"))
    scene.wait_for_work(process)
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (3, 3))
    return scene.ended(process)


def memory_runs_out(scene: Scene) -> tuple[int, str]:
    """No address space for what a render takes."""
    return scene.shell(f"ulimit -v 1500000; exec {scene.command(scene.long, '--batch-size', '64')}")


@dataclass(frozen=True)
class Case:
    """A fault, the exit status that it must end with, and the sentence; empty: none.

    Attributes:
        frames: of the video that it ends with; none: what was there before stays.
    """

    fault: Fault
    status: int
    sentence: str = ""
    frames: int = 0
    swept_later: bool = False
    lines: int = 1


INT, TERM, HUP = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
CASES = {
    "disk full, video": Case(on_small_disk("size=200k"), 2, "No space left on device"),
    "disk full, pictures": Case(on_small_disk("size=400k", "f"), 2, "No space left on device"),
    "no inodes": Case(on_small_disk("nr_inodes=9", "f"), 2, "No space left on device"),
    "caches on a full disk": Case(small_place("cache"), 0, "cannot be kept", FRAMES),
    "caches on a full disk, mmap": Case(
        small_place("cache", "--cache mmap"), 0, "kept in memory instead", FRAMES, lines=2
    ),
    "temporary files on a full disk": Case(
        small_place("temporary"), 0, "No space left on device", FRAMES
    ),
    "temporary files on a full disk, int8": Case(
        small_place("temporary", "--precision int8"), 0, "No space left on device", FRAMES
    ),
    "file size limit": Case(under("ulimit -f 100"), 2, "File too large"),
    # To empty a folder takes a handle: the next run does it.
    "no more open files": Case(without_handles, 2, "Too many open files", swept_later=True),
    "memory runs out": Case(memory_runs_out, 2, "memory"),
    "output folder read-only mount": Case(read_only("out"), 2, "is not writable"),
    "caches on a read-only mount": Case(read_only("person"), 0, "", FRAMES),
    "output folder forbidden": Case(forbidden("out", 0o555), 2, "is not writable"),
    "speech forbidden": Case(forbidden("short.npy"), 2, "short.npy"),
    "pictures forbidden": Case(forbidden("person/full_body_img"), 2, "person"),
    "network forbidden": Case(forbidden("person/models/generator.onnx"), 2, "generator.onnx"),
    "temporary folder forbidden": Case(forbidden("temporary", 0o555), 0, "", FRAMES),
    "Ctrl-C": Case(signalled(INT), 130, "interrupted, nothing was written."),
    "Ctrl-C, pictures": Case(signalled(INT, out="f"), 130, "interrupted, nothing was written."),
    "Ctrl-C twice": Case(signalled(INT, INT), 130, "interrupted"),
    "Ctrl-C ten times": Case(signalled(*[INT] * 10, apart_seconds=0.003), 130, "interrupted"),
    "Ctrl-C while opening": Case(interrupted_early, 130, "interrupted, nothing was written."),
    "Ctrl-C after the end": Case(interrupted_after_the_end, 130, "v.mp4 was written", FRAMES),
    "SIGTERM": Case(signalled(TERM), 143, "ended by SIGTERM, nothing was written."),
    "SIGTERM twice": Case(signalled(TERM, TERM), 143, "ended by SIGTERM"),
    "SIGHUP": Case(signalled(HUP), 129, "ended by SIGHUP, nothing was written."),
    "SIGTERM in a sweep": Case(sweep_ended, 143, "sweep.json was written."),
    "SIGKILL": Case(killed, -9, "", swept_later=True),
    "SIGSTOP and SIGCONT": Case(stopped_and_continued, 0, "", SOME),
    "kernel restarted": Case(busy_kernel(restart=True), 0),
    "kernel killed": Case(busy_kernel(restart=False), 0, swept_later=True),
    "stderr closed": Case(redirected("2>&-"), 0, "", FRAMES),
    "stdout closed": Case(redirected(">&-"), 0, "", FRAMES),
    "all three closed": Case(redirected("<&- >&- 2>&-"), 0, "", FRAMES),
    "stderr full": Case(redirected("2>/dev/full"), 0, "", FRAMES),
    "stdout full": Case(redirected(">/dev/full"), 0, "", FRAMES),
    "both full": Case(redirected(">/dev/full 2>&1"), 0, "", FRAMES),
    "pipe broken": Case(broken_pipe, 0, "", FRAMES),
    "ASCII console": Case(ascii_console, 0, "", FRAMES),
    "picture removed": Case(picture_removed, 2, "full_body_img"),
    "picture damaged": Case(picture_damaged, 2, "full_body_img"),
    "output's folder removed": Case(folder_removed, 2, "cannot be written"),
    "folder in the output's place": Case(folder_in_the_way, 2, "cannot be written"),
    "two renders to one folder": Case(two_renders_to_one_folder, 2, "cannot be written"),
    "two renders to one file": Case(two_renders_to_one_file, 0, "", SOME),
    "output is the speech": Case(output_is("speech.mp4"), 2, "is what is read"),
    "output is a link to the speech": Case(output_is("speech.mp4", "soft"), 2, "is what is read"),
    "output is another name of the speech": Case(
        output_is("speech.mp4", "hard"), 2, "is what is read"
    ),
    "output is a link to the network": Case(
        output_is("person/models/generator.onnx", "soft"), 2, "is what is read"
    ),
    "output is a link to landmarks": Case(
        output_is("person/landmarks/0.lms", "soft"), 2, "is a link to a file of the avatar"
    ),
    "output is the avatar's video": Case(output_is_the_avatars_video, 2, "is what is read"),
    "quantised network over the network": Case(
        experiment("quantize", "AVATAR", "--out", "AVATAR/models/generator.onnx",
                   "--generator", "AVATAR/models/generator.onnx"), 2, "is what is read",
    ),
    "no folder for a sweep": Case(
        experiment("sweep", "AVATAR", "--out", "ROOT/none/s.json"), 2, "does not exist"
    ),
    "no folder for a report": Case(
        experiment("bench", "AVATAR", "--report", "ROOT/none/s.html"), 2, "does not exist"
    ),
    "a folder as a sweep's file": Case(
        experiment("sweep", "AVATAR", "--out", "ROOT/out"), 2, "is a folder"
    ),
}  # fmt: skip


def sentences(errors: str) -> list[str]:
    """What was said on stderr, without the progress bar."""
    lines = [line.rpartition("\r")[2] for line in errors.splitlines()]
    return [line for line in lines if line.strip() and "frame/s" not in line and "| 0/" not in line]


@pytest.mark.parametrize("name", CASES)
def test_faults(
    scene: Scene, name: str, prepared: Path, record_property: Callable[[str, object], None]
) -> None:
    case, threads = CASES[name], threading.active_count()
    status, errors = case.fault(scene)
    said = sentences(errors)
    record_property("faults", f"{status}: {' / '.join(said) or 'nothing said'}")
    assert status == case.status, errors
    assert "Traceback" not in errors
    assert len(said) == (case.lines if case.sentence else 0), said
    assert case.sentence in "".join(said)
    if case.frames:
        assert len(list(iter_video(scene.out))) == case.frames
    else:
        assert scene.out.read_bytes() == OLD
    assert bool(scene.partials()) == case.swept_later, scene.partials()
    shutil.rmtree(scene.avatar)
    shutil.copytree(prepared, scene.avatar)
    assert main(["render", str(scene.avatar), str(scene.short), str(scene.out)]) == 0
    assert len(list(iter_video(scene.out))) == FRAMES
    assert scene.partials() == []
    assert threading.active_count() == threads
