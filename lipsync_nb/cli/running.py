"""Running a command in order: errors as one sentence, signals, consoles that close."""

from __future__ import annotations

import argparse
import errno
import os
import signal
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from lipsync_nb.errors import LipsyncError
from lipsync_nb.system.console import leave_console, prepare_console, say
from lipsync_nb.system.outputs import discard_all


def run_command(
    parser: argparse.ArgumentParser, arguments: Sequence[str] | None, is_last: bool
) -> int:
    """Run the command that the arguments name, with its ``run`` that the parser has by default.

    Args:
        arguments: default those of the process.
        is_last: the process ends after it: nothing disturbs its end.

    Returns:
        0: done; 2: bad input (one sentence on stderr); 128 and the signal's number: ended by
        Ctrl-C, SIGTERM or SIGHUP. A console that is closed, full or read no further changes none
        of these.
    """
    prepare_console()
    try:
        options = parser.parse_args(arguments)
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
    except ImportError as error:
        reason = _of_the_system(error)
        if reason is None:
            raise
        say(f"the system: {reason}.")
        return 2
    except MemoryError as error:
        say(f"there is not enough memory ({str(error) or 'for what was asked'}).")
        return 2
    except _Ended as end:
        after = _outputs(options)
        written = [name for name in after if after[name] != before[name]]
        what = f"{written[0]} was written" if written else f"nothing was written{_parts(options)}"
        told.set()
        say(f"{_ENDINGS[end.number]}, {what}.")
        raise
    return 0


def _of_the_system(error: ImportError) -> str | None:
    """What the machine lacked when a library was to be loaded: the loader says it in its text."""
    reasons = map(os.strerror, (errno.EMFILE, errno.ENFILE, errno.ENOMEM))
    return next((reason for reason in reasons if reason in str(error)), None)


def _parts(options: argparse.Namespace) -> str:
    """What is kept of a long video, for the same command to go on from."""
    from lipsync_nb.pipeline.parts import parts_folder

    out = getattr(options, "out", None)
    if not out or not any(parts_folder(out).glob("*.part")):
        return ""
    return "; its finished parts are kept, and the same command goes on from there"


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
