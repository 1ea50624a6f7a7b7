"""Any frame of any video equals the one that decoding from the start gives."""

import itertools
import pickle
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from videos import COUNT, number_in, write_coded

from lipsync_nb.errors import AvatarError
from lipsync_nb.media import video as video_module
from lipsync_nb.media.video import OpenVideo, VideoFile, decoding_on, iter_video

CONTAINERS = {
    "h264": ("mp4", "mov", "mkv", "avi"),
    "hevc": ("mp4", "mov", "mkv"),
    "mpeg4": ("mp4", "mov", "mkv", "avi"),
    "vp9": ("mp4", "mkv", "webm"),
    "mjpeg": ("mp4", "mov", "mkv", "avi"),
}
GOPS = ("closed", "open", "one key frame")
MATRIX = [
    (codec, container, gop, b_frames)
    for codec, containers in CONTAINERS.items()
    for container in containers
    for gop in (GOPS if codec in ("h264", "hevc") else ("closed", "one key frame"))
    for b_frames in ((0, 2) if codec in ("h264", "hevc", "mpeg4") else (0,))
    if not (codec == "mjpeg" and gop != "closed") and not (gop == "open" and not b_frames)
]


def shuffled(count: int) -> Iterator[int]:
    """Every frame once in random order, then forwards, then backwards."""
    order = list(range(count))
    random.Random(count).shuffle(order)
    return itertools.chain(order, range(count), reversed(range(count)))


@pytest.mark.parametrize(("codec", "container", "gop", "b_frames"), MATRIX)
def test_single_frames_equal_those_in_order(
    tmp_path: Path, codec: str, container: str, gop: str, b_frames: int
) -> None:
    path = write_coded(tmp_path / f"v.{container}", codec, gop, b_frames)
    in_order = list(iter_video(path))
    video = VideoFile(path)
    assert len(in_order) == len(video) == COUNT
    for index in shuffled(COUNT):
        np.testing.assert_array_equal(video.read(index), in_order[index], str(index))
    with decoding_on():
        for index in itertools.chain(range(0, COUNT, 3), shuffled(COUNT)):
            np.testing.assert_array_equal(video.read(index), in_order[index], str(index))


def test_decoding_on_opens_a_video_once_and_leaves_it_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = list[OpenVideo]()

    class Noted(OpenVideo):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            opened.append(self)

    path = write_coded(tmp_path / "v.mp4", gop="one key frame")
    video = VideoFile(path)
    monkeypatch.setattr(video_module, "OpenVideo", Noted)
    with decoding_on():
        assert [number_in(video.read(i)) for i in (2, 2, 5, 20)] == [2, 2, 5, 20]
        assert len(opened) == 1
        assert number_in(video.read(4)) == 4
        assert len(opened) == 2
    with pytest.raises(ValueError, match="closed"):
        opened[1].num_bytes  # noqa: B018
    # A key frame between is nearer than the place.
    video, opened[:] = VideoFile(write_coded(tmp_path / "k.mp4", gop="closed")), []
    with decoding_on():
        assert [number_in(video.read(i)) for i in (0, COUNT - 1)] == [0, COUNT - 1]
    assert len(opened) == 2


def test_frames_bear_their_own_pictures(tmp_path: Path) -> None:
    """The order is right too: not only the same by both ways."""
    for container in ("mp4", "mkv"):
        video = VideoFile(write_coded(tmp_path / f"v.{container}", gop="open"))
        assert [number_in(video.read(i)) for i in range(COUNT)] == list(range(COUNT))


def test_open_gops_are_not_decoded_from_the_start(tmp_path: Path) -> None:
    """Each key frame is a place to start from, that of x264's recovery points too."""
    for codec in ("h264", "hevc"):
        index = VideoFile(write_coded(tmp_path / f"{codec}.mp4", codec, "open")).index
        assert len(index.entries) == 3
        assert index.entry_of(COUNT - 1) == index.entries[-1]


def test_frames_before_an_open_key_frame_start_one_earlier(tmp_path: Path) -> None:
    index = VideoFile(write_coded(tmp_path / "v.mp4", "hevc", "open")).index
    second = index.entries[1]
    leading = index.first_from(second) - 1
    assert index.numbers[index.times[leading]] > second.number
    assert index.entry_of(leading) == index.entries[0]


def cut_by_edit_list(path: Path, first: int) -> Path:
    """A stream copy whose first packets are decoded and not shown."""
    target = path.with_name("cut.mp4")
    with av.open(str(path)) as source, av.open(str(target), "w") as out:
        stream = source.streams.video[0]
        copied = out.add_stream_from_template(stream)
        packets: list[Any] = [p for p in source.demux(stream) if p.size]
        shift = sorted(p.pts for p in packets if p.pts is not None)[first]
        for packet in packets:
            packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
            packet.stream = copied
            out.mux(packet)
    return target


@pytest.mark.parametrize("first", [3, 11])
def test_what_an_edit_list_hides_is_no_frame(tmp_path: Path, first: int) -> None:
    path = cut_by_edit_list(write_coded(tmp_path / "v.mp4"), first)
    video = VideoFile(path)
    in_order = list(iter_video(path))
    assert [number_in(image) for image in in_order] == list(range(first, COUNT))
    assert len(video) == COUNT - first
    for index in shuffled(len(video)):
        np.testing.assert_array_equal(video.read(index), in_order[index])


def test_a_key_mark_that_is_none_is_not_believed(tmp_path: Path) -> None:
    """Without its list of key frames an MP4 calls each packet one."""
    path = write_coded(tmp_path / "v.mp4", gop="one key frame")
    path.write_bytes(path.read_bytes().replace(b"stss", b"free"))
    video, in_order = VideoFile(path), list(iter_video(path))
    assert len(video.index.entries) == 1
    for index in shuffled(COUNT):
        np.testing.assert_array_equal(video.read(index), in_order[index])


def test_threads_may_read_at_once(tmp_path: Path) -> None:
    for container in ("mp4", "avi"):
        path = write_coded(tmp_path / f"v.{container}", gop="closed", b_frames=2)
        video, in_order = VideoFile(path), list(iter_video(path))
        order = list(shuffled(COUNT))
        with ThreadPoolExecutor(4) as pool:
            for index, image in zip(order, pool.map(video.read, order), strict=True):
                np.testing.assert_array_equal(image, in_order[index])


def test_a_file_that_was_replaced_is_read_anew(tmp_path: Path) -> None:
    for container in ("mp4", "avi"):
        path = write_coded(tmp_path / f"v.{container}", b_frames=0)
        other = write_coded(tmp_path / f"other.{container}", b_frames=2)
        video = VideoFile(path)
        assert number_in(video.read(3)) == 3
        expected = VideoFile(other).read(9)
        path.write_bytes(other.read_bytes())
        np.testing.assert_array_equal(video.read(9), expected)
    path = write_coded(tmp_path / "on.mp4", b_frames=0)
    other = write_coded(tmp_path / "another.mp4", b_frames=2)
    video, expected = VideoFile(path), VideoFile(other).read(9)
    with decoding_on():
        assert number_in(video.read(3)) == 3
        path.write_bytes(other.read_bytes())
        np.testing.assert_array_equal(video.read(9), expected)


def test_a_video_travels(tmp_path: Path) -> None:
    video = VideoFile(write_coded(tmp_path / "v.mp4"))
    expected = video.read(7)
    for other in (pickle.loads(pickle.dumps(video)), deepcopy(video)):
        np.testing.assert_array_equal(other.read(7), expected)


def test_a_number_outside(tmp_path: Path) -> None:
    video = VideoFile(write_coded(tmp_path / "v.mp4"))
    for index in (-1, COUNT):
        with pytest.raises(AvatarError, match=rf"found no frame {index} of {COUNT}"):
            video.read(index)
