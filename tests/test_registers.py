"""Compiled row kernels keep their sums in registers: read from the code, for processors by name.

LLVM writes code for processors that are not there too; nothing is run.
"""

import re
from dataclasses import dataclass, replace

import pytest
from test_row_kernels import IS_X86

from lipsync_nb.network.row_fusion.emitter import Kernel, Target
from lipsync_nb.network.row_fusion.kernels import (
    CopyRow,
    DepthwiseRow,
    PictureRow,
    PointwiseRow,
    StretchRow,
    WidenRow,
)
from lipsync_nb.network.row_fusion.machine import assembly

TARGETS = {
    "SSE4": Target(4, "x86-64-v2"),
    "AVX2": Target(8, "haswell"),
    "AVX2 of AMD": Target(8, "znver2"),
    "AVX-512": Target(16, "skylake-avx512"),
}
# 1x1 convolutions of the full-width network and of others: channels, inputs, width.
POINTWISE = [(256, 64, 80), (32, 256, 80), (32, 128, 160), (16, 32, 320), (24, 17, 192), (7, 9, 48)]

pytestmark = pytest.mark.skipif(not IS_X86, reason="reads code for x86-64")


@pytest.fixture(params=TARGETS)
def target(request: pytest.FixtureRequest) -> Target:
    return TARGETS[request.param]


@dataclass(frozen=True)
class Forced(PointwiseRow):
    """A 1x1 convolution with a tile that is told."""

    told: tuple[int, int] = (1, 1)

    def tile(self, target: Target) -> tuple[int, int]:
        return self.told


def inner_loops(kernel: Kernel, target: Target) -> list[list[str]]:
    """The instructions of each loop that has no loop in it and computes with vectors."""
    lines = [line.strip() for line in assembly([kernel], target).splitlines()]
    labels = {line.split(":")[0]: i for i, line in enumerate(lines) if re.match(r"[.\w]+:", line)}
    jumps = [(i, re.match(r"j\w+\s+([.\w]+)", line)) for i, line in enumerate(lines)]
    loops = [(labels[to[1]], i) for i, to in jumps if to and labels[to[1]] < i]
    inner = [
        lines[first : last + 1]
        for first, last in loops
        if not any(first <= start < end < last for start, end in loops)
    ]
    return [loop for loop in inner if any(re.search("%[xyz]mm", line) for line in loop)]


def spills(loop: list[str]) -> list[str]:
    """Instructions that move vectors to the stack, or take them from there."""
    return [line for line in loop if "(%rsp" in line and re.search("%[xyz]mm", line)]


@pytest.mark.parametrize("added", ["", "row", "mixed"])
@pytest.mark.parametrize(("channels", "inputs", "width"), POINTWISE)
def test_sums_of_a_tile_stay_in_registers(
    channels: int, inputs: int, width: int, added: str, target: Target
) -> None:
    kernel = PointwiseRow(channels, inputs, width, width + 32, width + 32, added)
    (loop,) = inner_loops(kernel, target)
    m, v = kernel.tile(target)
    # All of the tile's products are in this loop, in vectors of the target's width.
    register = {4: "%xmm", 8: "%ymm", 16: "%zmm"}[target.lanes]
    products = [line for line in loop if re.match("vfn?madd|mulps", line) and register in line]
    assert len(products) == m * v
    assert spills(loop) == []


@pytest.mark.parametrize("tile", [(8, 4), (16, 5)])
def test_sums_of_too_large_a_tile_do_not(tile: tuple[int, int], target: Target) -> None:
    """What the test above finds where there are more sums than registers: 32 and 80."""
    kernel = Forced(32, 64, 320, 352, 352, told=tile)
    (loop,) = inner_loops(kernel, target)
    assert tile[0] * tile[1] >= target.registers
    assert spills(loop) != []


@pytest.mark.parametrize(
    "kernel",
    [
        CopyRow(16, 320, 320, 352),
        WidenRow(16, 320, 320, 352),
        DepthwiseRow(16, 320, 352, relu=True),
        PictureRow(16, 320, 352, 255.0),
    ],
    ids=lambda kernel: type(kernel).__name__,
)
def test_other_rows_stay_in_registers(kernel: Kernel, target: Target) -> None:
    loops = inner_loops(kernel, target)
    assert loops
    assert [line for loop in loops for line in spills(loop)] == []


def test_a_stretched_row_is_not_put_aside(target: Target) -> None:
    """Of its many constants some may lie on the stack, from where they are only read."""
    low = tuple(min(i * 159 // 319, 158) for i in range(320))
    (loop,) = inner_loops(StretchRow(16, 160, 192, 352, low, (0.25,) * 320), target)
    assert [line for line in spills(loop) if line.endswith("(%rsp)")] == []


@pytest.mark.parametrize("lanes", [4, 8, 16])
def test_tiles_take_the_registers_that_there_are(lanes: int) -> None:
    """More than half of them hold sums, and what each step loads fits beside these."""
    target = replace(TARGETS["AVX2"], lanes=lanes)
    for channels, inputs, width in [(32, 32, 320), (24, 17, 192), (60, 8, 240)]:
        m, v = PointwiseRow(channels, inputs, width, width, width).tile(target)
        assert channels % m == width // lanes % v == 0
        assert m * v + v + 1 <= target.registers
        assert m * v > target.registers // 2
