"""Mirrors logs from peers and enforces their quotas.

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
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableSequence, Sequence
from typing import Final

import structlog

from comity.ledger.entry_rows import named_objects
from comity.ledger.ledger import Ledger
from comity.ledger.log_store import LogState
from comity.node.context import NodeContext
from comity.node.replication.cosigner import CheckpointCosigner, OpenedNotes
from comity.node.replication.link import (
    MANY_LINES,
    STEP_DEADLINE,
    CopySource,
    fetch_entries,
)
from comity.node.replication.log_turns import STEP_LINES, LogTurn, LogTurns, StepPace
from comity.node.replication.misbehaviour import MisbehaviourProofs
from comity.node.replication.news import PendingNews
from comity.node.replication.side_objects import SideObjectFetcher
from comity.node.settings import Limits
from comity.node.threads import AsyncLedger
from comity.transfer.limits import CONNECTIONS
from comity.trust.errors import ComityError, Conflict, NotFound, OutOfSpace, Untrusted
from comity.trust.frozen import frozen
from comity.trust.statement import SideObject
from comity.trust.tlog.merkle import verify_consistency
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


@frozen
class PeerHead:
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
    """Mirrors the logs of members from any peer. `misbehaviour` has the proofs against them."""

    def __init__(
        self,
        context: NodeContext,
        interval: float,
        cosigner: CheckpointCosigner,
        misbehaviour: MisbehaviourProofs,
        quotas: Quotas,
        side_objects: SideObjectFetcher,
        on_advance: Callable[[str], Awaitable[None]],
    ) -> None:
        self._ledger = context.ledger
        self._pools = context.pools
        self._membership = context.membership
        self._interval = interval
        self._cosigner = cosigner
        self.misbehaviour = misbehaviour
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

    def parse_head(self, told: PendingNews) -> PeerHead | None:
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
        return PeerHead(key, note, checkpoint)

    async def follow(self, link: CopySource, head: PeerHead, *, from_own_node: bool, own_node_reachable: bool) -> bool:
        """Fetch what `head` covers. Returns whether nothing is left to fetch. Raises the peer's failure, and OutOfSpace
        (QUOTA)."""
        if self.misbehaviour.frozen(head.key):
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

    async def agree(self, head: PeerHead) -> bool:
        """Check a head that the stored log reaches, and store its cosignatures. Returns whether the stored log reaches
        it."""
        state = await self._ledger.run(self._ledger.tables.logs.get, head.log)
        if state.size < head.checkpoint.size:
            return False
        known = (state.size, state.root) == (head.checkpoint.size, head.checkpoint.root)
        if known or not await self.misbehaviour.contradicts(head.key, head.note):  # (2)
            await self._cosigner.collect(head.key, head.checkpoint, head.note)
        return True

    async def collect(self, told: PendingNews) -> bool:
        """Store cosignatures of a checkpoint that is stored here. Returns whether nothing is left to do: false until
        the stored log has reached the checkpoint."""
        key = VerifierKey.parse(told.log)
        return await self._cosigner.collect_told(key, told.size, told.cosignatures)

    async def cosign_due(self) -> None:
        """Cosign every mirrored log that is due."""
        for log in await self._ledger.read(self._ledger.tables.logs.all):
            if not log.own and self.is_mirrored(log.vkey):
                await self._cosigner.cosign_if_due(VerifierKey.parse(log.vkey))

    def _leave_to_own_node(self, head: PeerHead, from_own_node: bool, own_node_reachable: bool) -> bool:
        now = asyncio.get_running_loop().time()
        since = self._behind_since.setdefault(head.log, now)
        if from_own_node or not own_node_reachable:
            return False
        return now - since < OWN_NODE_ROUNDS * self._interval

    async def _catch_up(self, link: CopySource, head: PeerHead, behind: int) -> None:
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
        self, link: CopySource, others: MutableSequence[NodeClient], shown: PeerHead, turn: LogTurn
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
        objects = await self._pools.hashing(named_in, lines)
        await self._quotas.require(head.key, head.checkpoint.size, lines)
        turn.add(await self._side_objects.fetch_all(client, objects, link.peer_key, others))
        await self._store(client, head, start, lines)
        self._turns.step_stored(turn)
        self._pace.stored(link.peer_key, clock() - began)
        return start + len(lines) == shown.checkpoint.size

    async def _head_on_the_way(self, link: CopySource, head: PeerHead, start: int) -> PeerHead:
        """The largest head that the pace of this peer reaches from `start`, or that one step reaches, if the peer has
        one; else `head`. Raises Malformed, and Untrusted if the log did not sign it."""
        for lines in dict.fromkeys((self._pace.lines(link.peer_key), STEP_LINES)):
            if head.checkpoint.size <= start + lines:
                break
            if (found := await self._head_up_to(link.client, head, start, start + lines)) is not None:
                return found
        return head

    async def _head_up_to(self, client: NodeClient, head: PeerHead, start: int, most: int) -> PeerHead | None:
        """The peer's largest checkpoint of more than `start` and at most `most` entries."""
        try:
            note = SignedNote.parse(await client.checkpoint(head.log, up_to=most))
        except NotFound:
            return None
        checkpoint = self._opened.get(note, head.key)
        if not start < checkpoint.size <= most:  # a node of an older version gives its newest
            return None
        return PeerHead(head.key, note, checkpoint)

    async def _fetch(
        self,
        client: NodeClient,
        others: MutableSequence[NodeClient],
        head: PeerHead,
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

    async def _store(self, client: NodeClient, head: PeerHead, start: int, lines: Sequence[bytes]) -> None:
        """Make the entries visible if they reach `head`, else stage them."""
        if start + len(lines) < head.checkpoint.size:
            await self._stage(client, head, start, lines)  # (4)
            return
        await self._ledger.run(self._ledger.tables.logs.advance, head.log, start, lines, head.note)  # (5)
        await self._advanced(head)

    async def _advanced(self, head: PeerHead) -> None:
        self._behind_since.pop(head.log, None)
        _log.info("mirrored", origin=head.origin, size=head.checkpoint.size)
        await self._on_advance(head.log)

    async def _stage(self, client: NodeClient, head: PeerHead, start: int, lines: Sequence[bytes]) -> None:
        end = start + len(lines)
        proof = await client.consistency(head.log, end, head.checkpoint.size)
        root = await self._ledger.run(self._ledger.tables.logs.stage, head.log, start, lines)
        try:
            verify_consistency(end, root, head.checkpoint.size, head.checkpoint.root, proof)
        except ComityError:
            state = await self._ledger.run(self._ledger.tables.logs.get, head.log)
            await self._ledger.run(self._ledger.tables.logs.stage, head.log, state.size, [])
            raise

    async def _verify_continuation(self, client: NodeClient, head: PeerHead, size: int, root: bytes) -> None:
        target = head.checkpoint
        proof = await client.consistency(head.log, size, target.size) if size else ()
        try:
            verify_consistency(size, root, target.size, target.root, proof)
        except Untrusted:
            await self.misbehaviour.search(client, head.key, head.note, size)
            raise


def named_in(lines: Sequence[bytes]) -> list[SideObject]:
    """The side objects that the lines name."""
    return [item for line in lines for item in named_objects(line)]


def _get_or_create(ledger: Ledger, head: PeerHead) -> LogState:
    try:
        return ledger.logs.get(head.log)
    except NotFound:
        return ledger.logs.create(head.origin, head.log)
