"""PyTorch checkpoints made into ONNX files: what is found in them, and what is refused."""

import copy
import os
import pickle
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import plain_walk
import pytest
from builders import TINY_AUDIO_CHANNELS, TINY_CHANNELS

import lipsync_nb as lnb
from lipsync_nb.__main__ import main
from lipsync_nb.errors import NetworkError, NotFoundError
from lipsync_nb.network.unet328 import random_audio_encoder_state, random_state

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
PREFIXES = ["", "module.", "model.module.", "_orig_mod.generator."]
State = dict[str, Any]


def tensors(state: dict[str, np.ndarray], prefix: str = "") -> State:
    return {prefix + name: torch.from_numpy(array.copy()) for name, array in state.items()}


@pytest.fixture(scope="module")
def generator() -> State:
    state = random_state(TINY_CHANNELS)
    state["outc.conv.weight"] *= 4
    return tensors(state)


def saved(content: Any, path: Path) -> Path:
    torch.save(content, path)
    return path


@pytest.mark.parametrize("prefix", PREFIXES)
def test_prefixes(prefix: str, generator: State, tmp_path: Path) -> None:
    counts = {"inc.inconv.0.conv.1.num_batches_tracked": torch.tensor(7)}
    content = {prefix + name: value for name, value in {**generator, **counts}.items()}
    result = lnb.network.export_checkpoint(saved(content, tmp_path / "c.pth"), tmp_path / "g.onnx")
    assert (result.network, result.channels) == ("SyncTalk_2D-328 generator", TINY_CHANNELS)
    assert (result.surplus, result.place) == ((), "")
    assert result.difference < 1e-4
    model = onnx.load(tmp_path / "g.onnx")
    assert [v.type.tensor_type.shape.dim[0].dim_param for v in model.graph.input] == ["N", "N"]


@pytest.mark.parametrize("keys", [("state_dict",), ("epoch_3", "net"), ("a", "b", "c")])
def test_wrappers(keys: tuple[str, ...], generator: State, tmp_path: Path) -> None:
    content: Any = {**generator, "emb.weight": torch.zeros(2)}
    for key in reversed(keys):
        content = {"optimizer": {"state": {0: {"step": torch.tensor(3)}}, "lr": 0.1}, key: content}
    result = lnb.network.export_checkpoint(saved(content, tmp_path / "c.pth"), tmp_path / "g.onnx")
    assert result.place == ".".join(keys)
    assert result.surplus == ("emb.weight",)
    assert "emb.weight" in str(result)
    assert ".".join(keys) in str(result)


@pytest.mark.parametrize("prefix", ["", "audio_encoder.", "module.audio_encoder."])
def test_audio_encoders(prefix: str, tmp_path: Path) -> None:
    state = random_audio_encoder_state(0, channels=TINY_AUDIO_CHANNELS)
    content = {prefix + k.removeprefix("audio_encoder."): v for k, v in tensors(state).items()}
    result = lnb.network.export_checkpoint(saved(content, tmp_path / "c.pth"), tmp_path / "a.onnx")
    assert (result.network, result.channels) == ("SyncTalk_2D audio encoder", TINY_AUDIO_CHANNELS)


def test_frames_are_those_of_pytorch(
    avatar: lnb.Avatar, speech: lnb.Speech, generator: State, tmp_path: Path
) -> None:
    """Exported and rendered, against PyTorch walked through the description: 2 of 255."""
    from lipsync_nb.network.torch_networks import UNet328

    module = UNet328(TINY_CHANNELS)
    module.load_state_dict(generator, strict=False)
    content = {"module." + name: value for name, value in module.state_dict().items()}
    lnb.network.export_checkpoint(saved(content, tmp_path / "c.pth"), tmp_path / "g.onnx")
    own = replace(avatar, generator=tmp_path / "g.onnx")
    config = lnb.RenderConfig(provider="cpu", pixels="bgr", feature_dtype="float32")
    frames = [frame.data.copy() for frame in lnb.iter_frames(own, speech, config)]

    class Session:
        """PyTorch with the few methods of ONNX Runtime's sessions that the walk asks for."""

        def get_inputs(self) -> list[Any]:
            kind = type("Input", (), {})
            picture, audio = kind(), kind()
            picture.name, picture.shape = "input", ["N", 6, 320, 320]
            audio.name, audio.shape = "audio", ["N", 32, 16, 16]
            return [picture, audio]

        def run(self, names: None, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
            with torch.no_grad():
                parts = [torch.from_numpy(feeds[name]) for name in ("input", "audio")]
                return [module.eval()(*parts).numpy()]

    features = plain_walk.plain_feature_track(speech.samples, avatar.audio_encoder)
    boxes = [(b.x1, b.y1, b.x2, b.y2) for b in avatar.boxes]
    order = plain_walk.plain_order(len(boxes), len(features))
    source = list(avatar.source.frames())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plain_walk, "_session", lambda _: Session())
        expected = plain_walk.plain_frames(source, boxes, features, Path(), order)
    assert len(frames) == len(expected)
    over = np.mean([np.abs(a.astype(int) - b) > 2 for a, b in zip(frames, expected, strict=True)])
    assert over <= 1e-4


def refused(content: Any, tmp_path: Path, match: str) -> None:
    path = content if isinstance(content, Path) else saved(content, tmp_path / "c.pth")
    with pytest.raises(NetworkError, match=match):
        lnb.network.export_checkpoint(path, tmp_path / "g.onnx")
    assert not (tmp_path / "g.onnx").exists()


class Code:
    """What could run when it is loaded."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("echo ran > ran.txt",)


def test_code_is_not_run(generator: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    refused({**generator, "hook": Code()}, tmp_path, r"holds Python objects .*beside weights")
    assert not (tmp_path / "ran.txt").exists()


@pytest.mark.parametrize("part", [0, 10, 1000, -1, -2000])
def test_damaged_files(part: int, generator: State, tmp_path: Path) -> None:
    whole = saved(generator, tmp_path / "whole.pth").read_bytes()
    path = tmp_path / "c.pth"
    path.write_bytes(whole[:part])
    refused(path, tmp_path, r"not a whole PyTorch checkpoint \([^.]+\)\.$|is damaged")


def test_other_things(generator: State, tmp_path: Path) -> None:
    refused({"layer.weight": torch.zeros(3)}, tmp_path, r"1 arrays such as layer\.weight, expected")
    refused([1, 2, 3], tmp_path, r"no named arrays, expected a SyncTalk_2D-328 generator or a")
    refused(torch.zeros(3), tmp_path, "no named arrays")
    text = tmp_path / "text.pth"
    text.write_text("hello")
    refused(text, tmp_path, r"not a whole PyTorch checkpoint \(KeyError\)\.$")
    (tmp_path / "late.pth").write_bytes(pickle.dumps([Code()], protocol=4))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        refused(tmp_path / "late.pth", tmp_path, "holds Python objects")
    with pytest.raises(NotFoundError, match="no such checkpoint"):
        lnb.network.export_checkpoint(tmp_path / "none.pth", tmp_path / "g.onnx")
    with pytest.raises(NotFoundError, match="no such checkpoint"):
        lnb.network.export_checkpoint(tmp_path, tmp_path / "g.onnx")


def test_missing_misshaped_and_not_finite(generator: State, tmp_path: Path) -> None:
    lacking = {k: v for k, v in generator.items() if not k.startswith("up5")}
    refused(lacking, tmp_path, r"without \d+ of its \d+ entries: up5\.\S+, .* and \d+ more\.")
    odd = {**generator, "outc.conv.bias": torch.zeros(4)}
    refused(odd, tmp_path, r"outc\.conv\.bias has shape \[4\], expected \[3\]")
    nan = copy.deepcopy(generator)
    nan["outc.conv.bias"][0] = float("nan")
    refused(nan, tmp_path, "not finite")


def test_half_precision_weights(generator: State, tmp_path: Path) -> None:
    content = {name: value.half() for name, value in generator.items()}
    result = lnb.network.export_checkpoint(saved(content, tmp_path / "c.pth"), tmp_path / "g.onnx")
    assert result.difference < 1e-4


def test_command_line(generator: State, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = saved(generator, tmp_path / "c.pth"), tmp_path / "g.onnx"
    assert main(["export", str(path), str(out)]) == 0
    assert capsys.readouterr().out.startswith(f"{out}: SyncTalk_2D-328 generator\n")
    assert main(["export", str(tmp_path / "none.pth"), str(out)]) == 2
    assert "no such checkpoint" in capsys.readouterr().err
    # The output is not the checkpoint.
    assert main(["export", str(path), str(path)]) == 2
    assert path.stat().st_size > 1000
