"""The training of the demo avatar's generator: what it hears, what it sees, and that it learns."""

import math
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

import lipsync_nb as lnb
from lipsync_nb.pipeline.batches import audio_rows, visual_input
from lipsync_nb.types.records import SYNCTALK_328 as SPEC

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
pytest.importorskip("skia", reason="the presenter's drawing code needs the train extra")

from lipsync_nb.network.torch_networks import (  # noqa: E402
    MOBILE_CHANNELS,
    AudioEncoder,
    UNet328,
)
from lipsync_nb.network.unet328 import generator_onnx, random_state  # noqa: E402
from tools.demo_avatar import bank as banks  # noqa: E402
from tools.demo_avatar import train_generator  # noqa: E402
from tools.demo_avatar.audio_branch import BranchReader, _moments  # noqa: E402
from tools.demo_avatar.kept_networks import load_kept  # noqa: E402
from tools.demo_avatar.synthesis import CorpusClip  # noqa: E402
from tools.demo_avatar.tracks import Tracks  # noqa: E402

DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no GPU"),
    ),
]
LENGTHS = (9, 30, 17)


def feature_tracks(versions: int) -> list[list[np.ndarray]]:
    """Random tracks ``[length, 512]`` of three clips."""
    rng = np.random.default_rng(5)
    return [[rng.standard_normal((n, 512), np.float32) for n in LENGTHS] for _ in range(versions)]


def clips() -> list[CorpusClip]:
    """Three silent clips with random mouths."""
    rng = np.random.default_rng(6)
    return [
        CorpusClip(np.zeros(640 * n, np.float32), rng.random((40 * n, 5), np.float32), "", "")
        for n in LENGTHS
    ]


@pytest.mark.parametrize("device", DEVICES)
def test_the_windows_of_the_training_are_those_of_rendering(device: str) -> None:
    """Also at the ends of a clip, where the next clip must not be heard."""
    versions = feature_tracks(2)
    tracks = Tracks.of(versions, torch.device(device))
    places = [(c, f, v) for c, n in enumerate(LENGTHS) for f in range(n) for v in range(2)]
    heard = tracks.audio(*(np.array(column) for column in zip(*places, strict=True)))
    for found, (clip, frame, version) in zip(heard.cpu().numpy(), places, strict=True):
        wanted = audio_rows(versions[version][clip].astype(np.float16), frame, SPEC)
        np.testing.assert_array_equal(found, wanted.astype(np.float32))


@pytest.mark.parametrize("network", ["audio_encoder", "generator"])
def test_a_kept_network_predicts_the_same_in_pytorch(network: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    if network == "generator":
        path = tmp_path / "generator.onnx"
        model = generator_onnx(random_state(MOBILE_CHANNELS, seed=3), storage="float16")
        path.write_bytes(model.SerializeToString())
        module, shapes = UNet328(MOBILE_CHANNELS), [(1, 6, 320, 320), (1, 32, 16, 16)]
    else:
        path = lnb.demo_folder() / "models" / "audio_encoder.onnx"
        module, shapes = AudioEncoder(), [(3, 1, 80, 16)]
    inputs = [rng.random(shape, np.float32) for shape in shapes]
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [taken.name for taken in session.get_inputs()]
    wanted = session.run(None, dict(zip(names, inputs, strict=True)))[0]
    load_kept(module, path)
    with torch.no_grad():
        found = module.eval()(*map(torch.from_numpy, inputs)).numpy()
    np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max())


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two files of eight pictures."""
    folder = tmp_path_factory.mktemp("bank")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(banks, "BANK_CHUNK", 8)
        patch.setattr(banks, "training_clips", clips)
        banks.draw_bank(folder, 16, workers=1)
    return folder


@pytest.mark.parametrize("device", DEVICES)
def test_examples_are_what_rendering_sees_and_the_drawn_truth(drawn: Path, device: str) -> None:
    assert sorted(file.name for file in drawn.iterdir()) == ["bank_0000.npz", "bank_0001.npz"]
    bank = banks.Bank(drawn, Tracks.of(feature_tracks(1), torch.device(device)))
    bank.refresh(most=1)
    assert len(bank) == 8
    bank.refresh()
    assert len(bank) == 16
    template = lnb.load_avatar("demo").template
    chosen = np.array([3, 12])
    batch = [part.cpu().numpy() for part in bank.batch(chosen, np.random.default_rng(0))]
    for place, visual, audio, target, weight in zip(bank.moments[chosen], *batch, strict=True):
        pose, clip, frame = (int(value) for value in place)
        wanted = visual_input(template.crop(pose), SPEC)
        np.testing.assert_allclose(visual, wanted, rtol=1e-6)
        track = feature_tracks(1)[0][clip].astype(np.float16)
        np.testing.assert_array_equal(audio, audio_rows(track, frame, SPEC).astype(np.float32))
        truth = banks.draw_target(pose, clips()[clip].mouth[frame])
        np.testing.assert_array_equal(np.round(255 * target).transpose(1, 2, 0), truth)
        rows, columns = banks.mouth_region(pose)
        assert (weight[0, rows, columns] == banks.MOUTH_WEIGHT).all()
        assert (weight[0, -1] == 1).all()


@pytest.mark.parametrize("device", DEVICES)
def test_steps_lower_the_loss_and_norms_stay_frozen(drawn: Path, device: str) -> None:
    torch.manual_seed(0)
    bank = banks.Bank(drawn, Tracks.of(feature_tracks(1), torch.device(device)))
    bank.refresh()
    trainer = train_generator.Trainer("mobile", 2e-3, torch.device(device))
    batch = bank.batch(np.arange(2), np.random.default_rng(0))
    losses = [float(trainer.step(batch, 0.3)) for _ in range(6)]
    assert losses[-1] < 0.9 * losses[0]
    trainer.settle_norms(bank, 2, batches=2)
    trainer.freeze_norms()
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.step(batch, 0.3)
    changed = {n for n, value in trainer.model.state_dict().items() if (value != before[n]).any()}
    assert any(name.endswith("weight") for name in changed)
    assert not any("running" in name for name in changed)
    assert math.isfinite(train_generator.mouth_psnr(trainer.average, bank, 8))


def test_the_audio_branch_is_told_the_mouth_of_the_frame_that_it_hears() -> None:
    """Every row, and every mouth, holds the number of its frame among all clips' frames."""
    numbers = np.split(np.arange(sum(LENGTHS)), np.cumsum(LENGTHS)[:-1])
    rows = [np.repeat(n[:, None], 512, axis=1).astype(np.float32) for n in numbers]
    mouths = [np.repeat(n[:, None], 5, axis=1).astype(np.float32) for n in numbers]
    tracks = Tracks.of([rows, rows], torch.device("cpu"))
    audio, truth = next(_moments(tracks, mouths, batch_size=64))
    own = audio.reshape(64, -1, 512)[:, SPEC.rows_before, 0]
    assert torch.equal(own, truth[:, 0])
    assert len(set(own.tolist())) > 20


def test_the_generator_starts_from_the_trained_branch() -> None:
    branch = BranchReader("mobile").audio_model.state_dict()
    trainer = train_generator.Trainer("mobile", 2e-3, torch.device("cpu"))
    trainer.start_from(branch)
    for model in (trainer.model, trainer.average.module):
        for name, value in model.audio_model.state_dict().items():
            assert torch.equal(value, branch[name]), name
