"""The command line: exit codes, one sentence on stderr, nothing else on the console."""

import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import av
import pytest
from builders import tone_speech

from lipsync_nb.__main__ import main
from lipsync_nb.config.render_config import RenderConfig
from lipsync_nb.types.arrays import ImageArray


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lipsync_nb", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_render(
    tmp_path: Path, synctalk_folder: Path, speech_file: Path, reference: list[ImageArray]
) -> None:
    out = tmp_path / "out.mp4"
    done = run("render", synctalk_folder, speech_file, out, "--batch-size", 2, "--n-jobs", 2)
    assert done.returncode == 0, done.stderr
    assert str(out) in done.stdout
    assert "inference" in done.stdout
    lines = [line for line in done.stderr.replace("\r", "\n").splitlines() if line.strip()]
    bar = re.compile(r" *\d+%\|.*\| \d+/\d+ \[.*frame.*\] *")
    assert [line for line in lines if not bar.fullmatch(line)] == []
    assert f"{len(reference)}/{len(reference)} " in lines[-1]
    with av.open(str(out)) as container:
        assert container.streams.video[0].frames == len(reference)
        assert len(container.streams.audio) == 1


def test_render_into_a_folder(tmp_path: Path, synctalk_folder: Path, speech_file: Path) -> None:
    arguments = ["render", synctalk_folder, speech_file, tmp_path / "frames"]
    assert main([*map(str, arguments), "--max-frames", "3", "--image-format", "png"]) == 0
    assert len(list((tmp_path / "frames").glob("*.png"))) == 3


def test_bad_input_is_one_sentence_and_exit_code_2(tmp_path: Path, speech_file: Path) -> None:
    done = run("render", tmp_path / "nowhere", speech_file, tmp_path / "out.mp4")
    assert done.returncode == 2
    assert done.stderr == f"lipsync-nb: {tmp_path / 'nowhere'}: no such avatar folder.\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--batch-size", "300", "batch_size: found 300, expected at most 256."),
        ("--crf", "99", "crf: found 99, expected at most 51."),
        ("--n-jobs", "0", "n_jobs: found 0, expected 1 or more, or -1 for one a core."),
    ],
)
def test_values_out_of_range(
    option: str, value: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["render", "demo", "x.wav", "out.mp4", option, value]) == 2
    assert capsys.readouterr().err == f"lipsync-nb: {message}\n"


def test_help_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["render", "--help"])
    assert stop.value.code == 0
    named = set(re.findall(r"(?<![\w-])--[\w-]+", capsys.readouterr().out))
    options = {f"--{field.name.replace('_', '-')}" for field in fields(RenderConfig)}
    others = {"--generator", "--audio-encoder", "--box", "--family", "--fps", "--help"}
    assert options | others <= named
    # A switch has its opposite, and nothing else is named.
    switches = {f.name for f in fields(RenderConfig) if isinstance(f.default, bool)}
    opposites = {f"--no-{name.replace('_', '-')}" for name in switches}
    assert named == options | opposites | others


def test_a_preview_is_the_beginning_of_the_whole(tmp_path: Path, synctalk_folder: Path) -> None:
    """Though it hears no more of the speech than its frames need."""
    tone_speech(tmp_path / "s.wav", 6.0, 44_100, 2)
    whole, part = tmp_path / "whole", tmp_path / "part"
    common = [str(synctalk_folder), str(tmp_path / "s.wav")]
    for out, options in ((whole, []), (part, ["--max-frames", "30"])):
        command = ["render", *common, str(out), "--image-format", "png", "--provider", "cpu"]
        assert main([*command, *options]) == 0
    assert len(list(whole.iterdir())) > 140
    assert len(list(part.iterdir())) == 30
    for file in part.iterdir():
        assert file.read_bytes() == (whole / file.name).read_bytes()


def test_a_sentence_stays_one_line_whatever_is_in_a_name(tmp_path: Path) -> None:
    done = run("render", "demo", tmp_path / "a\nb\x1b[31m\u2028c", tmp_path / "v.mp4")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert r"a\nb\x1b[31m\u2028c" in done.stderr


NO_HANDLES = """
import argparse, importlib.machinery, importlib.util, resource
from pathlib import Path
from lipsync_nb.cli.running import run_command

library = next(Path(importlib.util.find_spec("cv2").origin).parent.glob("cv2*.so"))
name = "a_library"
loader = importlib.machinery.ExtensionFileLoader(name, str(library))
spec = importlib.util.spec_from_loader(name, loader)

def load(options):
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
    importlib.util.module_from_spec(spec)

parser = argparse.ArgumentParser()
parser.set_defaults(run=load)
raise SystemExit(run_command(parser, [], is_last=True))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits of a process")
def test_a_library_that_cannot_be_loaded_for_want_of_handles_is_a_sentence() -> None:
    """It is an ImportError then, without a number."""
    command = [sys.executable, "-c", NO_HANDLES]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (2, "lipsync-nb: the system: Too many open files.\n")


def test_a_module_that_is_not_there_stays_an_error() -> None:
    limit = "resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))"
    command = [sys.executable, "-c", NO_HANDLES.replace(limit, "import no_such_module")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.endswith("ModuleNotFoundError: No module named 'no_such_module'\n")
