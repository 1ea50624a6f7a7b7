"""How avatars, speeches, configurations, results and benchmarks show themselves in a notebook."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from lipsync_nb.avatar.avatar import Avatar
from lipsync_nb.config.render_config import RenderConfig
from lipsync_nb.footage.preparation import Preparation
from lipsync_nb.media.imaging import coloured, encode_picture, outlined, read_image, shrunk
from lipsync_nb.media.rates import rate_text
from lipsync_nb.media.video import decoding_on
from lipsync_nb.pipeline.audio_features import mel_spectrogram
from lipsync_nb.pipeline.frame_trace import FrameTrace
from lipsync_nb.pipeline.render import RenderResult
from lipsync_nb.pipeline.timing import Timings
from lipsync_nb.types.arrays import ImageArray
from lipsync_nb.types.records import Box, Speech

from . import charts
from .markup import Markup, data_uri, element, joined
from .playable import peaks, still_uri, video_html, wav_bytes

_SOUND_LIMIT_SECONDS = 90
_SHEET_FRAMES, _THUMBNAIL = 8, 300


@functools.singledispatch
def html_of(thing: object) -> Markup:
    """HTML of an object of this package; needs neither a live kernel nor other files."""
    return charts.page(element("pre", thing))


def picture_html(image: ImageArray, caption: str = "", width: int = 0) -> Markup:
    """A BGR picture as a figure; ``width`` in pixels where it is to be smaller."""
    image = shrunk(image, width) if width else image
    source = data_uri(encode_picture(image), "image/jpeg")
    text = element("figcaption", caption) if caption else ""
    picture = element("img", src=source, alt=caption, style="max-width:100%")
    return element("figure", picture, text, style="margin:0")


def sheet_html(pictures: Sequence[tuple[str, ImageArray]]) -> Markup:
    """Pictures with captions, four in a row."""
    return grid_html(picture_html(image, caption, _THUMBNAIL) for caption, image in pictures)


def grid_html(figures: Iterable[Markup], columns: str = "1fr 1fr 1fr 1fr") -> Markup:
    """Figures side by side; ``columns`` as CSS counts them."""
    style = f"display:grid;grid-template-columns:{columns};gap:6px;margin:6px 0"
    return element("div", *figures, style=style)


def kept_html(result: RenderResult) -> Markup:
    """What a page keeps of a render without playing it: a picture, and how it was made."""
    made = f"{result.path.name}: {result.num_frames} frames on {result.provider}"
    text = f"{made}; {result.timings.speed_text}; "
    settings = f"settings: {config_text(result.config)}"
    if not result.path.is_file():
        return joined([_output(result.path), charts.dim(text, settings)])
    still = still_uri(result.path)
    picture = element("img", src=still, alt=f"a frame of {text}{settings}", style="max-width:100%")
    return joined([picture if still else "", charts.dim(text, settings)])


@html_of.register
def _(avatar: Avatar) -> Markup:
    count = min(_SHEET_FRAMES, len(avatar))
    chosen = np.linspace(0, len(avatar) - 1, count).astype(int).tolist()
    frames = avatar.seen_template().frames
    with decoding_on():
        pictures = [
            (f"frame {i}", outlined(frames[i], avatar.boxes[i].corners, shown_width=_THUMBNAIL))
            for i in chosen
        ]
    widths = sorted({box.width for box in avatar.boxes})
    width = f"{widths[0]}-{widths[-1]}" if len(widths) > 1 else str(widths[0])
    memory = avatar.estimate_memory("memory", "bgr")
    in_ram = f"{memory.ram_bytes / 1e6:.0f} MB as BGR"
    if not (avatar.width % 2 or avatar.height % 2):
        small = avatar.estimate_memory("memory", "i420")
        in_ram += f", {small.ram_bytes / 1e6:.0f} MB as I420"
    rows = [
        ("frames", f"{len(avatar)} of {avatar.width}x{avatar.height}, {rate_text(avatar.fps)} fps"),
        ("face box", f"{width} px, from {avatar.boxes_from}"),
        ("generator", f"{_file(avatar.generator)}; {avatar.unknown or avatar.spec.name}"),
        ("audio encoder", _file(avatar.audio_encoder)),
        ("in RAM", in_ram),
        *(("note", note) for note in avatar.notes),
    ]
    head = charts.heading(f"Avatar {avatar.name}")
    return charts.page(head, charts.table(["", ""], rows, "text"), sheet_html(pictures))


def _file(path: Path | None) -> str:
    if path is None:
        return "none"
    if not path.is_file():
        return f"{path.name}, not there any more"
    return f"{path.name}, {path.stat().st_size / 1e6:.1f} MB"


@html_of.register
def _(speech: Speech) -> Markup:
    name = speech.path.name if speech.path is not None else "sound"
    head = charts.heading(f"Speech {name}, {speech.duration_seconds:.1f} s")
    if speech.samples is None:
        features = np.asarray(speech.features, np.float32)
        track = features.reshape(len(features), -1)
        picture = coloured(track.T[::-1], *np.percentile(track, [1, 99]).tolist())
        text = element("p", f"{len(track)} feature rows of {track.shape[1]}")
        says = f"feature track, {len(track)} rows of {track.shape[1]}"
        return charts.page(head, text, _strip(picture, says))
    mel = mel_spectrogram(speech.samples)
    parts = [
        charts.waveform(peaks(speech.samples), speech.duration_seconds),
        charts.dim("mel spectrogram, 80 bands, 55-7600 Hz"),
        _strip(coloured(mel[::-1], -4.0, 4.0), "mel spectrogram, low bands at the bottom"),
    ]
    if speech.duration_seconds <= _SOUND_LIMIT_SECONDS:
        source = data_uri(wav_bytes(speech.samples), "audio/wav")
        parts.append(element("p", element("audio", controls=True, src=source)))
    return charts.page(head, *parts)


def _strip(picture: ImageArray, says: str) -> Markup:
    """A picture of many columns over the whole width, at most 2000 of them."""
    step = -(-picture.shape[1] // 2000)
    source = data_uri(encode_picture(picture[:, ::step], ".png"), "image/png")
    style = "width:100%;height:110px;image-rendering:pixelated"
    return element("img", src=source, alt=says, style=style)


@html_of.register
def _(config: RenderConfig) -> Markup:
    rows = []
    for option in fields(config):
        value: object = getattr(config, option.name)
        if value != option.default:
            default = element("span", f"(default {option.default})", class_="dim")
            value = element("span", element("b", value), " ", default, style="white-space:nowrap")
        rows.append([option.name, value, option.metadata["help"]])
    table = charts.table(["field", "value", ""], rows, "text")
    return charts.page(charts.heading("Configuration"), table)


@html_of.register
def _(timings: Timings) -> Markup:
    return charts.page(*timings_parts(timings))


def timings_parts(timings: Timings) -> list[Markup]:
    """The stage bars, the timeline and the stage table of one render."""
    return [
        *charts.stage_work({"this run": timings.stages}),
        charts.heading("Which worker was busy when"),
        charts.timeline(timings),
        charts.stage_table(timings),
    ]


@html_of.register
def _(result: RenderResult) -> Markup:
    timings = result.timings
    made = f"{result.path.name}: {result.num_frames} frames on {result.provider}"
    head = charts.heading("; ".join([*result.shortfalls, made, timings.speed_text]))
    notes = joined(charts.dim(note) for note in result.notes)
    settings = charts.dim(f"Settings: {config_text(result.config)}")
    return charts.page(head, _output(result.path), settings, notes, *timings_parts(timings))


def _output(path: Path) -> Markup:
    if path.is_file():
        return video_html(path)
    if not path.is_dir():
        return element("p", f"{path} is not there any more.")
    files = sorted(file for file in path.iterdir() if file.suffix in (".jpg", ".png"))
    chosen = np.linspace(0, len(files) - 1, min(_SHEET_FRAMES, len(files))).astype(int).tolist()
    pictures = [
        (files[i].name, image) for i in chosen if (image := read_image(str(files[i]))) is not None
    ]
    return sheet_html(pictures)


@html_of.register
def _(result: Preparation) -> Markup:
    return charts.page(
        charts.heading(result.head),
        charts.table_html(result.table),
        joined(charts.dim(line) for line in result.warnings),
        picture_html(result.filmstrip, "frames with their boxes; red: no face was found there"),
    )


@html_of.register
def _(trace: FrameTrace) -> Markup:
    return charts.page(*trace_parts(trace))


def trace_parts(trace: FrameTrace) -> list[Markup]:
    """The steps of an output frame, the network's six channels and its audio window."""
    steps = [
        (f"1. crop: the face box at {_size(trace.crop)}", trace.crop),
        (f"2. roi: {_roi_text(trace)}, {_size(trace.roi)}", trace.roi),
        ("3. masked: what is to be predicted is black", trace.masked),
        ("4. prediction of the network", trace.prediction),
        ("5. within the border of the crop" if trace.spec.margin else "5. the crop", trace.face),
        (f"6. resized to the box, {trace.box.width}x{trace.box.height}", trace.patch),
        ("7. pasted into the frame", _around(outlined(trace.frame, trace.box.corners), trace.box)),
        ("difference to the original, 4 times", _around(_gained(trace.difference), trace.box)),
    ]
    return [
        charts.heading(f"Output frame {trace.index} on template frame {trace.template_index}"),
        sheet_html(steps),
        *channel_parts(trace),
        *audio_parts(trace),
    ]


def _size(image: ImageArray) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"


def _roi_text(trace: FrameTrace) -> str:
    return "the crop without its border" if trace.spec.margin else "all of the crop"


def channel_parts(trace: FrameTrace) -> list[Markup]:
    """The six channels that the network sees, as grey pictures."""
    spec = trace.spec
    names = [f"{kind} {colour}" for kind in spec.image_channels for colour in spec.colour.upper()]
    figures = [
        picture_html(np.round(channel * 255).astype(np.uint8), name, 160)
        for name, channel in zip(names, trace.visual, strict=True)
    ]
    return [
        charts.heading("The six channels the network sees"),
        grid_html(figures, "1fr 1fr 1fr 1fr 1fr 1fr"),
    ]


def audio_parts(trace: FrameTrace) -> list[Markup]:
    """The audio window in colours, and where it lies in the waveform."""
    # The typical row sets the scale: rows of silence can be ten times as strong.
    low, high = np.median(np.percentile(trace.audio, [1, 99], axis=1), axis=1).tolist()
    last, values = trace.first_row + len(trace.audio), trace.audio.shape[1]
    what = "columns of the mel" if trace.spec.audio == "mel" else "feature rows"
    return [
        charts.heading(
            f"The audio it hears: {what} {trace.first_row} to {last - 1}, {values} values each"
        ),
        _strip(
            coloured(trace.audio, low, high), f"audio window, {len(trace.audio)} rows of {values}"
        ),
        _where(trace),
    ]


def _around(image: ImageArray, box: Box) -> ImageArray:
    """The face box in the middle of twice its size, or as near as the picture's edges allow."""
    height, width = min(2 * box.height, image.shape[0]), min(2 * box.width, image.shape[1])
    top = int(np.clip(box.y1 - box.height // 2, 0, image.shape[0] - height))
    left = int(np.clip(box.x1 - box.width // 2, 0, image.shape[1] - width))
    return image[top : top + height, left : left + width]


def _gained(difference: ImageArray) -> ImageArray:
    return np.clip(difference.astype(np.int16) * 4, 0, 255).astype(np.uint8)


def _where(trace: FrameTrace) -> Markup:
    """The waveform with the rows of the audio window marked."""
    speech = trace.speech
    if speech.samples is None:
        return Markup()
    mark = (*trace.heard_seconds, trace.time_seconds)
    return charts.waveform(peaks(speech.samples), speech.duration_seconds, mark=mark)


def config_text(config: RenderConfig) -> str:
    """The fields that differ from the defaults, or "defaults"."""
    changed: list[Any] = [
        f"{option.name}={getattr(config, option.name)}"
        for option in fields(config)
        if getattr(config, option.name) != option.default
    ]
    return ", ".join(changed) or "defaults"
