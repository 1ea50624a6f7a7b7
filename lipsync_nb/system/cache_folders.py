"""Where caches lie: beside an avatar's files, and in the user's own folder for caches."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

import platformdirs

FOLDER_BESIDE = ".lipsync_nb"


def user_cache_folders() -> list[Path]:
    """Where this user's caches may lie, the first choice first.

    ``LIPSYNC_NB_CACHE`` alone where set. Else ``lipsync_nb`` in the system's folder for users'
    caches; and in the folder for temporary files, for users who have no home.
    """
    own = os.environ.get("LIPSYNC_NB_CACHE")
    if own:
        return [Path(own)]
    folders = []
    with suppress(RuntimeError):  # there is no home; older releases leave its tilde
        folders = [platformdirs.user_cache_path("lipsync_nb", appauthor=False)]
    folders = [folder for folder in folders if folder.is_absolute()]
    temporary = Path(tempfile.gettempdir()) / f"lipsync_nb-{_user()}"
    return [*folders, temporary] if _is_own(temporary) else folders


def _is_own(folder: Path) -> bool:
    """Whether a folder that everybody could have laid there is this user's, or is not there."""
    try:
        status = os.lstat(folder)
    except OSError:
        return True
    mine = not hasattr(os, "getuid") or status.st_uid == os.getuid()
    return mine and stat.S_ISDIR(status.st_mode)


def _user() -> str:
    return str(os.getuid()) if hasattr(os, "getuid") else os.environ.get("USERNAME", "user")


def cache_folders(avatar: Path) -> list[Path]:
    """Where prepared forms of an avatar may lie, the first choice first.

    Beside the avatar's files, then in the user's caches; ``LIPSYNC_NB_CACHE`` alone where set, and
    the user's caches alone for what belongs to this package.
    """
    root, package = Path(os.path.realpath(avatar)), Path(os.path.realpath(__file__)).parents[1]
    place = hashlib.sha256(os.fsencode(root)).hexdigest()[:12]
    elsewhere = [folder / f"{root.name[:80]}-{place}" for folder in user_cache_folders()]
    is_ours = root.is_relative_to(package) or root.is_relative_to(package.parent / "data")
    if is_ours or os.environ.get("LIPSYNC_NB_CACHE"):
        return elsewhere
    beside = root / FOLDER_BESIDE if root.is_dir() else root.parent / FOLDER_BESIDE / root.name
    return [beside, *elsewhere]
