"""The fuzz program finds what it is for, and a short run of it over all readers finds nothing."""

import os
import time
from pathlib import Path
from random import Random

import numpy as np
import pytest

import lipsync_nb as lnb
from tools.fuzz.__main__ import fuzz
from tools.fuzz.mutations import mutated
from tools.fuzz.pool import MEMORY_BYTES
from tools.fuzz.readers import READERS, Reader


def make(folder: Path) -> None:
    (folder / "0").mkdir()
    (folder / "0" / "input.txt").write_text('{"number": 12}')


def fails(folder: Path) -> None:
    raise KeyError("number")


def dies(folder: Path) -> None:
    os.abort()


def hangs(folder: Path) -> None:
    while time.monotonic():
        pass


def grows(folder: Path) -> None:
    np.ones(MEMORY_BYTES, np.uint8)


def breaks_lines(folder: Path) -> None:
    raise lnb.errors.ConfigError("two\nlines")


def refuses(folder: Path) -> None:
    raise lnb.errors.ConfigError("number: found 12, expected 13.")


def reads(folder: Path) -> None:
    (folder / "input.txt").read_bytes()


def found(use: object, tmp_path: Path) -> tuple[str, str]:
    """Kind and text of what becomes of one input that is used like this."""
    reader = Reader("tried", make, ("input.txt",), use)  # type: ignore[arg-type]
    table = fuzz([reader], 0, tmp_path, count=1, keep=tmp_path / "kept", limit_seconds=1.0)
    (kind,) = table.counts["tried"]
    return kind, table.findings[0].text if table.findings else ""


@pytest.mark.parametrize(
    ("use", "text"),
    [
        (fails, "KeyError: 'number'"),
        (dies, "the process died"),
        (hangs, "the process hangs"),
        (grows, "MemoryError"),
        (breaks_lines, "not one line"),
    ],
)
def test_findings(use: object, text: str, tmp_path: Path) -> None:
    kind, told = found(use, tmp_path)
    assert kind == "finding"
    assert text in told
    assert (tmp_path / "kept" / "tried-0" / "input.txt").is_file()
    assert told == (tmp_path / "kept" / "tried-0" / "finding.txt").read_text()


@pytest.mark.parametrize(("use", "kind"), [(refuses, "refusal"), (reads, "result")])
def test_what_is_fine(use: object, kind: str, tmp_path: Path) -> None:
    assert found(use, tmp_path) == (kind, "")


def test_mutations_follow_from_the_seed() -> None:
    data = bytes(range(256)) * 4
    first = [mutated(data, data, Random(number), False) for number in range(200)]
    assert first == [mutated(data, data, Random(number), False) for number in range(200)]
    assert sum(changed != data for changed in first) > 190
    assert len(set(first)) > 190


def test_short_run_over_all_readers(tmp_path: Path) -> None:
    table = fuzz(READERS, 0, tmp_path, count=3)
    assert not table.findings, [outcome.text for outcome in table.findings]
    assert set(table.counts) == {reader.name for reader in READERS}
    assert all(counts.total() == 3 for counts in table.counts.values())
    assert str(table).splitlines()[-1].split()[:2] == ["all", str(3 * len(READERS))]
