"""SHA-256 in Python, written from FIPS 180-4: a second implementation that shows its states, which hashlib does not."""

from __future__ import annotations

import struct
from math import isqrt

WORD = 0xFFFF_FFFF


def _fraction_of_cube_root(prime: int) -> int:
    """The first 32 bits of the fractional part."""
    low, high = 0, prime << 96
    while low < high:  # the integer cube root of prime * 2**96
        middle = (low + high + 1) // 2
        low, high = (middle, high) if middle**3 <= prime << 96 else (low, middle - 1)
    return low & WORD


PRIMES = [n for n in range(2, 312) if all(n % d for d in range(2, n))]
CONSTANTS = [_fraction_of_cube_root(prime) for prime in PRIMES]
INITIAL = struct.pack(">8I", *(isqrt(prime << 64) & WORD for prime in PRIMES[:8]))


def _turn(word: int, by: int) -> int:
    return (word >> by | word << 32 - by) & WORD


def state_after(data: bytes, state: bytes = INITIAL) -> bytes:
    """The state after blocks of 64 bytes."""
    assert len(data) % 64 == 0
    words = list(struct.unpack(">8I", state))
    for at in range(0, len(data), 64):
        words = _compress(words, data[at : at + 64])
    return struct.pack(">8I", *words)


def digest_from(data: bytes, state: bytes = INITIAL, offset: int = 0) -> bytes:
    """The hash of a file whose first `offset` bytes gave `state` and which ends with `data`."""
    zeros = -(len(data) + 9) % 64
    return state_after(data + b"\x80" + bytes(zeros) + struct.pack(">Q", (offset + len(data)) * 8), state)


def _compress(state: list[int], block: bytes) -> list[int]:
    w = list(struct.unpack(">16I", block))
    for t in range(16, 64):
        low = _turn(w[t - 15], 7) ^ _turn(w[t - 15], 18) ^ w[t - 15] >> 3
        high = _turn(w[t - 2], 17) ^ _turn(w[t - 2], 19) ^ w[t - 2] >> 10
        w.append((w[t - 16] + low + w[t - 7] + high) & WORD)
    a, b, c, d, e, f, g, h = state
    for constant, word in zip(CONSTANTS, w, strict=True):
        chosen, most = e & f ^ ~e & g, a & b ^ a & c ^ b & c
        first = h + (_turn(e, 6) ^ _turn(e, 11) ^ _turn(e, 25)) + chosen + constant + word
        second = (_turn(a, 2) ^ _turn(a, 13) ^ _turn(a, 22)) + most
        a, b, c, d, e, f, g, h = (first + second) & WORD, a, b, c, (d + first) & WORD, e, f, g
    return [(old + new) & WORD for old, new in zip(state, (a, b, c, d, e, f, g, h), strict=True)]
