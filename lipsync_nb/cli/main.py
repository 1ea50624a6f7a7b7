"""The command line: ``lipsync-nb render``, ``demo`` and the experiments."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import Field, fields
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, NoReturn

from lipsync_nb.config.render_config import RenderConfig, option_choices
from lipsync_nb.errors import LipsyncError
from lipsync_nb.system.console import leave_console, prepare_console, say, tell
from lipsync_nb.system.outputs import discard_all
from lipsync_nb.types.records import SYNCTALK_328, Speech

from .experiments import add_commands
from .progress import ProgressBar

if TYPE_CHECKING:
    from lipsync_nb.avatar.avatar import Avatar
    from lipsync_nb.pipeline.render import RenderResult

DEMO_OUTPUT = "lipsync_demo.mp4"
DEMO_SPEECH = "hello"
LOOK_AHEAD_SECONDS = 1.5


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0: done; 2: bad input (one sentence on stderr); 128 and the signal's number: ended by
        Ctrl-C, SIGTERM or SIGHUP. A console that is closed, full or read no further changes none
        of these.
    """
    return _main(arguments, is_last=False)


def run() -> NoReturn:
    """`main` for a process of its own: nothing disturbs its end."""
    sys.exit(_main(None, is_last=True))


def _main(arguments: Sequence[str] | None, is_last: bool) -> int:
    prepare_console()
    try:
        options = _parser().parse_args(arguments)
        with _ended_in_order(is_last) as told:
            return _run(options, told)
    except _Ended as end:
        return 128 + end.number
    finally:
        leave_console()


def _run(options: argparse.Namespace, told: threading.Event) -> int:
    before = _outputs(options)
    try:
        with _warnings_as_lines():
            options.run(options)
    except LipsyncError as error:
        say(str(error))
        return 2
    except OSError as error:
        # The machine's, where nothing more is known: no handles, no rights, no such device.
        say(f"{error.filename or 'the system'}: {error.strerror or error}.")
        return 2
    except MemoryError as error:
        say(f"there is not enough memory ({str(error) or 'for what was asked'}).")
        return 2
    except _Ended as end:
        after = _outputs(options)
        written = [name for name in after if after[name] != before[name]]
        what = f"{written[0]} was written" if written else "nothing was written"
        told.set()
        say(f"{_ENDINGS[end.number]}, {what}.")
        raise
    return 0


def _outputs(options: argparse.Namespace) -> dict[str, object]:
    """What is there under the outputs' names: file, time and size, or None."""
    names = [getattr(options, name, None) for name in ("out", "report")]
    return {name: _state(name) for name in names if name}


def _state(name: str) -> object:
    with suppress(OSError, ValueError):
        status = os.stat(name)
        return status.st_ino, status.st_mtime_ns, status.st_size
    return None


_ENDINGS = {signal.SIGINT: "interrupted", signal.SIGTERM: "ended by SIGTERM"}
if hasattr(signal, "SIGHUP"):
    _ENDINGS[signal.SIGHUP] = "ended by SIGHUP"


class _Ended(BaseException):
    """A signal came: everything is closed and removed on the way out."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = signal.Signals(number)


@contextmanager
def _ended_in_order(is_last: bool) -> Iterator[threading.Event]:
    """A signal ends the body with `_Ended`; until it has ended, one more ends the process at once.

    In the main thread alone, and not for signals that are ignored, as SIGHUP under ``nohup``.

    Args:
        is_last: the process ends after the body; nobody need end it once more.

    Yields:
        To be set when it was said how the command ended.
    """
    told = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield told
        return

    def end(number: int, frame: object) -> None:
        _handle(dict.fromkeys(before, end_at_once))
        raise _Ended(number)

    def end_at_once(number: int, frame: object) -> None:
        _handle(dict.fromkeys(before, signal.SIG_IGN))
        discard_all()
        if not told.is_set():
            say(f"{_ENDINGS[signal.Signals(number)]}, ended at once.", is_below=True)
        os._exit(128 + number)

    before = {n: signal.getsignal(n) for n in _ENDINGS if signal.getsignal(n) != signal.SIG_IGN}
    _handle(dict.fromkeys(before, end))
    try:
        yield told
    except _Ended:
        _handle(dict.fromkeys(before, signal.SIG_IGN) if is_last else before)
        raise
    except BaseException:
        _handle(before)
        raise
    _handle(before)


def _handle(handlers: Mapping[signal.Signals, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)


@contextmanager
def _warnings_as_lines() -> Iterator[None]:
    """Each warning is a line of its own, once, without the place in the code."""
    said: set[str] = set()

    def show(message: Warning | str, category: type[Warning], *args: Any, **place: Any) -> None:
        text = str(message)
        if text not in said:
            said.add(text)
            say(text)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lipsync-nb", description="Audio-driven lip-sync of a recorded person."
    )
    parser.add_argument("--version", action="version", version=version("lipsync_nb"))
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
    from lipsync_nb.avatar.loading import load_avatar
    from lipsync_nb.pipeline.audio_features import load_speech

    config = _config(options)
    speech = load_speech(options.speech, _seconds_of(config))
    avatar = load_avatar(options.avatar, options.generator, options.audio_encoder)
    _render_to(options.out, avatar, speech, config)


def _demo(options: argparse.Namespace) -> None:
    from lipsync_nb.avatar.loading import demo_speeches, load_avatar
    from lipsync_nb.pipeline.audio_features import load_speech

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
    from lipsync_nb.pipeline.render import render

    with ProgressBar() as bar:
        result = render(avatar, speech, out, config, bar)
    tell(_report(result))


def _report(result: RenderResult) -> str:
    timings = result.timings
    notes = "".join(f"{note}\n" for note in result.notes)
    missed = "".join(f"{text}\n" for text in result.shortfalls)
    return (
        f"{missed}{timings}\n\n{notes}{result.path.resolve()}\n{result.num_frames} frames in "
        f"{timings.wall_seconds:.1f} s, {timings.fps:.1f} FPS on {result.provider}"
    )


if __name__ == "__main__":
    run()
