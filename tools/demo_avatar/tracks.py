"""What the frozen audio encoder hears of the training clips, kept where the networks train."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from lipsync_nb.pipeline.audio_features import feature_track, mel_spectrogram, mel_windows
from lipsync_nb.types.arrays import FloatArray, IndexArray
from lipsync_nb.types.records import FEATURE_SIZE
from lipsync_nb.types.records import SYNCTALK_328 as SPEC

from .augmentation import augment
from .synthesis import TRAIN_FOLDER, CorpusClip
from .train_audio import training_corpus, varied
from .workers import worker_pool

CONTEXT = SPEC.rows_before + SPEC.rows_after
TRACKS_FILE = TRAIN_FOLDER / "tracks.pt"
WINDOWS_AT_ONCE = 1024


def training_clips() -> list[CorpusClip]:
    """The corpus, and each clip once more at another speed, with silence around it."""
    corpus = training_corpus()
    return corpus + [varied(clip, np.random.default_rng(n)) for n, clip in enumerate(corpus)]


class Tracks:
    """Feature tracks of clips on a device, each clip in several versions.

    Args:
        rows: float16 ``[versions, n, 512]``: the clips' rows one after the other, with
            `CONTEXT` rows of zeros before and after each.
        lengths: int64 ``[clips]``, the rows of each clip.
    """

    def __init__(self, rows: torch.Tensor, lengths: IndexArray) -> None:
        self.rows, self.lengths = rows, lengths
        self.first_rows = CONTEXT + np.concatenate([[0], np.cumsum(lengths + CONTEXT)[:-1]])

    @classmethod
    def of(cls, versions: list[list[FloatArray]], device: torch.device) -> Tracks:
        """The tracks of every version of every clip, ``versions[version][clip]``."""
        silence = np.zeros((CONTEXT, FEATURE_SIZE), np.float32)
        kinds = []
        for tracks in versions:
            parts = [silence] + [part for track in tracks for part in (track, silence)]
            kinds.append(torch.from_numpy(np.concatenate(parts).astype(np.float16)))
        lengths = np.array([len(track) for track in versions[0]], np.int64)
        return cls(torch.stack(kinds).to(device), lengths)

    def audio(self, clips: IndexArray, frames: IndexArray, versions: IndexArray) -> torch.Tensor:
        """Audio tensors of these frames of these clips, float32 ``[n, 32, 16, 16]``."""
        firsts = self.first_rows[clips] + frames - SPEC.rows_before
        windows = firsts[:, None] + np.arange(CONTEXT)
        places = torch.from_numpy(np.stack(np.broadcast_arrays(versions[:, None], windows)))
        # Not waited for: the device has steps before this one to do.
        kinds, rows = places.to(self.rows.device, non_blocking=True)
        return self.rows[kinds, rows].float().reshape(-1, *SPEC.audio_shape)


def heard_mel(job: tuple[FloatArray, int | None]) -> FloatArray:
    """The mel of samples as they are, or as the recording of this seed would have them."""
    samples, seed = job
    if seed is not None:
        samples = augment(samples, np.random.default_rng(seed))
    return mel_spectrogram(samples)


def encoded(
    clips: list[CorpusClip],
    encoder: nn.Module,
    device: torch.device,
    versions: int,
    workers: int,
    newer_than: Path,
) -> Tracks:
    """The clips as they are and in so many versions in all, the others as other recordings.

    They are kept in `TRAIN_FOLDER`, and encoded anew when the encoder's file is newer.
    """
    lengths = np.array([len(clip.mouth) for clip in clips], np.int64)
    if TRACKS_FILE.exists() and TRACKS_FILE.stat().st_mtime >= newer_than.stat().st_mtime:
        rows = torch.load(TRACKS_FILE, weights_only=True, map_location=device)
        if rows.shape[:2] == (versions, CONTEXT + (lengths + CONTEXT).sum()):
            return Tracks(rows, lengths)
    print(f"encoding {versions} versions of {len(clips)} clips", flush=True)
    encoder = encoder.to(device).eval()

    def encode(windows: FloatArray) -> FloatArray:
        with torch.no_grad():
            return encoder(torch.from_numpy(windows).to(device)).cpu().numpy()

    jobs = [
        (clip.samples, version * len(clips) + number if version else None)
        for version in range(versions)
        for number, clip in enumerate(clips)
    ]
    with worker_pool(workers) as pool:
        rows = [
            feature_track(mel_windows(mel), encode, WINDOWS_AT_ONCE).astype(np.float16)
            for mel in pool.map(heard_mel, jobs, chunksize=8)
        ]
    kinds = [rows[n : n + len(clips)] for n in range(0, len(rows), len(clips))]
    tracks = Tracks.of(kinds, device)
    torch.save(tracks.rows, TRACKS_FILE)
    return tracks
