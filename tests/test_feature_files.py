"""Features that an earlier process left in files: the same pictures, whatever is in the files."""

import json
import os
import shutil
import threading
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import lipsync_nb as lnb
from lipsync_nb.avatar.session import SESSION
from lipsync_nb.network.boundary import BoundaryTensor
from lipsync_nb.pipeline.feature_cache import FeatureCache
from lipsync_nb.pipeline.feature_files import DATA_FILE, META_FILE, FeatureFiles
from lipsync_nb.system.background import wait_for_background
from lipsync_nb.system.cache_folders import FOLDER_BESIDE
from lipsync_nb.system.kept_files import trusted_owners
from lipsync_nb.types.records import FeatureDtype

CONFIG = lnb.RenderConfig(max_frames=30, provider="cpu")
Pictures = list[np.ndarray]


@pytest.fixture
def person(synctalk_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An avatar of its own, beside which caches are kept."""
    monkeypatch.delenv("LIPSYNC_NB_CACHE", raising=False)
    folder = tmp_path / "person"
    shutil.copytree(synctalk_folder, folder, ignore=shutil.ignore_patterns(FOLDER_BESIDE))
    return folder


def pictures_of(
    person: Path, speech: lnb.Speech, config: lnb.RenderConfig = CONFIG
) -> tuple[Pictures, tuple[str, ...]]:
    """Pictures and notes of a render by an avatar that was just loaded, as a new process has it."""
    SESSION.clear()
    stream = lnb.FrameStream(lnb.load_avatar(person), speech, config)
    pictures = [frame.data.copy() for frame in stream]
    wait_for_background()
    return pictures, stream.notes


def kept(person: Path) -> Path:
    (folder,) = (person / FOLDER_BESIDE).glob("features-*")
    return folder


def same(one: Pictures, other: Pictures) -> bool:
    return len(one) == len(other) and all(map(np.array_equal, one, other))


@pytest.fixture
def first(person: Path, speech: lnb.Speech) -> Pictures:
    pictures, notes = pictures_of(person, speech)
    assert not any("are in files" in note for note in notes)
    return pictures


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
def test_the_next_process_computes_none_of_them(
    dtype: FeatureDtype, person: Path, speech: lnb.Speech
) -> None:
    config = replace(CONFIG, feature_dtype=dtype)
    before, _ = pictures_of(person, speech, config)
    plain, _ = pictures_of(person, speech, replace(config, feature_files=False))
    assert same(before, plain)
    SESSION.clear()
    stream = lnb.FrameStream(lnb.load_avatar(person), speech, config)
    used = np.unique(stream.order)
    features = stream.generator._features  # type: ignore[attr-defined]
    assert any(f"features of {len(used)} frames are in files" in note for note in stream.notes)
    assert features.missing(used).tolist() == []
    assert same([frame.data for frame in stream], before)
    assert not any(thread.name == "features" for thread in threading.enumerate())


def test_frames_that_come_later_are_added(person: Path, speech: lnb.Speech) -> None:
    short, _ = pictures_of(person, speech, replace(CONFIG, max_frames=4))
    few = json.loads((kept(person) / META_FILE).read_text())["sums"]
    whole, notes = pictures_of(person, speech)
    assert any(f"features of {len(few)} frames are in files" in note for note in notes)
    many = json.loads((kept(person) / META_FILE).read_text())["sums"]
    assert set(few.items()) < set(many.items())
    assert same(short, whole[:4])


def flipped(file: Path, place: int) -> None:
    data = bytearray(file.read_bytes())
    data[place] ^= 1
    file.write_bytes(data)


DAMAGES = {
    "a bit of the first frame that is used": lambda folder: flipped(
        folder / DATA_FILE, (folder / DATA_FILE).stat().st_size // 40
    ),
    "data cut": lambda folder: os.truncate(folder / DATA_FILE, 4096),
    "data missing": lambda folder: (folder / DATA_FILE).unlink(),
    "data longer": lambda folder: os.truncate(folder / DATA_FILE, 1 << 30),
    "no JSON": lambda folder: (folder / META_FILE).write_bytes(b"{"),
    "other JSON": lambda folder: (folder / META_FILE).write_bytes(b"[1, 2]"),
    "a sum changed": lambda folder: flipped(folder / META_FILE, 20),
    "a link": lambda folder: (
        (folder / DATA_FILE).rename(folder.parent / "moved"),
        (folder / DATA_FILE).symlink_to(folder.parent / "moved"),
    ),
    "a file more": lambda folder: (folder / "more").write_bytes(b""),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_files_give_right_pictures_and_a_line(
    name: str, first: Pictures, person: Path, speech: lnb.Speech
) -> None:
    DAMAGES[name](kept(person))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pictures, _ = pictures_of(person, speech)
    assert same(pictures, first)
    lines = [str(w.message) for w in caught if "kept features" in str(w.message)]
    if name.startswith("a bit"):
        # A bit of a frame that this speech does not use is never looked at.
        assert len(lines) <= 1
    else:
        assert len(lines) == 1
        assert "are damaged" in lines[0]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            again, notes = pictures_of(person, speech)
        assert same(again, first)
        assert any("are in files" in note for note in notes)


def test_every_flipped_frame_is_seen(first: Pictures, person: Path, speech: lnb.Speech) -> None:
    """All rows of all frames are flipped: none is used, a line for each at most."""
    file = kept(person) / DATA_FILE
    data = np.fromfile(file, np.uint8)
    (data ^ 1).tofile(file)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pictures, _ = pictures_of(person, speech)
    assert same(pictures, first)
    assert any("those of frame" in str(w.message) for w in caught)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again, notes = pictures_of(person, speech)
    assert same(again, first)
    assert any("are in files" in note for note in notes)


def test_what_was_not_looked_at_gets_no_new_sum(person: Path, speech: lnb.Speech) -> None:
    """A frame is damaged; the next render does not use it, and writes the files anew."""
    few = replace(CONFIG, max_frames=4)
    right, _ = pictures_of(person, speech, few)
    size = (kept(person) / DATA_FILE).stat().st_size
    data = np.fromfile(kept(person) / DATA_FILE, np.uint8)
    assert len(data) == size
    (data ^ (data > 0)).astype(np.uint8).tofile(kept(person) / DATA_FILE)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pictures_of(person, speech, replace(CONFIG, max_frames=1, order="index"))
    assert any("kept features" in str(w.message) for w in caught)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again, _ = pictures_of(person, speech, few)
    assert same(again, right)


def test_features_of_changed_frames_are_not_used(
    first: Pictures, person: Path, speech: lnb.Speech
) -> None:
    old = kept(person)
    picture = next(iter(sorted((person / "full_body_img").iterdir())))
    os.utime(picture, ns=(1, 1))
    pictures, notes = pictures_of(person, speech)
    assert same(pictures, first)
    assert not any("are in files" in note for note in notes)
    assert kept(person) != old


def test_other_numbers_have_files_of_their_own(person: Path, speech: lnb.Speech) -> None:
    wide, _ = pictures_of(person, speech)
    narrow, notes = pictures_of(person, speech, replace(CONFIG, feature_dtype="float16"))
    assert not any("are in files" in note for note in notes)
    assert len(list((person / FOLDER_BESIDE).glob("features-*"))) == 2
    assert max(int(np.abs(a.astype(int) - b).max()) for a, b in zip(wide, narrow, strict=True)) <= 2


def test_a_budget_that_holds_some_frames_keeps_none_in_files(
    person: Path, speech: lnb.Speech
) -> None:
    pictures_of(person, speech, replace(CONFIG, feature_cache_mb=1))
    assert not list((person / FOLDER_BESIDE).glob("features-*"))


def test_pages_are_given_up_and_what_was_computed_stays(
    first: Pictures, person: Path, speech: lnb.Speech
) -> None:
    """Frames of the files count as memory while they are read alone; those of no file stay."""
    flipped(kept(person) / DATA_FILE, 100)
    SESSION.clear()
    stream = lnb.FrameStream(lnb.load_avatar(person), speech, CONFIG)
    with pytest.warns(UserWarning, match="are damaged \\(those of frame 0\\)"):
        pictures = [frame.data.copy() for frame in stream]
    assert same(pictures, first)
    features = stream.generator._features
    frames = np.arange(features.capacity)
    before = [array.copy() for array in features.gather(frames, {})]
    assert features._computed == {0}
    features.let_go(frames)
    for one, other in zip(features.gather(frames, {}), before, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="counts pages on Linux")
def test_pages_that_are_given_up_are_no_memory_of_this_process(tmp_path: Path) -> None:
    tensor = BoundaryTensor("x", (1, 1024, 1024), np.dtype(np.uint8))
    files = FeatureFiles(
        (tmp_path,), trusted_owners(), "source", ("key",), (tensor,), 64, "features"
    )
    files.write([np.random.default_rng(0).integers(0, 256, (64, *tensor.shape), np.uint8)],
                range(64))  # fmt: skip
    cache = FeatureCache([tensor], np.arange(64), files)
    peak = 0
    for frame in range(64):
        one = np.array([frame])
        assert not len(cache.missing(one))
        cache.gather(one, {})[0].sum()
        cache.let_go(one)
        peak = max(peak, resident_of(DATA_FILE))
    assert cache.num_found == 64
    # Two frames, and the pages between them.
    assert 0 < peak < 3_000_000


def resident_of(name: str) -> int:
    """Bytes of a mapped file that count as this process's memory."""
    lines = Path("/proc/self/smaps").read_text().splitlines()
    place = next(k for k, line in enumerate(lines) if line.endswith(name))
    rss = next(line for line in lines[place:] if line.startswith("Rss:"))
    return 1024 * int(rss.split()[1]) + 1
