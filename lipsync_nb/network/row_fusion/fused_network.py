"""A network whose last layers run fused, row by row, behind an ONNX Runtime session."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx

from lipsync_nb.errors import NetworkError
from lipsync_nb.network.graphs import infer_shapes
from lipsync_nb.network.inference import Session, check_numbers
from lipsync_nb.network.row_fusion.byte_tails import read_byte_tail
from lipsync_nb.network.row_fusion.emitter import Target
from lipsync_nb.network.row_fusion.machine import CodeStore
from lipsync_nb.network.row_fusion.programs import RowProgram
from lipsync_nb.network.row_fusion.reading import head_of
from lipsync_nb.network.row_fusion.steps import WeightsError
from lipsync_nb.network.row_fusion.tails import read_tail
from lipsync_nb.types.arrays import AnyArray, ImageArray

__all__ = ["FusedNetwork", "Target", "WeightsError"]


class FusedNetwork:
    """Runs what `read_tail` knows of a network as a `RowProgram`, and the rest as a session.

    The pictures differ from the network's own by rounding alone: at most by 1 of 255, in a few of
    100,000 values; those of a network of 8 bits are the same. Any number of threads may call it at
    the same time.

    Args:
        model: the serialised graph, float32 or of 8 bits in the QDQ form, see `fused_precisions`;
            it gives uint8 pictures ``[N, s, s, 3]``.
        open_session: opens a serialised graph.
        target: the processor that the layers are compiled for; None: this one.
        store: where their machine code is kept; None: nowhere.

    Attributes:
        provider: of the session.
        head: the session.

    Raises:
        NetworkError: the last layers are of other kinds; when called, see `Session`.
        WeightsError: their weights do not fit them.
    """

    def __init__(
        self,
        model: bytes,
        open_session: Callable[[bytes], Session],
        target: Target | None = None,
        store: CodeStore | None = None,
    ) -> None:
        graph = onnx.load_from_string(model)
        # Compiled code relies on the shapes: on those that follow from the inputs alone.
        infer_shapes(graph)
        is_quantised = any(node.op_type == "DequantizeLinear" for node in graph.graph.node)
        tail = (read_byte_tail if is_quantised else read_tail)(graph, target)
        head, self._names = head_of(graph, tail)
        if not self._names:
            raise NetworkError("nothing of the network would be left in front of them.")
        self._wanted = [value.name for value in head.graph.input]
        self._program = RowProgram(tail, store)
        self.head = open_session(head.SerializeToString())
        self.provider = self.head.provider

    def __str__(self) -> str:
        return f"the last {self.num_layers} convolutions are computed row by row"

    @property
    def num_layers(self) -> int:
        """Convolutions that are fused."""
        return self._program.num_layers

    def __call__(self, feeds: Mapping[str, AnyArray]) -> list[ImageArray]:
        """Predict: arrays ``[n, ...]`` by input name to uint8 pictures ``[n, s, s, 3]``."""
        return [self.finish(self.begin(feeds))]

    def begin(self, feeds: Mapping[str, AnyArray]) -> Mapping[str, AnyArray]:
        """Run what comes before the fused layers; gives what they take, by name."""
        outputs = self.head({name: feeds[name] for name in self._wanted})
        # What the smallest picture was made from, and what is made of it, are not looked at: what
        # is no number there is none here, or is none because of this.
        check_numbers(min(outputs, key=np.size), self.head.name)
        return {**feeds, **dict(zip(self._names, outputs, strict=True))}

    def finish(self, values: Mapping[str, AnyArray]) -> ImageArray:
        """Run the fused layers: uint8 pictures ``[n, s, s, 3]``."""
        program = self._program
        parts = [np.ascontiguousarray(values[name]) for name, *_ in program.inputs]
        pictures = np.empty((len(parts[0]), program.height, program.width, 3), np.uint8)
        for number, picture in enumerate(pictures):
            program([part[number] for part in parts], picture)
        return pictures
