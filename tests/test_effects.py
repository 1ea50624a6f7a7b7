"""What a call sets in the whole process is put back when it ends; importing sets nothing."""

import json
import logging
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest

import lipsync_nb as lnb
from lipsync_nb.errors import AvatarError, NetworkError
from lipsync_nb.media.imaging import decode_image, encode_picture
from lipsync_nb.media.picture_files import read_picture
from lipsync_nb.network.providers import CPU, first_provider
from lipsync_nb.network.quantization import quantize_dynamic_integer, to_float16
from lipsync_nb.system.quiet import Shared, without_root_log, without_warnings

# In a process of its own: what differs after each step is printed. Libraries are imported before
# the first snapshot that calls are compared with: what they do to a process then is their own.
PROCESS = """
import json, locale, logging, os, signal, sys, threading, warnings

def state():
    root, mask = logging.getLogger(), os.umask(0)
    os.umask(mask)
    found = {
        "environment": dict(os.environ),
        "root logger": [root.level, root.disabled, root.handlers[:], root.filters[:]],
        "logging disabled": logging.root.manager.disable,
        "loggers": {
            name: [log.level, log.disabled, log.propagate, log.handlers[:], log.filters[:]]
            for name, log in logging.root.manager.loggerDict.items()
            if isinstance(log, logging.Logger)
        },
        "warnings": [warnings.filters[:], warnings.showwarning],
        "signals": [signal.getsignal(number) for number in sorted(signal.valid_signals())],
        "folder": os.getcwd(),
        "umask": mask,
        "path": sys.path[:],
        "hooks": [sys.excepthook, sys.displayhook, threading.excepthook],
        "streams": [sys.stdout, sys.stderr],
        "locale": locale.setlocale(locale.LC_ALL),
        "limits": [sys.getrecursionlimit(), sys.getswitchinterval(), threading.stack_size()],
        "niceness": os.nice(0),
        "cores": os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None,
    }
    for name, module in (("numpy", "numpy"), ("opencv", "cv2"), ("av", "av.logging")):
        if module in sys.modules:
            found[name] = LIBRARIES[name](sys.modules[module])
    return found

LIBRARIES = {
    "numpy": lambda np: [np.geterr(), np.geterrcall(), np.get_printoptions()],
    "opencv": lambda cv2: [
        cv2.getNumThreads(), getattr(cv2.utils, "logging", cv2).getLogLevel(), cv2.useOptimized(),
    ],
    "av": lambda log: log.get_level(),
}

def compare(step, before, after):
    names = [name for name in before if repr(before[name]) != repr(after[name])]
    print(json.dumps([step, {n: [repr(before[n]), repr(after[n])] for n in names}]))

folder, sound, out = sys.argv[1:]
before = state()
import lipsync_nb as lnb
compare("import", before, state())
import av.logging, cv2, filelock, joblib, llvmlite.binding, numpy, onnx, onnxruntime.quantization
import onnxruntime.transformers.float16, soxr
logging.getLogger().setLevel(logging.DEBUG)
warnings.simplefilter("error", DeprecationWarning)
numpy.seterr(over="raise")
cv2.setNumThreads(3)
before = state()
avatar, speech = lnb.load_avatar(folder), lnb.load_speech(sound)
compare("load", before, state())
for fields in ({}, {"n_jobs": 2}, {"precision": "int8"}, {"precision": "fp16"}):
    lnb.render(avatar, speech, out, lnb.RenderConfig(**fields))
    compare(f"render {fields}", before, state())
for precision in ("int8", "fp16"):
    lnb.experiments.quantize(avatar, precision, speech=speech)
    compare(f"quantize {precision}", before, state())
"""
STEPS = 8
# OpenCV 4 has these functions at its top.
LOG: Any = getattr(cv2.utils, "logging", cv2)
INFO = 4


def test_the_process_is_as_before(synctalk_folder: Path, speech_file: Path, tmp_path: Path) -> None:
    cache = {"LIPSYNC_NB_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", PROCESS, str(synctalk_folder), str(speech_file),
         str(tmp_path / "v.mp4")],
        env=os.environ | cache, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    found = dict(json.loads(line) for line in done.stdout.splitlines())
    assert len(found) == STEPS
    assert {step: changed for step, changed in found.items() if changed} == {}


def test_importing_loads_no_other_package() -> None:
    code = "import sys; old = set(sys.modules); import lipsync_nb; print(*set(sys.modules) - old)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    tops = {name.split(".")[0] for name in done.stdout.split()}
    assert "lipsync_nb" in tops
    # What loads the public names on first use: a page of Python.
    assert tops - {"lipsync_nb", "lazy_loader"} <= sys.stdlib_module_names


def test_the_last_one_out_puts_a_shared_setting_back() -> None:
    changes: list[str] = []

    def change() -> object:
        changes.append("set")
        return lambda: changes.append("back")

    setting = Shared(change)  # type: ignore[arg-type]
    with setting:
        with setting, pytest.raises(KeyError), setting:
            raise KeyError
        assert changes == ["set"]
    assert changes == ["set", "back"]
    with setting:
        assert changes == ["set", "back", "set"]


class Heard(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@pytest.mark.parametrize("disabled", [False, True])
def test_only_the_threads_own_lines_are_dropped(disabled: bool) -> None:
    root, heard = logging.getLogger(), Heard()
    root.addHandler(heard)
    before = root.level, root.filters[:], root.handlers[:]
    root.disabled = disabled
    try:
        with without_root_log():
            logging.warning("own")
            other = threading.Thread(target=logging.warning, args=["another's"])
            other.start()
            other.join()
            assert root.disabled is disabled
        logging.warning("later")
        assert (root.level, root.filters, root.handlers) == before
        assert root.disabled is disabled
    finally:
        root.disabled = False
        root.removeHandler(heard)
    assert heard.lines == ([] if disabled else ["another's", "later"])


def test_two_threads_that_leave_in_the_order_they_came_leave_nothing() -> None:
    """The first to come leaves first: what each found by itself is not what was there."""
    root, filters = logging.getLogger(), warnings.filters[:]
    before = root.level, root.disabled, root.filters[:], root.handlers[:]
    level = LOG.getLogLevel()
    came, left = threading.Event(), threading.Event()

    def first() -> None:
        with without_root_log(), without_warnings:
            came.wait(10)
        left.set()

    def second() -> None:
        with without_root_log(), without_warnings:
            came.set()
            left.wait(10)

    threads = [threading.Thread(target=target) for target in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert left.is_set()
    assert (root.level, root.disabled, root.filters, root.handlers) == before
    assert (warnings.filters, LOG.getLogLevel()) == (filters, level)


def test_two_threads_may_quantise_at_once(avatar: lnb.Avatar) -> None:
    assert avatar.generator is not None
    model = onnx.load(avatar.generator)
    root, filters = logging.getLogger(), warnings.filters[:]
    before = root.level, root.disabled, root.filters[:], root.handlers[:]
    made: list[onnx.ModelProto] = []
    tasks = [quantize_dynamic_integer, to_float16, quantize_dynamic_integer]
    threads = [
        threading.Thread(target=lambda task=task: made.append(task(model))) for task in tasks
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == len(tasks)
    assert (root.level, root.disabled, root.filters, root.handlers) == before
    assert warnings.filters == filters


def test_broken_pictures_are_quiet_and_opencv_stays_as_it_was(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    level = LOG.getLogLevel()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    try:
        LOG.setLogLevel(INFO)
        for suffix in (".jpg", ".png"):
            data = encode_picture(noise, suffix)
            for broken in (data[: len(data) // 2], data[:20], data[:-12] + bytes(12)):
                (tmp_path / "broken").write_bytes(broken)
                with pytest.raises(AvatarError):
                    read_picture(tmp_path / "broken")
        half = encode_picture(noise, ".png")[:5000]
        decode_image(half)
        assert decode_image(b"hello") is None
        assert LOG.getLogLevel() == INFO
    finally:
        LOG.setLogLevel(level)
    out, err = capfd.readouterr()
    # libpng's line about the half picture, which `read_picture` does not hand on, is in OpenCV 4
    # none of OpenCV's own log.
    own = [line for line in err.splitlines() if not line.startswith("libpng error: PNG input")]
    assert (out, own) == ("", [])


def failing_network(source: Path, path: Path) -> Path:
    """A generator that looks up a row that is not there, for loud sounds alone."""
    model = onnx.load(source)
    audio = next(
        v.name for v in model.graph.input if v.type.tensor_type.shape.dim[1].dim_value == 32
    )
    for node in model.graph.node:
        node.input[:] = ["same" if name == audio else name for name in node.input]
    nodes = [
        onnx.helper.make_node("ReduceMax", [audio], ["peak"], axes=[0, 1, 2, 3], keepdims=0),
        onnx.helper.make_node("Cast", ["peak"], ["row"], to=onnx.TensorProto.INT64),
        onnx.helper.make_node("Gather", ["table", "row"], ["found"]),
        onnx.helper.make_node("Add", [audio, "found"], ["same"]),
    ]
    for position, node in enumerate(nodes):
        model.graph.node.insert(position, node)
    table = onnx.numpy_helper.from_array(np.zeros(2, np.float32), "table")
    model.graph.initializer.append(table)
    onnx.save(model, path)
    return path


def fails_in_calibration(odd: lnb.Avatar, loud: lnb.Speech) -> None:
    lnb.experiments.quantize(odd, "int8", speech=loud)


def fails_in_a_render(odd: lnb.Avatar, loud: lnb.Speech) -> None:
    list(lnb.iter_frames(odd, loud))


def fails_unprepared(odd: lnb.Avatar, loud: lnb.Speech) -> None:
    list(lnb.iter_frames(odd, loud, lnb.RenderConfig(prepare=False)))


@pytest.mark.parametrize("fails", [fails_in_calibration, fails_in_a_render, fails_unprepared])
def test_networks_that_fail_are_quiet(
    avatar: lnb.Avatar,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    fails: Callable[[lnb.Avatar, lnb.Speech], None],
) -> None:
    """ONNX Runtime's own lines stay off the console, without its setting of the whole process."""
    assert avatar.generator is not None
    odd = replace(avatar, generator=failing_network(avatar.generator, tmp_path / "gather.onnx"))
    features = np.zeros((30, 512), np.float32)
    features[-3:] = 9
    with pytest.raises(NetworkError, match="out of "):
        fails(odd, lnb.Speech(features=features))
    assert capfd.readouterr() == ("", "")


def test_cuda_that_is_not_there_is_one_sentence(
    synctalk_folder: Path, speech_file: Path, tmp_path: Path
) -> None:
    if first_provider("auto") != CPU:
        pytest.skip("CUDA loads here")
    out = str(tmp_path / "v.mp4")
    command = ["render", str(synctalk_folder), str(speech_file), out, "--provider", "cuda"]
    done = subprocess.run(
        [sys.executable, "-m", "lipsync_nb", *command],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "CUDA was asked for and did not load" in done.stderr
