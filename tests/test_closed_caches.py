"""Caches that this user may not read, write or trust; and caches that several use at once."""

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from damages import STRANGER, flip
from kept_kinds import KINDS, Made, lines_of, made_in, place_of, template_pictures

import lipsync_nb as lnb
from lipsync_nb.system.background import wait_for_background
from lipsync_nb.system.cache_folders import FOLDER_BESIDE
from lipsync_nb.system.kept_files import clear_places, trusted_owners
from lipsync_nb.system.outputs import PARTIAL

HERE = Path(__file__).parent
SOMEBODY = 12_345
# Runs of somebody else. All is imported, and all is made once in a cache that is empty, before
# the superuser's rights are given up: this interpreter may lie in a folder that is closed.
PROGRAM = """
import functools, json, os, sys
import lipsync_nb.network.runtime
from kept_kinds import KINDS, lines_of
given = json.load(sys.stdin)
expected = {kind: KINDS[kind].use(given["folder"]) for kind in given["kinds"]}
for kind in given["kinds"]:
    lines_of(functools.partial(KINDS[kind].use, given["folder"]), expected[kind])
os.setgroups([])
os.setgid(given["user"])
os.setuid(given["user"])
del os.environ["LIPSYNC_NB_CACHE"]
outcomes = {}
for name, (kind, folder, variables) in given["cases"].items():
    os.environ.update(variables)
    use = functools.partial(KINDS[kind].use, folder)
    try:
        outcomes[name] = [lines_of(use, expected[kind]) for _ in range(2)]
    except BaseException as error:
        outcomes[name] = repr(error)
    for variable in variables:
        del os.environ[variable]
print(json.dumps(outcomes))
"""


@dataclass(frozen=True)
class Closed:
    """A way in which a kept file is out of reach, and how many lines two runs tell.

    Attributes:
        close: done to the file's place, by the superuser, after all was given to the user.
    """

    kind: str
    close: Callable[[Path], object]
    lines: tuple[int, int]


def _emptied(path: Path) -> None:
    path.write_text("{}")


def _closed(path: Path, mode: int = 0) -> None:
    path.chmod(mode)


def _read_only(path: Path, damage: Callable[[Path], object], levels: int) -> None:
    """Damage a file, and let nothing be changed in a folder above it."""
    damage(path)
    path.parents[levels].chmod(0o555)


def _sticky(path: Path) -> None:
    """As the folder for temporary files: everybody writes, and nobody removes what is another's."""
    _give(path, STRANGER)
    folder = path.parent
    os.chown(folder, 0, 0)
    folder.chmod(0o1777)


def _give(path: Path, user: int) -> None:
    for part in (path, *path.rglob("*")):
        os.chown(part, user, user)


CLOSED = {
    "a file without rights": Closed("bgr frames.npy", _closed, (1, 0)),
    "a description without rights": Closed("bgr template.json", _closed, (1, 0)),
    "a form without rights": Closed("bgr form", _closed, (1, 0)),
    "a form that is only read": Closed(
        "bgr template.json", lambda path: _read_only(path, _emptied, 0), (1, 0)
    ),
    "a cache that is only read": Closed(
        "bgr template.json", lambda path: _read_only(path, _emptied, 1), (1, 1)
    ),
    "pixels in a cache that is only read": Closed(
        "bgr frames.npy", lambda path: _read_only(path, lambda p: flip(p, -1), 1), (1, 1)
    ),
    "a cache without rights": Closed("bgr form", lambda path: _closed(path.parent), (1, 1)),
    "a stranger's form": Closed("bgr form", lambda path: _give(path, STRANGER), (1, 1)),
    "a stranger's pixels": Closed("bgr frames.npy", lambda path: _give(path, STRANGER), (1, 0)),
    "a stranger's form that stays": Closed("bgr form", _sticky, (1, 1)),
    "the superuser's form": Closed("bgr form", lambda path: _give(path, 0), (0, 0)),
    "a network without rights": Closed("dependent.onnx", _closed, (1, 0)),
    "a network that is only read": Closed(
        "halves index", lambda path: _read_only(path, _emptied, 0), (1, 1)
    ),
    "a stranger's network": Closed("dependent.onnx", lambda path: _give(path, STRANGER), (1, 0)),
    "a stranger's network that stays": Closed("halves index", _sticky, (1, 1)),
    "a tuning that is only read": Closed(
        "tuned last.json", lambda path: _read_only(path, _emptied, 0), (1, 1)
    ),
}


BESIDE = {
    # Beside the avatar, where its owner prepared it for others.
    "the avatar's owner's form": Closed("bgr form", lambda path: None, (0, 0)),
    "the avatar's owner's network": Closed("dependent.onnx", lambda path: None, (0, 0)),
    "the avatar's owner's, damaged": Closed("bgr template.json", _emptied, (1, 0)),
    "the avatar's owner's network, damaged": Closed("halves index", _emptied, (1, 0)),
}


def _copied(root: Path, name: str, closed: Closed) -> tuple[str, str, dict[str, str]]:
    """A case whose cache is the only one: kind, avatar, environment."""
    cache = root / name
    shutil.copytree(root / "cache", cache)
    _give(cache, SOMEBODY)
    closed.close(place_of(cache, closed.kind))
    return closed.kind, str(root / "person"), {"LIPSYNC_NB_CACHE": str(cache)}


def _beside(root: Path, name: str, closed: Closed) -> tuple[str, str, dict[str, str]]:
    """A case whose avatar, and what lies beside it, are another's; one's own place is empty."""
    folder, own = root / name / "person", root / f"{name} own"
    shutil.copytree(root / "person", folder)
    (kept,) = (root / "cache").glob("person-*")
    shutil.copytree(kept, folder / FOLDER_BESIDE)
    (folder / FOLDER_BESIDE).rename(folder / f"person-{FOLDER_BESIDE}")
    closed.close(place_of(folder, closed.kind))
    (folder / f"person-{FOLDER_BESIDE}").rename(folder / FOLDER_BESIDE)
    _give(folder, STRANGER)
    own.mkdir()
    _give(own, SOMEBODY)
    return closed.kind, str(folder), {"XDG_CACHE_HOME": str(own)}


@pytest.fixture(scope="module")
def outcomes() -> Iterator[dict[str, list[list[str]]]]:
    """Lines of two runs of each case, by somebody who is no superuser."""
    if not hasattr(os, "getuid") or os.getuid() != 0:
        pytest.skip("only a superuser can become somebody else")
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        root = Path(name)
        root.chmod(0o755)
        patch.setenv("LIPSYNC_NB_CACHE", str(root / "cache"))
        made_in(root)
        cases = {name: _copied(root, name, closed) for name, closed in CLOSED.items()}
        cases |= {name: _beside(root, name, closed) for name, closed in BESIDE.items()}
        yield _run(root, cases)


def _run(root: Path, cases: dict[str, tuple[str, str, dict[str, str]]]) -> dict[str, Any]:
    kinds = sorted({kind for kind, _, _ in cases.values()})
    given = {"folder": str(root / "person"), "user": SOMEBODY, "kinds": kinds, "cases": cases}
    paths = os.pathsep.join((str(HERE.parent), str(HERE)))
    environment = {"PYTHONPATH": paths, "LIPSYNC_NB_CACHE": str(root / "first")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], input=json.dumps(given), env={**os.environ, **environment},
        capture_output=True, text=True, check=False, cwd="/", timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("name", [*CLOSED, *BESIDE])
def test_what_is_out_of_reach_is_one_line(outcomes: dict[str, Any], name: str) -> None:
    """The pictures are compared in the program; a second run is silent where it could write."""
    first, second = outcomes[name]
    assert (len(first), len(second)) == {**CLOSED, **BESIDE}[name].lines, (first, second)
    assert not any("\n" in line for line in [*first, *second])


MAKING = """
import sys, warnings, lipsync_nb as lnb
warnings.simplefilter("error" if sys.argv[2] == "fresh" else "ignore")
print("ready", flush=True)
sys.stdin.readline()
template = lnb.load_avatar(sys.argv[1]).open_template("mmap", "i420")
print(sum(int(template.canvas(i)[0].sum()) for i in range(len(template))))
"""


@pytest.mark.parametrize("state", ["fresh", "damaged"])
def test_two_processes_make_a_form_at_once(made: Made, cache: Path, state: str) -> None:
    place = place_of(cache, "i420 template.json")
    template = lnb.load_avatar(made.folder).open_template("memory", "i420")
    expected = sum(int(template.canvas(i)[0].sum()) for i in range(len(template)))
    if state == "fresh":
        shutil.rmtree(place.parent)
    else:
        place.write_text("{}")
    command = [sys.executable, "-c", MAKING, str(made.folder), state]
    both = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in both:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in both:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    assert [int(process.communicate()[0]) for process in both] == [expected] * 2
    assert len(list(place.parent.parent.glob("i420-*"))) == 1
    assert not list(cache.rglob(f"{PARTIAL}*"))
    assert (
        lines_of(lambda: template_pictures(made.folder, "i420"), made.expected["i420 form"]) == []
    )


def test_forms_and_networks_have_the_rights_that_the_umask_gives(made: Made, cache: Path) -> None:
    before = os.umask(0o027)
    try:
        shutil.rmtree(cache)
        for kind in ("i420 form", "dependent.onnx"):
            KINDS[kind].use(made.folder)
        wait_for_background()
    finally:
        os.umask(before)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in cache.rglob("*") if path.is_file()}
    assert modes == {0o640}
    assert stat.S_IMODE(place_of(cache, "i420 form").stat().st_mode) == 0o750


def test_what_is_a_strangers_stays_where_there_is_another_place(tmp_path: Path) -> None:
    """Else two who share an avatar of a third would replace each other's files at every run."""
    if not hasattr(os, "getuid") or os.getuid() != 0:
        pytest.skip("only a superuser gives files away")
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    (first / "name").write_text("text")
    os.chown(first / "name", STRANGER, STRANGER)
    owners = trusted_owners()
    assert clear_places([first, second], ["name"], owners) == second
    assert (first / "name").exists()
    assert clear_places([first], ["name"], owners) == first
    assert not (first / "name").exists()
