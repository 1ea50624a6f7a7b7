"""A GPU that was asked for and cannot be had: a sentence for each case, with drivers made here."""

import ctypes
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

import lipsync_nb as lnb
from lipsync_nb.errors import OutputError, ProviderError
from lipsync_nb.network.providers import DeviceOptions, first_provider, providers
from lipsync_nb.network.runtime import cuda_build, ort

CUDA = "CUDAExecutionProvider"
COMPILER = shutil.which("gcc") or shutil.which("cc")
needs_compiler = pytest.mark.skipif(
    COMPILER is None
    or not sys.platform.startswith("linux")
    or CUDA not in ort.get_available_providers(),
    reason="makes drivers for Linux, with a C compiler, for an ONNX Runtime with CUDA",
)
SOURCE = """
int cuInit(unsigned flags) {{ return {init}; }}
int cuDeviceGetCount(int *count) {{ *count = {count}; return 0; }}
int cuDriverGetVersion(int *version) {{ *version = {version}; return 0; }}
"""
ASK = """
import sys, time
from lipsync_nb.network.providers import why_not
start = time.perf_counter()
print(why_not(sys.argv[1], int(sys.argv[2])))
print(time.perf_counter() - start)
"""
MAJOR = cuda_build().partition(".")[0]
# In the order in which they are looked for.
LIBRARIES = [
    *(f"lib{name}.so.{MAJOR}" for name in ("cudart", "cublasLt", "cublas")),
    "libcurand.so.10",
    "libcudnn.so.9",
]


def made_library(path: Path, source: str = "") -> None:
    file = path.with_suffix(".c")
    file.write_text(source, encoding="utf-8")
    command = [str(COMPILER), "-shared", "-fPIC", "-o", str(path), str(file)]
    subprocess.run(command, check=True, capture_output=True)


def asked(folder: Path, name: str = "cuda", device_id: int = 0) -> str:
    """What is said of a provider in a process that finds these libraries first."""
    done = subprocess.run(
        [sys.executable, "-c", ASK, name, str(device_id)],
        env=os.environ | {"LD_LIBRARY_PATH": str(folder)},
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stderr == ""
    sentence, seconds = done.stdout.splitlines()
    assert float(seconds) < 10
    return sentence


def with_driver(folder: Path, init: int = 0, count: int = 1, version: int | None = None) -> None:
    version = 1000 * int(MAJOR) if version is None else version
    source = SOURCE.format(init=init, count=count, version=version)
    made_library(folder / "libcuda.so.1", source)


def is_installed(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


@needs_compiler
@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"init": 100}, "the NVIDIA driver finds no GPU"),
        ({"count": 0}, "the NVIDIA driver finds no GPU"),
        ({"init": 999}, "the NVIDIA driver does not start (cuInit gives 999)"),
        (
            {"version": 11080},
            f"the NVIDIA driver is for CUDA 11.8, this ONNX Runtime for {cuda_build()}; install a "
            f"newer driver ({ {'12': 525, '13': 580}.get(MAJOR) } or newer), or an onnxruntime-gpu "
            "for CUDA 11",
        ),
    ],
    ids=["no device", "none counted", "does not start", "too old"],
)
def test_drivers(values: dict[str, int], sentence: str, tmp_path: Path) -> None:
    with_driver(tmp_path, **values)
    assert asked(tmp_path) == sentence


@needs_compiler
@pytest.mark.parametrize("missing", range(len(LIBRARIES)), ids=LIBRARIES)
def test_libraries(missing: int, tmp_path: Path) -> None:
    if is_installed(LIBRARIES[missing]):
        pytest.skip("it is installed here")
    with_driver(tmp_path)
    for library in LIBRARIES[:missing]:
        made_library(tmp_path / library)
    advice = 'pip install "onnxruntime-gpu[cuda,cudnn]"'
    assert asked(tmp_path) == f"{LIBRARIES[missing]} is missing; {advice}"


@needs_compiler
def test_more_gpus_than_there_are_and_tensorrt(tmp_path: Path) -> None:
    with_driver(tmp_path)
    for library in LIBRARIES:
        made_library(tmp_path / library)
    assert asked(tmp_path) == ""
    assert asked(tmp_path, device_id=1) == "found 1 GPUs, device_id is 1"
    advice = f"libnvinfer.so.10 is missing; pip install tensorrt-cu{MAJOR}"
    assert asked(tmp_path, "tensorrt") == advice


@needs_compiler
def test_a_gpu_that_is_not_used_is_told_of(synctalk_folder: Path, tmp_path: Path) -> None:
    """By "auto", in a warning; the frames come from the processor."""
    if first_provider("auto") == CUDA:
        pytest.skip("CUDA loads here")
    folder = tmp_path / "lib"
    folder.mkdir()
    with_driver(folder)
    program = (
        "import sys, numpy as np, lipsync_nb as lnb\n"
        "speech = lnb.Speech(features=np.zeros((2, 512), np.float32))\n"
        "print(len(list(lnb.iter_frames(lnb.load_avatar(sys.argv[1]), speech))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(synctalk_folder)],
        env=os.environ | {"LD_LIBRARY_PATH": str(folder)},
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert done.stdout == "2\n"
    first = next(library for library in LIBRARIES if not is_installed(library))
    expected = f"there is a GPU, but it is not used: {first} is missing"
    assert expected in done.stderr
    assert "onnxruntime:" not in done.stderr


@pytest.mark.parametrize("name", ["cuda", "tensorrt", "directml", "coreml"])
def test_what_is_asked_for_by_name_is_an_error_at_once(
    name: str,
    avatar: lnb.Avatar,
    speech: lnb.Speech,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    if first_provider(name) != "CPUExecutionProvider":
        pytest.skip(f"{name} loads here")
    start = time.perf_counter()
    with pytest.raises(ProviderError, match=r"was asked for and did not load: .+\.$"):
        lnb.render(avatar, speech, tmp_path / "v.mp4", lnb.RenderConfig(provider=name))
    assert time.perf_counter() - start < 10
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr() == ("", "")


def test_auto_is_cuda_or_the_processor() -> None:
    assert providers("cpu") == ["CPUExecutionProvider"]
    assert providers("auto") in ([CUDA, "CPUExecutionProvider"], ["CPUExecutionProvider"])
    assert providers("cpu:3") == ["CPUExecutionProvider"]


def test_options_say_which_gpu_and_no_tf32() -> None:
    entries = DeviceOptions().entries(CUDA, 2)
    assert (entries["device_id"], entries["use_tf32"]) == ("2", "0")
    engines = DeviceOptions().entries("TensorrtExecutionProvider", 0)
    assert engines["trt_engine_cache_path"].endswith("tensorrt")
    assert lnb.RenderConfig(provider="cuda", device_id=2).device == "cuda:2"
    assert lnb.RenderConfig().device == "auto"


def test_nvenc_that_does_not_open_is_an_error(
    avatar: lnb.Avatar, speech: lnb.Speech, tmp_path: Path
) -> None:
    from lipsync_nb.media.h264 import why_no_nvenc

    if not why_no_nvenc():
        pytest.skip("NVENC opens here")
    with pytest.raises(OutputError, match="NVENC was asked for and does not open"):
        lnb.render(avatar, speech, tmp_path / "v.mp4", lnb.RenderConfig(encoder="nvenc"))
    in_parts = lnb.RenderConfig(encoder="nvenc", resume="on")
    with pytest.raises(OutputError, match="NVENC was asked for and does not open"):
        lnb.render(avatar, speech, tmp_path / "v.mp4", in_parts)
    with pytest.raises(OutputError, match="the stream: NVENC was asked for and does not open"):
        lnb.stream(avatar, [], lnb.RenderConfig(encoder="nvenc"), as_fragments=True)
    assert not list(tmp_path.iterdir())
