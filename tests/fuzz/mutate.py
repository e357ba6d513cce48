"""Mutated inputs: valid samples with a few changes; the same seed gives the same inputs."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Final

MAX_INPUT: Final = 1 << 16

_TOKENS: Final = (
    *(
        b"\n",
        b"\n\n",
        b"\r\n",
        b" ",
        b"\t",
        b"+",
        b"=",
        b"==",
        b"0",
        b"-1",
        b"01",
        b"18446744073709551616",
        b"1e9",
        b".",
    ),
    *(
        "\u2014 ".encode(),
        b"\xc2\xa0",
        b"\xff",
        b"\xed\xa0\x80",
        b"\x00",
        b"\x7f",
        "٣".encode(),
        b"\\ud800",
        b'"',
        b"\\",
    ),
    *(
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"null",
        b"NaN",
        b"{}",
        b"/",
        b"../",
        b"\x00\x00\x00\x00",
        b"\xff\xff\xff\xff",
    ),
)


def mutations(samples: Sequence[bytes], seed: int) -> Iterator[bytes]:
    """Endless inputs made from `samples`."""
    rng = random.Random(seed)
    while True:
        data = bytearray(rng.choice(samples))
        for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
            rng.choice(_STEPS)(rng, data, samples)
            del data[MAX_INPUT:]
        yield bytes(data)


def _flip(rng: random.Random, data: bytearray, samples: Sequence[bytes]) -> None:
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _replace(rng: random.Random, data: bytearray, samples: Sequence[bytes]) -> None:
    if data:
        data[rng.randrange(len(data))] = rng.randrange(256)


def _insert(rng: random.Random, data: bytearray, samples: Sequence[bytes]) -> None:
    at = rng.randint(0, len(data))
    data[at:at] = rng.choice(_TOKENS)


def _overwrite(rng: random.Random, data: bytearray, samples: Sequence[bytes]) -> None:
    at, token = rng.randint(0, len(data)), rng.choice(_TOKENS)
    data[at : at + len(token)] = token


def _delete(rng: random.Random, data: bytearray, samples: Sequence[bytes]) -> None:
    start = rng.randint(0, len(data))
    del data[start : start + rng.choice((1, 1, 2, 4, 32, MAX_INPUT))]


def _repeat(rng: random.Random, data: bytearray, samples: Sequence[bytes]) -> None:
    start = rng.randint(0, len(data))
    part = data[start : start + rng.choice((1, 4, 64))]
    data[start:start] = part * rng.choice((1, 2, 100))


def _repeat_line(rng: random.Random, data: bytearray, samples: Sequence[bytes]) -> None:
    lines = bytes(data).splitlines(keepends=True)
    if lines:
        at, line = rng.randrange(len(lines)), rng.choice(lines)
        lines[at:at] = [line] * min(rng.choice((1, 1, 2, 120)), MAX_INPUT // len(line))
        data[:] = b"".join(lines)


def _swap_lines(rng: random.Random, data: bytearray, samples: Sequence[bytes]) -> None:
    lines = bytes(data).splitlines(keepends=True)
    rng.shuffle(lines)
    data[:] = b"".join(lines)


def _splice(rng: random.Random, data: bytearray, samples: Sequence[bytes]) -> None:
    other = rng.choice(samples)
    data[rng.randint(0, len(data)) :] = other[rng.randint(0, len(other)) :]


_STEPS: Final[tuple[Callable[[random.Random, bytearray, Sequence[bytes]], None], ...]] = (
    *(_flip, _replace, _insert, _overwrite, _delete, _repeat, _repeat_line, _swap_lines, _splice),
)
