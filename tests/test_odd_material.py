"""Material unlike the demo's: other containers, rates beside pictures, points that leave."""

import json
import tracemalloc
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import onnx
import pytest
from builders import (
    TINY_CHANNELS,
    box_track,
    landmarks_of,
    speech_like,
    template_frames,
    tiny_networks,
    write_synctalk_avatar,
    write_video,
)
from drawn_faces import clip_of
from family_networks import write_family_avatar

import lipsync_nb as lnb
from lipsync_nb.avatar.frame_source import find_frames
from lipsync_nb.experiments.clip_sound import loudness, sound_lag_seconds
from lipsync_nb.footage.smoothing import bridged
from lipsync_nb.inspection.material import look_at_pictures
from lipsync_nb.media.rates import recorded_rate
from lipsync_nb.network import export_checkpoint
from lipsync_nb.network.unet328 import random_state
from lipsync_nb.types.families import WAV2LIP_96
from lipsync_nb.types.records import SYNCTALK_328, Box, Speech

BOX = (100, 80, 180, 160)


def pictures_of(folder: Path, fps: str = "") -> Path:
    """Twelve pictures in an avatar's layout, with the rate beside them where one is given."""
    clip_of(folder, [])
    (folder / "full_body_img").mkdir()
    for number, frame in enumerate(template_frames(12)):
        cv2.imwrite(str(folder / "full_body_img" / f"{number}.png"), frame)
    if fps:
        (folder / "avatar.json").write_text(json.dumps({"fps": fps}))
    return folder


def test_points_that_leave_the_picture_pull_no_other_frame(tmp_path: Path) -> None:
    footage = pictures_of(tmp_path / "footage")
    points = np.stack([landmarks_of(box) for box in box_track(12)]).astype(float)
    right = lnb.prepare_avatar(_with(points, footage), tmp_path / "right", quality=0)
    points[5] += (2000, 0)
    for missing in ("bridge", "keep"):
        out = tmp_path / missing
        found = lnb.prepare_avatar(_with(points, footage), out, quality=0, missing=missing)
        assert found.missing == (5,)
        off = [
            np.subtract(a.corners, b.corners) for a, b in zip(found.boxes, right.boxes, strict=True)
        ]
        assert np.abs(off).max() <= 3
        assert found.jitter.written < 2 * right.jitter.written
        assert len(lnb.load_avatar(out)) == 12


def _with(points: np.ndarray, footage: Path) -> Path:
    np.save(footage / "landmarks.npy", points)
    return footage


def test_pictures_keep_the_rate_that_is_told_beside_them(tmp_path: Path) -> None:
    footage = pictures_of(tmp_path / "footage", "30")
    same = lnb.prepare_avatar(footage, tmp_path / "same", box=BOX)
    assert (same.fps, len(same)) == (30, 12)
    assert not any("a second" in warning for warning in same.warnings)
    slower = lnb.prepare_avatar(footage, tmp_path / "slower", box=BOX, fps=25)
    assert (slower.fps, len(slower)) == (25, 10)
    assert any("25 a second are taken by their times, 10 for 12" in w for w in slower.warnings)
    with pytest.warns(UserWarning, match="10 for 12"):
        loaded = lnb.load_avatar(footage, box=BOX, fps=25)
    assert loaded.source.picks == [0, 1, 2, 4, 5, 6, 7, 8, 10, 11]


def test_a_face_is_chosen_by_an_array_too(tmp_path: Path) -> None:
    footage = pictures_of(tmp_path / "footage")
    with pytest.raises(lnb.LipsyncError, match=r"\(square|network \(face_networks, face_at\)"):
        lnb.prepare_avatar(footage, tmp_path / "out", box=BOX, face_at=np.array([100.0, 100.0]))  # type: ignore[arg-type]


def remuxed(source: Path, target: Path) -> Path:
    """The same pictures in another container."""
    with av.open(str(source)) as read, av.open(str(target), "w") as written:
        stream = read.streams.video[0]
        copy = written.add_stream_from_template(stream)
        for packet in read.demux(stream):
            if packet.dts is not None:
                packet.stream = copy
                written.mux(packet)
    return target


def gif(path: Path, frames: list[np.ndarray]) -> Path:
    with av.open(str(path), "w") as written:
        stream = written.add_stream("gif", rate=25)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "rgb8"
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(frame, format="bgr24").reformat(format="rgb8")
            written.mux(stream.encode(picture))
        written.mux(stream.encode())
    return path


@pytest.mark.parametrize("suffix", [".ts", ".3gp", ".flv", ".gif"])
def test_a_video_is_one_in_any_container(tmp_path: Path, suffix: str) -> None:
    frames = template_frames(12)
    if suffix == ".gif":
        video = gif(tmp_path / "me.gif", frames)
    else:
        video = remuxed(write_video(tmp_path / "me.mp4", frames), tmp_path / f"me{suffix}")
    avatar = lnb.load_avatar(video, box=BOX)
    assert len(avatar) == 12
    assert np.abs(avatar.source.read(11).astype(int) - frames[11]).mean() < 20
    assert lnb.inspect(video).kind == "video"


def test_flicker_is_told_by_frames_that_follow_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dusk = 110 + 50 * np.sin(2 * np.pi * np.arange(200) / 100)
    frames = [np.full((90, 160, 3), level, np.uint8) for level in dusk]
    source = find_frames(write_video(tmp_path / "dusk.mp4", frames))
    monkeypatch.setattr("lipsync_nb.inspection.frames.MOST_SAMPLED_PIXELS", 20 * 90 * 160)
    part, _ = look_at_pictures(source, [Box(40, 20, 80, 60)] * 200, SYNCTALK_328, 25.0)
    (light,) = [f for f in part.findings if "its light" in f.found]
    assert light.severity == "ok", light


def test_memory_of_an_inspection_does_not_grow_with_length(tmp_path: Path) -> None:
    def peak(count: int) -> int:
        frames = [np.full((64, 64, 3), i % 200, np.uint8) for i in range(count)]
        source = find_frames(write_video(tmp_path / f"{count}.mp4", frames))
        assert source.count == count
        tracemalloc.start()
        look_at_pictures(source, None, SYNCTALK_328, 25.0)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    assert peak(600) < peak(150) + 5_000_000


def test_a_long_gap_is_bridged_within_little_memory() -> None:
    paths = np.full((40_000, 4), np.nan)
    paths[::2] = np.arange(0, 40_000, 2)[:, None]
    paths[20_000:30_000] = np.nan
    shots = [range(20_000), range(20_000, 30_000), range(30_000, 40_000)]
    tracemalloc.start()
    filled = bridged(paths, shots)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 50_000_000
    assert filled[20_000, 0] == filled[24_998, 0] == 19_998
    assert filled[25_000, 0] == filled[29_999, 0] == 30_000


def test_weights_beside_a_network_come_along(tmp_path: Path) -> None:
    generator, _ = tiny_networks(tmp_path / "networks")
    whole = tmp_path / "whole.onnx"
    onnx.save(
        onnx.load(str(generator)), str(whole), save_as_external_data=True,
        location="whole.data", size_threshold=0,
    )  # fmt: skip
    footage = pictures_of(tmp_path / "footage")
    speech = Speech(features=np.zeros((20, 512), np.float32))
    own = [f.data.copy() for f in lnb.iter_frames(lnb.load_avatar(footage, whole, box=BOX), speech)]
    for link in (False, True):
        made = lnb.prepare_avatar(
            footage, tmp_path / f"out{link}", box=BOX, quality=0, smoothing_seconds=0,
            generator=whole, link_networks=link,
        )  # fmt: skip
        avatar = lnb.load_avatar(made.path)
        assert avatar.generator is not None
        frames = [frame.data for frame in lnb.iter_frames(avatar, speech)]
        assert len(frames) == len(own)
    (tmp_path / "whole.data").unlink()
    with pytest.raises(lnb.LipsyncError, match=r"file of weights whole\.data is missing"):
        lnb.prepare_avatar(footage, tmp_path / "no", box=BOX, generator=whole)
    assert not (tmp_path / "no").exists()


def test_checkpoints_of_sixteen_bits_and_of_parameters(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    state = {name: torch.from_numpy(v) for name, v in random_state(TINY_CHANNELS).items()}
    kinds = {
        "bfloat16": {name: v.to(torch.bfloat16) for name, v in state.items()},
        "parameters": {name: torch.nn.Parameter(v) for name, v in state.items()},
    }
    for kind, content in kinds.items():
        torch.save(content, tmp_path / f"{kind}.pth")
        export_checkpoint(tmp_path / f"{kind}.pth", tmp_path / f"{kind}.onnx")
        assert lnb.inspect(tmp_path / f"{kind}.pth").problems == ()


def test_the_sound_of_a_part_lies_where_it_lies() -> None:
    for seed in range(3):
        samples = speech_like(20.0, seed=seed).astype(np.float32).ravel()
        whole = loudness([samples[None]])
        for seconds in (1.2, 2.0, 3.0):
            part = loudness([samples[None, : int(seconds * 16_000)]])
            lag = sound_lag_seconds(part, whole)
            assert lag == pytest.approx(0, abs=0.01)
            late = sound_lag_seconds(np.concatenate([np.zeros(30), part]), whole)
            assert late == pytest.approx(0.3, abs=0.02)


def test_another_network_is_judged_by_its_own_family(tmp_path: Path) -> None:
    folder = tmp_path / "person"
    write_synctalk_avatar(folder, 4)
    wav2lip = write_family_avatar(tmp_path / "wav2lip", WAV2LIP_96) / "models" / "generator.onnx"
    for given in (folder, lnb.load_avatar(folder)):
        found = lnb.inspect(given, generator=wav2lip)
        assert not any("does not fit" in problem.found for problem in found.problems)
        assert found.lacks == ()


def test_a_prediction_that_fills_the_picture_has_no_seam(tmp_path: Path) -> None:
    folder = write_family_avatar(tmp_path / "person", WAV2LIP_96)
    whole = lnb.load_avatar(folder)
    avatar = lnb.load_avatar(folder, box=(0, 0, whole.width, whole.height))
    speech = Speech(samples=speech_like(1.5))
    report = lnb.quality_report(lnb.render(avatar, speech, tmp_path / "out.mp4"))
    assert report["seam"].value is None
    assert "no edge" in report["seam"].note
    assert report["sound_length"].value == pytest.approx(0, abs=40)


def test_rates_that_are_slow_or_have_gaps() -> None:
    slow = [i * 125 for i in range(40)]
    assert recorded_rate(slow, Fraction(1, 1000)) == (25, True)
    gaps = [i * 40 for i in range(1000) if i % 25 != 7]
    assert recorded_rate(gaps, Fraction(1, 1000)) == (25, False)
