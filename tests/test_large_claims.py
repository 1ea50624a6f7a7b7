"""What claims to be large, or is: it is reckoned before it takes memory."""

import io
import subprocess
import sys
import tracemalloc
from pathlib import Path

import broken
import numpy as np
import pytest
from builders import tiny_networks

import lipsync_nb as lnb
from lipsync_nb.avatar.face_boxes import read_landmarks
from lipsync_nb.config.render_config import RenderConfig
from lipsync_nb.errors import AvatarError, ConfigError, SpeechError
from lipsync_nb.media.picture_files import read_picture
from lipsync_nb.network.work import activation_bytes
from lipsync_nb.pipeline.batches import batch_within_memory
from lipsync_nb.system.inputs import open_file, read_file
from lipsync_nb.system.limits import check_pixels, free_memory_bytes
from lipsync_nb.types.records import SYNCTALK_328

ROOT = Path(__file__).parents[1]
# With so much address space as a process of its own may have, a part of the machine's memory.
LIMITED = """
import resource, sys, warnings
import numpy as np
import lipsync_nb as lnb
from lipsync_nb.system.limits import free_memory_bytes
from lipsync_nb.pipeline.render import FrameStream
resource.setrlimit(resource.RLIMIT_AS, (5 << 30, 5 << 30))
"""


def in_little_memory(code: str, *arguments: Path) -> str:
    """What a process that is limited to 5 GB prints."""
    command = [sys.executable, "-c", LIMITED + code, *map(str, arguments)]
    environment = {"PYTHONPATH": str(ROOT), "LIPSYNC_NB_CACHE": str(arguments[0]) + "-cache"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_pixels_are_limited() -> None:
    check_pixels("a.png", 10_000, 10_000)
    with pytest.raises(AvatarError, match=r"a\.png: is 10001x10000 pixels, expected at most 100"):
        check_pixels("a.png", 10_001, 10_000)


def test_address_space_counts(tmp_path: Path) -> None:
    assert 0 < int(in_little_memory("print(free_memory_bytes())", tmp_path)) < 5 << 30


def test_a_file_within_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_file(path, AvatarError, 5) == b"12345"
    with pytest.raises(AvatarError, match=r"found a file of 0\.0 MB, expected at most"):
        read_file(path, AvatarError, 4)
    with pytest.raises(AvatarError, match="cannot be read"):
        read_file(str(path) + "\0", AvatarError, 4)
    with open_file(path) as file:
        assert file.read() == b"12345"


def test_a_file_of_many_gigabytes_is_not_read(tmp_path: Path) -> None:
    with open(tmp_path / "1.lms", "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(AvatarError, match=r"1\.lms: found a file of 1,099,511\.6 MB"):
        read_landmarks(tmp_path / "1.lms")
    with pytest.raises(AvatarError, match=r"1\.lms: found a file of 1,099,511\.6 MB"):
        read_picture(tmp_path / "1.lms")


def test_large_files_are_looked_into_before_they_are_copied(tmp_path: Path) -> None:
    path = tmp_path / "speech.wav"
    with open(path, "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(SpeechError, match=r"speech\.wav: not decodable as sound"):
        lnb.load_speech(path)
    with open(path, "r+b") as file:
        file.write(broken.wav())
    with pytest.raises(SpeechError, match=r"its copy in .* takes 1,099,512 MB, [\d,]+ MB are free"):
        lnb.load_speech(path)


def test_a_long_speech_takes_its_samples_and_little_more(tmp_path: Path) -> None:
    seconds = 15 * 60
    (tmp_path / "long.wav").write_bytes(broken.wav(seconds=seconds))
    lnb.load_speech(tmp_path / "long.wav", max_seconds=1)
    tracemalloc.start()
    try:
        samples = lnb.load_speech(tmp_path / "long.wav").samples
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert samples is not None
    assert len(samples) == seconds * 16_000
    file_bytes = (tmp_path / "long.wav").stat().st_size
    assert most < 1.4 * samples.nbytes + 2 * file_bytes


def test_a_preview_hears_the_beginning_alone(tmp_path: Path) -> None:
    (tmp_path / "long.wav").write_bytes(broken.wav(seconds=20 * 60))
    recording_bytes = (tmp_path / "long.wav").stat().st_size
    tracemalloc.start()
    try:
        speech = lnb.load_speech(tmp_path / "long.wav", max_seconds=2.5)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert speech.duration_seconds == 2.5
    assert most < 2 * recording_bytes + 8_000_000


def test_speech_that_memory_does_not_hold_is_told(tmp_path: Path) -> None:
    """Two hours take 461 MB; a fourth of what is free is what samples may take."""
    (tmp_path / "long.wav").write_bytes(broken.wav(rate=1000, seconds=2 * 3600))
    code = """
hold = np.empty((free_memory_bytes() - (1 << 30)) >> 3)
try:
    lnb.load_speech(sys.argv[1])
except lnb.errors.SpeechError as error:
    print(error)
"""
    told = in_little_memory(code, tmp_path / "long.wav")
    assert "minutes, which is what the free memory holds; max_seconds" in told


def test_features_that_memory_does_not_hold_are_told(tmp_path: Path) -> None:
    path = tmp_path / "features.npy"
    with open(path, "wb") as file:
        file.write(broken.npy("'<f4'", f"({1 << 20}, 512)"))
        file.truncate(file.tell() + (1 << 31))
    code = """
try:
    lnb.load_speech(sys.argv[1])
except lnb.errors.SpeechError as error:
    print(error)
"""
    told = in_little_memory(
        "resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))" + code, path
    )
    assert "the features of 1048576 rows take 2048 MiB of memory" in told


def test_activations_of_a_network(tmp_path: Path) -> None:
    model = broken.generator_of()
    picture, sound = 6 * 320 * 320 * 4, 32 * 16 * 16 * 4
    # The picture's inputs, half of it, and the sum, less the sound that was used before.
    assert picture + picture // 2 <= activation_bytes(model) <= 2 * picture + picture // 2 + sound
    tiny = tiny_networks(tmp_path)[0].read_bytes()
    assert activation_bytes(tiny) > activation_bytes(model)


def test_batches_fit_into_memory(tmp_path: Path) -> None:
    model = broken.generator_of()
    assert batch_within_memory(model, SYNCTALK_328, 1, 9, 1000, True) == (9, "")
    large = free_memory_bytes() // 100
    size, told = batch_within_memory(model, SYNCTALK_328, 1, 256, large, True)
    assert 10 < size < 60
    assert told.startswith(f"asked for batches of 256, rendered in {size} (they take about ")
    assert batch_within_memory(model, SYNCTALK_328, 1, 256, 100 * large, False)[0] == 1
    with pytest.raises(ConfigError, match="streams: 1000000 batches of 9 at the same time take"):
        batch_within_memory(model, SYNCTALK_328, 10**6, 9, 1000, True)


def test_a_batch_that_memory_does_not_hold_becomes_smaller(synctalk_folder: Path) -> None:
    code = """
avatar = lnb.load_avatar(sys.argv[1])
speech = lnb.Speech(features=np.zeros((4, 512), np.float32))
config = lnb.RenderConfig(batch_size=256, prepare=False)
stream = FrameStream(avatar, speech, config)
print(len(list(stream)), stream.generator.batch_size, *stream.shortfalls)
"""
    count, size, told = in_little_memory(code, synctalk_folder).split(" ", 2)
    assert count == "4"
    assert 1 < int(size) < 256
    assert told.startswith(f"asked for batches of 256, rendered in {size} (they take about ")


def test_memory_of_very_long_templates_is_reckoned(avatar: lnb.Avatar) -> None:
    (row,) = (r for r in lnb.experiments.memory_table(avatar, [10**12]).rows if r.pixels == "bgr")
    assert row.measured_bytes is None
    whole = avatar.estimate_memory("memory", "bgr").total_bytes
    assert row.estimate_bytes == 10**12 // len(avatar) * whole
    (few,) = (
        r for r in lnb.experiments.memory_table(avatar, [len(avatar)], measure=False).rows[:1]
    )
    assert few.estimate_bytes == whole


@pytest.mark.parametrize("number", [10**13, 10**400, 10**5000], ids=["1e13", "1e400", "1e5000"])
def test_numbers_beyond_are_told(number: int, avatar: lnb.Avatar) -> None:
    with pytest.raises(ConfigError, match="expected lengths of 1 to 1000000000000"):
        lnb.experiments.memory_table(avatar, [number])
    with pytest.raises(
        ConfigError, match=r"max_frames: found .{1,90}, expected at most 1000000000"
    ):
        RenderConfig(max_frames=number)
    with pytest.raises(AvatarError, match="outside any picture"):
        lnb.load_avatar(avatar.path, box=(0, 0, number, 9))


@pytest.mark.parametrize("value", [np.array(["index", "x"]), ["index"], None, 3, float("nan"), {}])
def test_choices_are_texts(value: object) -> None:
    with pytest.raises(
        ConfigError, match=r"order: found .+, expected one of pingpong, loop, index, once\."
    ):
        RenderConfig(order=value)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [True, float("nan"), float("-inf"), None, "x", 10**400])
def test_numbers_of_a_box(value: object, avatar: lnb.Avatar) -> None:
    with pytest.raises(AvatarError, match=r"box=\(.* is not usable"):
        lnb.load_avatar(avatar.path, box=(value, 0, 50, 50))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("samples", np.full(9000, np.nan, np.float32)),
        ("samples", np.full(9000, np.inf)),
        ("samples", np.full(9000, 1e300)),
        ("samples", np.zeros(0, np.float32)),
        ("samples", np.zeros((2, 9000), np.float32)),
        ("samples", np.full(9000, 32767)),
        ("samples", np.full(9000, "0.5")),
        ("samples", [0.0] * 9000),
        ("features", np.full((3, 512), np.nan, np.float32)),
        ("features", np.full((3, 512), 1e300)),
        ("features", np.zeros((0, 512), np.float32)),
        ("features", np.zeros((3, 0), np.float32)),
        ("features", np.zeros((3, 2, 0), np.float32)),
        ("features", np.zeros(512, np.float32)),
        ("features", np.zeros((3, 512), object)),
        ("features", np.zeros((3, 512), complex)),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{np.asarray(value).dtype}",
)
def test_arrays_that_are_no_speech(name: str, value: object) -> None:
    with pytest.raises(SpeechError, match=rf"{name}.*expected .*float32"):
        lnb.Speech(**{name: value})  # type: ignore[arg-type]


def test_a_picture_of_an_unknown_format_is_asked_of_ffmpeg(tmp_path: Path) -> None:
    for suffix in (".tiff", ".ppm", ".gif"):
        (tmp_path / "picture.png").write_bytes(broken.picture(suffix))
        found = read_picture(tmp_path / "picture.png")
        assert found.shape == (broken.SIZE[1], broken.SIZE[0], 3)


def test_npy_headers_are_no_programs(tmp_path: Path) -> None:
    file = io.BytesIO()
    np.save(file, np.zeros((3, 512), np.float32))
    (tmp_path / "track.npy").write_bytes(file.getvalue().replace(b"(3, 512)", b"(3,eval)"))
    with pytest.raises(SpeechError, match=r"not a readable \.npy file of numbers"):
        lnb.load_speech(tmp_path / "track.npy")
