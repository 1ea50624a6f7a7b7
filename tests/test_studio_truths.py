"""The studio tells the truth: of what was made with what, of what was written, and of what is."""

import io
import json
import shutil
import threading
import zlib
from collections.abc import Iterator
from dataclasses import replace
from html import escape
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from builders import tone_speech, write_synctalk_avatar
from videos import COUNT, number_in, write_coded

import lipsync_nb as lnb
from lipsync_nb.avatar.frame_source import FrameSource
from lipsync_nb.avatar.reloading import is_same, load_arguments
from lipsync_nb.config.presets import PRESET_FIELDS
from lipsync_nb.experiments.candidates import CHANGING, SEARCHED, candidates, name_of
from lipsync_nb.experiments.runs import Spread
from lipsync_nb.experiments.tuned import Tuned, remember
from lipsync_nb.media.video import iter_video
from lipsync_nb.widgets import result_bar, step_clip
from lipsync_nb.widgets.inspection import InspectionPanel
from lipsync_nb.widgets.quality import QualityChoice
from lipsync_nb.widgets.spoken_text import SpokenText, is_installed
from lipsync_nb.widgets.upload import SentFile
from lipsync_nb.widgets.viewer import GAIN, FrameViewer

Uploading = tuple[lnb.widgets.RunPanel, bytes, bytes]
SHORT = lnb.RenderConfig(max_frames=8, n_jobs=1)


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIPSYNC_NB_CACHE", str(tmp_path / "cache"))


def tuned(config: lnb.RenderConfig) -> lnb.RenderConfig:
    """This configuration is what a search found last."""
    figures = {name_of(config): Spread(20.0, 19.0, 21.0)}
    remember("a search", Tuned(config, figures, 1.0, {"machine": "here"}, "steady", 1, 1))
    return config


@pytest.mark.usefixtures("own_cache")
def test_tuned_is_what_was_searched_and_leaves_the_other_fields_alone() -> None:
    found = tuned(lnb.RenderConfig(max_frames=10, crf=40, audio_offset_ms=500, n_jobs=2, streams=1))
    mine = lnb.RenderConfig(crf=12, paste="feather", image_format="png")
    form = lnb.widgets.ConfigForm(mine)
    quality = QualityChoice(form)
    quality.choice.value = "Tuned on this machine"
    assert form.value == replace(mine, n_jobs=2, streams=1)
    assert quality.choice.value == "Tuned on this machine"
    assert "20.0 FPS" in quality._text.value
    quality.choice.value = "Plain script"
    quality.choice.value = "Tuned on this machine"
    assert form.value == replace(mine, n_jobs=2, streams=1)
    taken = {*PRESET_FIELDS, *SEARCHED}
    assert all(getattr(form.value, name) == getattr(found, name) for name in taken)


def test_the_fields_that_are_searched_are_named() -> None:
    base = lnb.RenderConfig()
    for target in ("steady", "first-clip"):
        for config in candidates(base, 4, target, CHANGING):
            changed = {name for name in vars(base) if getattr(config, name) != getattr(base, name)}
            assert changed <= set(SEARCHED)


def ran(panel: lnb.widgets.RunPanel, preview: bool = False) -> lnb.RenderResult:
    panel.start(preview)
    assert panel.wait(120)
    assert panel.job.state == "done", panel.job.error
    return panel.job.result


def panel_of(avatar: object, speech: object, out: Path) -> lnb.widgets.RunPanel:
    return lnb.widgets.RunPanel(lambda: SHORT, avatar=avatar, speech=speech, out=out)


def loaded_by(code: str) -> tuple[lnb.Avatar, lnb.Speech]:
    """What a cell loads; it renders too."""
    names: dict[str, object] = {}
    exec(code, names)
    return names["avatar"], names["speech"]


@pytest.fixture
def without_networks(tmp_path: Path) -> Path:
    """An avatar's folder whose networks lie elsewhere."""
    folder = write_synctalk_avatar(tmp_path / "person", 4)
    (folder / "models").rename(tmp_path / "nets")
    return folder


def test_the_code_and_the_inspection_are_of_the_avatar_that_was_given(
    without_networks: Path, speech_file: Path, tmp_path: Path
) -> None:
    nets = tmp_path / "nets"
    avatar = lnb.load_avatar(
        without_networks, nets / "generator.onnx", nets / "audio_encoder.onnx",
        box=(100, 80, 180, 160), fps="30000/1001",
    )  # fmt: skip
    speech = lnb.load_speech(speech_file, 0.45)
    studio = lnb.Studio(avatar, speech, SHORT, tmp_path / "out.mp4")
    first = list(iter_video(ran(studio.panel).path))
    loaded, heard = loaded_by(studio.panel.bar.code)
    assert is_same(loaded, avatar)
    assert np.array_equal(heard.samples, speech.samples)
    again = list(iter_video(tmp_path / "out.mp4"))
    assert np.array_equal(first, again)
    studio.inspection.start()
    assert studio.inspection.wait(60)
    assert "Settings: " in studio.inspection._message.value
    assert [p for p in studio.inspection.result.problems if p.topic == "network"] == []
    studio.close()


def test_what_no_program_can_load_is_not_in_the_code(
    synctalk_folder: Path, speech: lnb.Speech, tmp_path: Path
) -> None:
    loaded = lnb.load_avatar(synctalk_folder)
    changed = replace(loaded, unpainted=frozenset({0}))
    quieter = replace(speech, samples=0.5 * speech.samples)
    for avatar, heard, lines in (
        (changed, speech, ["# avatar: the one that the studio was given", "load_speech"]),
        (loaded, quieter, ["load_avatar", "# speech: the one that the studio was given"]),
        (loaded, lnb.Speech(samples=speech.samples), ["load_avatar", "# speech: the one that"]),
    ):
        panel = panel_of(avatar, heard, tmp_path / "out.mp4")
        ran(panel)
        code = panel.bar.code.splitlines()
        assert [line in found for line, found in zip(lines, code[2:4], strict=True)] == [True] * 2
        panel.close()


@pytest.mark.parametrize("arguments", [{}, {"boxes": "rectangles"}, {"spec": "wav2lip-96"}])
def test_an_avatar_tells_how_it_was_loaded(tmp_path: Path, arguments: dict[str, str]) -> None:
    folder = write_synctalk_avatar(tmp_path / "person", 2)
    (folder / "cache").mkdir()
    rectangles = {str(n): {"rect": [90, 70, 170, 150]} for n in range(2)}
    (folder / "cache" / "crop_rectangles.json").write_text(json.dumps(rectangles))
    avatar = lnb.load_avatar(folder, **arguments)
    assert load_arguments(avatar) == arguments
    shutil.rmtree(folder)
    assert load_arguments(avatar) is None


def test_a_network_that_comes_after_a_failed_run_is_seen(
    without_networks: Path, speech_file: Path, tmp_path: Path
) -> None:
    panel = panel_of(str(without_networks), speech_file, tmp_path / "out.mp4")
    panel.start()
    assert panel.wait(60)
    assert "no generator network" in panel.job.error
    (tmp_path / "nets").rename(without_networks / "models")
    first = ran(panel).avatar
    assert first.generator == without_networks / "models" / "generator.onnx"
    assert ran(panel).avatar is first
    (without_networks / "avatar.json").write_text('{"fps": 30}')
    assert ran(panel).avatar.fps == 30
    panel.close()


def test_a_preview_needs_no_output_and_one_that_is_cancelled_leaves_the_one_before(
    synctalk_folder: Path, speech_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    panel = panel_of(str(synctalk_folder), speech_file, "")
    panel.out.value = "mine.mp4"
    panel.start(preview=True)
    panel.out.value = "other.mp4"
    assert panel.wait(60)
    assert "mine.mp4 was not written" in panel.message.value
    for name in ("", "/"):
        panel.out.value = name
        kept = ran(panel, preview=True)
        assert (panel.run.disabled, panel.preview.disabled) == (False, False)
    assert "'/preview.mp4'" in panel.bar.code
    panel.path.value = str(long_track(tmp_path / "long.npy", 3000))
    panel.start(preview=True)
    panel.stop()
    assert panel.wait(60)
    assert panel.job.state == "cancelled"
    assert panel.bar._found() == kept
    panel.path.value = str(tmp_path / "nothing.wav")
    panel.start(preview=True)
    assert panel.wait(60)
    assert panel.job.state == "failed"
    assert panel.bar._found() == kept
    panel.close()
    assert not kept.path.exists()


def test_what_is_wrong_with_the_settings_is_said_and_the_buttons_stay(
    synctalk_folder: Path, speech_file: Path, tmp_path: Path
) -> None:
    def config() -> lnb.RenderConfig:
        return lnb.RenderConfig(crf=99)

    panel = lnb.widgets.RunPanel(
        config, avatar=synctalk_folder, speech=speech_file, out=tmp_path / "out.mp4"
    )
    panel.start()
    assert "crf: found 99" in panel.message.value
    assert (panel.job, panel.run.disabled, panel.preview.disabled) == (None, False, False)
    inspection = InspectionPanel(panel.chosen, config)
    inspection.start()
    assert "crf: found 99" in inspection._message.value
    assert not inspection.button.disabled
    panel.close()


def long_track(path: Path, frames: int) -> Path:
    np.save(path, np.random.default_rng(0).normal(size=(frames, 512)).astype(np.float32))
    return path


def test_a_video_that_is_complete_when_cancel_comes_is_shown_and_called_written(
    synctalk_folder: Path, speech_file: Path, tmp_path: Path
) -> None:
    panel = panel_of(synctalk_folder, speech_file, tmp_path / "out.mp4")
    said: list[str] = []
    panel.message.observe(lambda change: said.append(change["new"]), "value")

    def cancel(change: dict[str, int]) -> None:
        if change["new"] == SHORT.max_frames:
            panel.stop()

    panel.progress.observe(cancel, "value")
    result = ran(panel)
    assert panel.job.is_cancelled
    assert "out.mp4" in said[-1]
    assert not any("nothing was written" in text for text in said)
    assert (panel.bar.path, "<video" in panel.video.value) == (str(result.path), True)
    assert (panel.run.disabled, panel.cancel.disabled) == (False, True)
    panel.close()


def test_a_video_that_is_complete_when_another_run_begins_is_called_written(
    synctalk_folder: Path, speech_file: Path, tmp_path: Path
) -> None:
    panel = panel_of(synctalk_folder, speech_file, tmp_path / "first.mp4")
    said: list[str] = []
    panel.message.observe(lambda change: said.append(change["new"]), "value")
    jobs = []

    def go_on(change: dict[str, int]) -> None:
        if change["new"] == SHORT.max_frames and not jobs:
            jobs.append(panel.job)
            panel.stop()
            panel.out.value = str(tmp_path / "second.mp4")
            panel.start()

    panel.progress.observe(go_on, "value")
    panel.start()
    first = panel.job
    assert first.wait(60)
    assert panel.wait(60)
    assert [job.state for job in (first, panel.job)] == ["done", "done"]
    assert any("first.mp4 was written" in text for text in said)
    assert "second.mp4" in said[-1]
    panel.close()


def sent(source: SentFile, content: bytes, name: str) -> None:
    """What a page sends of a file."""
    handle, key = source.receiver.handle, f"id of {zlib.crc32(content)}"
    handle({"kind": "begin", "id": key, "name": name, "size": len(content)}, [])
    handle({"kind": "piece", "id": key, "number": 0}, [memoryview(content)])
    handle({"kind": "end", "id": key, "count": 1, "crc": zlib.crc32(content)}, [])


@pytest.fixture
def uploading(synctalk_folder: Path, speech_file: Path, tmp_path: Path) -> Iterator[Uploading]:
    """A panel, and two speeches that a page may send."""
    other = tone_speech(tmp_path / "other.wav", 0.7, seed=4)
    panel = panel_of(str(synctalk_folder), None, tmp_path / "out.mp4")
    panel.speech.value = "(uploaded file)"
    yield panel, speech_file.read_bytes(), other.read_bytes()
    panel.close()


def test_the_code_of_a_run_names_the_speech_of_that_run(
    uploading: Uploading, tmp_path: Path
) -> None:
    panel, one, other = uploading
    (tmp_path / "out.speech.wav").write_bytes(b"of somebody else")
    for content, name in ((one, "out.speech-2.wav"), (other, "out.speech-3.wav")):
        sent(panel.upload, content, "voice.wav")
        ran(panel)
        # Another file comes before the code is copied.
        sent(panel.upload, other if content is one else one, "voice.wav")
        panel.bar.keep_speech()
        assert panel.bar.said == f"Saved {tmp_path / name}"
        assert np.array_equal(loaded_by(panel.bar.code)[1].samples, panel.job.speech.samples)
        assert (tmp_path / name).read_bytes() == content
    assert (tmp_path / "out.speech.wav").read_bytes() == b"of somebody else"
    sent(panel.upload, one, "voice.wav")
    ran(panel)
    assert "out.speech-2.wav" in panel.bar.code
    track = long_track(tmp_path / "track.npy", 20)
    sent(panel.upload, track.read_bytes(), "track.npy")
    ran(panel)
    panel.bar.keep_speech()
    assert np.array_equal(loaded_by(panel.bar.code)[1].features, np.load(track))


def test_the_code_names_no_speech_where_none_could_be_written(
    uploading: Uploading, tmp_path: Path
) -> None:
    panel, one, _ = uploading
    sent(panel.upload, one, "voice.wav")
    ran(panel)
    assert "out.speech.wav" in panel.bar.code
    (tmp_path / "out.speech.wav").write_bytes(b"of somebody else")
    panel.bar.keep_speech()
    assert panel.bar.said.startswith(f"{tmp_path / 'out.speech.wav'}: is another file now")
    assert "# speech: the one that the studio got" in panel.bar.code
    assert (tmp_path / "out.speech.wav").read_bytes() == b"of somebody else"
    # Its speech's name would be too long for a file.
    panel.out.value = str(tmp_path / f"{'x' * 246}.mp4")
    ran(panel)
    assert "# speech: the one that the studio got" in panel.bar.code
    panel.bar.keep_speech()
    assert panel.bar.said == ""


def test_a_run_takes_the_file_that_had_arrived_when_it_was_pressed(uploading: Uploading) -> None:
    panel, one, other = uploading
    sent(panel.upload, one, "voice.wav")
    panel.start()
    sent(panel.upload, other, "voice.wav")
    assert panel.wait(60)
    assert panel.job.speech.sound.read_at(0, 10**6) == one


def test_a_download_is_of_one_file(
    synctalk_folder: Path, speech_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(result_bar, "_PIECE_BYTES", 3000)
    panel = panel_of(str(synctalk_folder), speech_file, tmp_path / "out.mp4")
    result, bar = ran(panel), panel.bar
    answers: list[tuple[dict[str, object], list[bytes]]] = []
    bar.send = lambda message, buffers=None: answers.append((message, buffers))
    content = result.path.read_bytes()
    got = b""
    while len(got) < len(content):
        bar._send_piece(len(got))
        got += answers[-1][1][0]
    assert got == content
    bar._send_piece(0)
    ran(panel)
    bar._send_piece(3000)
    assert answers[-1][0] == {"kind": "gone"}
    assert "was written anew while it was downloaded" in bar.said
    bar._send_piece(0)
    assert answers[-1][1][0] == result.path.read_bytes()[:3000]
    # Another program writes there.
    result.path.write_bytes(content[:-1])
    bar._send_piece(0)
    assert answers[-1][0] == {"kind": "gone"}
    assert bar.save_report() is None
    assert "was changed since this run" in bar.said
    panel.close()


@pytest.mark.skipif(not is_installed(), reason="espeak-ng is not here")
def test_a_text_is_spoken_as_it_was_when_run_was_pressed(
    synctalk_folder: Path, tmp_path: Path
) -> None:
    panel = panel_of(str(synctalk_folder), None, tmp_path / "out.mp4")
    panel.speech.value, panel.text.text.value = "(text)", "One"
    one = panel.text.chosen()
    panel.text.text.value = "One two three four five six seven eight nine ten"
    many = panel.text.chosen()
    for text, expected in (("One", one), (panel.text.text.value, many)):
        panel.text.text.value = text
        panel.start()
        panel.text.text.value = "Something else altogether"
        panel.text.speak.click()
        assert panel.wait(60)
        assert panel.job.state == "done", panel.job.error
        assert np.array_equal(panel.job.speech.samples, expected.samples)
    panel.close()


@pytest.mark.skipif(not is_installed(), reason="espeak-ng is not here")
def test_two_threads_may_speak_at_once() -> None:
    spoken = SpokenText()
    words = "Some words that are spoken one after the other. " * 20
    found: list[lnb.Speech] = []
    threads = []
    for number in range(4):
        spoken.text.value = f"{words} {'and more ' * number}"
        work = spoken.taken()
        threads.append(threading.Thread(target=lambda work=work: found.append(work())))
        threads[-1].start()
    spoken.speak.click()
    for thread in threads:
        thread.join()
    assert len({len(speech.samples) for speech in found}) == 4
    spoken.close()


@pytest.fixture
def odd_folder(tmp_path: Path) -> Path:
    """An avatar of odd size, whose pictures a shift of a part of a pixel changes much."""
    folder = write_synctalk_avatar(tmp_path / "odd", 2, (321, 241))
    for number, file in enumerate(sorted((folder / "full_body_img").iterdir())):
        grains = np.random.default_rng(number).integers(40, 216, (241, 321, 1), np.uint8)
        cv2.imwrite(str(file), grains.repeat(3, axis=2), [cv2.IMWRITE_JPEG_QUALITY, 100])
    return folder


def test_frames_of_odd_size_are_compared_pixel_by_pixel(odd_folder: Path, tmp_path: Path) -> None:
    avatar = lnb.load_avatar(odd_folder)
    speech = lnb.load_speech(long_track(tmp_path / "track.npy", 8))
    config = replace(SHORT, max_frames=3, crf=1, image_format="png")
    viewer = FrameViewer(avatar, lnb.render(avatar, speech, tmp_path / "pictures", config))
    viewer.show(avatar, lnb.render(avatar, speech, tmp_path / "video.mp4", config))
    viewer.view.value = "difference"
    assert viewer.picture.shape == (241, 321, 3)
    # The recording, where nothing is painted: to its last column, and its last row.
    top = min(box.y1 for box in avatar.boxes) - 8
    unlike = np.abs(viewer.picture.astype(int) - 128) / GAIN
    assert max(unlike[:top, 240:].mean(), unlike[-20:, 240:].mean()) < 2
    viewer.left.value = viewer.left.options[1]
    viewer._make_clip()
    viewer._maker.wait(60)
    errors = [
        (one.astype(float) - other[:241, :321])[box.rows, box.columns] ** 2
        for one, other, box in zip(
            [cv2.imread(str(file)) for file in sorted((tmp_path / "pictures").glob("*.png"))],
            iter_video(tmp_path / "video.mp4"),
            [avatar.boxes[int(index)] for index in viewer._order],
            strict=True,
        )
    ]
    expected = 10 * np.log10(255**2 / np.mean([error.mean() for error in errors]))
    assert viewer.alike.psnr_db == pytest.approx(expected, abs=1e-3)
    with av.open(io.BytesIO(viewer.index.clip)) as clip:
        shown = next(clip.decode(video=0)).to_ndarray(format="gray").astype(int)
    half = shown.shape[1] // 2
    assert np.abs(shown[:top, half - 60 : half] - shown[:top, -60:]).mean() < 3
    viewer.close()


def test_a_side_that_is_resized_is_called_so(
    odd_folder: Path, avatar: lnb.Avatar, tmp_path: Path
) -> None:
    speech = lnb.load_speech(long_track(tmp_path / "track.npy", 8))
    other = lnb.load_avatar(odd_folder)
    viewer = FrameViewer(other, lnb.render(other, speech, tmp_path / "one.mp4", SHORT))
    viewer.show(avatar, lnb.render(avatar, speech, tmp_path / "other.mp4", SHORT))
    viewer.view.value = "side by side"
    assert "resized" not in viewer.index.caption
    viewer.left.value = viewer.left.options[1]
    assert viewer.index.caption.endswith("; run 1 is resized from 321x241")
    viewer.close()


def test_a_resume_that_is_not_had_is_told(
    avatar: lnb.Avatar, speech: lnb.Speech, tmp_path: Path
) -> None:
    config = replace(SHORT, resume="on")
    panel = lnb.widgets.RunPanel(
        lambda: config, avatar=avatar, speech=speech, out=tmp_path / "o.mp4"
    )
    missed = "asked for resume='on', no segments were kept (it was played while it was made)"
    assert ran(panel).shortfalls == (missed,)
    assert escape(missed) in panel.message.value
    panel.close()
    pictures = lnb.render(avatar, speech, tmp_path / "pictures", config)
    assert "the output is a folder of pictures" in pictures.head
    assert lnb.render(avatar, speech, tmp_path / "p.mp4", config).shortfalls == ()
    auto = replace(config, resume="auto")
    assert lnb.render(avatar, speech, tmp_path / "p2", auto).shortfalls == ()


def test_the_recordings_pictures_come_in_any_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step_clip, "_MOST_KEPT", 7)
    source = FrameSource((write_coded(tmp_path / "v.mp4", b_frames=2),), True)
    order = [*range(COUNT), *reversed(range(1, COUNT)), 3, 3]
    pictures = step_clip.recorded(source, np.array(order))
    assert [number_in(picture) for picture in pictures] == order
