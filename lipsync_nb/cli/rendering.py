"""The command line's renders: ``lipsync-nb render`` and ``lipsync-nb demo``."""

from __future__ import annotations

import argparse
from dataclasses import Field, fields
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from lipsync_nb.config.render_config import RenderConfig, option_choices
from lipsync_nb.system.console import tell
from lipsync_nb.types.families import FAMILIES
from lipsync_nb.types.records import Speech

from .progress import ProgressBar

if TYPE_CHECKING:
    from lipsync_nb.avatar.avatar import Avatar
    from lipsync_nb.pipeline.render import RenderResult

DEMO_OUTPUT = "lipsync_demo.mp4"
DEMO_SPEECH = "hello"
LOOK_AHEAD_SECONDS = 1.5
FPS_HELP = (
    "frames a second of the avatar, as 25, 29.97 or 30000/1001: a recording of another rate is "
    "taken by its true times (default: its own)"
)


def add_commands(commands: Any) -> None:
    """Add ``render`` and ``demo`` to a parser's commands."""
    usage = "%(prog)s [options] avatar speech out"
    render = commands.add_parser("render", help="render a speech on an avatar", usage=usage)
    render.add_argument("avatar", help="avatar folder, or 'demo'")
    render.add_argument("speech", help="sound file, video with sound, or .npy feature track")
    render.add_argument("out", help="OUT.mp4, or a new folder for pictures")
    render.add_argument("--generator", help="generator network to use instead of the avatar's")
    render.add_argument("--audio-encoder", help="audio encoder to use instead of the avatar's")
    render.add_argument(
        "--box", type=numbers(4), metavar="X1,Y1,X2,Y2",
        help="face box in pixels for all frames, instead of the avatar's own",
    )  # fmt: skip
    add_family(render)
    render.add_argument("--fps", metavar="RATE", help=FPS_HELP)
    add_config(render)
    render.set_defaults(run=_render)
    usage = "%(prog)s [options] [out]"
    demo = commands.add_parser("demo", help="render the demo avatar", usage=usage)
    demo.add_argument("out", nargs="?", default=DEMO_OUTPUT, help=f"default: {DEMO_OUTPUT}")
    add_config(demo)
    demo.set_defaults(run=_demo)


def numbers(count: int) -> Any:
    """What reads so many numbers of an argument, with commas between them."""

    def read(text: str) -> tuple[float, ...]:
        values = tuple(float(part) for part in text.split(","))
        if len(values) != count:
            raise ValueError(text)
        return values

    read.__name__ = f"{count} numbers with commas between"
    return read


def add_family(parser: argparse.ArgumentParser) -> None:
    """The option that names the network's family."""
    parser.add_argument(
        "--family", default="auto", choices=["auto", *FAMILIES], metavar="NAME",
        help=f"the network's family, {', '.join(FAMILIES)} (default: auto, by its inputs)",
    )  # fmt: skip


def add_config(parser: argparse.ArgumentParser) -> None:
    """One option for every field of `RenderConfig`."""
    group = parser.add_argument_group("rendering")
    for option in fields(RenderConfig):
        choices = option_choices(option.name)
        flag = "--" + option.name.replace("_", "-")
        if isinstance(option.default, bool):
            group.add_argument(
                flag,
                action=argparse.BooleanOptionalAction,
                default=option.default,
                help=_help(option),
            )
            continue
        group.add_argument(
            flag,
            type=str if choices else int,
            choices=choices or None,
            default=option.default,
            metavar=None if choices else "N",
            help=f"{_help(option)} (default: {option.default})",
        )


def _help(option: Field[Any]) -> str:
    return str(option.metadata["help"]).replace("%", "%%")


def config_of(options: argparse.Namespace) -> RenderConfig:
    """The configuration that the options of `add_config` name."""
    return RenderConfig(**{f.name: getattr(options, f.name) for f in fields(RenderConfig)})


def _render(options: argparse.Namespace) -> None:
    from lipsync_nb.avatar.loading import load_avatar
    from lipsync_nb.pipeline.audio_features import load_speech

    config = config_of(options)
    avatar = load_avatar(
        options.avatar, options.generator, options.audio_encoder,
        box=options.box, spec=options.family, fps=options.fps,
    )  # fmt: skip
    speech = load_speech(options.speech, _seconds_of(config, avatar.fps))
    _render_to(options.out, avatar, speech, config)


def _demo(options: argparse.Namespace) -> None:
    from lipsync_nb.avatar.loading import demo_speeches, load_avatar
    from lipsync_nb.pipeline.audio_features import load_speech

    config = config_of(options)
    avatar = load_avatar("demo")
    speech = load_speech(demo_speeches()[DEMO_SPEECH], _seconds_of(config, avatar.fps))
    _render_to(options.out, avatar, speech, config)


def _seconds_of(config: RenderConfig, fps: Fraction) -> float | None:
    """How much of a speech a preview hears: its frames, and what the last of them look ahead.

    INT8 may be calibrated on the speech, and keeps the result: it hears all of it. So does what
    finds pauses, by the speech's own level.
    """
    if not config.max_frames or config.precision == "int8" or config.silence != "paint":
        return None
    ahead = LOOK_AHEAD_SECONDS + max(0, config.audio_offset_ms) / 1000
    return float(config.max_frames / fps) + ahead


def _render_to(out: str, avatar: Avatar, speech: Speech, config: RenderConfig) -> None:
    from lipsync_nb.pipeline.render import render

    with ProgressBar() as bar:
        result = render(avatar, speech, out, config, bar)
    tell(_report(result))


def _report(result: RenderResult) -> str:
    timings = result.timings
    notes = "".join(f"{note}\n" for note in result.notes)
    missed = "".join(f"{text}\n" for text in result.shortfalls)
    made = timings.num_frames
    some = "" if made == result.num_frames else f", {made} of them made"
    return (
        f"{missed}{timings}\n\n{notes}{result.path.resolve()}\n{result.num_frames} frames{some} "
        f"in {timings.wall_seconds:.1f} s, {timings.fps:.1f} FPS on {result.provider}"
    )
