"""The command line's experiments: ``bench``, ``sweep``, ``ablation``, ``quantize``, ..."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lipsync_nb import experiments
from lipsync_nb.config.render_config import RenderConfig, option_choices
from lipsync_nb.errors import ConfigError
from lipsync_nb.system.console import tell
from lipsync_nb.system.outputs import check_output_file, refuse_inputs, scratch_folder
from lipsync_nb.types.records import Speech
from lipsync_nb.types.rich import Rich

from .progress import ProgressBar
from .rendering import add_family

if TYPE_CHECKING:
    from lipsync_nb.avatar.avatar import Avatar

DEFAULT_SPEECH = "hello"
Commands = Any


def add_commands(commands: Commands) -> None:
    """Add the experiments' commands to a parser's."""
    _add_bench(commands)
    _add_first(commands)
    _add_sweep(commands)
    _add_ablation(commands)
    _add_precision(commands)
    _add_quantize(commands)
    _add_tune(commands)
    _add_profile(commands)
    _add_memory(commands)


def _command(
    commands: Commands, name: str, text: str, run: Callable[[argparse.Namespace], None]
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    parser.add_argument("avatar", nargs="?", default="demo", help="avatar folder (default: demo)")
    parser.add_argument(
        "--generator",
        help="network to use instead of the avatar's; 'untrained' makes one of the full width "
        "with seeded weights, as published code exports it",
    )
    add_family(parser)
    parser.set_defaults(run=run)
    return parser


def _add_runs(parser: argparse.ArgumentParser, frames: int, repeats: int) -> None:
    parser.add_argument("speech", nargs="?", help="sound file (default: a demo clip)")
    parser.add_argument("--repeats", type=int, default=repeats, help=f"default: {repeats}")
    parser.add_argument("--frames", type=int, default=frames, help=f"default: {frames}")


def _add_outputs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", help="also write the result to this JSON file")
    parser.add_argument("--report", help="also write it as one HTML page")


def _add_bench(commands: Commands) -> None:
    bench = _command(commands, "bench", "measure named configurations side by side", _bench)
    _add_runs(bench, 300, 3)
    bench.add_argument(
        "--configs",
        help="presets, origin-baseline, origin-cached, origin-parallel, onnxruntime; "
        "joined by commas (default: all)",
    )
    _add_outputs(bench)


def _add_first(commands: Commands) -> None:
    text = "whole clips, each in a process of its own, from the command to the file"
    first = _command(commands, "first", text, _first)
    _add_runs(first, 250, 5)
    first.add_argument(
        "--configs",
        help="as for bench; the first is what the others are compared with "
        "(default: origin-parallel,onnxruntime,engine,int8)",
    )
    _add_outputs(first)


def _add_sweep(commands: Commands) -> None:
    sweep = _command(commands, "sweep", "measure every combination of some fields' values", _sweep)
    _add_runs(sweep, 100, 2)
    sweep.add_argument(
        "--set",
        dest="values",
        action="append",
        default=[],
        metavar="FIELD=A,B,C",
        help="values of a field of the configuration; may be given several times "
        "(default: batch_size=1,4,8,16 and n_jobs=1,2,4)",
    )
    sweep.add_argument("--warmup", choices=("apart", "included"), default="apart")
    _add_outputs(sweep)


def _add_ablation(commands: Commands) -> None:
    ablation = _command(commands, "ablation", "from the plain way to the whole engine", _ablation)
    _add_runs(ablation, 100, 2)
    ablation.add_argument("--steps", help="presets joined by commas (default: all)")
    _add_outputs(ablation)


def _add_precision(commands: Commands) -> None:
    compare = _command(commands, "precision", "compare FP32, FP16 and INT8", _precision)
    _add_runs(compare, 60, 2)
    compare.add_argument(
        "--recipes", help="joined by commas (default: fp32,fp16,int8,int8-dynamic)"
    )
    _add_outputs(compare)


def _add_quantize(commands: Commands) -> None:
    quantize = _command(commands, "quantize", "write the network with other numbers", _quantize)
    quantize.add_argument("speech", nargs="?", help="speech to calibrate on, where needed")
    quantize.add_argument("--precision", default="int8", help="default: int8")
    quantize.add_argument("--out", required=True, help="OUT.onnx")


def _add_tune(commands: Commands) -> None:
    tune = _command(commands, "tune", "find this machine's fastest configuration", _tune)
    tune.add_argument("speech", nargs="?", help="sound file of first clips (default: a demo clip)")
    tune.add_argument(
        "--target",
        default="steady",
        help="steady: frames a second of a warm process (the default); first-clip: seconds from "
        "the command to the file, each trial in a process of its own",
    )
    tune.add_argument(
        "--allow",
        default="",
        help="also search what changes the output: precision (other pictures), preset (larger "
        "files); joined by commas (default: neither)",
    )
    tune.add_argument(
        "--seconds",
        type=float,
        help="begin nothing new after so long (default: 40, first-clip 150)",
    )
    tune.add_argument("--frames", type=int, help="of each trial (default: 32, first-clip 100)")
    tune.add_argument("--renew", action="store_true", help="search even if there is a result")


def _add_profile(commands: Commands) -> None:
    profile = _command(commands, "profile", "time of each operator of the network", _profile)
    text = "default: as a render takes them"
    profile.add_argument("--batch-size", type=int, default=0, help=text)
    choices = option_choices("precision")
    profile.add_argument("--precision", choices=choices, default="fp32")
    profile.add_argument("--report", help="also write it as one HTML page")


def _add_memory(commands: Commands) -> None:
    memory = _command(commands, "memory", "what templates cost in RAM", _memory)
    memory.add_argument("--frames", default="100,500,1000", help="default: 100,500,1000")
    memory.add_argument("--report", help="also write it as one HTML page")


@contextmanager
def _avatar(options: argparse.Namespace) -> Iterator[Avatar]:
    """The avatar that was named, with the network that was named."""
    from lipsync_nb.avatar.loading import load_avatar
    from lipsync_nb.network.unet328 import untrained_generator

    _check_outputs(options)
    with scratch_folder() as folder:
        generator = options.generator
        if generator == "untrained":
            generator = folder / "untrained.onnx"
            generator.write_bytes(untrained_generator(padded=True).SerializeToString())
        yield load_avatar(options.avatar, generator, spec=options.family)


def _check_outputs(options: argparse.Namespace) -> None:
    """Tell before the work where its result cannot be written, or would destroy what is read."""
    inputs = [options.avatar, options.generator, getattr(options, "speech", None)]
    for out in (getattr(options, "out", None), getattr(options, "report", None)):
        if out is not None:
            refuse_inputs(check_output_file(out), inputs)


def _speech(options: argparse.Namespace) -> Speech:
    from lipsync_nb.pipeline.audio_features import load_speech

    return load_speech(_speech_path(options))


def _speech_path(options: argparse.Namespace) -> str | Path:
    from lipsync_nb.avatar.loading import demo_speeches

    return options.speech or demo_speeches()[DEFAULT_SPEECH]


def _finish(options: argparse.Namespace, result: Rich, title: str) -> None:
    """Print a result, and write what was asked for."""
    from lipsync_nb.notebook.report import write_report

    tell(result)
    if getattr(options, "out", None):
        tell(f"\n{result.save(options.out).resolve()}")  # type: ignore[attr-defined]
    if getattr(options, "report", None):
        tell(f"\n{write_report(options.report, result, title=title).resolve()}")


def _names(text: str | None) -> list[str] | None:
    return text.split(",") if text else None


def _bench(options: argparse.Namespace) -> None:
    speech = _speech(options)
    with _avatar(options) as avatar, ProgressBar() as bar:
        result = experiments.benchmark(
            avatar,
            speech,
            _names(options.configs),
            repeats=options.repeats,
            max_frames=options.frames,
            progress=bar,
        )
    _finish(options, result, "Benchmark")


def _first(options: argparse.Namespace) -> None:
    chosen: Any = {"configs": _names(options.configs)} if options.configs else {}
    with _avatar(options) as avatar, ProgressBar() as bar:
        result = experiments.first_clips(
            avatar.path,
            _speech_path(options),
            generator=avatar.generator,
            spec=options.family,
            repeats=options.repeats,
            max_frames=options.frames,
            progress=bar,
            **chosen,
        )
    _finish(options, result, "First clips")


def _sweep(options: argparse.Namespace) -> None:
    given = options.values or ["batch_size=1,4,8,16", "n_jobs=1,2,4"]
    values: dict[str, Any] = {}
    for name, more in map(_values, given):
        values[name] = [*values.get(name, []), *more]
    speech = _speech(options)
    with _avatar(options) as avatar, ProgressBar() as bar:
        result = experiments.sweep(
            avatar,
            speech,
            warmup=options.warmup,
            repeats=options.repeats,
            max_frames=options.frames,
            path=options.out,
            progress=bar,
            **values,
        )
    # Every run was written to ``out`` already.
    options.out = None
    _finish(options, result, "Sweep")


def _values(text: str) -> tuple[str, list[Any]]:
    """A field and its values from ``FIELD=A,B,C``."""
    name, _, rest = text.partition("=")
    name = name.strip().replace("-", "_")
    option = next((f for f in fields(RenderConfig) if f.name == name), None)
    if option is None or not rest:
        raise ConfigError(f"--set: found {text!r}, expected FIELD=A,B,C of the configuration.")
    return name, [_value(name, option.default, entry.strip()) for entry in rest.split(",")]


def _value(name: str, default: Any, text: str) -> Any:
    if option_choices(name):
        return text
    if isinstance(default, bool):
        known = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        return known.get(text.lower(), text)
    return _whole_number(name, text)


def _whole_number(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise ConfigError(f"{name}: found {text!r}, expected a whole number.") from error


def _ablation(options: argparse.Namespace) -> None:
    speech = _speech(options)
    with _avatar(options) as avatar, ProgressBar() as bar:
        result = experiments.ablation(
            avatar,
            speech,
            steps=_names(options.steps),
            repeats=options.repeats,
            max_frames=options.frames,
            progress=bar,
        )
    _finish(options, result, "From the plain way to the whole engine")


def _precision(options: argparse.Namespace) -> None:
    recipes: Any = _names(options.recipes)
    chosen = {"precisions": recipes} if recipes else {}
    speech = _speech(options)
    with _avatar(options) as avatar, ProgressBar() as bar:
        result = experiments.compare_precision(
            avatar,
            speech,
            **chosen,
            repeats=options.repeats,
            max_frames=options.frames,
            progress=bar,
        )
    _finish(options, result, "Precision")


def _quantize(options: argparse.Namespace) -> None:
    from lipsync_nb.pipeline.audio_features import load_speech

    speech = load_speech(options.speech) if options.speech else None
    with _avatar(options) as avatar:
        result = experiments.quantize(avatar, options.precision, speech)
    tell(result)
    tell(result.save(options.out).resolve())


def _tune(options: argparse.Namespace) -> None:
    allow: Any = _names(options.allow) or ()
    with _avatar(options) as avatar, ProgressBar() as bar:
        result = experiments.autotune(
            avatar,
            target=options.target,
            allow=allow,
            speech=options.speech,
            max_frames=options.frames,
            seconds=options.seconds,
            renew=options.renew,
            progress=bar,
        )
    tell(result)


def _profile(options: argparse.Namespace) -> None:
    config = RenderConfig(batch_size=options.batch_size, precision=options.precision)
    options.speech = None
    with _avatar(options) as avatar:
        result = experiments.profile_network(avatar, _speech(options), config)
    _finish(options, result, "Operators of the network")


def _memory(options: argparse.Namespace) -> None:
    lengths = [_whole_number("--frames", text) for text in options.frames.split(",")]
    with _avatar(options) as avatar:
        result = experiments.memory_table(avatar, lengths)
    _finish(options, result, "Templates in RAM")
