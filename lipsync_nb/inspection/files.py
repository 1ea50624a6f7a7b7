"""What kind of file a path is, where its name does not tell; and PyTorch checkpoints."""

from __future__ import annotations

from pathlib import Path

from lipsync_nb.errors import AvatarError, LipsyncError, MissingLibraryError
from lipsync_nb.media.sound import Decoded, Recording
from lipsync_nb.media.video_index import OpenVideo
from lipsync_nb.network.checkpoints import describe_checkpoint

from .findings import Fact, Finding, Part


def has_pictures(path: Path) -> bool:
    """Whether a media file holds a video; the cover of a song is none."""
    try:
        with OpenVideo(path, threaded=False) as video:
            return not int(video.stream.disposition) & _ATTACHED
    except AvatarError:
        return False


def has_sound(path: Path) -> bool:
    """Whether a video holds a sound track beside its pictures."""
    try:
        with OpenVideo(path, threaded=False) as video:
            return bool(video.container.streams.audio)
    except AvatarError:
        return False


def has_speech(path: Path) -> bool:
    """Whether a file holds a sound track that can be decoded."""
    try:
        return any(True for _ in Decoded(Recording(path)))
    except LipsyncError:
        return False


# AV_DISPOSITION_ATTACHED_PIC of libavformat/avformat.h.
_ATTACHED = 1 << 10


def look_at_checkpoint(path: Path) -> Part:
    """What a PyTorch checkpoint holds, and how it becomes a network."""
    try:
        found = describe_checkpoint(path)
    except MissingLibraryError:
        text = f"{path.name}: PyTorch reads checkpoints, and is not installed"
        advice = "pip install 'lipsync_nb[export]'"
        return Part((), (Finding("network", "problem", text, advice),))
    except LipsyncError as error:
        advice = "Save the weights alone: torch.save(model.state_dict(), 'weights.pt')"
        return Part((), (Finding("network", "problem", str(error).rstrip("."), advice),))
    facts = tuple(Fact("network", name, text) for name, text in found.items())
    text = f"a checkpoint of the {found['network']}: it has to be exported before it runs"
    advice = f"lipsync-nb export {path.name} {path.stem}.onnx"
    return Part(facts, (Finding("network", "hint", text, advice),))
