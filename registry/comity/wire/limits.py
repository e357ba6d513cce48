"""Every bound of the wire, with its reason. A peer that exceeds one is refused before memory is spent on it.

Bounds of formats (a line, a tile, a manifest) belong to their formats in comity.trust; those repeated here are what a
message may carry. Sizes are bytes, times are seconds.


A fixed number of places (connections, streams), shared fairly by address block.

Anybody may use all places as long as nobody else asks for one. When all are taken, the block that has the most gives
one up: the place whose holder made no progress for the longest time. A stranger with thousands of connections
therefore takes places from itself only, and one honest connection from elsewhere always finds a place.


How much one caller may ask: calls a second, calls at once, bytes a second; an address block; and all together.

A token bucket a caller and one a block, in memory; the clock is an argument. Nothing here waits: calls beyond the rate
are refused, and for bytes the caller learns how long to wait. When all calls that may run at once do, the block that
has the most of them gives one up for a newcomer from another one (`FairShares`).


Single fields as they come off the wire: accepted within a bound, or refused with Malformed."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Hashable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from comity.trust.encoding import Digest
from comity.trust.errors import Malformed, Refused

KiB: Final = 1024
MiB: Final = 1024 * KiB

# One message. gRPC's own default, kept on both sides; data travels in streams of chunks well below it.
MESSAGE: Final = 4 * MiB
# One message of a data stream: larger ones measured no faster, smaller ones slower (64 KiB: half the rate).
CHUNK: Final = 1 * MiB
# The least that each message of a data stream holds, but the last: a dribble of bytes is refused.
LEAST_CHUNK: Final = 64 * KiB
# What protobuf may add to the bytes of each message of a stream.
MESSAGE_COST: Final = 64

# One log entry: tlog-tiles stores its length in 16 bits.
LINE: Final = 65_535
# Lines in one batch: with the bound on bytes this matters for tiny lines only.
BATCH_LINES: Final = 4_096
# Entries a GetEntries call may ask for: 256 full tiles; a longer catch-up is several calls and can resume.
ENTRIES_PER_CALL: Final = 65_536
# A note with two cosignatures (3.4 KiB together) of each of 100 members, and room.
NOTE: Final = 512 * KiB
# A note, 64 hashes, and the line's own extra data.
PROOF: Final = 1 * MiB
# RFC 6962 proofs in trees of at most 2**63 leaves.
INCLUSION_HASHES: Final = 64
CONSISTENCY_HASHES: Final = 128

# Answers that grow with the federation: how many items, and how many bytes in all, a client takes.
LOGS: Final = 10_000
CLAIMS: Final = 10_000
RESOLVED: Final = 4_000
PROOFS: Final = 1_000
MISBEHAVIOUR: Final = 10_000
ANSWER: Final = 64 * MiB
MISBEHAVIOUR_PARTS: Final = 16
SEARCH_PAGE: Final = 50

CHARTER_BODY: Final = 4 * MiB
# INTENT, RATIFY and consent lines of several rounds for a federation of a thousand members.
CERTIFICATE_LINES: Final = 16_384
IDENTITY_LINES: Final = 64
# Epochs of one answer; a federation that decides weekly has as many in twenty years.
EPOCHS: Final = 1_000
# What is said about one next epoch: 200 members, each at its node's quota, and those whom they speak of.
PROCEEDINGS: Final = 65_536
PROCEEDINGS_BYTES: Final = 4 * ANSWER
# A card: an inception, rotations, records of a few nodes and their addresses.
ASK_LINES: Final = 32
ASK_BYTES: Final = 256 * KiB
ASKS: Final = 256
CAPABILITIES: Final = 64
# A host name of 253 characters, a port, and room for a proxy's path.
GATEWAY_URL: Final = 512

# A side object or a manifest, as in comity.trust.
OBJECT: Final = 64 * MiB
# 36 bytes a piece of 4 MiB: a blob of 7 TiB.
RECORDS: Final = 64 * MiB
STAT_DIGESTS: Final = 1_000
LOCATIONS: Final = 16
# One Read: long enough to amortise the call, short enough to finish within the longest deadline at 300 KiB/s.
READ: Final = 1024 * MiB

SUBMIT_LINES: Final = 64
SUBMIT_BYTES: Final = 3 * MiB
MISSING: Final = 2_000

# Offers and requests of one answer; the next begins after the last one had.
OFFERS: Final = 1_000
GRANTS: Final = 10_000
JURISDICTIONS: Final = 64
# What is said of one grant beside its chain, as far as it is listed.
SAID: Final = 256
# A record, the line that it answers, and who said that.
ALLOCATED: Final = 8

# An import: terms as somebody wrote them, hosts where files lie, and a few events a second for an hour.
TERMS: Final = 1 * MiB
UPSTREAM_HOSTS: Final = 16
IMPORT_EVENTS: Final = 1_000_000

STATUS_ITEMS: Final = 10_000

# Calls at once on one connection; `guards` bounds them for each peer besides.
STREAMS: Final = 128

# A handshake of TLS and HTTP/2 takes a few round trips; a client that takes longer holds a connection for nothing.
HANDSHAKE: Final = 10.0
# A message that is sent waits this long for the caller to take it; then the connection is closed.
STALL: Final = 20.0
# Requests that are awaited at once at a port: gRPC keeps what came of each, up to MESSAGE.
AWAITED: Final = 16
# A connection without a call. Clients connect again by themselves.
IDLE_CONNECTION: Final = 300.0

ORIGIN: Final = 255
# The rest of a log's verifier key after its origin: four bytes and an Ed25519 key, or one of ML-DSA-44, in base64.
LOG_KEY: Final = 2_048
NAME: Final = 512
WORD: Final = 64
SENTENCE: Final = 1_024
TOKEN: Final = 256
PATH: Final = 4_096
# RFC 8259 readers agree on integers up to here; indexes and sizes also meet JSON and SQLite.
INTEGER: Final = 2**53 - 1

# Errors travel in HTTP/2 trailers, of which gRPC accepts 8 KiB: what (twice), why and hint have to fit, in base64.
ERROR_WHAT: Final = 512
ERROR_WHY: Final = 1_024
ERROR_HINT: Final = 512

# A call without a deadline would hold its stream for ever; one of more than an hour should have been resumed.
DEADLINE: Final = 3_600.0
# The longest that our clients set: gRPC rounds deadlines up on the line.
LONGEST_CALL: Final = 3_500.0
# The wait for an answer, or for the next message of a stream, where the caller says nothing else.
PATIENCE: Final = 20.0
# The slowest data stream worth waiting for, bytes a second: a longer deadline follows from a longer range.
SLOWEST: Final = 256 * KiB


K = TypeVar("K", bound=Hashable)

REST: Final = 5.0
"""Seconds without progress after which a holder gives way to a newcomer of its own block."""


class FairShares(Generic[K]):
    """Holders of `places` places, by address block. Not thread-safe: call under one lock or from one event loop.

    Args:
        places: how many holders there may be; at least 1.
        clock: monotonic seconds.

    At most one entry of about 300 bytes a holder is kept, and nothing of those who were refused.
    """

    def __init__(self, places: int, clock: Callable[[], float]) -> None:
        if places < 1:
            raise ValueError(f"{places} places")
        self._places = places
        self._clock = clock
        self._blocks: dict[str, OrderedDict[K, float]] = {}
        self._held: dict[K, str] = {}

    def __len__(self) -> int:
        return len(self._held)

    def held_by(self, block: str) -> int:
        """How many places the block has."""
        return len(self._blocks.get(block, ()))

    def take(self, item: K, block: str) -> K | None:
        """Give `item` a place.

        Returns None where one was free. Otherwise returns the holder that has to go, whose place is given away already
        and whose connection the caller closes; it is `item` itself where it has to be refused.
        """
        self._put(item, block)
        if len(self._held) <= self._places:
            return None
        gives = self._largest(block)
        oldest, since = next(iter(self._blocks[gives].items()))
        if gives == block and (oldest == item or self._clock() - since < REST):
            oldest = item
        self.give_back(oldest)
        return oldest

    def progress(self, item: K) -> None:
        """`item` did something useful now. Ignored where it holds no place (any longer)."""
        block = self._held.get(item)
        if block is not None:
            holders = self._blocks[block]
            holders[item] = self._clock()
            holders.move_to_end(item)

    def give_back(self, item: K) -> None:
        """`item` needs its place no longer. Ignored where it holds none."""
        block = self._held.pop(item, None)
        if block is not None:
            del self._blocks[block][item]
            if not self._blocks[block]:
                del self._blocks[block]

    def _put(self, item: K, block: str) -> None:
        self.give_back(item)
        self._held[item] = block
        self._blocks.setdefault(block, OrderedDict())[item] = self._clock()

    def _largest(self, newcomer: str) -> str:
        """The block with the most places; the newcomer's own where it has as many as any other."""
        return max(self._blocks, key=lambda block: (len(self._blocks[block]), block == newcomer))


MAX_ACCOUNTS: Final = 16_384
"""Callers, and as many blocks, that are remembered. The one that has not called for longest is forgotten first."""
BLOCK_TIMES: Final = 4
"""A block may make as many calls a second as this many callers."""
_AGAIN: Final = 0.02


@dataclass(frozen=True, slots=True)
class Allowance:
    """What one caller may use. `bytes_per_second` bounds the data streams, None leaves them to the link.

    `block_at_once` bounds the running calls of one block, None leaves that to `all_at_once`.
    """

    calls_per_second: float = 50.0
    burst: int = 200
    at_once: int = 32
    bytes_per_second: int | None = None
    all_at_once: int = 512
    block_at_once: int | None = None


@dataclass(slots=True)
class _Account:
    calls: float  # tokens left
    bytes: float  # negative: sent ahead of the rate
    since: float
    running: int = 0


@dataclass(slots=True, eq=False)
class AdmittedCall:
    """A call from its admission to its end. `end` makes it end early; None where that cannot be done."""

    block: str
    end: Callable[[], None] | None = field(default=None)


class Throttle:
    """Keeps an account for each caller, by the name that its port gives it. Not thread-safe: one event loop uses it."""

    def __init__(self, allowance: Allowance, clock: Callable[[], float] = time.monotonic) -> None:
        self._allowance = allowance
        self._clock = clock
        self._callers: OrderedDict[str, _Account] = OrderedDict()
        self._blocks: OrderedDict[str, _Account] = OrderedDict()
        self._running: FairShares[AdmittedCall] = FairShares(allowance.all_at_once, clock)
        self._awaited: FairShares[AdmittedCall] = FairShares(AWAITED, clock)

    @contextmanager
    def call(self, caller: str, block: str = "", end: Callable[[], None] | None = None) -> Iterator[AdmittedCall]:
        """One call, from here to the end of the block. Raises Refused (RATE, TOO-MANY-CALLS).

        Args:
            block: the address block, or whatever else the caller shares its allowance with; by default itself.
            end: ends this call early, where its place is given to somebody else's.
        """
        block = block or caller
        accounts = self._charged(caller, block)
        running = AdmittedCall(block, end)
        self._place(running, accounts[0])
        for account in accounts:
            account.calls -= 1
            account.running += 1
        try:
            yield running
        finally:
            self._running.give_back(running)
            for account in accounts:
                account.running -= 1

    def progress(self, running: AdmittedCall) -> None:
        """A message of this call came or went: of two calls the one that stands still gives way."""
        self._running.progress(running)

    @asynccontextmanager
    async def awaiting(self, running: AdmittedCall) -> AsyncIterator[None]:
        """Wait for a place among the calls whose next request is awaited, and hold it to the end of the block. A call
        that has to give its place up is ended."""
        while (gives := self._awaited.take(running, running.block)) is running:
            await asyncio.sleep(_AGAIN)
        if gives is not None and gives.end is not None:
            gives.end()
        try:
            yield
        finally:
            self._awaited.give_back(running)

    def sent(self, caller: str, size: int) -> float:
        """Charge `size` bytes to a caller; gives the seconds to wait before sending more."""
        rate = self._allowance.bytes_per_second
        if rate is None:
            return 0.0
        account = self._account(self._callers, caller, 1)
        account.bytes -= size
        return max(0.0, -account.bytes / rate)

    def _charged(self, caller: str, block: str) -> list[_Account]:
        """The accounts that pay for one more call. Raises Refused (RATE) where one of them cannot."""
        accounts = [(self._account(self._callers, caller, 1), 1)]
        if block != caller:
            accounts.append((self._account(self._blocks, block, BLOCK_TIMES), BLOCK_TIMES))
        for account, times in accounts:
            if account.calls < 1:
                wait = (1 - account.calls) / (times * self._allowance.calls_per_second)
                raise Refused("too many calls", hint=f"try again in {wait:.1f} s", code="RATE")
        return [account for account, _ in accounts]

    def _place(self, running: AdmittedCall, caller: _Account) -> None:
        """Raises Refused (TOO-MANY-CALLS) where neither a place is free nor somebody else has to give one up."""
        most = self._allowance.block_at_once
        crowded = most is not None and self._running.held_by(running.block) >= most
        if crowded or caller.running >= self._allowance.at_once:
            raise _too_many()
        gives = self._running.take(running, running.block)
        if gives is None:
            return
        if gives is not running and gives.end is not None:
            gives.end()
            return
        self._running.give_back(running)
        if gives is not running:
            self._running.take(gives, gives.block)
        raise _too_many()

    def _account(self, accounts: OrderedDict[str, _Account], name: str, times: int) -> _Account:
        now = self._clock()
        account = accounts.get(name)
        if account is None:
            if len(accounts) >= MAX_ACCOUNTS:
                self._forget(accounts)
            rate = float(self._allowance.bytes_per_second or 0)
            account = accounts[name] = _Account(times * self._allowance.burst, rate, now)
        else:
            accounts.move_to_end(name)
            self._refill(account, now, times)
        return account

    def _refill(self, account: _Account, now: float, times: int) -> None:
        passed, account.since = now - account.since, now
        rate, allowance = self._allowance.bytes_per_second or 0, self._allowance
        account.calls = min(times * allowance.burst, account.calls + times * passed * allowance.calls_per_second)
        account.bytes = min(rate, account.bytes + passed * rate)

    def _forget(self, accounts: OrderedDict[str, _Account]) -> None:
        """Forget the account that was not used for longest and has no call running: `all_at_once` have one at most."""
        for name, account in accounts.items():
            if not account.running:
                del accounts[name]
                return


def _too_many() -> Refused:
    return Refused("too many calls at once", hint="wait for running calls to end", code="TOO-MANY-CALLS")


M = TypeVar("M")
V = TypeVar("V")


def read_digest(data: bytes) -> Digest:
    if len(data) != 32:
        raise Malformed("not a sha256 digest", why=f"expected 32 bytes, got {len(data)}")
    return Digest(data.hex())


def encode_digest(value: Digest) -> bytes:
    return bytes.fromhex(value)


def read_integer(value: int, what: str, *, least: int = 0, most: int = INTEGER) -> int:
    if not least <= value <= most:
        raise Malformed(f"{what} out of range", why=f"{value} is not between {least} and {most}")
    return value


def read_text(value: str, what: str, limit: int) -> str:
    """A string of at most `limit` bytes that prints: nothing in it can steer a terminal or break a line."""
    if len(value) > limit or len(value.encode("utf-8")) > limit:
        raise Malformed(f"{what} too long", why=f"at most {limit} bytes are read")
    if not value.isprintable():
        raise Malformed(f"{what} does not print", why="it holds a control character or a line break")
    return value


def read_origin(value: str) -> str:
    """The name of a log, 1 to 255 bytes without spaces or plus signs, as signed notes demand it."""
    if not value or "+" in value or any(character.isspace() for character in value):
        raise Malformed("not an origin", why="a log's name is not empty and has no spaces or plus signs")
    return read_text(value, "origin", ORIGIN)


def read_log(value: str) -> str:
    """What a caller names a log by: its origin, or its verifier key (`origin+id+key`) where an origin has several."""
    name, plus, key = value.partition("+")
    read_text(key, "key of a log", LOG_KEY)
    return read_origin(name) + plus + key


def read_data(value: bytes, what: str, limit: int) -> bytes:
    if len(value) > limit:
        raise Malformed(f"{what} too large", why=f"{len(value)} bytes, at most {limit} are read")
    return value


def read_line(value: bytes) -> bytes:
    """A log entry: not empty, on one line."""
    if not value or b"\n" in value:
        raise Malformed("not a log line", why="an entry is one line, without its line feed")
    return read_data(value, "line", LINE)


def read_many(items: Sequence[M], what: str, limit: int, decode: Callable[[M], V]) -> tuple[V, ...]:
    """All of a repeated field. The count is checked first: a 4 MiB message can spell two million empty items."""
    if len(items) > limit:
        raise Malformed(f"too many {what}", why=f"{len(items)}, at most {limit} are read")
    return tuple(decode(item) for item in items)


def read_hashes(items: Sequence[bytes], limit: int) -> tuple[bytes, ...]:
    return read_many(items, "hashes", limit, lambda item: encode_digest(read_digest(item)))
