"""The two networks as PyTorch modules, with the state-dict names of published checkpoints."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from .unet328 import AUDIO_ENCODER_CHANNELS, FEATURE_SIZE, FULL_CHANNELS, MOBILE_CHANNELS

__all__ = ["FULL_CHANNELS", "MOBILE_CHANNELS", "AudioEncoder", "UNet328"]


class InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 depthwise, 1x1 projection, each with BatchNorm; optionally residual."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1, residual: bool = False) -> None:
        super().__init__()
        hidden = 2 * inputs
        self.residual = residual
        self.conv = nn.Sequential(
            nn.Conv2d(inputs, hidden, 1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv(x) if self.residual else self.conv(x)


class Double(nn.Module):
    """Two inverted residual blocks; the first one changes channels and size."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.double_conv = nn.Sequential(
            InvertedResidual(inputs, outputs, stride),
            InvertedResidual(outputs, outputs, 1, residual=True),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.double_conv(x)


class _InConv(nn.Module):
    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.inconv = nn.Sequential(InvertedResidual(6, outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inconv(x)


class _Down(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.maxpool_conv = nn.Sequential(Double(inputs, outputs, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.maxpool_conv(x)


class _Up(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = Double(inputs, outputs)

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        x = functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
        return self.conv(torch.cat([x, skip], dim=1))


class _OutConv(nn.Module):
    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x)


class AudioModel(nn.Module):
    """Audio branch of the generator: ``[N, 32, 16, 16] -> [N, c4, 10, 10]``."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        _, c1, c2, c3, c4 = channels
        self.conv1 = InvertedResidual(32, c1)
        self.conv2 = InvertedResidual(c1, c2)
        self.conv3 = nn.Conv2d(c2, c3, 3, padding=1)
        self.bn3 = nn.BatchNorm2d(c3)
        self.conv4 = InvertedResidual(c3, c3, residual=True)
        self.conv5 = nn.Conv2d(c3, c4, 3, stride=2, padding=3)
        self.bn5 = nn.BatchNorm2d(c4)
        self.relu = nn.ReLU()
        self.conv6 = InvertedResidual(c4, c4, residual=True)
        self.conv7 = InvertedResidual(c4, c4, residual=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv2(self.conv1(x))
        x = self.conv4(self.relu(self.bn3(self.conv3(x))))
        x = self.relu(self.bn5(self.conv5(x)))
        return self.conv7(self.conv6(x))


class UNet328(nn.Module):
    """The generator: ``[N, 6, 320, 320]`` and ``[N, 32, 16, 16]`` to ``[N, 3, 320, 320]``."""

    def __init__(self, channels: Sequence[int] = FULL_CHANNELS) -> None:
        super().__init__()
        c0, c1, c2, c3, c4 = channels
        self.audio_model = AudioModel(channels)
        self.fuse_conv = nn.Sequential(Double(2 * c4, c4), Double(c4, c3))
        self.inc = _InConv(c0)
        self.down1, self.down2 = _Down(c0, c0), _Down(c0, c1)
        self.down3, self.down4, self.down5 = _Down(c1, c2), _Down(c2, c3), _Down(c3, c4)
        self.up1, self.up2 = _Up(c4, c3 // 2), _Up(c3, c2 // 2)
        self.up3, self.up4, self.up5 = _Up(c2, c1 // 2), _Up(c1, c0), _Up(c1, c0 // 2)
        self.outc = _OutConv(c0 // 2)

    def forward(self, x: torch.Tensor, audio: torch.Tensor) -> torch.Tensor:
        skips = [self.inc(x)]
        for down in (self.down1, self.down2, self.down3, self.down4, self.down5):
            skips.append(down(skips[-1]))
        x = self.fuse_conv(torch.cat([skips.pop(), self.audio_model(audio)], dim=1))
        for up in (self.up1, self.up2, self.up3, self.up4, self.up5):
            x = up(x, skips.pop())
        return torch.sigmoid(self.outc(x))


class _AudioConv(nn.Module):
    def __init__(
        self, inputs: int, outputs: int, kernel: int = 3,
        stride: int | tuple[int, int] = 1, padding: int = 1, residual: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.residual = residual
        self.conv_block = nn.Sequential(
            nn.Conv2d(inputs, outputs, kernel, stride, padding), nn.BatchNorm2d(outputs)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.conv_block(x)
        return functional.relu(out + x if self.residual else out)


class AudioEncoder(nn.Module):
    """Mel windows ``[N, 1, 80, 16]`` to features ``[N, 512]``."""

    def __init__(self, channels: Sequence[int] = AUDIO_ENCODER_CHANNELS) -> None:
        super().__init__()
        c0, c1, c2, c3 = channels
        self.audio_encoder = nn.Sequential(
            _AudioConv(1, c0),
            _AudioConv(c0, c0, residual=True),
            _AudioConv(c0, c0, residual=True),
            _AudioConv(c0, c1, stride=(3, 1)),
            _AudioConv(c1, c1, residual=True),
            _AudioConv(c1, c1, residual=True),
            _AudioConv(c1, c2, stride=3),
            _AudioConv(c2, c2, residual=True),
            _AudioConv(c2, c2, residual=True),
            _AudioConv(c2, c3, stride=(3, 2)),
            _AudioConv(c3, c3, residual=True),
            _AudioConv(c3, FEATURE_SIZE, padding=0),
            _AudioConv(FEATURE_SIZE, FEATURE_SIZE, kernel=1, padding=0),
        )

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        return self.audio_encoder(windows).flatten(1)
