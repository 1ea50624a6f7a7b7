"""The command line's quality report: ``lipsync-nb quality``."""

from __future__ import annotations

import argparse
from dataclasses import fields
from typing import Any

from lipsync_nb import experiments
from lipsync_nb.config.render_config import RenderConfig, option_choices
from lipsync_nb.errors import ConfigError
from lipsync_nb.system.console import tell
from lipsync_nb.system.outputs import check_output_file, refuse_inputs

from .progress import ProgressBar


def add_commands(commands: Any) -> None:
    """Add ``quality`` to a parser's commands."""
    text = "how good a clip is: sound and mouth, seam, flicker, sharpness and more"
    parser = commands.add_parser("quality", help=text, description=text)
    parser.add_argument("clip", help="video that was rendered")
    parser.add_argument("avatar", nargs="?", default="demo", help="its avatar (default: demo)")
    parser.add_argument("speech", nargs="?", help="its speech, whose sound is compared with it")
    parser.add_argument(
        "--order", choices=option_choices("order"), default="pingpong", help="that it was made in"
    )
    parser.add_argument("--start-frame", type=int, default=-1, help="that it began with")
    parser.add_argument(
        "--threshold",
        dest="thresholds",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="threshold of a measure; 'none' does not judge it; may be given several times",
    )
    parser.add_argument(
        "--check", action="store_true", help="end with status 2 where a measure fails"
    )
    parser.add_argument("--out", help="also write the report to this JSON file")
    parser.add_argument(
        "--html", "--report", dest="report", help="also write it as one HTML page with pictures"
    )
    parser.set_defaults(run=_quality)


def _quality(options: argparse.Namespace) -> None:
    from lipsync_nb.avatar.loading import load_avatar
    from lipsync_nb.notebook.report import write_report
    from lipsync_nb.pipeline.audio_features import load_speech

    inputs = [options.clip, options.avatar, options.speech]
    for out in filter(None, (options.out, options.report)):
        refuse_inputs(check_output_file(out), inputs)
    limits = _thresholds(options.thresholds)
    speech = load_speech(options.speech) if options.speech else None
    with ProgressBar("measured") as bar:
        report = experiments.quality_report(
            options.clip,
            load_avatar(options.avatar),
            speech,
            config=RenderConfig(order=options.order, start_frame=options.start_frame),
            thresholds=limits,
            progress=bar,
        )
    tell(report)
    if options.out:
        tell(f"\n{report.save(options.out).resolve()}")
    if options.report:
        page = write_report(options.report, report, title=f"Quality of {report.clip}")
        tell(f"\n{page.resolve()}")
    if options.check:
        report.raise_if_failed()


def _thresholds(texts: list[str]) -> experiments.QualityThresholds:
    known = {option.name for option in fields(experiments.QualityThresholds)}
    values: dict[str, float | None] = {}
    for text in texts:
        name, _, value = text.partition("=")
        name = name.strip().replace("-", "_")
        if name not in known:
            expected = f"expected NAME=VALUE with one of {', '.join(sorted(known))}"
            raise ConfigError(f"--threshold: found {text!r}, {expected}.")
        values[name] = _number(text, value.strip())
    return experiments.QualityThresholds(**values)  # type: ignore[arg-type]


def _number(text: str, value: str) -> float | None:
    try:
        return None if value.lower() == "none" else float(value)
    except ValueError as error:
        raise ConfigError(f"--threshold: found {text!r}, expected a number or none.") from error
