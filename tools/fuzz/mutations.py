"""Seeded mutations of bytes and texts."""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random

_NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1)
_HEADER_BYTES = 256
_TOKEN = re.compile(rb"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|\"[^\"]*\"|[\w./-]+|[\[\]{}:,]")
_WORDS = (
    b"NaN", b"Infinity", b"-Infinity", b"1e400", b"-1", b"0", b"1", b"true", b"null", b'""', b"{}",
    b"[]", b"[[", b'"\xc3\xa9"', b"\xff\xfe", b"\n", b"9" * 40, b"1" + b"0" * 5000, b"0.5",
    b"-2147483649", b"[" * 3000, b"\0",
)  # fmt: skip

Mutation = Callable[[bytes, bytes, Random], bytes]


def mutated(data: bytes, other: bytes, rng: Random, is_text: bool) -> bytes:
    """One to four mutations of a file's bytes, one after the other.

    Args:
        other: another file of the same kind, to splice with.
    """
    kinds = [*_OF_BYTES, *_OF_TEXT, *_OF_TEXT] if is_text else _OF_BYTES
    for _ in range(rng.choice((1, 1, 1, 2, 3, 4))):
        data = rng.choice(kinds)(data, other, rng)
    return data


def _flip(data: bytes, other: bytes, rng: Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        if changed:
            changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def _truncate(data: bytes, other: bytes, rng: Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _insert(data: bytes, other: bytes, rng: Random) -> bytes:
    at, count = rng.randrange(len(data) + 1), rng.choice((1, 2, 4, 16, 700))
    return data[:at] + rng.randbytes(count) + data[at:]


def _remove(data: bytes, other: bytes, rng: Random) -> bytes:
    start, stop = _span(data, rng)
    return data[:start] + data[stop:]


def _duplicate(data: bytes, other: bytes, rng: Random) -> bytes:
    start, stop = _span(data, rng)
    return data[:stop] + data[start:stop] * rng.choice((1, 1, 2, 9)) + data[stop:]


def _span(data: bytes, rng: Random) -> tuple[int, int]:
    start = rng.randrange(len(data) + 1)
    return start, min(len(data), start + rng.choice((1, 4, 64, 1024, 8192)))


def _splice(data: bytes, other: bytes, rng: Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :]


def _number(data: bytes, other: bytes, rng: Random) -> bytes:
    """A number that is on an edge, in place of one of the header's or of any."""
    width, order = rng.choice((1, 2, 4, 8)), rng.choice(("little", "big"))
    value = rng.choice(_NUMBERS) & ((1 << 8 * width) - 1)
    end = len(data) if rng.random() < 0.3 else min(len(data), _HEADER_BYTES)
    at = rng.randrange(max(1, end - width))
    return data[:at] + value.to_bytes(width, order) + data[at + width :]


def _token(data: bytes, other: bytes, rng: Random) -> bytes:
    """A token of the text in place of another, or a word that is on an edge."""
    tokens = list(_TOKEN.finditer(data))
    if not tokens:
        return rng.choice(_WORDS)
    at, source = rng.choice(tokens), rng.choice(tokens)
    new = source.group() if rng.random() < 0.3 else rng.choice(_WORDS)
    return data[: at.start()] + new + data[at.end() :]


_OF_BYTES: tuple[Mutation, ...] = (
    _flip, _flip, _truncate, _insert, _remove, _duplicate, _splice, _number, _number, _number,
)  # fmt: skip
_OF_TEXT: tuple[Mutation, ...] = (_token,)
