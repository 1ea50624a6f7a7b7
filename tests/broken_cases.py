"""The cases of the matrix of broken inputs: what is broken, and the sentence that tells it."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import broken
import numpy as np
from broken import Scene
from builders import landmarks_of, tone_speech, video_with_sound
from onnx import TensorProto, helper

USABLE = "usable"
# argparse tells of these itself, with its usage.
USAGE = "usage"

Change = Callable[[Scene], object]


@dataclass(frozen=True)
class Case:
    """One broken input: what is done to a sound scene, and the sentence, or `USABLE`."""

    name: str
    change: Change
    expected: str
    kind: str = "pictures"


def cases(group: str, table: dict[str, tuple[Change, str]], kind: str = "pictures") -> list[Case]:
    return [Case(f"{group}: {name}", *row, kind) for name, row in table.items()]


def write(name: str, content: bytes) -> Change:
    """A file of the avatar with this content."""

    def change(scene: Scene) -> None:
        (scene.avatar / name).parent.mkdir(exist_ok=True)
        (scene.avatar / name).write_bytes(content)

    return change


def edit(name: str, edited: Callable[[bytes], bytes]) -> Change:
    """A file of the avatar, edited."""

    def change(scene: Scene) -> None:
        path = scene.avatar / name
        path.write_bytes(edited(path.read_bytes()))

    return change


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


# Things that stand where a file should.


def in_place_of(path: Path, kind: str) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    elif kind == "dangling link":
        path.symlink_to("nowhere")
    elif kind == "loop of links":
        path.symlink_to(path.name)
    elif kind == "socket":
        # Its name has to be short.
        with socket.socket(socket.AF_UNIX) as server:
            before = Path.cwd()
            os.chdir(path.parent)
            try:
                server.bind(path.name)
            finally:
                os.chdir(before)


def no_file(name: str, kind: str) -> Change:
    return lambda scene: in_place_of(scene.avatar / name, kind)


KINDS = ("pipe", "device", "folder", "socket", "dangling link", "loop of links")


def no_files(group: str, name: str, expected: dict[str, str], kind: str = "pictures") -> list[Case]:
    table = {what: (no_file(name, what), expected.get(what, expected["any"])) for what in KINDS}
    return cases(group, table, kind)


# Speech files.


def coded(suffix: str, edited: Callable[[bytes], bytes]) -> Change:
    def change(scene: Scene) -> None:
        path = scene.folder / f"whole{suffix}"
        if suffix == ".mp4":
            video_with_sound(path, 2.5)
        else:
            tone_speech(path, 2.5)
        scene.say(f"broken{suffix}", edited(path.read_bytes()))

    return change


def said(name: str, content: bytes) -> Change:
    return lambda scene: scene.say(name, content)


def said_wav(content: bytes) -> Change:
    return said("broken.wav", content)


def overwritten(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + b"\xff" * 200 + data[middle + 200 :]


SUFFIXES = (".wav", ".mp3", ".flac", ".ogg", ".m4a", ".mp4")
NO_SOUND = "not decodable as sound"
NOISE = np.random.default_rng(5).integers(0, 256, 3000).astype(np.uint8).tobytes()


def of_every_container() -> list[Case]:
    rows: list[Case] = []
    for suffix in SUFFIXES:
        at_end = suffix in (".m4a", ".mp4")
        table = {
            "empty": (coded(suffix, lambda data: b""), NO_SOUND),
            "its first 20 bytes": (coded(suffix, lambda data: data[:20]), NO_SOUND),
            "text": (said(f"broken{suffix}", b"Hello, world.\n" * 40), NO_SOUND),
            "zeros": (said(f"broken{suffix}", bytes(3000)), NO_SOUND),
            "half of it": (coded(suffix, half), NO_SOUND if at_end else USABLE),
            "damaged in the middle": (coded(suffix, overwritten), USABLE),
        }
        rows += cases(f"speech {suffix}", table)
    return rows


def float_wav(value: float, dtype: str) -> bytes:
    samples = np.zeros(8000, dtype)
    samples[4000] = value
    return broken.wav(tag=3, bits=8 * samples.itemsize, samples=samples)


def speech_in_place(kind: str) -> Change:
    return lambda scene: in_place_of(scene.speech, kind)


SPEECH = [
    *of_every_container(),
    *cases(
        "speech",
        {
            "noise": (said_wav(NOISE), NO_SOUND),
            "no data chunk": (said_wav(broken.wav()[:36]), NO_SOUND),
            "no channels": (said_wav(broken.wav(channels=0, samples=np.zeros(9))), NO_SOUND),
            "a rate of 0": (said_wav(broken.wav(rate=0, count=8000)), NO_SOUND),
            "a rate of 1": (said_wav(broken.wav(rate=1, count=8000)), "found 1 samples a second"),
            "a rate of 900": (said_wav(broken.wav(rate=900)), "found 900 samples a second"),
            "a rate of 1000": (said_wav(broken.wav(rate=1000)), USABLE),
            "a rate of 2000": (said_wav(broken.wav(rate=2000)), USABLE),
            "a rate of 768000": (said_wav(broken.wav(rate=768_000)), USABLE),
            "a rate of 2 billion": (
                said_wav(broken.wav(rate=2**31 - 1, count=8000)),
                "found 2147483647 samples a second",
            ),
            "a rate of 4 billion": (said_wav(broken.wav(rate=4 * 10**9, count=8000)), NO_SOUND),
            "0.1 s": (said_wav(broken.wav(seconds=0.1)), "found 0.100 s of sound"),
            "255 channels": (said_wav(broken.wav(channels=255)), USABLE),
            "unknown coding": (said_wav(broken.wav(tag=0x1234)), NO_SOUND),
            "7 bits": (said_wav(broken.wav(bits=7)), USABLE),
            "NaN": (said_wav(float_wav(np.nan, "<f4")), "not finite, about 0.*s after its start"),
            "infinity": (said_wav(float_wav(-np.inf, "<f4")), "samples that are not finite"),
            "1e300": (said_wav(float_wav(1e300, "<f8")), "samples that are not finite"),
            "a sample of 1000": (said_wav(float_wav(1000, "<f4")), "expected float32"),
            "header claims 4 GB": (said_wav(broken.wav(claimed=2**32 - 1)), USABLE),
            "title in Latin-1": (said_wav(broken.wav(chunk=broken.latin_info())), USABLE),
            "ID3 in Latin-1": (said_wav(broken.wav(chunk=broken.latin_id3())), USABLE),
            "a picture": (said("broken.wav", broken.picture(".png")), "found no sound track"),
            "a list of files": (said("broken.wav", b"ffconcat version 1.0\nfile a.wav"), NO_SOUND),
            "a playlist": (said("broken.wav", b"#EXTM3U\n#EXTINF:1,\na.wav"), NO_SOUND),
            "missing": (lambda scene: scene.speech.unlink(), "no such speech file"),
            "a pipe": (speech_in_place("pipe"), "is a pipe or a device"),
            "a device": (speech_in_place("device"), "is a pipe or a device"),
            "a folder": (speech_in_place("folder"), "is a folder"),
            "a socket": (speech_in_place("socket"), "is a pipe or a device"),
            "a dangling link": (speech_in_place("dangling link"), "no such speech file"),
            "a loop of links": (speech_in_place("loop of links"), "no such speech file"),
        },
    ),
]


# Feature tracks.


def said_npy(content: bytes) -> Change:
    return said("broken.npy", content)


def said_array(array: np.ndarray, saved: Callable[..., None] = np.save) -> Change:
    def change(scene: Scene) -> None:
        scene.speech_name = "broken.npy"
        with open(scene.speech, "wb") as file:
            saved(file, array)

    return change


def track_with(value: float, dtype: str = "<f4") -> np.ndarray:
    track = np.zeros((4, 512), dtype)
    track[2, 100] = value
    return track


NO_TRACK = "not a readable .npy file of numbers"
ROWS = bytes(4 * 512 * 4)
FEATURES = cases(
    "features",
    {
        "empty": (said_npy(b""), NO_TRACK),
        "20 bytes": (said_npy(broken.npy("'<f4'", "(4, 512)", ROWS)[:20]), NO_TRACK),
        "text": (said_npy(b"1 2 3\n"), NO_TRACK),
        "no numbers behind the header": (said_npy(broken.npy("'<f4'", "(4, 512)")), NO_TRACK),
        "cut off": (said_npy(broken.npy("'<f4'", "(4, 512)", ROWS[:-1])), NO_TRACK),
        "10^12 numbers": (said_npy(broken.npy("'<f4'", "(2000000000, 512)", ROWS)), NO_TRACK),
        "10^30 rows": (said_npy(broken.npy("'<f4'", f"({10**30}, 512)", ROWS)), NO_TRACK),
        "rows below 0": (said_npy(broken.npy("'<f4'", "(-4, 512)", ROWS)), NO_TRACK),
        "both below 0": (said_npy(broken.npy("'<f4'", "(-4, -512)", ROWS)), NO_TRACK),
        "objects": (said_npy(broken.npy("'|O'", "(4, 512)", ROWS)), NO_TRACK),
        "pickled objects": (said_array(np.array([[{}] * 512], object)), NO_TRACK),
        "a structure": (said_npy(broken.npy("[('a', '<f4')]", "(4, 512)", ROWS)), "found 4 rows"),
        "unknown numbers": (said_npy(broken.npy("'<q9'", "(4, 512)", ROWS)), NO_TRACK),
        "a header of 4 GB": (
            said_npy(broken.npy("'<f4'", "(4, 512)", ROWS, 2, 2**32 - 1)),
            NO_TRACK,
        ),
        "a header that calls": (said_npy(broken.npy("__import__('os')", "(4, 512)")), NO_TRACK),
        "10,000 brackets": (said_npy(broken.npy("'<f4'", "(" * 10_000, ROWS, 2)), NO_TRACK),
        "version 9": (said_npy(broken.npy("'<f4'", "(4, 512)", ROWS, 9)), NO_TRACK),
        "one axis": (said_array(np.zeros(512, np.float32)), r"found features of shape \(512,\)"),
        "three axes": (said_array(np.zeros((1, 4, 512), np.float32)), "found features of shape"),
        "511 columns": (said_array(np.zeros((4, 511), np.float32)), r"shape \(4, 511\)"),
        "no rows": (said_array(np.zeros((0, 512), np.float32)), "found 0 rows"),
        "integers": (said_array(np.zeros((4, 512), np.int64)), "found 4 rows of int64"),
        "truth values": (said_array(np.zeros((4, 512), bool)), "found 4 rows of bool"),
        "complex": (said_array(np.zeros((4, 512), np.complex64)), "found 4 rows of complex64"),
        "texts": (said_array(np.full((4, 512), "1.0")), "found 4 rows of <U3"),
        "NaN": (said_array(track_with(np.nan)), "not finite"),
        "infinity": (said_array(track_with(np.inf)), "not finite"),
        "1e300": (said_array(track_with(1e300, "<f8")), "not finite as float32"),
        "an archive": (said_array(np.zeros((4, 512)), np.savez), NO_TRACK),
        "by columns": (said_array(np.asfortranarray(track_with(1.0))), USABLE),
        "float16": (said_array(track_with(1.0, "<f2")), USABLE),
        "big-endian": (said_array(track_with(1.0, ">f8")), USABLE),
        "a folder": (lambda s: (said_npy(b"")(s), in_place_of(s.speech, "folder")), "is a folder"),
        "a pipe": (lambda s: (said_npy(b"")(s), in_place_of(s.speech, "pipe")), "is a pipe"),
        "missing": (lambda s: (said_npy(b"")(s), s.speech.unlink()), "no such speech file"),
    },
)


# Pictures.


def frame(content: bytes, number: int = 1) -> Change:
    return write(f"full_body_img/{number}.jpg", content)


def png_frame(content: bytes) -> Change:
    """Frame 1 as a file of another suffix."""

    def change(scene: Scene) -> None:
        (scene.avatar / "full_body_img" / "1.jpg").unlink()
        (scene.avatar / "full_body_img" / "1.png").write_bytes(content)

    return change


def without(name: str) -> Change:
    def change(scene: Scene) -> None:
        path = scene.avatar / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return change


def renamed(name: str, to: str) -> Change:
    return lambda scene: (scene.avatar / name).rename(scene.avatar / to)


def copied(name: str, to: str) -> Change:
    return lambda scene: shutil.copy(scene.avatar / name, scene.avatar / to)


JPEG = broken.picture(".jpg")
NO_PICTURE, TOO_LARGE = r"1\.\w+: not a readable picture", "expected at most 100 million"
TRUNCATED = r"1\.\w+: the picture is truncated"
PICTURES = [
    *cases(
        "picture",
        {
            "empty": (frame(b""), NO_PICTURE),
            "text": (frame(b"not a picture\n" * 9), NO_PICTURE),
            "zeros": (frame(bytes(5000)), NO_PICTURE),
            "noise": (frame(NOISE), NO_PICTURE),
            "half of it": (edit("full_body_img/1.jpg", half), TRUNCATED),
            "half of it, and an end": (
                edit("full_body_img/1.jpg", lambda data: half(data) + b"\xff\xd9"),
                TRUNCATED,
            ),
            "its first 100 bytes": (
                edit("full_body_img/1.jpg", lambda data: data[:100]),
                TRUNCATED,
            ),
            "a JPEG of 20000x20000": (frame(broken.jpeg_claiming(20_000, 20_000)), TOO_LARGE),
            "a JPEG of 9000x9000 in 400 bytes": (
                frame(broken.jpeg_claiming(9000, 9000)),
                TRUNCATED,
            ),
            "a JPEG of 0x0": (frame(broken.jpeg_claiming(0, 0)), "damaged or truncated"),
            "a PNG of 60000x60000": (png_frame(broken.png(60_000, 60_000)), TOO_LARGE),
            "a PNG of 9000x9000 in 80 bytes": (png_frame(broken.png(9000, 9000)), TRUNCATED),
            "a PNG with wrong check sums": (png_frame(broken.png(16, 16, True)), "damaged"),
            "a PNG of 0x0": (png_frame(broken.png(0, 0)), "damaged or truncated"),
            "half of a PNG": (png_frame(half(broken.picture(".png"))), TRUNCATED),
            "a BMP of 20000x20000": (frame(broken.bmp_claiming(20_000, 20_000)), TOO_LARGE),
            "a BMP of 2^30": (frame(broken.bmp_claiming(2**30, 2**30)), TOO_LARGE),
            "half of a BMP": (frame(half(broken.picture(".bmp"))), "damaged or truncated"),
            "a WebP of 16383x16383": (frame(broken.webp_claiming(16_383)), TOO_LARGE),
            "half of a WebP": (frame(half(broken.picture(".webp"))), TRUNCATED),
            "a GIF of 60000x60000": (frame(broken.gif_claiming(60_000)), NO_PICTURE),
            "a TIFF of 20000x20000": (frame(broken.tiff_claiming(20_000)), NO_PICTURE),
            "a PPM of 20000x20000": (frame(b"P6\n20000 20000\n255\n" + bytes(99)), NO_PICTURE),
            "a HDR of 60000x60000": (
                frame(b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 60000 +X 60000\n" + bytes(99)),
                NO_PICTURE,
            ),
            "of another size": (frame(broken.picture(".jpg", (64, 80, 3))), "frame 1 is 80x64"),
            "a video": (frame(b"\0\0\0\x20ftypisom" + bytes(900)), NO_PICTURE),
            "a PNG by another name": (frame(broken.picture(".png")), USABLE),
            "grey": (frame(broken.picture(".jpg", broken.SIZE[::-1])), USABLE),
            "16 bits": (png_frame(broken.picture16()), USABLE),
            "with bytes behind it": (edit("full_body_img/1.jpg", lambda d: d + NOISE), USABLE),
            "a number is missing": (without("full_body_img/1.jpg"), "after number 0, expected 1"),
            "two of a number": (
                copied("full_body_img/1.jpg", "full_body_img/01.jpg"),
                "one file of each number",
            ),
            "numbered from 7": (
                lambda s: [
                    renamed(f"full_body_img/{i}.jpg", f"full_body_img/{i + 7}.jpg")(s)
                    for i in range(3)
                ],
                "found 7.jpg as the first",
            ),
            "none": (
                lambda s: [without(f"full_body_img/{i}.jpg")(s) for i in range(3)],
                "found no numbered files",
            ),
            "no folder of them": (without("full_body_img"), "found no frames"),
            "a file for the folder": (
                lambda s: (without("full_body_img")(s), write("full_body_img", b"x")(s)),
                "found no frames",
            ),
        },
    ),
    *no_files(
        "picture",
        "full_body_img/1.jpg",
        {
            "any": r"1\.jpg: is not there any more",
            "socket": r"1\.jpg: cannot be read",
            "pipe": r"1\.jpg: cannot be read \(it is a pipe or a device",
            "device": r"1\.jpg: cannot be read \(it is a pipe or a device",
            "folder": r"1\.jpg: cannot be read \(it is a folder",
        },
    ),
]


# Face boxes.


def landmarks(text: str) -> Change:
    return write("landmarks/1.lms", text.encode())


def points_text(changes: dict[int, str] | None = None) -> str:
    lines = [f"{x} {y}" for x, y in landmarks_of((50, 40, 80, 70))]
    for number, line in (changes or {}).items():
        lines[number] = line
    return "".join(f"{line}\n" for line in lines)


def flat_points() -> str:
    return points_text({1: "60 40", 31: "60 40"})


LANDMARKS = [
    *cases(
        "landmarks",
        {
            "empty": (landmarks(""), "found 0 lines, expected 110"),
            "109 lines": (landmarks(points_text().rsplit("\n", 2)[0]), "found 109 lines"),
            "111 lines": (landmarks(points_text() + "1 2\n"), "found 111 lines"),
            "a word": (landmarks(points_text({9: "left 3"})), "line 10: 'left 3'"),
            "one number": (landmarks(points_text({9: "3"})), "found 1 numbers in line 10"),
            "three numbers": (landmarks(points_text({9: "3 4 5"})), "found 3 numbers in line 10"),
            "NaN": (landmarks(points_text({1: "nan 4"})), "found 'nan 4' in line 2"),
            "infinity": (landmarks(points_text({1: "3 -inf"})), "in line 2"),
            "1e400": (landmarks(points_text({1: "1e400 4"})), "found '1e400 4' in line 2"),
            "a number of 10,000 digits": (
                landmarks(points_text({1: "9" * 10_000 + " 1"})),
                "line 2",
            ),
            "a box of no width": (
                landmarks(flat_points()),
                r"1\.lms: box \[60, 40, 60, 40\] is em",
            ),
            "a box outside": (
                landmarks(points_text({1: "900 40", 31: "950 40", 52: "920 40"})),
                "of frame 1 leaves the frame",
            ),
            "bytes": (write("landmarks/1.lms", NOISE), "not readable as landmarks"),
            "UTF-16": (write("landmarks/1.lms", points_text().encode("utf-16")), "not readable as"),
            "2 MB": (landmarks("1 2\n" * 500_000 + "1 2\n" * 100_000), "found a file of 2.4 MB"),
            "one fewer": (without("landmarks/2.lms"), "found 2 landmark files, expected 3"),
            "one more": (copied("landmarks/2.lms", "landmarks/3.lms"), "found 4 landmark files"),
            "a number is missing": (without("landmarks/1.lms"), "found 2.lms after number 0"),
            "none": (without("landmarks"), "found no face boxes"),
            "floats": (landmarks(points_text({9: "3.5 1e1"})), USABLE),
            "Windows' line ends": (landmarks(points_text().replace("\n", "\r\n")), USABLE),
            "empty lines": (landmarks(points_text().replace("\n", "\n\n")), USABLE),
        },
    ),
    *no_files(
        "landmarks",
        "landmarks/1.lms",
        {"any": r"1\.lms: cannot be read", "device": "is a pipe or a device"},
    ),
]


def rectangles(entries: object) -> Change:
    return write("cache/crop_rectangles.json", json.dumps(entries).encode())


def rectangle(text: str) -> Change:
    """The rectangle of frame 1 by this text."""
    sound = '{"rect": [50, 40, 80, 70]}'
    content = f'{{"0": {sound}, "1": {text}, "2": {sound}}}'
    return write("cache/crop_rectangles.json", content.encode())


def large_rectangles(scene: Scene) -> None:
    with open(scene.avatar / "cache" / "crop_rectangles.json", "wb") as file:
        file.truncate(3 * 2**30)


RECT = {"rect": [50, 40, 80, 70]}
UNUSABLE = 'entry "1" is not usable'
RECTANGLES = [
    *cases(
        "rectangles",
        {
            "empty": (write("cache/crop_rectangles.json", b""), "not readable as JSON"),
            "text": (write("cache/crop_rectangles.json", b"rect"), "not readable as JSON"),
            "bytes": (write("cache/crop_rectangles.json", NOISE), "not readable as JSON"),
            "UTF-16": (
                write("cache/crop_rectangles.json", json.dumps({"0": RECT}).encode("utf-16")),
                "not readable as JSON",
            ),
            "half of it": (edit("cache/crop_rectangles.json", half), "not readable as JSON"),
            "100,000 brackets": (
                write("cache/crop_rectangles.json", b"[" * 100_000),
                "not readable as JSON",
            ),
            "100,000 braces": (
                write("cache/crop_rectangles.json", b'{"0":' * 100_000),
                "not readable as JSON",
            ),
            "a list": (rectangles([RECT] * 3), "found list rectangles"),
            "a number": (rectangles(3), "found int rectangles"),
            "none": (rectangles({}), "found no rectangles"),
            "two of three": (rectangles({"0": RECT, "1": RECT}), "found 2 rectangles, expected 3"),
            "four of three": (rectangles({str(i): RECT for i in range(4)}), "found 4 rectangles"),
            "other names": (
                rectangles({"a": RECT, "b": RECT, "c": RECT}),
                'entry "1" is not usable',
            ),
            "no rect": (rectangle('{"box": [1, 2, 3, 4]}'), "found \\{'box'"),
            "null": (rectangle("null"), UNUSABLE),
            "null for rect": (rectangle('{"rect": null}'), UNUSABLE),
            "three numbers": (rectangle('{"rect": [1, 2, 3]}'), UNUSABLE),
            "five numbers": (rectangle('{"rect": [1, 2, 3, 4, 5]}'), UNUSABLE),
            "words": (rectangle('{"rect": ["a", 2, 3, 4]}'), UNUSABLE),
            "a number within": (rectangle('{"rect": [[50], 40, 80, 70]}'), UNUSABLE),
            "NaN": (rectangle('{"rect": [NaN, 40, 80, 70]}'), "found nan"),
            "Infinity": (rectangle('{"rect": [50, 40, Infinity, 70]}'), "found inf"),
            "1e400": (rectangle('{"rect": [50, 40, 1e400, 70]}'), "found inf"),
            "10^400": (rectangle(f'{{"rect": [50, 40, {10**400}, 70]}}'), "outside any picture"),
            "10,000 digits": (
                rectangle('{"rect": [50, 40, ' + "9" * 10_000 + ", 70]}"),
                "not readable as JSON",
            ),
            "true": (rectangle('{"rect": [true, 40, 80, 70]}'), "found True"),
            "empty box": (
                rectangle('{"rect": [80, 40, 80, 70]}'),
                r"box \[80, 40, 80, 70\] is empty",
            ),
            "box outside": (
                rectangle('{"rect": [800, 40, 900, 70]}'),
                "of frame 1 leaves the frame",
            ),
            "3 GB": (large_rectangles, r"found a file of 3,221\.2 MB, expected at most"),
            "missing": (without("cache/crop_rectangles.json"), "found no face boxes"),
        },
        "video",
    ),
    *no_files(
        "rectangles",
        "cache/crop_rectangles.json",
        {"any": r"crop_rectangles\.json: cannot be read"},
        "video",
    ),
]


# Videos.


def video(edited: Callable[[bytes], bytes]) -> Change:
    return edit("full_body_video.mp4", edited)


def field_of(box: bytes, offset: int, value: int, size: int = 4) -> Callable[[bytes], bytes]:
    """A number in one of MP4's boxes, so many bytes behind its name."""

    def edited(data: bytes) -> bytes:
        at = data.find(box) + 4 + offset
        return data[:at] + value.to_bytes(size, "big") + data[at + size :]

    return edited


def only_sound(scene: Scene) -> None:
    tone_speech(scene.folder / "sound.m4a", 0.5)
    shutil.move(scene.folder / "sound.m4a", scene.avatar / "full_body_video.mp4")


def of_30000(data: bytes) -> bytes:
    return field_of(b"avc1", 24, 30_000 << 16 | 30_000)(data)


NO_VIDEO = r"full_body_video\.mp4: not decodable as video"
NO_PICTURES = r"full_body_video\.mp4: found no pictures, expected a video"
VIDEOS = [
    *cases(
        "video",
        {
            "empty": (video(lambda data: b""), NO_VIDEO),
            "text": (video(lambda data: b"no video\n" * 99), NO_VIDEO),
            "noise": (video(lambda data: NOISE), NO_VIDEO),
            "zeros": (video(lambda data: bytes(9999)), NO_VIDEO),
            "half of it": (video(half), NO_VIDEO),
            "its first 40 bytes": (video(lambda data: data[:40]), NO_VIDEO),
            "without its last 9 bytes": (video(lambda data: data[:-9]), USABLE),
            "only sound": (only_sound, "found no pictures"),
            "a picture": (video(lambda data: JPEG), "expected 1 as there are frames"),
            "an unknown format": (
                video(lambda data: data.replace(b"avc1", b"zzzz")),
                "a format that cannot be decoded",
            ),
            "says 30000x30000": (video(of_30000), USABLE),
            "says 10^9 times": (video(field_of(b"stts", 8, 10**9)), USABLE),
            "says 10^9 sizes": (video(field_of(b"stsz", 8, 10**9)), NO_VIDEO),
            "says sizes of 2 GB": (video(field_of(b"stsz", 4, 2**31 - 1)), NO_PICTURES),
            "packets elsewhere": (video(field_of(b"stco", 8, 2**31)), NO_PICTURES),
            "a list of files": (video(lambda data: b"ffconcat version 1.0\nfile a.mp4"), NO_VIDEO),
        },
        "video",
    ),
    *no_files("video", "full_body_video.mp4", {"any": r"video\.mp4: cannot be read"}, "video"),
]


# Networks.


def generator(content: bytes) -> Change:
    return write("models/generator.onnx", content)


def encoder(content: bytes) -> Change:
    return write("models/audio_encoder.onnx", content)


def sized(**inputs: broken.Dims) -> dict[str, object]:
    return {"inputs": {"picture": ["N", *broken.PICTURE], "sound": ["N", *broken.SOUND], **inputs}}


def custom(model_of: Callable[..., bytes], **sizes: object) -> bytes:
    node = helper.make_node("Strange", ["picture", "sound"], ["found"], domain="own")
    return model_of(nodes=[node], domains=["own"], **sizes)


def with_file(name: str, content: bytes, change: Change) -> Change:
    return lambda scene: (write(name, content)(scene), change(scene))


GENERATOR = broken.generator_of()
NO_NETWORK = r"generator\.onnx: not a usable ONNX network"
INTEGERS = {"picture": TensorProto.INT64}
TEXTS = {"picture": TensorProto.STRING}
BYTES_OUT = {"found": TensorProto.INT64}
GENERATORS = [
    *cases(
        "generator",
        {
            "sound": (generator(GENERATOR), USABLE),
            "empty": (generator(b""), NO_NETWORK),
            "text": (generator(b"not a network\n" * 40), NO_NETWORK),
            "zeros": (generator(bytes(4000)), NO_NETWORK),
            "noise": (generator(NOISE), NO_NETWORK),
            "half of it": (edit("models/generator.onnx", half), NO_NETWORK),
            "no nodes": (generator(broken.generator_of(nodes=[])), "it is empty"),
            "the audio encoder": (
                copied("models/audio_encoder.onnx", "models/generator.onnx"),
                "found inputs .*, expected",
            ),
            "pictures of 160": (
                generator(broken.generator_of(**sized(picture=["N", 6, 160, 160]))),
                "found inputs",
            ),
            "three inputs": (
                generator(broken.generator_of(**sized(more=["N", 1]))),
                "found inputs",
            ),
            "integers in": (
                generator(broken.generator_of(kinds=INTEGERS)),
                "is of int64, expected",
            ),
            "texts in": (generator(broken.generator_of(kinds=TEXTS)), "is of string, expected"),
            "integers out": (generator(broken.generator_of(kinds=BYTES_OUT)), NO_NETWORK),
            "says another output": (
                generator(broken.generator_of(output=["N", 1, 320, 320])),
                r"and output \[N, 1, 320, 320\], expected .* as SyncTalk_2D 328 has",
            ),
            "gives NaN": (generator(broken.generator_of(np.nan)), "gives NaN or infinity"),
            "gives infinity": (generator(broken.generator_of(np.inf)), "gives NaN or infinity"),
            "gives 1e30": (generator(broken.generator_of(1e30)), "its output reaches from 1e.30"),
            "opset 999": (
                generator(broken.generator_of(opset=999)),
                "written for opset 999, ONNX Ru",
            ),
            "opset 0": (generator(broken.generator_of(opset=0)), NO_NETWORK),
            "IR 999": (generator(broken.generator_of(ir_version=999)), "IR version 999"),
            "a maker's name in Latin-1": (
                edit(
                    "models/generator.onnx",
                    lambda data: data.replace(b"lipsync_nb", b"lipsync\xfcnb"),
                ),
                "a name in it is not UTF-8",
            ),
            "an operator of its own": (generator(custom(broken.generator_of)), NO_NETWORK),
            "batches of 7": (
                generator(
                    broken.generator_of(
                        **sized(picture=[7, *broken.PICTURE], sound=[7, *broken.SOUND])
                    )
                ),
                "exported for a batch of 7",
            ),
            "weights are missing": (
                generator(broken.with_weights_at(GENERATOR, "w.bin")),
                r"w\.bin is missing",
            ),
            "weights are too short": (
                with_file(
                    "models/w.bin", b"x", generator(broken.with_weights_at(GENERATOR, "w.bin"))
                ),
                "found 1 bytes",
            ),
            "weights elsewhere": (
                generator(broken.with_weights_at(GENERATOR, "../../w.bin")),
                "expected a file in the network's own folder",
            ),
            "weights in /dev/zero": (
                generator(broken.with_weights_at(GENERATOR, "/dev/zero")),
                "expected a file in the network's own folder",
            ),
            "weights are a pipe": (
                lambda s: (
                    generator(broken.with_weights_at(GENERATOR, "w.bin"))(s),
                    in_place_of(s.avatar / "models" / "w.bin", "pipe"),
                ),
                "it is a pipe or a device",
            ),
            "missing": (without("models/generator.onnx"), "found no generator network"),
            "named and missing": (
                lambda s: s.options.extend(["--generator", str(s.folder / "no.onnx")]),
                "no such network",
            ),
            "named and a folder": (
                lambda s: s.options.extend(["--generator", str(s.avatar)]),
                "it is a folder",
            ),
        },
    ),
    *no_files(
        "generator",
        "models/generator.onnx",
        {
            "any": r"generator\.onnx: cannot be read \(it is",
            "dangling link": "no such network",
            "loop of links": "no such network",
        },
    ),
]

NO_ENCODER = r"audio_encoder\.onnx: not a usable ONNX network"
ENCODERS = [
    *cases(
        "audio encoder",
        {
            "sound": (encoder(broken.encoder_of()), USABLE),
            "empty": (encoder(b""), NO_ENCODER),
            "text": (encoder(b"not a network\n" * 40), NO_ENCODER),
            "half of it": (edit("models/audio_encoder.onnx", half), NO_ENCODER),
            "the generator": (
                copied("models/generator.onnx", "models/audio_encoder.onnx"),
                "found inputs",
            ),
            "511 numbers a row": (encoder(broken.encoder_of(columns=511)), "found output"),
            "gives NaN": (encoder(broken.encoder_of(np.nan)), "gives NaN or infinity"),
            "gives infinity": (encoder(broken.encoder_of(-np.inf)), "gives NaN or infinity"),
            "missing": (without("models/audio_encoder.onnx"), "has no audio encoder"),
            "named and missing": (
                lambda s: s.options.extend(["--audio-encoder", str(s.folder / "no.onnx")]),
                "no such network",
            ),
        },
    ),
    *no_files(
        "audio encoder",
        "models/audio_encoder.onnx",
        {
            "any": r"audio_encoder\.onnx: cannot be read \(it is",
            "dangling link": "no such network",
            "loop of links": "no such network",
        },
    ),
]


# Options, arguments and places.


def option(*words: str) -> Change:
    return lambda scene: scene.options.extend(words)


OPTIONS = cases(
    "option",
    {
        "batch of -1": (option("--batch-size", "-1"), "batch_size: found -1"),
        "batch of 257": (option("--batch-size", "257"), "expected at most 256"),
        "batch of 10^30": (option("--batch-size", str(10**30)), "expected at most 256"),
        "batch of x": (option("--batch-size", "x"), USAGE),
        "batch of 5000 digits": (option("--batch-size", "9" * 5000), USAGE),
        "no jobs": (option("--n-jobs", "0"), "n_jobs: found 0"),
        "10^9 jobs": (option("--n-jobs", "1000000000"), "expected at most 256"),
        "-2 jobs": (option("--n-jobs=-2"), "expected at least -1"),
        "10^9 threads": (option("--num-threads", "1000000000"), "expected at most 256"),
        "10^9 streams": (option("--streams", "1000000000"), "expected at most 256"),
        "10^400 frames": (option("--max-frames", str(10**400)), "expected at most 1000000000"),
        "-1 frames": (option("--max-frames=-1"), "expected at least 0"),
        "1.5 frames": (option("--max-frames", "1.5"), USAGE),
        "crf of 52": (option("--crf", "52"), "expected at most 51"),
        "quality of 0": (option("--jpeg-quality", "0"), "expected at least 1"),
        "1 bit a second": (option("--audio-bitrate", "1"), "expected at least 16000"),
        "10^12 MB of features": (option("--feature-cache-mb", str(10**12)), "at most 1000000"),
        "unknown order": (option("--order", "random"), USAGE),
        "INT8 of the file as it is": (
            option("--no-prepare", "--precision", "int8"),
            "prepare: found False",
        ),
        "an unknown one": (option("--nonsense"), USAGE),
    },
)


def command(*words: str) -> Change:
    def change(scene: Scene) -> None:
        scene.command = list(words)

    return change


MEMORY = "expected lengths of 1 to 1000000000000"
ARGUMENTS = cases(
    "command",
    {
        "none": (command(), USAGE),
        "unknown": (command("paint"), USAGE),
        "render without places": (command("render", "AVATAR"), USAGE),
        "an avatar that is missing": (command("memory", "AVATAR/no"), "no such avatar folder"),
        "an avatar that is a device": (command("memory", "/dev/zero"), "found no frames"),
        "memory of 10^13 frames": (command("memory", "AVATAR", "--frames", str(10**13)), MEMORY),
        "memory of -1 frames": (command("memory", "AVATAR", "--frames=-1"), MEMORY),
        "memory of 0 frames": (command("memory", "AVATAR", "--frames", "3,0"), MEMORY),
        "memory of nothing": (
            command("memory", "AVATAR", "--frames", ""),
            "expected a whole number",
        ),
        "memory of x": (command("memory", "AVATAR", "--frames", "x"), "expected a whole number"),
        "sweep of an unknown field": (
            command("sweep", "AVATAR", "--set", "speed=1"),
            "expected FIELD=A,B,C",
        ),
        "sweep of no values": (command("sweep", "AVATAR", "--set", "crf="), "expected FIELD=A,B,C"),
        "sweep of x": (command("sweep", "AVATAR", "--set", "crf=x"), "expected a whole number"),
        "sweep of 52": (command("sweep", "AVATAR", "--set", "crf=52"), "expected at most 51"),
        "bench of an unknown one": (command("bench", "AVATAR", "--configs", "slow"), "slow"),
        "bench of a speech that is missing": (
            command("bench", "AVATAR", "no.wav"),
            "no such speech",
        ),
    },
)


def out(name: str) -> Change:
    def change(scene: Scene) -> None:
        scene.out_name = name

    return change


def out_on(kind: str, name: str = "out.mp4") -> Change:
    return lambda scene: (out(name)(scene), in_place_of(scene.out, kind))


PLACES = cases(
    "place",
    {
        "another suffix": (out("out.avi"), "found suffix .avi"),
        "within a folder that is missing": (out("no/out.mp4"), "no/out.mp4: "),
        "within a file": (out("speech.wav/out.mp4"), "speech.wav/out.mp4: "),
        "a name of 300 letters": (out("x" * 300 + ".mp4"), r"cannot be written \(File name too"),
        "the speech": (out("speech.wav"), "is what is read"),
        "a folder": (out_on("folder"), "out.mp4: "),
        "a pipe": (out_on("pipe"), "out.mp4: "),
        "a device": (out_on("device"), "out.mp4: "),
        "a socket": (out_on("socket"), "out.mp4: "),
        "a loop of links": (out_on("loop of links"), USABLE),
        "a dangling link": (out_on("dangling link"), USABLE),
    },
)

ALL = [
    *SPEECH, *FEATURES, *PICTURES, *LANDMARKS, *RECTANGLES, *VIDEOS, *GENERATORS, *ENCODERS,
    *OPTIONS, *ARGUMENTS, *PLACES,
]  # fmt: skip
