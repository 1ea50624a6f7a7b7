"""The demo avatar's networks of ``data/demo/models`` as PyTorch modules again."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import onnx
import torch
from onnx import numpy_helper
from torch import nn


def load_kept(network: nn.Module, path: Path) -> None:
    """Give a network the weights of the ONNX file that `tools.demo_avatar.export` made of one.

    BatchNorm is folded into the convolutions there. Here it only adds the bias: mean 0,
    variance 1. Such a network can be trained on with fixed BatchNorm statistics alone.
    """
    arrays = {
        kept.name.removesuffix(".float16"): torch.from_numpy(numpy_helper.to_array(kept).copy())
        for kept in onnx.load(path).graph.initializer
    }
    layers = [
        (name, layer)
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Conv2d | nn.BatchNorm2d)
    ]
    with torch.no_grad():
        for (name, layer), (_, after) in pairwise([*layers, ("", None)]):
            if isinstance(layer, nn.Conv2d):
                _load_layer(layer, after, arrays[f"{name}.weight"], arrays[f"{name}.bias"])


def _load_layer(
    layer: nn.Conv2d, after: nn.Module | None, weight: torch.Tensor, bias: torch.Tensor
) -> None:
    layer.weight.copy_(weight)
    if not isinstance(after, nn.BatchNorm2d):
        assert layer.bias is not None
        layer.bias.copy_(bias)
        return
    if layer.bias is not None:
        layer.bias.zero_()
    after.reset_running_stats()
    after.weight.fill_(math.sqrt(1 + after.eps))
    after.bias.copy_(bias)
