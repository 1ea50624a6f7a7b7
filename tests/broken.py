"""Files that are broken on purpose, a scene to use them in, and the command line run on it."""

from __future__ import annotations

import shutil
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import onnx
from builders import tone_speech, write_origin_avatar, write_synctalk_avatar
from onnx import TensorProto, helper

from lipsync_nb.types.arrays import AnyArray

SIZE = (128, 96)
NUM_FRAMES = 3


def png(width: int, height: int, damaged: bool = False) -> bytes:
    """A PNG that claims this size and holds next to nothing."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    parts = [b"\x89PNG\r\n\x1a\n"]
    for kind, data in chunks:
        check = zlib.crc32(kind + data) ^ damaged
        parts.append(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check))
    return b"".join(parts)


def picture(suffix: str, shape: tuple[int, ...] = (SIZE[1], SIZE[0], 3)) -> bytes:
    """A sound picture of noise."""
    image = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
    return bytes(cv2.imencode(suffix, image)[1].tobytes())


def picture16() -> bytes:
    """A sound PNG of 16 bits a colour."""
    image = np.full((SIZE[1], SIZE[0], 3), 12345, np.uint16)
    return bytes(cv2.imencode(".png", image)[1].tobytes())


def jpeg_claiming(width: int, height: int) -> bytes:
    """A JPEG of few bytes that claims this size."""
    data = bytearray(picture(".jpg", (16, 16, 3)))
    at = data.find(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def bmp_claiming(width: int, height: int) -> bytes:
    data = bytearray(picture(".bmp", (16, 16, 3)))
    data[18:26] = struct.pack("<ii", width, height)
    return bytes(data)


def webp_claiming(size: int) -> bytes:
    """A lossless WebP that claims this many pixels a side."""
    params = [cv2.IMWRITE_WEBP_QUALITY, 101]
    data = bytearray(cv2.imencode(".webp", np.zeros((16, 16, 3), np.uint8), params)[1].tobytes())
    data[21:25] = struct.pack("<I", (size - 1) | (size - 1) << 14)
    return bytes(data)


def gif_claiming(size: int) -> bytes:
    head = b"GIF89a" + struct.pack("<HHBBB", size, size, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    return head + b"," + struct.pack("<HHHHB", 0, 0, size, size, 0) + b"\x02\x02\x44\x01\x00;"


def tiff_claiming(size: int) -> bytes:
    data = bytearray(picture(".tiff", (16, 16, 3)))
    at = struct.unpack("<I", data[4:8])[0]
    for entry in range(struct.unpack("<H", data[at : at + 2])[0]):
        start = at + 2 + 12 * entry
        if struct.unpack("<H", data[start : start + 2])[0] in (256, 257, 278):
            data[start + 2 : start + 12] = struct.pack("<HII", 4, 1, size)
    return bytes(data)


def npy(descr: str, shape: str, data: bytes = b"", version: int = 1, claimed: int = 0) -> bytes:
    """A ``.npy`` file with this header, and perhaps another length of it than it has."""
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (63 - len(header) % 64) + b"\n"
    length = struct.pack("<H" if version == 1 else "<I", claimed or len(header))
    return b"\x93NUMPY" + bytes([version, 0]) + length + header + data


def wav(
    rate: int = 16_000,
    seconds: float = 0.5,
    channels: int = 1,
    chunk: bytes = b"",
    tag: int = 1,
    bits: int = 16,
    count: int | None = None,
    claimed: int | None = None,
    samples: AnyArray | None = None,
) -> bytes:
    """A WAV file with every field of its header as one likes."""
    count = int(rate * seconds) if count is None else count
    if samples is None:
        samples = (9000 * np.sin(np.arange(count * channels) / 5)).astype("<i2")
    data = samples.tobytes()
    step = max(1, bits // 8 * channels) & 0xFFFF
    numbers = (tag, channels & 0xFFFF, rate, min(rate * step, 2**32 - 1), step, bits)
    head = b"fmt " + struct.pack("<I", 16) + struct.pack("<HHIIHH", *numbers)
    size = len(data) if claimed is None else claimed
    body = b"WAVE" + head + chunk + b"data" + struct.pack("<I", size) + data
    return b"RIFF" + struct.pack("<I", min(len(body), 2**32 - 1)) + body


def wav_chunk(kind: bytes, content: bytes) -> bytes:
    return kind + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def latin_info() -> bytes:
    """A LIST chunk of WAV whose title is in Latin-1."""
    return wav_chunk(b"LIST", b"INFO" + wav_chunk(b"INAM", "Jörg é".encode("latin-1")))


def latin_id3() -> bytes:
    """An id3 chunk of WAV whose title says that it is UTF-8, and is Latin-1."""
    text = b"\x03" + "Jörg é".encode("latin-1")
    frame = b"TIT2" + struct.pack(">I", len(text)) + b"\0\0" + text
    return wav_chunk(b"id3 ", b"ID3\x03\0\0" + struct.pack(">I", len(frame)) + frame)


@dataclass
class Scene:
    """An avatar, a speech and an output place in a folder, and the options of the command."""

    folder: Path
    options: list[str] = field(default_factory=list)
    command: list[str] | None = None
    out_name: str = "out.mp4"
    speech_name: str = "speech.wav"
    avatar_name: str = "person"

    @classmethod
    def make(cls, folder: Path, kind: str, home: Path) -> Scene:
        """A sound scene with an avatar of ``pictures`` or of a ``video``, copied from ``home``."""
        source = home / kind
        if not source.is_dir():
            {"pictures": write_synctalk_avatar, "video": write_origin_avatar}[kind](
                source / "person", NUM_FRAMES, SIZE
            )
            tone_speech(source / "speech.wav", 0.5)
        shutil.copytree(source, folder, dirs_exist_ok=True)
        return cls(folder)

    @property
    def avatar(self) -> Path:
        return self.folder / self.avatar_name

    @property
    def speech(self) -> Path:
        return self.folder / self.speech_name

    @property
    def out(self) -> Path:
        return self.folder / self.out_name

    @property
    def arguments(self) -> list[str]:
        if self.command is not None:
            return [word.replace("AVATAR", str(self.avatar)) for word in self.command]
        paths = [str(path) for path in (self.avatar, self.speech, self.out)]
        return ["render", *paths, "--max-frames", "2", "--no-fuse", *self.options]

    def say(self, name: str, content: bytes) -> None:
        """Have this as the speech."""
        self.speech_name = name
        self.speech.write_bytes(content)


PICTURE, SOUND, PAINTED = [6, 320, 320], [32, 16, 16], [3, 320, 320]
MEL, ROW = [1, 80, 16], [512]
Dims = Sequence[int | str]


def network(
    inputs: dict[str, Dims],
    output: Dims,
    nodes: Sequence[onnx.NodeProto],
    constants: Sequence[onnx.TensorProto] = (),
    kinds: dict[str, int] | None = None,
    opset: int = 17,
    ir_version: int = 8,
    domains: Sequence[str] = (),
) -> bytes:
    """A network with these inputs (with their batch axis), and one output ``found``."""
    kinds = kinds or {}
    given = [
        helper.make_tensor_value_info(name, kinds.get(name, TensorProto.FLOAT), list(dims))
        for name, dims in inputs.items()
    ]
    kind = kinds.get("found", TensorProto.FLOAT)
    found = helper.make_tensor_value_info("found", kind, list(output))
    graph = helper.make_graph(list(nodes), "broken", given, [found], list(constants))
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=ir_version)
    return bytes(model.SerializeToString())


def generator_of(value: float = 0.0, **changes: object) -> bytes:
    """A generator that gives the first picture back, plus a number."""
    nodes = [
        helper.make_node("Slice", ["picture", "start", "stop", "axis"], ["part"]),
        helper.make_node("ReduceMean", ["sound"], ["mean"], axes=[1, 2, 3], keepdims=1),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
        helper.make_node("Add", ["part", "nothing"], ["sum"]),
        helper.make_node("Add", ["sum", "value"], ["found"]),
    ]
    numbers = [("start", [0]), ("stop", [3]), ("axis", [1])]
    constants = [helper.make_tensor(n, TensorProto.INT64, [1], v) for n, v in numbers]
    constants.append(helper.make_tensor("zero", TensorProto.FLOAT, [], [0.0]))
    constants.append(helper.make_tensor("value", TensorProto.FLOAT, [], [value]))
    inputs: dict[str, Dims] = {"picture": ["N", *PICTURE], "sound": ["N", *SOUND]}
    options = {"inputs": inputs, "output": ["N", *PAINTED], "nodes": nodes, "constants": constants}
    return network(**{**options, **changes})  # type: ignore[arg-type]


def encoder_of(value: float = 0.0, columns: int = 512) -> bytes:
    """An audio encoder whose rows are all one number, plus the mean of the window."""
    nodes = [
        helper.make_node("ReduceMean", ["mel"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Unsqueeze", ["mean", "axis"], ["column"]),
        helper.make_node("Add", ["column", "row"], ["found"]),
    ]
    axis = helper.make_tensor("axis", TensorProto.INT64, [1], [1])
    row = helper.make_tensor("row", TensorProto.FLOAT, [1, columns], [value] * columns)
    return network({"mel": ["N", *MEL]}, ["N", columns], nodes, [axis, row])


def with_weights_at(model: bytes, location: str, length: int = 4) -> bytes:
    """The network with its last constant in a file beside it."""
    parsed = onnx.load_from_string(model)
    tensor = parsed.graph.initializer[-1]
    tensor.ClearField("float_data")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("length", str(length))):
        tensor.external_data.add(key=key, value=value)
    return bytes(parsed.SerializeToString())
