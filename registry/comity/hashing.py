"""A SHA-256 that continues from a state, by OpenSSL's libcrypto through ctypes; the states of a file; whole files on
all cores.

`hashlib` cannot set the state of a hash. libcrypto can: `SHA256_CTX` is a public structure (openssl/sha.h, the same
from 0.9.8 to 3.x), and `SHA256_Update` is the code that hashlib uses, without the interpreter lock. Whether the library
of this machine really behaves so is not assumed: when this module is imported, the library must give the states and
hashes that it should for many lengths and splits, with hashlib as the judge, and must not write outside the structure.
Otherwise `ENGINE` is None, and callers hash pieces and files as they do without chained records.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import random
import struct
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final, Protocol

from comity.trust.artifact import PIECE_SIZE, PieceRecord
from comity.trust.encoding import Digest

_LIBRARIES: Final = ("libcrypto.so.3", "libcrypto.so.1.1")
"""Not `ctypes.util.find_library`, which starts processes. The first one is loaded already where hashlib uses it."""
_GUARD: Final = b"\xa5" * 64
INITIAL_STATE: Final = bytes.fromhex("6a09e667bb67ae853c6ef372a54ff53a510e527f9b05688c1f83d9ab5be0cd19")
"""The state of SHA-256 before the first byte."""
BLOCK: Final = 64
"""Bytes of a SHA-256 block: a state exists only after a multiple of them."""


class ContinuedHash(Protocol):
    """A SHA-256 that continues from a state. Not thread-safe."""

    def update(self, data: bytes | bytearray | memoryview) -> None:
        """Add bytes."""
        ...

    def state(self) -> bytes:
        """The state, 32 bytes. Defined only after a multiple of 64 bytes."""
        ...

    def digest(self) -> bytes:
        """The SHA-256 of all bytes since the start of the file. May be called once; nothing may follow."""
        ...


class ContinueFrom(Protocol):
    """Makes a hash that continues after `offset` bytes, a multiple of 64, which led to `state`."""

    def __call__(self, state: bytes, offset: int) -> ContinuedHash: ...


def start_of(records: Sequence[PieceRecord], piece: int) -> tuple[bytes, int]:
    """(state, offset) from which `piece` is hashed."""
    return (records[piece - 1].sha256 if piece else INITIAL_STATE), piece * PIECE_SIZE


def result_of(records: Sequence[PieceRecord], piece: int, hashed: ContinuedHash) -> bytes:
    """What is compared with the record of `piece`, after its bytes were added to a hash begun at its start."""
    return hashed.digest() if piece == len(records) - 1 else hashed.state()


class _Sha256Ctx(ctypes.Structure):
    """`SHA256_CTX` of openssl/sha.h, and bytes behind it that must not change."""

    _fields_ = (
        ("h", ctypes.c_uint32 * 8),
        ("low", ctypes.c_uint32),
        ("high", ctypes.c_uint32),
        ("data", ctypes.c_uint32 * 16),
        ("num", ctypes.c_uint),
        ("md_len", ctypes.c_uint),
        ("guard", ctypes.c_char * len(_GUARD)),
    )


class _Library:
    """The three functions. Raises OSError or AttributeError if the library does not have them."""

    def __init__(self, name: str) -> None:
        library = ctypes.CDLL(name)
        self.init = _function(library.SHA256_Init, ctypes.c_void_p)
        self.update = _function(library.SHA256_Update, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
        self.final = _function(library.SHA256_Final, ctypes.c_void_p, ctypes.c_void_p)


def _function(found: Any, *arguments: type[Any]) -> Callable[..., int]:
    found.argtypes, found.restype = arguments, ctypes.c_int
    function: Callable[..., int] = found
    return function


class _Continued:
    """A `ContinuedHash` by libcrypto. `update` takes writable buffers and `bytes` without a copy."""

    def __init__(self, library: _Library, state: bytes, offset: int) -> None:
        if len(state) != len(INITIAL_STATE) or offset % BLOCK or offset < 0:
            raise ValueError("a state is 32 bytes, after a multiple of 64 bytes")
        self._library = library
        self._context = _Sha256Ctx()
        self._at = ctypes.addressof(self._context)
        library.init(self._at)
        self._context.h[:] = struct.unpack(">8I", state)
        bits = offset * 8
        self._context.low, self._context.high = bits & 0xFFFF_FFFF, bits >> 32 & 0xFFFF_FFFF

    def update(self, data: bytes | bytearray | memoryview) -> None:
        size = len(data)
        if isinstance(data, bytes):
            self._library.update(self._at, data, size)
        elif size:
            view = memoryview(data)
            if view.readonly:
                self._library.update(self._at, bytes(view), size)
            else:  # `first` keeps the buffer from being resized until the call is over
                first = ctypes.c_char.from_buffer(view)
                self._library.update(self._at, ctypes.addressof(first), size)

    def state(self) -> bytes:
        if self._context.num:
            raise ValueError("there is no state inside a block")
        return struct.pack(">8I", *self._context.h)

    def digest(self) -> bytes:
        found = ctypes.create_string_buffer(32)
        self._library.final(ctypes.addressof(found), self._at)
        return found.raw

    @property
    def intact(self) -> bool:
        """Whether the bytes behind the structure are as they were written."""
        return bytes(memoryview(self._context))[-len(_GUARD) :] == _GUARD

    def guard(self) -> None:
        ctypes.memmove(self._at + ctypes.sizeof(_Sha256Ctx) - len(_GUARD), _GUARD, len(_GUARD))


def _correct(library: _Library) -> bool:
    """Whether `library` agrees with hashlib: from the start, from states that it gave itself, and at their edges."""
    fresh = _Sha256Ctx()
    library.init(ctypes.addressof(fresh))
    if struct.pack(">8I", *fresh.h) != INITIAL_STATE or (fresh.low, fresh.high, fresh.num, fresh.md_len) != (
        0,
        0,
        0,
        32,
    ):
        return False
    chance = random.Random(1)
    for size in (0, 1, 55, 56, 63, 64, 65, 119, 128, 1000, 4096, 8192 + 7):
        data = chance.randbytes(size)
        split = chance.randrange(size // BLOCK + 1) * BLOCK
        first = _Continued(library, INITIAL_STATE, 0)
        first.guard()
        middle = chance.randrange(split + 1)
        first.update(bytearray(data[:middle]))
        first.update(data[middle:split])
        second = _Continued(library, first.state(), split)
        second.guard()
        second.update(memoryview(data)[split:])
        if second.digest() != hashlib.sha256(data).digest() or not (first.intact and second.intact):
            return False
    return all(_counts(library, offset) for offset in (1 << 29, 5 << 32, (1 << 53) - BLOCK))


def _counts(library: _Library, offset: int) -> bool:
    """Whether the length in the last block includes `offset` bytes: the padding, added as data, leads to the digest."""
    length = struct.pack(">Q", (offset + 3) * 8)
    padded = _Continued(library, INITIAL_STATE, offset)
    padded.update(b"abc\x80" + bytes(BLOCK - 4 - len(length)) + length)
    counted = _Continued(library, INITIAL_STATE, offset)
    counted.update(b"abc")
    return padded.state() == counted.digest()


def load(names: tuple[str, ...] = _LIBRARIES) -> ContinueFrom | None:
    """The engine by the first library of `names` that is here and passes the test; None if there is none."""
    if sys.implementation.name != "cpython" or ctypes.sizeof(ctypes.c_uint) != 4:
        return None
    for name in names:
        try:
            library = _Library(name)
            correct = _correct(library)
        except (OSError, AttributeError, ValueError):  # not here, without these functions, or it counts otherwise
            continue
        if correct:
            return partial(_Continued, library)
    return None


ENGINE: Final = load()
"""Makes hashes that continue from a state; None if this machine has no library that passed the test."""


class FileHash:
    """The SHA-256 of a file whose bytes are added in order, and its states every 4 MiB, at the cost of one hash.

    Attributes:
        states: after each 4 MiB but the last piece; None without an engine.
    """

    def __init__(self, size: int, engine: ContinueFrom | None = ENGINE) -> None:
        self.states: list[bytes] | None = None if engine is None else []
        self._continued: ContinuedHash | None = engine(INITIAL_STATE, 0) if engine else None
        self._plain = hashlib.sha256()
        self._size = size
        self._added = 0

    def update(self, data: bytes | bytearray | memoryview) -> None:
        """Add the next bytes; releases the interpreter lock while it hashes."""
        if not len(data):
            return  # no state is after nothing
        if self._continued is None or self.states is None:
            self._plain.update(data)
            return
        room = PIECE_SIZE - self._added % PIECE_SIZE
        if len(data) > room:
            view = memoryview(data)
            self.update(view[:room])
            self.update(view[room:])
            return
        self._continued.update(data)
        self._added += len(data)
        if not self._added % PIECE_SIZE and self._added < self._size:
            self.states.append(self._continued.state())

    def digest(self) -> bytes:
        """The SHA-256. May be called once."""
        return self._continued.digest() if self._continued else self._plain.digest()


_READ: Final = 1024 * 1024


def hash_by_chain(
    descriptor: int,
    records: Sequence[PieceRecord],
    workers: int,
    on_hashed: Callable[[int], None],
    engine: ContinueFrom | None = ENGINE,
) -> Digest | None:
    """The SHA-256 of an open file, hashed by `workers` threads as its chained records divide it.

    The records need no trust: if every piece matches, the last one is the SHA-256 of the bytes that were read. Returns
    None if one does not, the file has another length, or there is no engine: hash the file as a whole then.

    Args:
        on_hashed: called with the number of bytes hashed since the last call, from several threads.

    Raises OSError.
    """
    size = sum(record.length for record in records)
    if engine is None or not records or os.fstat(descriptor).st_size != size:
        return None
    pieces, wrong, lock = iter(range(len(records))), threading.Event(), threading.Lock()

    def work() -> None:
        buffer = memoryview(bytearray(_READ))
        while not wrong.is_set():
            with lock:
                piece = next(pieces, None)
            if piece is None:
                return
            if not _matches(descriptor, records, piece, buffer, engine, on_hashed):
                wrong.set()

    with ThreadPoolExecutor(workers, thread_name_prefix="chain") as pool:
        for job in [pool.submit(work) for _ in range(workers)]:
            job.result()
    if wrong.is_set() or os.fstat(descriptor).st_size != size:
        return None
    return Digest(records[-1].sha256.hex())


def _matches(
    descriptor: int,
    records: Sequence[PieceRecord],
    piece: int,
    buffer: memoryview,
    engine: ContinueFrom,
    on_hashed: Callable[[int], None],
) -> bool:
    state, offset = start_of(records, piece)
    hashed, end = engine(state, offset), offset + records[piece].length
    while offset < end:
        count = os.preadv(descriptor, [buffer[: end - offset]], offset)
        if not count:
            return False
        hashed.update(buffer[:count])
        offset += count
        on_hashed(count)
    return result_of(records, piece, hashed) == records[piece].sha256
