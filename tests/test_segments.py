"""Several H.264 encoders on segments in turn: one stream, complete, in order."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import av
import builders
import numpy as np
import pytest

import lipsync_nb as lnb
from lipsync_nb.config.render_config import RenderConfig
from lipsync_nb.media import h264
from lipsync_nb.media.h264 import H264Settings
from lipsync_nb.media.imaging import bgr_to_i420
from lipsync_nb.pipeline.sinks import Mp4Sink

SIZE, FRAMES = (320, 240), 140


@pytest.fixture(autouse=True)
def short_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments of 25 frames, the fewest."""
    monkeypatch.setattr(h264, "_SEGMENT_BYTES", 1)


def pictures() -> list[np.ndarray]:
    return [bgr_to_i420(frame) for frame in builders.template_frames(FRAMES, SIZE)]


def written(path: Path, frames: Iterable[np.ndarray], **values: object) -> Path:
    speech = lnb.Speech(samples=np.zeros(16_000 * 6, np.float32))
    with Mp4Sink(path, speech, 25, RenderConfig(crf=10, **values), 2) as sink:
        buffer = np.empty((SIZE[1] * 3 // 2, SIZE[0]), np.uint8)
        for frame in frames:
            # The array is another one's after each call.
            buffer[:] = frame
            sink.write(buffer)
    return path


@pytest.mark.parametrize("preset", ["ultrafast", "superfast", "fast"])
@pytest.mark.parametrize("encoders", [2, 3])
def test_segments_are_one_stream(encoders: int, preset: str, tmp_path: Path) -> None:
    frames = pictures()
    path = written(tmp_path / "v.mp4", frames, encoders=encoders, preset=preset)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.average_rate == 25
        packets = [p for p in container.demux(stream) if p.size]
        assert [p.dts for p in packets] == sorted({p.dts for p in packets})
        container.seek(0)
        found = list(container.decode(stream))
    step = found[1].pts - found[0].pts
    assert [frame.pts for frame in found] == [k * step for k in range(FRAMES)]
    assert not any(frame.is_corrupt for frame in found)
    assert [k for k, frame in enumerate(found) if frame.key_frame] == [0, 25, 50, 75, 100, 125]
    for one, other in zip(found, frames, strict=True):
        luma = one.to_ndarray()[: SIZE[1]].astype(int)
        assert np.abs(luma - other[: SIZE[1]]).mean() < 2


@pytest.mark.parametrize("count", [1, 24, 25, 26, 51])
def test_any_number_of_frames(count: int, tmp_path: Path) -> None:
    path = written(tmp_path / "v.mp4", pictures()[:count], encoders=2)
    with av.open(str(path)) as container:
        assert len(list(container.decode(video=0))) == count


def test_an_interrupt_leaves_nothing(tmp_path: Path) -> None:
    frames = pictures()

    def interrupted() -> Iterator[np.ndarray]:
        yield from frames[:100]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        written(tmp_path / "v.mp4", interrupted(), encoders=2)
    assert not list(tmp_path.iterdir())


def test_what_an_encoder_refuses_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"crf": "10", "preset": "no such preset"}
    monkeypatch.setattr(H264Settings, "options", property(lambda _: options))
    with pytest.raises(lnb.LipsyncError):
        written(tmp_path / "v.mp4", pictures()[:60], encoders=2)
    assert not list(tmp_path.iterdir())


def test_two_where_one_has_more_threads_than_it_can_use() -> None:
    def count(threads: int, encoders: int = 0, encoder: h264.Encoder = "x264") -> int:
        settings = H264Settings(
            1280, 720, 25, 18, "fast", threads, encoders=encoders, encoder=encoder
        )
        return settings.num_encoders

    assert [count(threads) for threads in (0, 1, 8, 9, 16)] == [1, 1, 1, 2, 2]
    assert (count(16, 4), count(2, 3), count(16, 2, "nvenc")) == (4, 3, 1)


def test_the_result_says_how_it_was_encoded(
    avatar: lnb.Avatar, speech: lnb.Speech, tmp_path: Path
) -> None:
    usual = lnb.render(avatar, speech, tmp_path / "a.mp4", RenderConfig(provider="cpu"))
    assert not any(note.startswith("encoder:") for note in usual.notes)
    config = RenderConfig(provider="cpu", encoders=2)
    several = lnb.render(avatar, speech, tmp_path / "b.mp4", config)
    assert "encoder: libx264, 2 on segments of 25 frames in turn." in several.notes
