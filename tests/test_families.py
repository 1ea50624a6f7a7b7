"""Networks of every family: recognised by their shapes, rendered, and compared with plain walks."""

import json
import math
from collections.abc import Callable
from dataclasses import asdict, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import builders
import cv2
import numpy as np
import onnx
import plain_walk
import pytest
from family_networks import family_features, family_generator, write_family_avatar
from onnx import numpy_helper

import lipsync_nb as lnb
from lipsync_nb.__main__ import main
from lipsync_nb.avatar.face_boxes import read_landmarks
from lipsync_nb.avatar.families import spec_for
from lipsync_nb.errors import AvatarError, ConfigError, NetworkError, SpeechError
from lipsync_nb.pipeline.audio_times import AudioTimes
from lipsync_nb.pipeline.family_audio import MelPlaces
from lipsync_nb.types.arrays import ImageArray
from lipsync_nb.types.families import FAMILIES, spec_from, wav2lip
from lipsync_nb.types.records import SYNCTALK_328, Speech

SECONDS = 0.6
RENDERED = ["ultralight-hubert", "ultralight-wenet", "wav2lip-96", "wav2lip-256"]
# Of 255, against the plain walk: FP32 by workers, and by the graph that composites.
TOLERANCE, PATCH_TOLERANCE = 2, 2
# In INT8, within the box: mean of 255.
INT8_MEAN = 2.5


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("families")
    builders.tone_speech(folder / "speech.wav", SECONDS)
    for name in RENDERED:
        write_family_avatar(folder / name, FAMILIES[name])
        spec = FAMILIES[name]
        np.save(folder / f"{name}.npy", family_features(spec, int(SECONDS * spec.rows_fps)))
    return folder


def speech_of(root: Path, name: str) -> Path:
    return root / ("speech.wav" if name.startswith("wav2lip") else f"{name}.npy")


Walk = Callable[[str], list[ImageArray]]


@pytest.fixture(scope="module")
def walk(root: Path) -> Walk:
    """The frames of a family's avatar by its plain walk."""
    made: dict[str, list[ImageArray]] = {}

    def walked(name: str) -> list[ImageArray]:
        if name not in made:
            made[name] = _walked(root, name)
        return made[name]

    return walked


def _walked(root: Path, name: str) -> list[ImageArray]:
    folder, generator = root / name, root / name / "models" / "generator.onnx"
    count = len(list((folder / "full_body_img").iterdir()))
    frames = [_picture(folder / "full_body_img" / f"{i}.jpg") for i in range(count)]
    landmarks = [read_landmarks(folder / "landmarks" / f"{i}.lms") for i in range(count)]
    if not name.startswith("wav2lip"):
        boxes = [plain_walk.plain_box(points) for points in landmarks]
        features = np.load(speech_of(root, name))
        return plain_walk.plain_ultralight_frames(frames, boxes, features, generator)
    outlines = [plain_walk.plain_outline(points, builders.SIZE) for points in landmarks]
    samples = lnb.load_speech(root / "speech.wav").samples
    assert samples is not None
    size = FAMILIES[name].crop_size
    return plain_walk.plain_wav2lip_frames(frames, outlines, samples, generator, size)


def _picture(path: Path) -> ImageArray:
    picture = cv2.imread(str(path))
    assert picture is not None
    return np.asarray(picture, np.uint8)


def frames_of(avatar: lnb.Avatar, speech: lnb.Speech, **fields: Any) -> list[ImageArray]:
    stream = lnb.FrameStream(avatar, speech, lnb.RenderConfig(provider="cpu", **fields))
    assert stream.shortfalls == ()
    return [frame.data.copy() for frame in stream]


def largest(found: list[ImageArray], expected: list[ImageArray]) -> int:
    assert len(found) == len(expected)
    return max(int(np.abs(a.astype(int) - b).max()) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(("names", "batch"), [(("visual", "mel"), "1"), (("a", "b"), "batch")])
def test_each_family_is_recognised_by_its_shapes(
    tmp_path: Path, name: str, names: tuple[str, str], batch: str
) -> None:
    path = tmp_path / "g.onnx"
    path.write_bytes(family_generator(FAMILIES[name], names=names, batch=batch))
    assert spec_for("auto", path) == (FAMILIES[name], "")


def declared(path: Path, visual: list[Any], audio: list[Any], output: list[Any]) -> Path:
    """A network of these inputs and this output, with nothing in it that could run."""
    kind = onnx.TensorProto.FLOAT
    values = [
        onnx.helper.make_tensor_value_info(name, kind, shape)
        for name, shape in (("v", visual), ("a", audio), ("o", output))
    ]
    node = onnx.helper.make_node("Add", ["v", "a"], ["o"])
    graph = onnx.helper.make_graph([node], "declared", values[:2], values[2:])
    path.write_bytes(onnx.helper.make_model(graph, ir_version=8).SerializeToString())
    return path


@pytest.mark.parametrize(
    ("visual", "audio", "output", "sentence"),
    [
        ([1, 6, 128, 128], [1, 1, 80, 16], [1, 3, 128, 128],
         r"\[1, 6, 128, 128\] and \[1, 1, 80, 16\] and output \[1, 3, 128, 128\], "
         r"expected \[N, 6, 96, 96\] and \[N, 1, 80, 16\] and output \[N, 3, 96, 96\] as Wav2Lip"),
        (["n", 6, 160, 160], ["n", 32, 32, 32], ["n", 3, 160, 160],
         r"and \[N, 16, 32, 32\] and .* as Ultralight-Digital-Human 168 HuBERT has, the nearest"),
        ([1, 3, 320, 320], [1, 32, 16, 16], [1, 3, 320, 320], "as SyncTalk_2D 328 has"),
        (["n", 6, "h", "w"], ["n", 1, 80, 16], ["n", 3, "h", "w"],
         r"several families have; expected spec= to name one of wav2lip-96, wav2lip-256, "),
    ],
    ids=["wav2lip 128", "ultralight of 16 frames", "one picture", "any size"],
)  # fmt: skip
def test_unknown_networks_are_one_sentence(
    root: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    visual: list[Any],
    audio: list[Any],
    output: list[Any],
    sentence: str,
) -> None:
    network = declared(tmp_path / "other.onnx", visual, audio, output)
    avatar = lnb.load_avatar(root / "wav2lip-96", network)
    with pytest.raises(NetworkError, match=rf"other\.onnx: found inputs .*{sentence}"):
        lnb.render(avatar, lnb.load_speech(root / "speech.wav"), tmp_path / "out.mp4")
    out = str(tmp_path / "out.mp4")
    arguments = ["render", str(root / "wav2lip-96"), str(root / "speech.wav"), out]
    assert main([*arguments, "--generator", str(network)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not Path(out).exists()


def test_a_family_can_be_named(root: Path, tmp_path: Path) -> None:
    path = declared(tmp_path / "g.onnx", ["n", 6, "h", "w"], ["n", 1, 80, 16], ["n", 3, "h", "w"])
    for spec in ("wav2lip-288", wav2lip(288)):
        avatar = lnb.load_avatar(root / "wav2lip-96", path, spec=spec)
        assert avatar.spec == FAMILIES["wav2lip-288"]
        assert avatar.require_generator() == path
    with pytest.raises(ConfigError, match=r"spec: found 'wav2lip', expected .* wav2lip-96"):
        lnb.load_avatar(root / "wav2lip-96", spec="wav2lip")
    own = lnb.load_avatar(root / "wav2lip-96", spec="synctalk-328")
    with pytest.raises(NetworkError, match=r"found inputs .*96.* expected \[N, 6, 320, 320\]"):
        list(lnb.iter_frames(own, Speech(features=np.zeros((3, 512), np.float32))))


def test_what_cannot_be_read_is_told_when_it_is_opened(root: Path, tmp_path: Path) -> None:
    (tmp_path / "g.onnx").write_bytes(b"no network")
    avatar = lnb.load_avatar(root / "wav2lip-96", tmp_path / "g.onnx")
    assert avatar.spec == SYNCTALK_328
    with pytest.raises(NetworkError, match="not a usable ONNX network"):
        list(lnb.iter_frames(avatar, Speech(features=np.zeros((3, 512), np.float32))))


@pytest.mark.parametrize("name", RENDERED)
def test_frames_are_those_of_the_plain_walk(root: Path, walk: Walk, name: str) -> None:
    avatar, speech = lnb.load_avatar(root / name), lnb.load_speech(speech_of(root, name))
    expected = walk(name)
    # The sound has a part in every frame: the same template frame looks another way.
    assert np.abs(expected[0].astype(int) - expected[6]).mean() > 0.1
    for fields in (
        {"prepare": False, "batch_size": 3},
        {"streams": 2, "batch_size": 2, "cache": "mmap"},
        {"feature_cache": "off", "overlap": False},
    ):
        assert largest(frames_of(avatar, speech, **fields), expected) <= TOLERANCE, fields
    patches = frames_of(avatar, speech, compositing="network", feature_dtype="float32")
    assert largest(patches, expected) <= PATCH_TOLERANCE


@pytest.mark.parametrize("name", RENDERED)
def test_a_clip_in_int8(root: Path, walk: Walk, tmp_path: Path, name: str) -> None:
    avatar, speech = lnb.load_avatar(root / name), lnb.load_speech(speech_of(root, name))
    config = lnb.RenderConfig(provider="cpu", precision="int8", crf=10)
    result = lnb.render(avatar, speech, tmp_path / "clip.mp4", config)
    assert result.shortfalls == ()
    expected = walk(name)
    assert result.num_frames == len(expected)
    assert any(note.startswith("int8: weights of") for note in result.notes)
    found = frames_of(avatar, speech, precision="int8")
    box = avatar.boxes[1]
    for a, b in zip(found[::4], expected[::4], strict=True):
        error = np.abs(a.astype(int) - b)[box.rows, box.columns]
        assert 0 < error.mean() < INT8_MEAN


@pytest.mark.parametrize("pixels", ["bgr", "i420"])
def test_colours_and_graphs(root: Path, tmp_path: Path, pixels: Any) -> None:
    """A network that sees and gives red first is the same network, in each form that runs."""
    model = onnx.load(root / "wav2lip-96" / "models" / "generator.onnx")
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    first = next(node for node in model.graph.node if node.input[0] == "input").input[1]
    last = next(node for node in model.graph.node if node.op_type == "Sigmoid").input[0]
    final = next(node for node in model.graph.node if last in node.output).input[1]
    seen = numpy_helper.to_array(weights[first])[:, [2, 1, 0, 5, 4, 3]]
    given = numpy_helper.to_array(weights[final])[::-1]
    weights[first].CopyFrom(numpy_helper.from_array(seen.copy(), first))
    weights[final].CopyFrom(numpy_helper.from_array(given.copy(), final))
    onnx.save(model, tmp_path / "rgb.onnx")
    speech, path = lnb.load_speech(root / "speech.wav"), root / "wav2lip-96"
    plain = lnb.load_avatar(path)
    spec = replace(plain.spec, colour="rgb")
    turned = lnb.load_avatar(path, tmp_path / "rgb.onnx", spec=spec)
    expected = pictures_of(plain, speech, pixels, prepare=False)
    for fields in (
        {"prepare": False},
        {"feature_dtype": "float32"},
        {"feature_cache": "off"},
        {"compositing": "network", "feature_dtype": "float32"},
        {"compositing": "network", "feature_cache": "off"},
    ):
        found = pictures_of(turned, speech, pixels, **fields)
        assert largest(found, expected) <= TOLERANCE, fields
    trace, other = (lnb.FrameTracer(a, speech)[5] for a in (plain, turned))
    np.testing.assert_array_equal(trace.masked, other.masked)
    assert np.abs(trace.prediction.astype(int) - other.prediction).max() <= 1


def pictures_of(
    avatar: lnb.Avatar, speech: lnb.Speech, pixels: str, **fields: Any
) -> list[ImageArray]:
    """Frames as they are kept."""
    config = lnb.RenderConfig(provider="cpu", pixels=pixels, max_frames=8, **fields)
    stream = lnb.FrameStream(avatar, speech, config, for_video=True)
    assert stream.shortfalls == ()
    return [frame.picture.copy() for frame in stream]


@pytest.mark.parametrize("name", RENDERED)
def test_a_preview_is_the_beginning(root: Path, name: str) -> None:
    avatar, speech = lnb.load_avatar(root / name), lnb.load_speech(speech_of(root, name))
    whole = frames_of(avatar, speech, prepare=False)
    part = frames_of(avatar, speech, prepare=False, max_frames=5)
    assert largest(part, whole[:5]) == 0


RATES = ["20", "24", "25", "30000/1001", "30", "50", "60"]


@pytest.mark.parametrize("rate", RATES)
def test_windows_of_the_mel_are_those_of_the_published_loop(rate: str) -> None:
    fps = Fraction(rate)
    for columns in range(17, 90):
        mel = np.arange(columns, dtype=np.float32)[None]
        expected = plain_walk.plain_mel_windows(mel, fps)
        times = AudioTimes(fps, Fraction(80), 0, 16, is_mel=True)
        places = MelPlaces(times, columns)
        assert len(places) == len(expected)
        for frame, window in enumerate(expected):
            np.testing.assert_array_equal(places.stored(frame), window[0])
            assert not places.is_outside(frame).any()
            assert places.num_stored(frame + 1) > window[0, -1]


@pytest.mark.parametrize("offset_ms", [-300, 300])
def test_windows_of_the_mel_with_an_offset(offset_ms: int) -> None:
    times = AudioTimes(Fraction(25), Fraction(80), 0, 16, Fraction(offset_ms, 1000), is_mel=True)
    places = MelPlaces(times, 60)
    assert len(places) == len(plain_walk.plain_mel_windows(np.zeros((80, 60)), 25))
    starts = [int(places.stored(frame)[0]) for frame in range(len(places))]
    shifted = [80 * i // 25 + 80 * offset_ms // 1000 for i in range(len(places))]
    assert starts == [min(max(start, 0), 44) for start in shifted]


@pytest.mark.parametrize("rate", ["24", "30000/1001"])
@pytest.mark.parametrize("name", ["wav2lip-96", "ultralight-wenet"])
def test_a_family_at_another_rate(root: Path, name: str, rate: str) -> None:
    fps = Fraction(rate)
    avatar = lnb.load_avatar(root / name, fps=rate)
    speech = lnb.load_speech(speech_of(root, name))
    config = lnb.RenderConfig(provider="cpu", prepare=False)
    stream = lnb.FrameStream(avatar, speech, config)
    found = [frame.data.copy() for frame in stream]
    assert avatar.fps == fps
    if name == "wav2lip-96":
        frames, samples = list(avatar.source.frames()), speech.samples
        assert samples is not None
        boxes = [box.corners for box in avatar.boxes]
        generator = avatar.require_generator()
        expected = plain_walk.plain_wav2lip_frames(frames, boxes, samples, generator, 96, fps)
        assert largest(found, expected) <= TOLERANCE
    else:
        # Rows are those at the frames' true times.
        assert len(found) == math.ceil(12 * fps / 20)
        track = speech.features
        assert track is not None
        for frame in (0, 5, 11):
            row = int(frame / fps * 20)
            heard = plain_walk.plain_rows(track, row, 4, 4).reshape(8, -1)
            np.testing.assert_array_equal(lnb.FrameTracer(avatar, speech)[frame].audio, heard)


@pytest.mark.parametrize("name", ["ultralight-wenet", "wav2lip-96"])
def test_every_step_of_a_frame(root: Path, walk: Walk, name: str) -> None:
    avatar, speech = lnb.load_avatar(root / name), lnb.load_speech(speech_of(root, name))
    tracer, spec = lnb.FrameTracer(avatar, speech), avatar.spec
    assert len(tracer) == len(walk(name))
    trace = tracer[7]
    assert largest([trace.frame], [walk(name)[7]]) <= TOLERANCE
    assert trace.prediction.shape == (spec.input_size, spec.input_size, 3)
    black = trace.masked[spec.mask_rows, spec.mask_columns]
    assert black.max() == 0
    kept = spec.mask_rows.start - 1
    np.testing.assert_array_equal(trace.masked[kept], trace.roi[kept])
    html = trace.to_html()
    if name == "wav2lip-96":
        assert trace.first_row == 22
        assert trace.audio.shape == (16, 80)
        mel = plain_walk.plain_mel(speech.samples)
        np.testing.assert_allclose(trace.audio, mel[:, 22:38].T, atol=1e-3)
        assert "columns of the mel 22 to 37, 80 values each" in html
        assert html.index("masked B") < html.index("roi B")
    else:
        np.testing.assert_array_equal(trace.audio, speech.features[3:11].reshape(8, -1))
        assert "feature rows 3 to 10, 8192 values each" in html
        assert html.index("roi B") < html.index("masked B")
    assert spec.name in avatar.to_html()
    assert "8192" in lnb.load_speech(root / "ultralight-wenet.npy").to_html()


def test_the_length_of_features_is_told_by_their_shape() -> None:
    for name in ("synctalk-328", "ultralight-hubert", "ultralight-wenet", "wav2lip-96"):
        spec = FAMILIES[name]
        track = np.zeros((2 * spec.rows_fps, *spec.row_shape), np.float32)
        assert Speech(features=track).duration_seconds == 2


@pytest.mark.parametrize(
    ("name", "shape", "sentence"),
    [
        (
            "ultralight-hubert",
            (9, 512),
            r"shape \(9, 512\), expected float \[n, 2, 1024\], the HuB",
        ),
        ("ultralight-hubert", (9, 1, 1024), r"expected float \[n, 2, 1024\], the HuBERT features"),
        ("ultralight-wenet", (9, 2, 1024), r"expected float \[n, 16, 512\], the WeNet features"),
        (
            "wav2lip-96",
            (9, 512),
            r"expected float \[n, 80\], the mel columns that Wav2Lip 96",
        ),
    ],
)
def test_other_features_are_one_sentence(
    root: Path, tmp_path: Path, name: str, shape: tuple[int, ...], sentence: str
) -> None:
    np.save(tmp_path / "other.npy", np.zeros(shape, np.float32))
    speech = lnb.load_speech(tmp_path / "other.npy")
    avatar = lnb.load_avatar(root / name)
    for trial in (
        lambda: lnb.render(avatar, speech, tmp_path / "out.mp4"),
        lambda: lnb.FrameTracer(avatar, speech),
    ):
        with pytest.raises(SpeechError, match=rf"other\.npy: found features of .*{sentence}"):
            trial()


def test_sound_for_a_network_that_hears_features(root: Path) -> None:
    avatar = lnb.load_avatar(root / "ultralight-wenet")
    sentence = r"found sound, and Ultralight.* WeNet hears WeNet features; expected a \.npy file"
    with pytest.raises(SpeechError, match=sentence + r".*\[n, 16, 512\], 20 rows a second"):
        list(lnb.iter_frames(avatar, lnb.load_speech(root / "speech.wav")))


def test_features_of_its_own_speech_calibrate(root: Path, tmp_path: Path) -> None:
    name, spec = "ultralight-hubert", FAMILIES["ultralight-hubert"]
    folder = write_family_avatar(tmp_path / "person", spec)
    avatar = lnb.load_avatar(folder)
    speech = lnb.load_speech(speech_of(root, name))
    np.save(folder / "aud_hu.npy", np.zeros((9, 512), np.float32))
    config = lnb.RenderConfig(provider="cpu", precision="int8", max_frames=4)
    with pytest.warns(UserWarning, match=r"aud_hu\.npy: found features of shape \(9, 512\)"):
        stream = lnb.FrameStream(avatar, speech, config)
    assert stream.shortfalls == ()
    expected = [frame.data.copy() for frame in stream]
    np.save(folder / "aud_hu.npy", 5 * family_features(spec, 40, seed=3))
    other = lnb.load_avatar(write_family_avatar(tmp_path / "other", spec))
    np.save(tmp_path / "other" / "aud_hu.npy", 5 * family_features(spec, 40, seed=3))
    found = frames_of(other, speech, precision="int8", max_frames=4)
    assert largest(found, expected) > 0


def test_an_encoder_of_other_rows(synctalk_folder: Path, tmp_path: Path) -> None:
    """Half as many values a row, and twice as many rows: a family that nobody knows yet."""
    kind, rng = onnx.TensorProto.FLOAT, np.random.default_rng(0)
    weights = numpy_helper.from_array(rng.normal(0, 0.1, (1280, 256)).astype(np.float32), "w")
    nodes = [
        onnx.helper.make_node("Flatten", ["mel"], ["flat"]),
        onnx.helper.make_node("MatMul", ["flat", "w"], ["rows"]),
    ]
    mel = onnx.helper.make_tensor_value_info("mel", kind, ["N", 1, 80, 16])
    rows = onnx.helper.make_tensor_value_info("rows", kind, ["N", 256])
    graph = onnx.helper.make_graph(nodes, "encoder", [mel], [rows], [weights])
    opset = onnx.helper.make_opsetid("", 17)
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8)
    onnx.save(model, tmp_path / "encoder.onnx")
    spec = replace(SYNCTALK_328, row_shape=(256,), rows_fps=25, rows_before=16, rows_after=16)
    avatar = lnb.load_avatar(synctalk_folder, audio_encoder=tmp_path / "encoder.onnx", spec=spec)
    samples = builders.speech_like(SECONDS)
    windows = plain_walk.plain_windows(plain_walk.plain_mel(samples))
    encoded = windows.reshape(len(windows), -1) @ numpy_helper.to_array(weights)
    track = np.concatenate([encoded[:1], encoded, encoded[-1:]])
    for overlap in (True, False):
        found = frames_of(avatar, Speech(samples=samples), overlap=overlap, fuse=False)
        expected = frames_of(avatar, Speech(features=track), overlap=overlap, fuse=False)
        assert largest(found, expected) <= 1
    plain = lnb.load_avatar(synctalk_folder, audio_encoder=tmp_path / "encoder.onnx")
    with pytest.raises(NetworkError, match=r"found output \[N, 256\], expected \[N, 512\]"):
        list(lnb.iter_frames(plain, Speech(samples=samples)))


def test_boxes_of_wav2lip(root: Path) -> None:
    folder = root / "wav2lip-96"
    avatar = lnb.load_avatar(folder)
    points = read_landmarks(folder / "landmarks" / "2.lms")
    assert avatar.boxes[2].corners == plain_walk.plain_outline(points, builders.SIZE)
    assert avatar.boxes[2].width != avatar.boxes[2].height
    square = lnb.load_avatar(root / "ultralight-wenet").boxes[2]
    assert square.corners == plain_walk.plain_box(points)
    given = lnb.load_avatar(folder, box=(100, 80, 180, 210))
    assert {box.corners for box in given.boxes} == {(100, 80, 180, 210)}


def test_rectangles_of_another_kind_of_network_are_told(root: Path, origin_folder: Path) -> None:
    network = root / "wav2lip-96" / "models" / "generator.onnx"
    with pytest.warns(UserWarning, match="all rectangles are squares.*expects boxes of the whole"):
        avatar = lnb.load_avatar(origin_folder, network)
    assert avatar.boxes == lnb.load_avatar(origin_folder).boxes


def test_first_clips_of_a_box(root: Path, tmp_path: Path) -> None:
    """The processes of a search load what was loaded here, with its box."""
    video = builders.write_video(tmp_path / "me.mp4", builders.template_frames(5))
    network = root / "wav2lip-96" / "models" / "generator.onnx"
    avatar = lnb.load_avatar(video, network, box=(110, 90, 190, 200))
    tuned = lnb.experiments.autotune(
        avatar, target="first-clip", speech=root / "speech.wav", max_frames=3, seconds=0.1
    )
    assert tuned.config.max_frames == 0


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"rows_after": 4}, r"found 12 rows of 512 values, expected 8192 values in all"),
        (
            {"image_channels": ("roi", "face")},
            r"found image_channels .*expected 'roi' and",
        ),
        ({"margin": 164}, r"found a margin of 164 in a crop of 328"),
    ],
)
def test_a_spec_whose_parts_do_not_fit(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        replace(SYNCTALK_328, **fields)


def test_a_spec_survives_json() -> None:
    for spec in FAMILIES.values():
        assert spec_from(json.loads(json.dumps(asdict(spec)))) == spec


def test_footage_and_a_wav2lip_network_on_the_command_line(
    root: Path, walk: Walk, tmp_path: Path
) -> None:
    video = builders.write_video(tmp_path / "me.mp4", builders.template_frames(5))
    network = root / "wav2lip-96" / "models" / "generator.onnx"
    out = tmp_path / "out.mp4"
    arguments = ["render", str(video), str(root / "speech.wav"), str(out), "--family", "wav2lip-96"]
    box = ["--box", "110,90,190,200"]
    assert main([*arguments, "--generator", str(network), *box]) == 0
    with pytest.raises(AvatarError, match="found no face boxes"):
        lnb.load_avatar(video, network)
    written = cv2.VideoCapture(str(out))
    assert written.get(cv2.CAP_PROP_FRAME_COUNT) == len(walk("wav2lip-96"))
    assert written.get(cv2.CAP_PROP_FPS) == 25


EXPERIMENTS: dict[str, Callable[[lnb.Avatar, lnb.Speech, Path], Any]] = {
    "benchmark": lambda a, s, _: lnb.experiments.benchmark(
        a, s, ["baseline", "engine"], repeats=1, max_frames=3
    ),
    "sweep": lambda a, s, _: lnb.experiments.sweep(
        a, s, repeats=1, max_frames=3, batch_size=[1, 2], precision=["fp32", "int8"]
    ),
    "ablation": lambda a, s, _: lnb.experiments.ablation(
        a, s, steps=["cached", "engine"], repeats=1, max_frames=3
    ),
    "precision": lambda a, s, _: lnb.experiments.compare_precision(a, s, repeats=1, max_frames=3),
    "tuning": lambda a, s, path: lnb.experiments.autotune(
        a, speech=path, max_frames=3, seconds=1, allow=["precision"]
    ),
    "profile": lambda a, s, _: lnb.experiments.profile_network(a, s),
    "memory": lambda a, s, _: lnb.experiments.memory_table(a, [3]),
}


@pytest.mark.parametrize("name", ["wav2lip-96", "ultralight-hubert"])
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_experiments_work_for_each_family(root: Path, name: str, experiment: str) -> None:
    path = speech_of(root, name)
    result = EXPERIMENTS[experiment](lnb.load_avatar(root / name), lnb.load_speech(path), path)
    assert str(result)
    assert "<table" in result.to_html()


def test_first_clips_of_a_family(root: Path) -> None:
    name = "ultralight-wenet"
    clips = lnb.experiments.first_clips(
        root / name, speech_of(root, name), ["engine"], spec=name, repeats=1, max_frames=3
    )
    assert [clip.num_frames for clip in clips.clips] == [3, 3]


def test_golden_frames_of_a_family(root: Path, walk: Walk) -> None:
    from lipsync_nb.experiments import golden

    avatar, speech = lnb.load_avatar(root / "wav2lip-96"), lnb.load_speech(root / "speech.wav")
    found = dict(enumerate(frames_of(avatar, speech)))
    limits = golden.Limits(largest=TOLERANCE, mean=0.1)
    golden.compare_frames(dict(enumerate(walk("wav2lip-96"))), found, limits).check()


@pytest.mark.parametrize("name", ["wav2lip-96", "ultralight-hubert"])
def test_the_studio_renders_it(root: Path, tmp_path: Path, name: str) -> None:
    config = lnb.RenderConfig(provider="cpu", precision="int8", max_frames=8)
    studio = lnb.Studio(root / name, config=config, out=tmp_path / "out.mp4")
    studio.panel.speech.value, studio.panel.path.value = "(path below)", str(speech_of(root, name))
    studio.panel.start()
    assert studio.panel.wait(120)
    assert studio.panel.job.state == "done", studio.panel.job.error
    assert (tmp_path / "out.mp4").is_file()
    size = FAMILIES[name].crop_size
    studio.tabs.go("Frame trace")
    assert f"the face box at {size}x{size}" in studio.microscope._view.value
    studio.close()
