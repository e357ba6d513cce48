"""Limits of the protocol: sizes of messages, fair shares of slots, rate limits, and checks of single fields.

A peer that exceeds a limit is refused before memory is allocated. Limits of formats (a line, a tile, a manifest) are
defined in comity.trust; those repeated here limit messages. Sizes are bytes, times are seconds.

`FairShares` divides a fixed number of slots (connections, streams) between address blocks. One block may use all slots
while no other block needs one. When all are taken, the block with the most slots loses the slot that made no progress
for the longest time. So a client with thousands of connections takes slots only from itself, and a connection from
another block always gets a slot.

`Throttle` limits calls per second, concurrent calls and bytes per second of a caller, an address block, and all callers
together, with one token bucket per caller and per block, in memory. Calls above the rate are refused; for bytes, the
sender gets the time to wait. At the limit of concurrent calls, `FairShares` decides which call ends.

The `read_*` functions check single fields, and raise Malformed above a limit.
"""

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

# One message: the default of gRPC, on both sides. Data is sent in streams of smaller chunks.
MESSAGE: Final = 4 * MiB
# One message of a data stream. Measured: larger ones are not faster, smaller ones slower (64 KiB: half the rate).
CHUNK: Final = 1 * MiB
# Minimum size of each message of a data stream except the last, so that a client cannot send single bytes.
MIN_CHUNK: Final = 64 * KiB
# What protobuf may add to the bytes of each message of a stream.
MESSAGE_COST: Final = 64

# One log entry: tlog-tiles stores its length in 16 bits.
LINE: Final = 65_535
# Lines in one batch: together with the limit on bytes, this matters only for short lines.
BATCH_LINES: Final = 4_096
# Entries a GetEntries call may ask for: 256 full tiles; a longer catch-up is several calls and can resume.
ENTRIES_PER_CALL: Final = 65_536
# A note with two cosignatures (3.4 KiB together) from each of 100 members, with a margin.
NOTE: Final = 512 * KiB
# A note, 64 hashes, and the extra data of the line.
PROOF: Final = 1 * MiB
# RFC 6962 proofs in trees of at most 2**63 leaves.
INCLUSION_HASHES: Final = 64
CONSISTENCY_HASHES: Final = 128

# Answers that grow with the federation: the items and total bytes that a client accepts.
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
# Epochs of one answer: one epoch per week for twenty years.
EPOCHS: Final = 1_000
# Lines of one answer about the next epoch (200 members, each at its node's quota, and the identities that they name),
# or about one offer.
ANSWER_LINES: Final = 65_536
ANSWER_BYTES: Final = 4 * ANSWER
# A card: an inception, rotations, records of a few nodes and their addresses.
ASK_LINES: Final = 32
ASK_BYTES: Final = 256 * KiB
ASKS: Final = 256
CAPABILITIES: Final = 64
# A host name of 253 characters, a port, and the path of a proxy.
GATEWAY_URL: Final = 512

# A side object or a manifest, as in comity.trust.
OBJECT: Final = 64 * MiB
# 36 bytes per piece of 4 MiB: a blob of 7 TiB.
RECORDS: Final = 64 * MiB
STAT_DIGESTS: Final = 1_000
OBJECTS: Final = 256
"""Objects of one `GetObjects`."""
SMALL_OBJECT: Final = 256 * 1024
OBJECTS_BYTES: Final = 16 * MiB
"""Bytes of the answer to one `GetObjects`."""
LOCATIONS: Final = 16
# One Read: large enough to amortise the call, and it ends within the longest deadline at 300 KiB/s.
READ: Final = 1024 * MiB

SUBMIT_LINES: Final = 64
SUBMIT_BYTES: Final = 3 * MiB
MISSING: Final = 2_000

# Offers and requests of one answer; the next page begins after the last one.
OFFERS: Final = 1_000
GRANTS: Final = 10_000
JURISDICTIONS: Final = 64
# Listed statements about one grant, besides its chain.
GRANT_STATEMENTS: Final = 256
# A record, the line that it answers, and the identity lines of that line's author.
ALLOCATED: Final = 8

# An import: the text of the terms, the hosts of files, and a few events per second for an hour.
TERMS: Final = 1 * MiB
UPSTREAM_HOSTS: Final = 16
IMPORT_EVENTS: Final = 1_000_000

# News of logs: one message, one log, and one call, which lasts an hour. The reader limits the rate.
POSITION: Final = 64
NEWS_LOGS: Final = 256
NEWS_MESSAGES: Final = 1_000_000
NEWS_BYTES: Final = 1024 * MiB
CHECKPOINT: Final = 16 * KiB
# Two signatures by each of a charter's members, and as many by former ones and nodes that a member has besides.
COSIGNATURES: Final = 1_024
COSIGNATURE: Final = 8 * KiB
OWN_KEYS: Final = 4
# Logs of one GetCosignatures call.
ASKED_LOGS: Final = 64
# Calls for news that one caller may keep open.
NEWS_CALLS: Final = 2

STATUS_ITEMS: Final = 10_000
# Artifacts that a status names as examples; the rest is counted.
STATUS_EXAMPLES: Final = 64

# Artifacts of one page, copies of one artifact, auditors of one copy, and logged audits of one answer.
COPIES_PAGE: Final = 200
COPIES: Final = 2_000
AUDIT_RESULTS: Final = 64
AUDIT_LINES: Final = 64
CARRIED_CHALLENGES: Final = 256
"""Challenges that are drawn at once, for one file."""

# Pins of one answer, with their copies.
PIN_BYTES: Final = 64 * MiB

# Concurrent calls on one connection; `server.Guard` also limits them per peer.
STREAMS: Final = 128

# A handshake of TLS and HTTP/2 takes a few round trips; a slower client wastes a connection.
HANDSHAKE: Final = 10.0
# The caller must receive a sent message within this time; then the connection is closed.
SEND_TIMEOUT: Final = 20.0
# Requests that a port reads at the same time: gRPC buffers up to MESSAGE of each.
AWAITED_REQUESTS: Final = 16
# A connection without calls is closed after this time. Clients reconnect automatically.
IDLE_CONNECTION: Final = 300.0

ORIGIN: Final = 255
# The rest of a log's verifier key after its origin: four bytes and an Ed25519 key, or one of ML-DSA-44, in base64.
LOG_KEY: Final = 2_048
NAME: Final = 512
LABEL: Final = 64
STATUS_TEXT: Final = 1_024
TOKEN: Final = 256
PATH: Final = 4_096
LINK: Final = 2_048
# The largest integer that all RFC 8259 readers agree on; indexes and sizes also go into JSON and SQLite.
INTEGER: Final = 2**53 - 1

# Errors are sent in HTTP/2 trailers, at most 8 KiB in gRPC: what (twice), why and hint must fit, in base64.
ERROR_WHAT: Final = 512
ERROR_WHY: Final = 1_024
ERROR_HINT: Final = 512

# Without a deadline a call could hold its stream for ever. Longer work is resumed in another call.
DEADLINE: Final = 3_600.0
# What a call of health or reflection gets that has no deadline.
DEFAULT_DEADLINE: Final = 60.0
# The longest deadline that our clients set; it is shorter because gRPC rounds deadlines up.
LONGEST_CALL: Final = 3_500.0
# Default timeout for an answer, or for the next message of a stream.
CALL_TIMEOUT: Final = 20.0
# Minimum rate of a data stream, in bytes per second. A longer range gets a longer deadline.
SLOWEST: Final = 256 * KiB


K = TypeVar("K", bound=Hashable)

IDLE_LIMIT: Final = 5.0
"""Seconds without progress after which a holder loses its slot to a newcomer of its own block."""


class FairShares(Generic[K]):
    """Divides `slots` slots between holders, by address block. Not thread-safe: use one lock or one event loop.

    Args:
        slots: the maximum number of holders; at least 1.
        clock: monotonic seconds.

    Memory: about 300 bytes per holder, and nothing for refused ones.
    """

    def __init__(self, slots: int, clock: Callable[[], float]) -> None:
        if slots < 1:
            raise ValueError(f"{slots} slots")
        self._slots = slots
        self._clock = clock
        self._blocks: dict[str, OrderedDict[K, float]] = {}
        self._block_of: dict[K, str] = {}

    def __len__(self) -> int:
        return len(self._block_of)

    def block_size(self, block: str) -> int:
        """Returns the number of slots of a block."""
        return len(self._blocks.get(block, ()))

    def acquire(self, item: K, block: str) -> K | None:
        """Give `item` a slot.

        Returns None if a slot was free. Otherwise returns the holder that lost its slot, which the caller must close;
        it is `item` itself if `item` is refused.
        """
        self._add(item, block)
        if len(self._block_of) <= self._slots:
            return None
        largest = self._largest(block)
        oldest, since = next(iter(self._blocks[largest].items()))
        if largest == block and (oldest == item or self._clock() - since < IDLE_LIMIT):
            oldest = item
        self.release(oldest)
        return oldest

    def acquire_from_others(self, item: K, block: str) -> K | None:
        """As `acquire`, but no holder of the item's own block loses its slot: `item` itself is refused instead."""
        full = len(self._block_of) >= self._slots
        if full and self.block_size(block) + 1 >= max(map(len, self._blocks.values())):
            return item
        return self.acquire(item, block)

    def progress(self, item: K) -> None:
        """Record that `item` made progress now. No effect if it has no slot."""
        block = self._block_of.get(item)
        if block is not None:
            holders = self._blocks[block]
            holders[item] = self._clock()
            holders.move_to_end(item)

    def release(self, item: K) -> None:
        """Release the slot of `item`. No effect if it has none."""
        block = self._block_of.pop(item, None)
        if block is not None:
            del self._blocks[block][item]
            if not self._blocks[block]:
                del self._blocks[block]

    def _add(self, item: K, block: str) -> None:
        self.release(item)
        self._block_of[item] = block
        self._blocks.setdefault(block, OrderedDict())[item] = self._clock()

    def _largest(self, newcomer: str) -> str:
        """Returns the block with the most slots; the newcomer's own block if it has as many as any other."""
        return max(self._blocks, key=lambda block: (len(self._blocks[block]), block == newcomer))


MAX_ACCOUNTS: Final = 16_384
"""Maximum number of accounts of callers, and of blocks. The least recently used one is deleted first."""
BLOCK_TIMES: Final = 4
"""The rate limit of a block, as a multiple of the rate limit of a caller."""
_RETRY_INTERVAL: Final = 0.02


@dataclass(frozen=True, slots=True)
class Allowance:
    """The limits of one caller. `bytes_per_second` limits data streams; None means no limit.

    `block_at_once` limits the concurrent calls of one block; None means only `all_at_once` limits them.
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
    bytes: float  # negative: more was sent than the rate allows
    since: float
    running: int = 0


@dataclass(slots=True, eq=False)
class AdmittedCall:
    """An admitted call that has not ended. `end` ends it early; None if it cannot be ended."""

    block: str
    end: Callable[[], None] | None = field(default=None)


class Throttle:
    """Rate limits by caller name and by block. Not thread-safe: call from the event loop."""

    def __init__(self, allowance: Allowance, clock: Callable[[], float] = time.monotonic) -> None:
        self._allowance = allowance
        self._clock = clock
        self._callers: OrderedDict[str, _Account] = OrderedDict()
        self._blocks: OrderedDict[str, _Account] = OrderedDict()
        self._running: FairShares[AdmittedCall] = FairShares(allowance.all_at_once, clock)
        self._awaited: FairShares[AdmittedCall] = FairShares(AWAITED_REQUESTS, clock)

    @contextmanager
    def call(self, caller: str, block: str = "", end: Callable[[], None] | None = None) -> Iterator[AdmittedCall]:
        """A context manager for one call. Raises Refused (RATE, TOO-MANY-CALLS).

        Args:
            block: the address block, or another group that shares an allowance; by default the caller itself.
            end: ends this call early, when another call gets its slot.
        """
        block = block or caller
        accounts = self._charged(caller, block)
        running = AdmittedCall(block, end)
        self._acquire_slot(running, accounts[0])
        for account in accounts:
            account.calls -= 1
            account.running += 1
        try:
            yield running
        finally:
            self._running.release(running)
            for account in accounts:
                account.running -= 1

    def progress(self, running: AdmittedCall) -> None:
        """Record that this call received or sent a message: a call without progress loses its slot first."""
        self._running.progress(running)

    @asynccontextmanager
    async def awaiting(self, running: AdmittedCall) -> AsyncIterator[None]:
        """A context manager for reading the next request of a call: waits for one of AWAITED_REQUESTS slots. A call
        that loses its slot is ended."""
        while (evicted := self._awaited.acquire(running, running.block)) is running:
            await asyncio.sleep(_RETRY_INTERVAL)
        if evicted is not None and evicted.end is not None:
            evicted.end()
        try:
            yield
        finally:
            self._awaited.release(running)

    def sent(self, caller: str, size: int) -> float:
        """Charge `size` bytes to a caller. Returns the seconds to wait before sending more."""
        rate = self._allowance.bytes_per_second
        if rate is None:
            return 0.0
        account = self._account(self._callers, caller, 1)
        account.bytes -= size
        return max(0.0, -account.bytes / rate)

    def _charged(self, caller: str, block: str) -> list[_Account]:
        """Returns the accounts to charge for a call. Raises Refused (RATE) if one has no calls left."""
        accounts = [(self._account(self._callers, caller, 1), 1)]
        if block != caller:
            accounts.append((self._account(self._blocks, block, BLOCK_TIMES), BLOCK_TIMES))
        for account, times in accounts:
            if account.calls < 1:
                wait = (1 - account.calls) / (times * self._allowance.calls_per_second)
                raise Refused("too many calls", hint=f"try again in {wait:.1f} s", code="RATE")
        return [account for account, _ in accounts]

    def _acquire_slot(self, running: AdmittedCall, caller: _Account) -> None:
        """Raises Refused (TOO-MANY-CALLS) if no slot is free and no other call must end."""
        most = self._allowance.block_at_once
        block_full = most is not None and self._running.block_size(running.block) >= most
        if block_full or caller.running >= self._allowance.at_once:
            raise _too_many_calls()
        evicted = self._running.acquire(running, running.block)
        if evicted is None:
            return
        if evicted is not running and evicted.end is not None:
            evicted.end()
            return
        self._running.release(running)
        if evicted is not running:
            self._running.acquire(evicted, evicted.block)
        raise _too_many_calls()

    def _account(self, accounts: OrderedDict[str, _Account], name: str, times: int) -> _Account:
        now = self._clock()
        account = accounts.get(name)
        if account is None:
            if len(accounts) >= MAX_ACCOUNTS:
                self._evict_account(accounts)
            rate = float(self._allowance.bytes_per_second or 0)
            account = accounts[name] = _Account(times * self._allowance.burst, rate, now)
        else:
            accounts.move_to_end(name)
            self._refill(account, now, times)
        return account

    def _refill(self, account: _Account, now: float, times: int) -> None:
        elapsed, account.since = now - account.since, now
        rate, allowance = self._allowance.bytes_per_second or 0, self._allowance
        account.calls = min(times * allowance.burst, account.calls + times * elapsed * allowance.calls_per_second)
        account.bytes = min(rate, account.bytes + elapsed * rate)

    def _evict_account(self, accounts: OrderedDict[str, _Account]) -> None:
        """Delete the least recently used account without running calls; at most `all_at_once` accounts have any."""
        for name, account in accounts.items():
            if not account.running:
                del accounts[name]
                return


def _too_many_calls() -> Refused:
    return Refused("too many concurrent calls", hint="wait until running calls have ended", code="TOO-MANY-CALLS")


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
    """Returns a printable string of at most `limit` bytes, without terminal controls or line breaks."""
    if len(value) > limit or len(value.encode("utf-8")) > limit:
        raise Malformed(f"{what} too long", why=f"at most {limit} bytes are allowed")
    if not value.isprintable():
        raise Malformed(f"{what} is not printable", why="it contains a control character or a line break")
    return value


def read_origin(value: str) -> str:
    """Returns the name of a log: 1 to 255 bytes without spaces or plus signs, as signed notes require."""
    if not value or "+" in value or any(character.isspace() for character in value):
        raise Malformed("not an origin", why="the name of a log must not be empty, or contain spaces or plus signs")
    return read_text(value, "origin", ORIGIN)


def read_log(value: str) -> str:
    """Returns the name of a log in a request: its origin, or its verifier key (`origin+id+key`)."""
    name, plus, key = value.partition("+")
    read_text(key, "key of a log", LOG_KEY)
    return read_origin(name) + plus + key


def read_data(value: bytes, what: str, limit: int) -> bytes:
    if len(value) > limit:
        raise Malformed(f"{what} too large", why=f"{len(value)} bytes, at most {limit}")
    return value


def read_line(value: bytes) -> bytes:
    """Returns a log entry: one line, not empty."""
    if not value or b"\n" in value:
        raise Malformed("not a log line", why="an entry is one line, not empty, without line feed")
    return read_data(value, "line", LINE)


def read_many(items: Sequence[M], what: str, limit: int, decode: Callable[[M], V]) -> tuple[V, ...]:
    """Returns all items of a repeated field. Checks the count first: 4 MiB can encode two million empty items."""
    if len(items) > limit:
        raise Malformed(f"too many {what}", why=f"{len(items)}, at most {limit}")
    return tuple(decode(item) for item in items)


def read_hashes(items: Sequence[bytes], limit: int) -> tuple[bytes, ...]:
    return read_many(items, "hashes", limit, lambda item: encode_digest(read_digest(item)))
