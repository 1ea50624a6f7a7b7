"""Writes the trained networks to ``data/demo/models`` as ONNX with float16 weights.

python -m tools.demo_avatar.export [--width mobile]
"""

from __future__ import annotations

import argparse

import numpy as np
import onnx
import torch

from lipsync_nb.network.torch_networks import UNet328
from lipsync_nb.network.unet328 import audio_encoder_onnx, generator_onnx

from .synthesis import synthesise
from .template import DEMO_FOLDER, DEMO_VOICE, TEMPLATE_TEXT
from .train_audio import CHECKPOINT, TRAIN_FOLDER, features_for, load_encoder
from .train_generator import WIDTHS, kept_generator


def arrays(state: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """State dict as numpy arrays."""
    return {name: value.detach().float().numpy() for name, value in state.items()}


def trained_generator(width: str) -> UNet328:
    """The generator with its averaged weights, in evaluation mode."""
    file = TRAIN_FOLDER / f"generator_{width}.pt"
    checkpoint = torch.load(file, weights_only=True, map_location="cpu")
    model = UNet328(WIDTHS[width])
    average = checkpoint["average"]
    prefix = "module."
    model.load_state_dict({k[len(prefix) :]: v for k, v in average.items() if k.startswith(prefix)})
    return model.eval()


def export(width: str) -> None:
    """Write both networks and the features of the recording's own speech.

    Where no encoder was trained, the one that is there stays, as do those features.
    """
    models = DEMO_FOLDER / "models"
    models.mkdir(parents=True, exist_ok=True)
    generator = generator_onnx(arrays(trained_generator(width).state_dict()), storage="float16")
    onnx.save(generator, kept_generator(width))
    if not CHECKPOINT.exists():
        return
    encoder, _ = load_encoder()
    onnx.save(
        audio_encoder_onnx(arrays(encoder.state_dict()), storage="float16"),
        models / "audio_encoder.onnx",
    )
    own = synthesise(TEMPLATE_TEXT, DEMO_VOICE, 160, 50)
    np.save(DEMO_FOLDER / "aud_ave.npy", features_for(own.samples, encoder))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", choices=WIDTHS, default="mobile")
    export(parser.parse_args().width)
