"""Ways to damage a file that a cache keeps, each a function of its path."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

Damage = Callable[[Path], object]
STRANGER = 54_321


def flip(path: Path, place: int) -> None:
    """Flip one bit; a negative place counts from the end."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def _moved(path: Path) -> Path:
    return path.rename(path.parent.parent / f"moved-{path.name}")


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def _as_folder(path: Path) -> None:
    _remove(path)
    path.mkdir()
    (path / "file").write_text("text")


def _as_pipe(path: Path) -> None:
    _remove(path)
    os.mkfifo(path)


def _as_link(path: Path, target: Path) -> None:
    path.symlink_to(target)


def _as_dangling_link(path: Path) -> None:
    _remove(path)
    path.symlink_to(path.parent / "nothing")


def _appended(path: Path) -> None:
    with open(path, "ab") as file:
        file.write(b"more")


def _shortened(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def _other_version(path: Path) -> None:
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, "version": 0}))


ANY_FILE: dict[str, Damage] = {
    "half of it": lambda path: os.truncate(path, path.stat().st_size // 2),
    "a byte short": _shortened,
    "empty": lambda path: os.truncate(path, 0),
    "first bit": lambda path: flip(path, 0),
    "bit in the head": lambda path: flip(path, 20),
    "bit in the middle": lambda path: flip(path, path.stat().st_size // 2 + 7),
    "last bit": lambda path: flip(path, -1),
    "{}": lambda path: path.write_text("{}"),
    "[]": lambda path: path.write_text("[]"),
    "null": lambda path: path.write_text("null"),
    "100,000 brackets": lambda path: path.write_text("[" * 100_000),
    "not UTF-8": lambda path: path.write_bytes(b'{"\xff\xfe": 1}'),
    "10 GB": lambda path: os.truncate(path, 10**10),
    "appended bytes": _appended,
    "missing": _remove,
    "a folder": _as_folder,
    "a pipe": _as_pipe,
    "a dangling link": _as_dangling_link,
    "a link to itself, moved": lambda path: _as_link(path, _moved(path)),
    "a stranger's": lambda path: os.chown(path, STRANGER, STRANGER),
}
FEW = ("half of it", "bit in the middle", "{}", "missing", "a pipe", "a dangling link")
# To a network these are all alike.
_OF_JSON = ("[]", "null", "100,000 brackets", "not UTF-8")
NETWORK: dict[str, Damage] = {n: way for n, way in ANY_FILE.items() if n not in _OF_JSON}
JSON_FILE: dict[str, Damage] = {**ANY_FILE, "another version": _other_version}
FOLDER: dict[str, Damage] = {
    "missing": _remove,
    "empty": lambda path: (shutil.rmtree(path), path.mkdir()),
    "a file": lambda path: (shutil.rmtree(path), path.write_text("text")),
    "a pipe": _as_pipe,
    "a dangling link": _as_dangling_link,
    "a link to itself, moved": lambda path: _as_link(path, _moved(path)),
    "a stranger's": lambda path: os.chown(path, STRANGER, STRANGER),
    "a file more": lambda path: (path / "more.npy").write_bytes(b"more"),
    "a folder more": lambda path: (path / "more").mkdir(),
    "a file less": lambda path: (path / "frames.npy").unlink(),
    "a strange name": lambda path: (path / "\udcff\n").write_bytes(b""),
}
