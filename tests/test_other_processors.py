"""INT8 and fused layers on an emulated processor with AVX2 alone, against float and plain."""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from test_fusion import (
    Builder,
    assert_close,
    assert_fused_is_plain,
    end_of_unet,
    open_session,
    unet_end,
)
from test_generation import psnr
from test_rewriting import float_model, quantised_model, run

from lipsync_nb.network.inference import Session, random_feeds
from lipsync_nb.network.integers import LARGEST, is_exact, weight_bits
from lipsync_nb.network.preparation import QuantizationSettings, prepare_whole
from lipsync_nb.network.requantizing import share_concat_ranges
from lipsync_nb.network.row_fusion.emitter import host  # noqa: F401 - for the script
from lipsync_nb.network.row_fusion.fused_network import FusedNetwork

QEMU = shutil.which("qemu-x86_64")
# It has AVX2, and no instructions for 8-bit dot products.
CPUS = ["Haswell"]


def check_integers() -> None:
    """The small network in 8 bits is close to the one in float32."""
    model, feeds = float_model()
    quantised, _ = quantised_model()
    share_concat_ranges(quantised)
    onnx.checker.check_model(quantised)
    expected = run(model, feeds)
    error = run(quantised, feeds) - expected
    # A weight is off by a half of 1/64 at most, a value by half of 1/255.
    assert np.sqrt(np.mean(error**2)) < 0.03 * expected.std()


def check_fused() -> None:
    assert assert_fused_is_plain(unet_end(64, 64), count=1).num_layers == 7


def small_generator() -> bytes:
    """A picture halved, the sound added to it, and the end of a U-Net: at 64x64, to be emulated."""
    b = Builder(10)
    seen = b.add("Conv", ["input", b.noise(5, 6, 3, 3, scale=0.14), b.noise(5)], pads=[1] * 4)
    skip = b.relu(seen)
    low = b.add("Conv", [skip, b.noise(6, 5, 3, 3, scale=0.2)], pads=[1] * 4, strides=[2, 2])
    mixed = b.add("Add", [low, b.pointwise("audio", 8, 6)])
    inputs = {"input": (6, 64, 64), "audio": (8, 1, 1)}
    model = b.float_model(end_of_unet(b, b.relu(mixed), skip), inputs, (64, 64))
    return bytes(model.SerializeToString())


def check_generator() -> None:
    """A whole generator: its fused form, and its form in 8 bits, against ONNX Runtime in FP32."""
    network = small_generator()
    plain = prepare_whole(network)["whole.onnx"]
    given = random_feeds(plain, 1)
    expected = Session(plain, Path("plain"), provider="cpu")(given)[0]
    assert_close(FusedNetwork(plain, open_session)(given)[0], expected)
    settings = QuantizationSettings("int8", lambda: [given], "audio", weight_bits())
    integers = prepare_whole(network, settings)["whole.onnx"]
    found = Session(integers, Path("int8"), provider="cpu")(given)[0]
    assert psnr(found, expected) > 40


def test_small_networks_here() -> None:
    # The widest weights that are right: those of 7 bits are everywhere.
    assert [bits for bits in LARGEST if is_exact(bits)] == ([8, 7] if weight_bits() == 8 else [7])
    check_integers()
    check_fused()
    check_generator()


SCRIPT = """
import test_other_processors as t
print(t.host().lanes, t.weight_bits())
t.check_integers()
t.check_fused()
t.check_generator()
print("right")
"""


@pytest.mark.parametrize("cpu", CPUS)
def test_small_networks_on_an_emulated_processor(cpu: str) -> None:
    if QEMU is None:
        pytest.skip("qemu-x86_64 is not installed (Debian: qemu-user)")
    if sys.platform != "linux" or platform.machine() != "x86_64":
        pytest.skip("this interpreter is not for x86-64 Linux, which qemu-x86_64 runs")
    paths = [str(Path(__file__).parent), *sys.path]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        "OPENBLAS_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [QEMU, "-cpu", cpu, os.path.realpath(sys.executable), "-c", SCRIPT],
        capture_output=True, text=True, env=environment, timeout=300, check=False,
    )  # fmt: skip
    assert done.stdout.splitlines() == ["8 7", "right"], done.stderr
