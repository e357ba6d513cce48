"""Mirrors logs from peers, enforces their quotas, and recovers the node's own log from peers.

(1) the head is signed by the log's key, which a node record binds to a member
(2) a head not larger than the stored log is the same history, or the log is reported as misbehaving
(3) a larger head continues the stored log: the peer proves this before anything else is fetched
(4) entries are fetched in steps; each step, with its side objects, is durable and proven to lead to the head
(5) entries become visible when a checkpoint of exactly these is there: if a log is far behind, the peer is asked for
    earlier checkpoints on the way to the head, close ones first, so that entries become visible within seconds
    also over a slow link (`StepPace`); then the log is cosigned

A peer that fails a step is at fault, not the log: another peer may do better. While one peer catches a log up, others
do not fetch this log (`LogTurns`); a step has a deadline, and a peer that fails waits longer each time. A local limit,
such as a quota, is not counted against a peer. A log above its quota does not advance and is not cosigned.

A ledger restored from a backup lacks entries of the own log that were signed and mirrored: they are fetched from
mirrors and verified against the log's own signature before they are appended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableSequence, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import structlog

from comity.ledger.entry_rows import named_objects
from comity.ledger.ledger import Ledger
from comity.ledger.log_store import LogState
from comity.node.members import Membership, PeerKey
from comity.node.replication.cosigner import CheckpointCosigner, OpenedNotes
from comity.node.replication.link import (
    CONNECTIONS,
    MANY_LINES,
    MAX_LINES,
    STEP_DEADLINE,
    CopySource,
    PeerLink,
    StartBarrier,
    fetch_entries,
)
from comity.node.replication.misbehaviour import MisbehaviourProofs
from comity.node.replication.news import ToldLog
from comity.node.replication.questions import PeerQuestions
from comity.node.replication.side_objects import SideObjectFetcher
from comity.node.settings import Limits
from comity.node.threads import AsyncLedger, Pools
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError, Conflict, NotFound, OutOfSpace, Untrusted
from comity.trust.statement import SideObject
from comity.trust.tlog.merkle import Frontier, leaf_hash, verify_consistency
from comity.trust.tlog.note import Checkpoint, SignedNote, VerifierKey
from comity.wire.client import NodeClient


class Quotas:
    """Compares each mirrored log with its quota: entries, and bytes of entries and side objects, each object counted
    once. The ledger keeps the sums. Not thread-safe: call from the event loop."""

    def __init__(self, ledger: AsyncLedger, limits: Limits) -> None:
        self._ledger = ledger
        self._limits = limits
        self._full: dict[VerifierKey, str] = {}

    async def require(self, log: VerifierKey, size: int, lines: Sequence[bytes] = ()) -> None:
        """Raises OutOfSpace (QUOTA) if the log, at `size` entries and with `lines` added, is above its quota."""
        used = await self._ledger.run(self._bytes_with, str(log), lines)
        if size > self._limits.entries_per_origin:
            self._full[log] = f"{size} entries, {self._limits.entries_per_origin} are mirrored"
        elif used > self._limits.bytes_per_origin:
            self._full[log] = f"{used} bytes, {self._limits.bytes_per_origin} are mirrored"
        else:
            self._full.pop(log, None)
            return
        raise OutOfSpace(f"{log.name} is above its quota", why=self._full[log], code="QUOTA")

    @property
    def full(self) -> dict[VerifierKey, str]:
        """The logs above their quota, with the reason."""
        return self._full

    def _bytes_with(self, log: str, lines: Sequence[bytes]) -> int:
        logs = self._ledger.tables.logs
        return logs.weight(log) + (logs.added_weight(log, lines) if lines else 0)


STEP_SECONDS: Final = 10.0
"""Seconds after which a step stops with the entries received so far."""
STEPS: Final = 16
"""Steps in one round, so that a long log does not delay the others."""
OWN_NODE_ROUNDS: Final = 3
"""Rounds in which only a log's own node, if reachable, is used before other mirrors."""

_log: Final = structlog.get_logger("comity.node")


TURN_SECONDS: Final = 20.0
"""Seconds of a log's first turn."""
STALL_SECONDS: Final = 3.0
"""The same while less than `STALL_RATE` bytes a second arrive: what a peer is waited for anywhere (`wire.asking`)."""
STALL_RATE: Final = 16 * 1024.0
MAX_TURN_SECONDS: Final = 1_200.0
TAKEOVER_TURNS: Final = 4
"""Turn lengths after which any member may take over."""
MAX_REST_SECONDS: Final = 600.0
MAX_REMEMBERED: Final = 16_384
"""Remembered pairs of a member and a log; the one unused longest is dropped first."""


@dataclass(slots=True, eq=False)
class LogTurn:
    """A member that fetches a log. `received` counts bytes; `end` is called when another member is to continue."""

    log: str
    member: Digest
    since: float
    received: int = 0
    preempted: bool = False
    end: Callable[[], None] = field(default=lambda: None)

    def add(self, size: int) -> None:
        self.received += size

    def rate(self, now: float) -> float:
        return self.received / max(now - self.since, 1e-6)


@dataclass(slots=True)
class _LogProgress:
    """What is known of a member as a source of one log."""

    failures: int = 0
    resting_until: float = 0.0
    rate: float | None = None


class LogTurns:
    """Whose turn it is to catch a log up: that of one member at a time; its nodes count as one. No I/O, no clock.

    (1) a turn is ended after its length for a member that was never tried with this log or was more than twice as fast,
        and after four lengths for any other member
    (2) a member whose turn was ended pauses for one turn; a member that failed pauses longer each time
    (3) while no step of the log is stored, its turns grow, so that a slow honest peer can finish a step
    (4) a turn in which little arrives is shorter in the same proportion

    Args:
        interval: seconds of the first pause after a failure.
    """

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._turns: dict[str, LogTurn] = {}
        self._lengths: dict[str, float] = {}
        self._progress: dict[tuple[Digest, str], _LogProgress] = {}

    def begin(self, log: str, member: Digest, now: float) -> LogTurn | None:
        """The member's turn with a log; None while the member pauses or another turn runs. That turn may be ended by
        this call; then this member's nodes ask again."""
        known = self._progress.get((member, log))
        if known is not None and now < known.resting_until:
            return None
        current = self._turns.get(log)
        if current is None:
            turn = self._turns[log] = LogTurn(log, member, now)
            return turn
        if current.member != member and not current.preempted and self._should_yield(current, known, now):
            current.preempted = True
            current.end()
        return None

    def step_stored(self, turn: LogTurn) -> None:
        """A step was stored: the log's turns are short again."""
        self._lengths.pop(turn.log, None)

    def finish(self, turn: LogTurn, now: float, *, failed: bool = False) -> None:
        """The turn has ended: preempted, successful, or because the member `failed`."""
        del self._turns[turn.log]
        known = self._progress.pop((turn.member, turn.log), _LogProgress())
        self._progress[turn.member, turn.log] = known
        if len(self._progress) > MAX_REMEMBERED:
            del self._progress[next(iter(self._progress))]
        known.rate = turn.rate(now)
        if turn.preempted:
            length = self._lengths[turn.log] = min(MAX_TURN_SECONDS, 2 * self._length(turn.log))
            known.resting_until = now + length
        elif failed:
            known.failures += 1
            known.resting_until = now + min(self._interval * 2 ** min(known.failures, 16), MAX_REST_SECONDS)
        else:
            known.failures = 0

    def _length(self, log: str) -> float:
        return self._lengths.get(log, TURN_SECONDS)

    def _should_yield(self, current: LogTurn, known: _LogProgress | None, now: float) -> bool:
        lasted, length = now - current.since, self._length(current.log)
        if current.rate(now) < STALL_RATE:
            length *= STALL_SECONDS / TURN_SECONDS
        if lasted < length:
            return False
        untried = known is None or known.rate is None
        return (
            untried
            or lasted >= TAKEOVER_TURNS * length
            or (known is not None and (known.rate or 0) > 2 * current.rate(now))
        )


STEP_LINES: Final = MAX_LINES
FIRST_LINES: Final = 64
"""Lines that the first steps with a peer go for."""
AIM_SECONDS: Final = 60.0
"""After a step that took less than a third of this, the next one goes for four times the lines; after one that took
more, for half of them. Each step costs some round trips."""


class StepPace:
    """How many lines ahead of the stored ones a step looks for a checkpoint, by peer: a step goes for one that this
    peer was seen to bring within a minute. Not thread-safe: call from the event loop."""

    def __init__(self) -> None:
        self._lines: dict[PeerKey, int] = {}

    def lines(self, peer: PeerKey) -> int:
        return min(self._lines.get(peer, FIRST_LINES), STEP_LINES)

    def stored(self, peer: PeerKey, seconds: float) -> None:
        """A step with this peer took so long, with its side objects."""
        lines = self.lines(peer)
        if seconds < AIM_SECONDS / 3:
            lines = min(4 * lines, STEP_LINES)
        elif seconds > AIM_SECONDS:
            lines = max(lines // 2, FIRST_LINES)
        self._lines[peer] = lines


@dataclass(frozen=True, slots=True)
class ShownHead:
    """A log's newest checkpoint as a peer shows it, signed by the log."""

    key: VerifierKey
    note: SignedNote
    checkpoint: Checkpoint

    @property
    def origin(self) -> str:
        return self.key.name

    @property
    def log(self) -> str:
        """The log's verifier key: its name in the ledger and to peers."""
        return str(self.key)


class LogMirror:
    """Mirrors the logs of members from any peer."""

    def __init__(
        self,
        ledger: AsyncLedger,
        pools: Pools,
        membership: Membership,
        interval: float,
        cosigner: CheckpointCosigner,
        misbehaviour: MisbehaviourProofs,
        quotas: Quotas,
        side_objects: SideObjectFetcher,
        on_advance: Callable[[str], Awaitable[None]],
    ) -> None:
        self._ledger = ledger
        self._pools = pools
        self._membership = membership
        self._interval = interval
        self._cosigner = cosigner
        self._misbehaviour = misbehaviour
        self._quotas = quotas
        self._side_objects = side_objects
        self._on_advance = on_advance
        self._mirrored_before: set[str] = set()
        self._turns = LogTurns(interval)
        self._pace = StepPace()
        self._opened = OpenedNotes()
        self._behind_since: dict[str, float] = {}
        """When each log was first shown larger than the stored copy."""

    async def load(self) -> None:
        """Continue every log that was ever mirrored, also those of former members."""
        logs = await self._ledger.read(self._ledger.tables.logs.all)
        self._mirrored_before = {log.vkey for log in logs if not log.own}

    def is_mirrored(self, log: str) -> bool:
        """Whether a log, named by its verifier key, is mirrored here, or is this node's own."""
        origin = log.partition("+")[0]
        return log in self._mirrored_before or log in map(str, self._membership.log_keys(origin))

    def parse_head(self, told: ToldLog) -> ShownHead | None:
        """The head of a log that is mirrored here; None for other logs and if no checkpoint was told.

        Raises Malformed, and Untrusted if the log did not sign it.
        """
        if not told.note or not self.is_mirrored(told.log):
            return None
        key = VerifierKey.parse(told.log)
        note = SignedNote.parse(told.note)
        checkpoint = self._opened.get(note, key)  # (1)
        if told.cosignatures and told.size == checkpoint.size:
            note = note.with_signatures(*told.cosignatures)
        return ShownHead(key, note, checkpoint)

    async def follow(self, link: CopySource, head: ShownHead, *, from_own_node: bool, own_node_reachable: bool) -> bool:
        """Fetch what `head` covers. Returns whether nothing is left to fetch. Raises the peer's failure, and OutOfSpace
        (QUOTA)."""
        if self._misbehaviour.frozen(head.key):
            return True
        local_size = (await self._ledger.run(_get_or_create, self._ledger.tables, head)).size
        if head.checkpoint.size > local_size:
            self._cosigner.note_own_cosignature(head.key, head.checkpoint, head.note)
            if self._leave_to_own_node(head, from_own_node, own_node_reachable):
                return False
            await self._catch_up(link, head, head.checkpoint.size - local_size)
        agreed = await self.agree(head)
        await self._cosigner.cosign_if_due(head.key)  # (5)
        return agreed

    async def agree(self, head: ShownHead) -> bool:
        """Check a head that the stored log reaches, and store its cosignatures. Returns whether the stored log reaches
        it."""
        state = await self._ledger.run(self._ledger.tables.logs.get, head.log)
        if state.size < head.checkpoint.size:
            return False
        known = (state.size, state.root) == (head.checkpoint.size, head.checkpoint.root)
        if known or not await self._misbehaviour.contradicts(head.key, head.note):  # (2)
            await self._cosigner.collect(head.key, head.checkpoint, head.note)
        return True

    async def collect(self, told: ToldLog) -> bool:
        """Store cosignatures of a checkpoint that is stored here. Returns whether nothing is left to do: false until
        the stored log has reached the checkpoint."""
        key = VerifierKey.parse(told.log)
        return await self._cosigner.collect_told(key, told.size, told.cosignatures)

    async def cosign_due(self) -> None:
        """Cosign every mirrored log that is due."""
        for log in await self._ledger.read(self._ledger.tables.logs.all):
            if not log.own and self.is_mirrored(log.vkey):
                await self._cosigner.cosign_if_due(VerifierKey.parse(log.vkey))

    def _leave_to_own_node(self, head: ShownHead, from_own_node: bool, own_node_reachable: bool) -> bool:
        now = asyncio.get_running_loop().time()
        since = self._behind_since.setdefault(head.log, now)
        if from_own_node or not own_node_reachable:
            return False
        return now - since < OWN_NODE_ROUNDS * self._interval

    async def _catch_up(self, link: CopySource, head: ShownHead, behind: int) -> None:
        clock = asyncio.get_running_loop().time
        turn = self._turns.begin(head.log, link.peer_key.member, clock())
        if turn is None:
            return
        failed = False
        try:
            async with asyncio.timeout(None) as scope:
                turn.end = lambda: scope.reschedule(clock())
                await self._quotas.require(head.key, head.checkpoint.size)
                async with link.more_connections(CONNECTIONS - 1 if behind > MANY_LINES else 0) as others:
                    for _ in range(STEPS):
                        if await self._step(link, others, head, turn):
                            break
        except (ComityError, TimeoutError) as error:
            failed = not isinstance(error, OutOfSpace | Conflict)
            if not turn.preempted:
                raise
            _log.info("log continued from another peer", origin=head.origin, instead_of=link.name)
        finally:
            self._turns.finish(turn, clock(), failed=failed)

    async def _step(
        self, link: CopySource, others: MutableSequence[NodeClient], shown: ShownHead, turn: LogTurn
    ) -> bool:
        """Fetch, verify and store the next entries. Returns whether the log has reached the head that was shown."""
        state = await self._ledger.run(self._ledger.tables.logs.get, shown.log)
        if state.size >= shown.checkpoint.size:
            return True
        clock, client = asyncio.get_running_loop().time, link.client
        began = clock()
        head = await self._head_on_the_way(link, shown, state.staged)
        start = state.staged
        if start > head.checkpoint.size:  # staged for a larger head, which no peer shows any more
            start = state.size
        lines = await self._fetch(client, others, head, start, state, turn)
        objects = await self._pools.hashing(_named_in, lines)
        await self._quotas.require(head.key, head.checkpoint.size, lines)
        turn.add(await self._side_objects.fetch_all(client, objects, link.peer_key, others))
        await self._store(client, head, start, lines)
        self._turns.step_stored(turn)
        self._pace.stored(link.peer_key, clock() - began)
        return start + len(lines) == shown.checkpoint.size

    async def _head_on_the_way(self, link: CopySource, head: ShownHead, start: int) -> ShownHead:
        """The largest head that the pace of this peer reaches from `start`, or that one step reaches, if the peer has
        one; else `head`. Raises Malformed, and Untrusted if the log did not sign it."""
        for lines in dict.fromkeys((self._pace.lines(link.peer_key), STEP_LINES)):
            if head.checkpoint.size <= start + lines:
                break
            if (found := await self._head_up_to(link.client, head, start, start + lines)) is not None:
                return found
        return head

    async def _head_up_to(self, client: NodeClient, head: ShownHead, start: int, most: int) -> ShownHead | None:
        """The peer's largest checkpoint of more than `start` and at most `most` entries."""
        try:
            note = SignedNote.parse(await client.checkpoint(head.log, up_to=most))
        except NotFound:
            return None
        checkpoint = self._opened.get(note, head.key)
        if not start < checkpoint.size <= most:  # a node of an older version gives its newest
            return None
        return ShownHead(head.key, note, checkpoint)

    async def _fetch(
        self,
        client: NodeClient,
        others: MutableSequence[NodeClient],
        head: ShownHead,
        start: int,
        state: LogState,
        turn: LogTurn,
    ) -> list[bytes]:
        """The entries of a step, from `start` on; before the first ones it is proven that `head` continues the log."""
        async with asyncio.timeout(STEP_DEADLINE):
            if start == state.size:
                await self._verify_continuation(client, head, state.size, state.root)  # (3)
            last = min(head.checkpoint.size, start + STEP_LINES)
            return await fetch_entries(
                client, head.log, start, last, others=others, seconds=STEP_SECONDS, received=turn.add
            )

    async def _store(self, client: NodeClient, head: ShownHead, start: int, lines: Sequence[bytes]) -> None:
        """Make the entries visible if they reach `head`, else stage them."""
        if start + len(lines) < head.checkpoint.size:
            await self._stage(client, head, start, lines)  # (4)
            return
        await self._ledger.run(self._ledger.tables.logs.advance, head.log, start, lines, head.note)  # (5)
        await self._advanced(head)

    async def _advanced(self, head: ShownHead) -> None:
        self._behind_since.pop(head.log, None)
        _log.info("mirrored", origin=head.origin, size=head.checkpoint.size)
        await self._on_advance(head.log)

    async def _stage(self, client: NodeClient, head: ShownHead, start: int, lines: Sequence[bytes]) -> None:
        end = start + len(lines)
        proof = await client.consistency(head.log, end, head.checkpoint.size)
        root = await self._ledger.run(self._ledger.tables.logs.stage, head.log, start, lines)
        try:
            verify_consistency(end, root, head.checkpoint.size, head.checkpoint.root, proof)
        except ComityError:
            state = await self._ledger.run(self._ledger.tables.logs.get, head.log)
            await self._ledger.run(self._ledger.tables.logs.stage, head.log, state.size, [])
            raise

    async def _verify_continuation(self, client: NodeClient, head: ShownHead, size: int, root: bytes) -> None:
        target = head.checkpoint
        proof = await client.consistency(head.log, size, target.size) if size else ()
        try:
            verify_consistency(size, root, target.size, target.root, proof)
        except Untrusted:
            await self._misbehaviour.search(client, head.key, head.note, size)
            raise


def _named_in(lines: Sequence[bytes]) -> list[SideObject]:
    """The side objects that the lines name."""
    return [item for line in lines for item in named_objects(line)]


def _get_or_create(ledger: Ledger, head: ShownHead) -> LogState:
    try:
        return ledger.logs.get(head.log)
    except NotFound:
        return ledger.logs.create(head.origin, head.log)


class OwnLogRecovery:
    """Compares the own log with the peers' copies. Not thread-safe: call from the event loop."""

    def __init__(
        self,
        ledger: AsyncLedger,
        log: str,
        mark: Callable[[], Awaitable[None]],
        interval: float,
        start: StartBarrier,
        side_objects: SideObjectFetcher,
        questions: PeerQuestions,
    ) -> None:
        self._questions = questions
        self._ledger = ledger
        self._log = log
        self._mark = mark
        self._interval = interval
        self._side_objects = side_objects
        self._start = start
        self._heads: dict[PeerKey, tuple[PeerLink, ShownHead]] = {}
        self._newest: ShownHead | None = None

    def add_head(self, link: PeerLink, head: ShownHead) -> None:
        """Add a head of this node's log that a peer holds, signed by this node."""
        self._heads[link.peer_key] = (link, head)
        if self._newest is None or self._newest.checkpoint.size < head.checkpoint.size:
            self._newest = head

    async def run(self) -> None:
        """Return when the ledger holds everything that peers have of the own log.

        Raises Untrusted (LOG-DIVERGED) if it holds a different history: then the log key must not sign again.
        """
        await self._start.wait()
        while (missing := await self._missing()) is not None:
            try:
                await self._restore()
            except ComityError as error:
                _log.warning("own log not restored yet", size=missing, why=str(error))
                await asyncio.sleep(self._interval)
        if self._newest is not None:
            await self._check(self._newest)
        await self._mark()

    async def _missing(self) -> int | None:
        """The size of the log at peers, if that is larger than the stored log; else None."""
        size = (await self._ledger.run(self._ledger.tables.logs.get, self._log)).size
        newest = self._newest.checkpoint.size if self._newest else 0
        return newest if newest > size else None

    async def _check(self, head: ShownHead) -> None:
        size, root = head.checkpoint.size, head.checkpoint.root
        if await self._ledger.run(self._ledger.tables.history.root, self._log, size) != root:
            raise Untrusted(
                "this node's log differs from what it signed",
                why=f"at size {size} peers hold another root, with this log's signature",
                hint="restore a newer backup of the ledger; until then the node serves reads and signs nothing",
                code="LOG-DIVERGED",
            )

    async def _restore(self) -> None:
        """Append the missing entries, in batches, each from any peer and proven to lead to a head that this log signed.
        Raises what the peers fail with."""
        frontier = await self._ledger.run(_frontier, self._ledger.tables, self._log)
        while ahead := [link for link, head in self._heads.values() if head.checkpoint.size > frontier.size]:
            nothing = NotFound("no peer has the missing entries", why=f"{frontier.size} are here", code="NO-HOLDER")
            batch = await self._questions.first(partial(self._next_entries, frontier), nothing, ahead)
            await self._ledger.run(self._ledger.tables.logs.append, self._log, batch.lines)
            frontier = batch.frontier
            if frontier.size == batch.head.checkpoint.size:
                await self._ledger.run(self._ledger.tables.logs.set_note, self._log, batch.head.note)
        _log.warning("own log restored from a peer", size=frontier.size)

    async def _next_entries(self, frontier: Frontier, source: CopySource) -> _OwnEntries:
        """The next entries that a peer has, with their side objects. Raises Untrusted if they lead to another."""
        log, head = self._log, self._heads[source.peer_key][1]
        client, target = source.client, head.checkpoint
        async with asyncio.timeout(STEP_DEADLINE):
            lines = await fetch_entries(client, log, frontier.size, target.size, seconds=STEP_SECONDS)
            extended = frontier.extend(map(leaf_hash, lines))
            whole = extended.size == target.size
            proof = () if whole else await client.consistency(log, extended.size, target.size)
        verify_consistency(extended.size, extended.root(), target.size, target.root, proof)
        await self._side_objects.fetch_all(client, _named_in(lines), source.peer_key)
        return _OwnEntries(lines, extended, head)


@dataclass(frozen=True, slots=True)
class _OwnEntries:
    """Entries of the own log that lead to a head, and the right edge of the tree after them."""

    lines: Sequence[bytes]
    frontier: Frontier
    head: ShownHead


def _frontier(ledger: Ledger, log: str) -> Frontier:
    size = ledger.logs.get(log).size
    return Frontier.read(size, ledger.history.node_reader(log, size))
