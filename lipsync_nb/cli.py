"""The command line: ``lipsync-nb render``, ``demo`` and the experiments."""

from __future__ import annotations

import argparse
import io
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import Field, fields
from typing import TYPE_CHECKING, Any

from . import __version__
from .cli_experiments import add_commands
from .errors import LipsyncError
from .progress import ProgressBar
from .records import SYNCTALK_328, RenderConfig, Speech, option_choices

if TYPE_CHECKING:
    from .avatar import Avatar
    from .pipeline import RenderResult

DEMO_OUTPUT = "lipsync_demo.mp4"
DEMO_SPEECH = "hello"
LOOK_AHEAD_SECONDS = 1.5


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0: done; 2: bad input (one sentence on stderr); 130, 143: ended by Ctrl-C or SIGTERM.
    """
    _accept_any_name()
    options = _parser().parse_args(arguments)
    try:
        with _ended_in_order(), _warnings_as_lines():
            options.run(options)
    except LipsyncError as error:
        _say(str(error))
        return 2
    except KeyboardInterrupt:
        _say("interrupted, nothing was written.")
        return 130
    except _Terminated:
        _say("ended by SIGTERM, nothing was written.")
        return 143
    return 0


class _Terminated(BaseException):
    """SIGTERM came: everything is closed and removed on the way out, as for Ctrl-C."""


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """SIGTERM ends the body with `_Terminated`, in the main thread; elsewhere it stays as it is."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: object) -> None:
        raise _Terminated

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _warnings_as_lines() -> Iterator[None]:
    """Each warning is a line of its own, once, without the place in the code."""
    said: set[str] = set()

    def show(message: Warning | str, category: type[Warning], *args: Any, **place: Any) -> None:
        text = str(message)
        if text not in said:
            said.add(text)
            _say(text)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


def _accept_any_name() -> None:
    """Let names that a console's encoding does not have be printed with escapes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _say(sentence: str) -> None:
    """Print one line on stderr, where somebody listens."""
    with suppress(OSError, ValueError):
        print(f"lipsync-nb: {sentence}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lipsync-nb", description="Audio-driven lip-sync of a recorded person."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    render = commands.add_parser("render", help="render a speech on an avatar")
    render.add_argument("avatar", help="avatar folder, or 'demo'")
    render.add_argument("speech", help="sound file, video with sound, or .npy feature track")
    render.add_argument("out", help="OUT.mp4, or a new folder for pictures")
    render.add_argument("--generator", help="generator network to use instead of the avatar's")
    render.add_argument("--audio-encoder", help="audio encoder to use instead of the avatar's")
    _add_config(render)
    render.set_defaults(run=_render)
    demo = commands.add_parser("demo", help="render the demo avatar")
    demo.add_argument("out", nargs="?", default=DEMO_OUTPUT, help=f"default: {DEMO_OUTPUT}")
    _add_config(demo)
    demo.set_defaults(run=_demo)
    add_commands(commands)
    return parser


def _add_config(parser: argparse.ArgumentParser) -> None:
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


def _config(options: argparse.Namespace) -> RenderConfig:
    return RenderConfig(**{f.name: getattr(options, f.name) for f in fields(RenderConfig)})


def _render(options: argparse.Namespace) -> None:
    from .audio import load_speech
    from .avatar import load_avatar

    config = _config(options)
    speech = load_speech(options.speech, _seconds_of(config))
    avatar = load_avatar(options.avatar, options.generator, options.audio_encoder)
    _render_to(options.out, avatar, speech, config)


def _demo(options: argparse.Namespace) -> None:
    from .audio import load_speech
    from .avatar import demo_speeches, load_avatar

    config = _config(options)
    speech = load_speech(demo_speeches()[DEMO_SPEECH], _seconds_of(config))
    _render_to(options.out, load_avatar("demo"), speech, config)


def _seconds_of(config: RenderConfig) -> float | None:
    """How much of a speech a preview hears: its frames, and what the last of them look ahead.

    INT8 may be calibrated on the speech, and keeps the result: it hears all of it.
    """
    if not config.max_frames or config.precision == "int8":
        return None
    return config.max_frames / SYNCTALK_328.fps + LOOK_AHEAD_SECONDS


def _render_to(out: str, avatar: Avatar, speech: Speech, config: RenderConfig) -> None:
    from .pipeline import render

    with ProgressBar() as bar:
        result = render(avatar, speech, out, config, bar)
    print(_report(result))


def _report(result: RenderResult) -> str:
    timings = result.timings
    notes = "".join(f"{note}\n" for note in result.notes)
    missed = "".join(f"{text}\n" for text in result.shortfalls)
    return (
        f"{missed}{timings}\n\n{notes}{result.path.resolve()}\n{result.num_frames} frames in "
        f"{timings.wall_seconds:.1f} s, {timings.fps:.1f} FPS on {result.provider}"
    )


if __name__ == "__main__":
    sys.exit(main())
