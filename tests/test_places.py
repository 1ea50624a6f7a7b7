"""Renders where little is given: no home, no network, another user; and results that travel."""

import copy
import os
import pickle
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from joblib import Parallel, delayed

import lipsync_nb as lnb
from lipsync_nb.config.render_config import RenderConfig

ROOT = Path(__file__).parents[1]
SOMEBODY = "12345"
LOOK_UPS = ("AF_INET", "sendto(", "sendmsg(", "sendmmsg(")


def demo(out: Path) -> list[str]:
    command = [sys.executable, "-W", "error", "-m", "lipsync_nb", "demo", str(out)]
    return [*command, "--max-frames", "4", "--provider", "cpu"]


def environment(**others: str) -> dict[str, str]:
    """As in a bare container: nothing of this user's."""
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **others}


def as_somebody() -> list[str]:
    """A command that runs another one as a user who is not in the password file.

    The right to read comes along: this interpreter may lie in a folder that is closed to others.
    """
    if os.getuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("only a superuser with setpriv can become somebody else")
    keep = ["--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"]
    return ["setpriv", "--reuid", SOMEBODY, "--regid", SOMEBODY, "--clear-groups", *keep]


@pytest.mark.parametrize("home", ["/", None], ids=["root of all", "unset"])
def test_a_user_without_a_home_renders(tmp_path: Path, home: str | None) -> None:
    for name in ("out", "temporary"):
        (tmp_path / name).mkdir(mode=0o777)
        (tmp_path / name).chmod(0o777)
    for parent in (tmp_path, *tmp_path.parents):
        if not parent.stat().st_mode & stat.S_IXOTH and parent.stat().st_uid == os.getuid():
            parent.chmod(0o755)
    given = environment(TMPDIR=str(tmp_path / "temporary"), **({"HOME": home} if home else {}))
    done = subprocess.run(
        [*as_somebody(), *demo(tmp_path / "out" / "v.mp4")],
        env=given, capture_output=True, text=True, check=False, cwd="/",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert os.listdir(tmp_path / "out") == ["v.mp4"]
    # What was prepared is found again.
    assert os.listdir(tmp_path / "temporary") == [f"lipsync_nb-{SOMEBODY}"]


def test_nowhere_to_keep_anything_is_one_line(tmp_path: Path) -> None:
    """Neither a cache nor the folder for temporary files: the render goes on in memory."""
    given = environment(HOME="/", LIPSYNC_NB_CACHE="/proc/none")
    command = [part for part in demo(tmp_path / "v.mp4") if part not in ("-W", "error")]
    done = subprocess.run(command, env=given, capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("cannot be kept") == 1
    assert os.listdir(tmp_path) == ["v.mp4"]


@pytest.fixture(scope="module")
def traced() -> list[str]:
    """A command that runs another one without any network, and traces what it tries."""
    if sys.platform != "linux" or not all(map(shutil.which, ("strace", "unshare"))):
        pytest.skip("needs strace and network namespaces")
    command = ["unshare", "--net"] if os.getuid() == 0 else ["unshare", "--net", "--map-root-user"]
    tried = subprocess.run([*command, "strace", "-f", "true"], capture_output=True, check=False)
    if tried.returncode:
        pytest.skip("this system gives no network namespace, or no right to trace")
    return [*command, "strace", "-f", "-e", "trace=network", "-o"]


def test_a_render_looks_nothing_up(traced: list[str], tmp_path: Path) -> None:
    trace, temporary = tmp_path / "trace.txt", tmp_path / "temporary"
    temporary.mkdir()
    given = environment(HOME=str(tmp_path / "home"), TMPDIR=str(temporary))
    subprocess.run(
        [*traced, str(trace), *demo(tmp_path / "v.mp4")], env=given, capture_output=True, check=True
    )
    assert (tmp_path / "v.mp4").stat().st_size > 10_000
    assert tried(trace) == []
    assert os.listdir(temporary) == []


def test_the_trace_sees_a_look_up(traced: list[str], tmp_path: Path) -> None:
    """The check above can fail."""
    code = "import socket, contextlib\nwith contextlib.suppress(OSError):\n"
    code += "    socket.socket(socket.AF_INET).connect(('192.0.2.1', 80))"
    trace = tmp_path / "trace.txt"
    subprocess.run([*traced, str(trace), sys.executable, "-c", code], check=True)
    assert tried(trace)


def test_tests_of_the_package_look_nothing_up(traced: list[str], tmp_path: Path) -> None:
    trace = tmp_path / "trace.txt"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*traced, str(trace), *command, str(ROOT / "tests" / "test_cli.py")],
        cwd=ROOT, env=environment(HOME=str(tmp_path)), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert tried(trace) == []


def tried(trace: Path) -> list[str]:
    lines = trace.read_text(encoding="utf-8", errors="replace").splitlines()
    return [line for line in lines if any(name in line for name in LOOK_UPS)]


def test_importing_changes_nothing_in_the_environment() -> None:
    code = "import os; before = dict(os.environ); import lipsync_nb.network.inference; "
    code += "print(before == dict(os.environ))"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout == "True\n"


def jobs(folder: Path) -> list[Path]:
    return [folder / str(number) for number in range(3)]


def test_results_come_back_from_other_processes(
    avatar: lnb.Avatar, speech: lnb.Speech, tmp_path: Path
) -> None:
    config = RenderConfig(max_frames=5, provider="cpu", image_format="png")
    results = Parallel(n_jobs=2)(
        delayed(lnb.render)(avatar, speech, path, config) for path in jobs(tmp_path)
    )
    assert [result.path for result in results] == jobs(tmp_path)
    assert {result.num_frames for result in results} == {5}
    assert all(result.timings.ms_per_frame("inference") > 0 for result in results)
    lnb.render(avatar, speech, tmp_path / "here", config)
    expected = pictures(tmp_path / "here")
    assert len(expected) == 5
    assert all(pictures(folder) == expected for folder in jobs(tmp_path))


def pictures(folder: Path) -> list[bytes]:
    return [file.read_bytes() for file in sorted(folder.iterdir())]


@pytest.mark.parametrize("how", ["pickle", "deepcopy"])
def test_what_a_session_holds_can_be_copied(
    avatar: lnb.Avatar, speech: lnb.Speech, tmp_path: Path, how: str
) -> None:
    config = RenderConfig(max_frames=3, provider="cpu")
    result = lnb.render(avatar, speech, tmp_path / "v.mp4", config)
    other_avatar, other_speech, other = duplicate((avatar, speech, result), how)
    assert str(other) == str(result)
    assert other.timings.to_dict() == result.timings.to_dict()
    other.timings.add("more", 0.0, 1.0, 1)
    assert "more" not in str(result.timings)
    frames = [
        list(lnb.iter_frames(one, sound, config))
        for one, sound in ((avatar, speech), (other_avatar, other_speech))
    ]
    for frame, copied in zip(*frames, strict=True):
        np.testing.assert_array_equal(frame.data, copied.data)
    assert len(pickle.dumps(avatar)) < 100_000


def duplicate(what: object, how: str) -> object:
    return copy.deepcopy(what) if how == "deepcopy" else pickle.loads(pickle.dumps(what))
