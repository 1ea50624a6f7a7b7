"""``python -m tools.fuzz --seconds 600 --seed 0``: fuzz all readers, and print a table.

The exit code is 1 where an input ended in neither a result nor a `LipsyncError`: by another
exception, a crash, 20 seconds of the processor, or more than 4 GB of memory. The inputs are the
same again for the same seed; ``--only NAME --number N --count 1`` runs one of them.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from .pool import LIMIT_SECONDS, Job, Outcome, run
from .readers import READERS, Reader


def jobs_of(
    names: list[str], count: int | None, end: float | None, first: int = 0
) -> Iterator[Job]:
    """Inputs of these readers in turn, so many of each, or until a moment."""
    for number in itertools.count(first):
        if count is not None and number >= first + count:
            return
        for name in names:
            if end is not None and time.monotonic() >= end:
                return
            yield Job(name, number)


class Table:
    """Outcomes, counted by reader."""

    def __init__(self) -> None:
        self.counts: dict[str, Counter[str]] = {}
        self.findings: list[Outcome] = []

    def add(self, outcome: Outcome) -> None:
        self.counts.setdefault(outcome.job.reader, Counter())[outcome.kind] += 1
        if outcome.kind == "finding":
            self.findings.append(outcome)

    def __str__(self) -> str:
        kinds = ("result", "refusal", "finding")
        lines = [f"{'reader':<22}{'inputs':>8}" + "".join(f"{kind + 's':>10}" for kind in kinds)]
        total: Counter[str] = Counter()
        for name, counts in self.counts.items():
            lines.append(_line(name, counts, kinds))
            total += counts
        return "\n".join([*lines, _line("all", total, kinds)])


def _line(name: str, counts: Counter[str], kinds: tuple[str, ...]) -> str:
    return f"{name:<22}{counts.total():>8}" + "".join(f"{counts[kind]:>10}" for kind in kinds)


def make_seeds(folder: Path, readers: Sequence[Reader]) -> None:
    """The sound inputs of these readers, in a folder each."""
    for reader in readers:
        (folder / reader.name).mkdir(parents=True)
        reader.make(folder / reader.name)


def fuzz(
    readers: Sequence[Reader],
    seed: int,
    home: Path,
    *,
    count: int | None = None,
    seconds: float | None = None,
    keep: Path | None = None,
    first: int = 0,
    limit_seconds: float = LIMIT_SECONDS,
) -> Table:
    """Fuzz readers: so many inputs of each, or for so long.

    Args:
        home: an empty folder to work in.
        keep: where the inputs of findings are copied to.
        first: number of the first input.
        limit_seconds: of processor time for an input.
    """
    make_seeds(home / "seeds", readers)
    end = None if seconds is None else time.monotonic() + seconds
    table = Table()
    jobs = jobs_of([reader.name for reader in readers], count, end, first)
    for outcome in run(jobs, readers, home, seed, keep, limit_seconds=limit_seconds):
        table.add(outcome)
        if outcome.kind == "finding":
            last = outcome.text.strip().splitlines()[-1][:150]
            print(f"{outcome.job.reader} {outcome.job.number}: {last}", file=sys.stderr, flush=True)
    return table


def main() -> int:
    names = [reader.name for reader in READERS]
    parser = argparse.ArgumentParser(prog="python -m tools.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, help="so many inputs of each reader, no time limit")
    parser.add_argument("--only", action="append", choices=names, metavar="READER", default=[])
    parser.add_argument("--number", type=int, default=0, help="of the first input")
    parser.add_argument("--keep", type=Path, help="folder for the inputs of findings")
    options = parser.parse_args()
    seconds = None if options.count else options.seconds
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="lipsync_nb-fuzz-") as home:
        table = fuzz(
            [reader for reader in READERS if reader.name in (options.only or names)],
            options.seed,
            Path(home),
            count=options.count,
            seconds=seconds,
            keep=options.keep,
            first=options.number,
        )
    print(f"{table}\n\nseed {options.seed}, {time.monotonic() - start:.0f} s")
    return 1 if table.findings else 0


if __name__ == "__main__":
    sys.exit(main())
