"""How much of a log this node takes: entries, and bytes of entries and side objects together, each object once. Beyond
it the log does not advance here and is not cosigned, and the status says so. The ledger keeps the sums.

A log, followed from one peer: what the peer shows of it is checked step by step, kept, and only then cosigned.

(1) the head is signed by the log's own key, the one that a node record binds to a member
(2) a head no larger than what is held is the same history, or the log is convicted
(3) a larger head continues what is held: the peer proves it before anything else is fetched
(4) entries come in steps; each step, with its side objects, is durable and proven to lead to the head
(5) the last step makes all of it visible at once; then the log is cosigned

A peer that fails a step is at fault, not the log: another peer may do better. While one peer catches a log up, others
leave that log alone (`turns`); a step has a deadline, and who fails one waits longer each time, so that nobody holds a
log up. What this machine cannot do, such as keep more than its quota, is held against no peer.


The own log, brought back to what peers have seen of it. A ledger restored from a backup lacks entries that were
signed and mirrored; they are taken back from mirrors, checked against the log's own signature, before any is added."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

import structlog

from comity.ledger.ledger import Ledger
from comity.ledger.log_store import LogState
from comity.node.config import Limits
from comity.node.context import NAME, NodeContext
from comity.node.members import PeerKey
from comity.node.replication.artifacts import LogTurn, LogTurns
from comity.node.replication.cosigner import CheckpointCosigner
from comity.node.replication.link import PeerLink, StartBarrier
from comity.node.replication.misbehaviour import MisbehaviourProofs
from comity.node.replication.side_objects import SideObjectFetcher
from comity.trust.errors import ComityError, Conflict, Malformed, NotFound, OutOfSpace, Untrusted
from comity.trust.statement import Statement, parse_entry
from comity.trust.tlog.merkle import Frontier, leaf_hash, verify_consistency
from comity.trust.tlog.note import Checkpoint, SignedNote, VerifierKey, open_checkpoint
from comity.wire.client import NodeClient
from comity.wire.messages import LogHead, Quota


class Quotas:
    """Compares what is held of each mirrored log with its quota. Touched by the event loop only, but for `used`."""

    def __init__(self, core: NodeContext) -> None:
        self._core = core
        self._limits: Limits = core.config.limits
        self._full: dict[VerifierKey, str] = {}

    async def require(self, log: VerifierKey, size: int, lines: Sequence[bytes] = ()) -> None:
        """Raises OutOfSpace (QUOTA) where the log, at `size` entries and with `lines` to come, is too large."""
        held = await self._core.pools.ledger(self._weigh, str(log), lines)
        if size > self._limits.entries_per_origin:
            self._full[log] = f"{size} entries, {self._limits.entries_per_origin} are mirrored"
        elif held > self._limits.bytes_per_origin:
            self._full[log] = f"{held} bytes, {self._limits.bytes_per_origin} are mirrored"
        else:
            self._full.pop(log, None)
            return
        raise OutOfSpace(f"quota reached for {log.name}", why=self._full[log], code="QUOTA")

    @property
    def full(self) -> dict[VerifierKey, str]:
        """Why a log does not advance any more, by its key."""
        return self._full

    def used(self) -> tuple[Quota, ...]:
        """Blocking."""
        most = self._limits.bytes_per_origin
        mirrored = (log for log in self._core.ledger.logs.all() if not log.own)
        return tuple(Quota(f"bytes of {log.origin}", log.weight, most) for log in mirrored)

    def _weigh(self, log: str, lines: Sequence[bytes]) -> int:
        logs = self._core.ledger.logs
        return logs.weight(log) + (logs.cost(log, lines) if lines else 0)


def statement_of(line: bytes) -> Statement | None:
    """The statement in a line of somebody's log, which may hold anything."""
    try:
        return parse_entry(line).statement
    except Malformed:
        return None


STEP_LINES: Final = 4096
STEP_BYTES: Final = 8 * 1024 * 1024
STEP_SECONDS: Final = 10.0
"""Seconds after which a step is content with the entries that have come."""
STEP_DEADLINE: Final = 60.0
"""Seconds for the entries of a step; side objects have their own."""
STEPS: Final = 16
"""Steps in one round, so that a long log does not keep the others waiting."""
GRACE: Final = 3
"""Rounds for which a log is left to its own node, where that answers, before a mirror's copy is fetched."""

_log: Final = structlog.get_logger("comity.node")


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
        """The log's name in a ledger, and to peers: its verifier key."""
        return str(self.key)


class LogMirror:
    """Follows the logs of members from whoever has them."""

    def __init__(
        self,
        core: NodeContext,
        cosigner: CheckpointCosigner,
        convictions: MisbehaviourProofs,
        quotas: Quotas,
        side_objects: SideObjectFetcher,
        on_advance: Callable[[str], Awaitable[None]],
    ) -> None:
        self._core = core
        self._ledger = core.ledger
        self._cosigner = cosigner
        self._convictions = convictions
        self._quotas = quotas
        self._side_objects = side_objects
        self._on_advance = on_advance
        self._begun_before: set[str] = set()
        self._turns = LogTurns(core.config.replication.interval_seconds)
        self._behind_since: dict[str, float] = {}
        """When a log was first shown larger than it is here."""

    async def load(self) -> None:
        """Go on with every log that was ever mirrored: that its member has left ends nothing."""
        logs = await self._core.pools.ledger(self._ledger.logs.all)
        self._begun_before = {log.vkey for log in logs if not log.own}

    def read(self, shown: LogHead) -> ShownHead | None:
        """The head of a log that is followed here; None for others, and before a first checkpoint.

        Raises Malformed, and Untrusted where the log did not sign it.
        """
        bound = map(str, self._core.membership.log_keys(shown.origin))
        if not shown.note or (shown.vkey not in bound and shown.vkey not in self._begun_before):
            return None
        key = VerifierKey.parse(shown.vkey)
        note = SignedNote.parse(shown.note)
        return ShownHead(key, note, open_checkpoint(note, key))  # (1)

    async def follow(self, link: PeerLink, head: ShownHead, *, from_its_node: bool, its_node_answers: bool) -> bool:
        """Take what `head` shows; whether it has nothing more to give. Raises whatever the peer did wrong, and
        OutOfSpace (QUOTA)."""
        if self._convictions.frozen(head.key):
            return True
        held = (await self._core.pools.ledger(_begun, self._ledger, head)).size
        if head.checkpoint.size > held:
            self._cosigner.recall(head.key, head.checkpoint, head.note)
            if self._left_to_its_node(head, from_its_node, its_node_answers):
                return False
            await self._catch_up(link, head)
        agreed = await self.agree(head)
        await self._cosigner.attend(head.key)  # (5)
        return agreed

    async def agree(self, head: ShownHead) -> bool:
        """Hold a head that what is held reaches against it, and keep the cosignatures that came with it; whether what
        is held reaches it."""
        state = await self._core.pools.ledger(self._ledger.logs.get, head.log)
        if state.size < head.checkpoint.size:
            return False
        known = (state.size, state.root) == (head.checkpoint.size, head.checkpoint.root)
        if known or not await self._convictions.contradicts(head.key, head.note):  # (2)
            await self._cosigner.gather(head.key, head.checkpoint, head.note)
        return True

    def _left_to_its_node(self, head: ShownHead, from_its_node: bool, its_node_answers: bool) -> bool:
        now = asyncio.get_running_loop().time()
        since = self._behind_since.setdefault(head.log, now)
        if from_its_node or not its_node_answers:
            return False
        return now - since < GRACE * self._core.config.replication.interval_seconds

    async def _catch_up(self, link: PeerLink, head: ShownHead) -> None:
        clock = asyncio.get_running_loop().time
        turn = self._turns.begin(head.log, link.peer_key.member, clock())
        if turn is None:
            return
        failed = False
        try:
            async with asyncio.timeout(None) as scope:
                turn.end = lambda: scope.reschedule(clock())
                await self._quotas.require(head.key, head.checkpoint.size)
                for _ in range(STEPS):
                    if await self._step(link, head, turn):
                        break
        except (ComityError, TimeoutError) as error:
            failed = not isinstance(error, OutOfSpace | Conflict)
            if not turn.put_off:
                raise
            _log.info("another peer goes on with a log", origin=head.origin, instead_of=link.name)
        finally:
            self._turns.over(turn, clock(), failed=failed)

    async def _step(self, link: PeerLink, head: ShownHead, turn: LogTurn) -> bool:
        """Fetch, check and keep one stretch; whether the log now stands at the head."""
        client = link.client
        state = await self._core.pools.ledger(self._ledger.logs.get, head.log)
        start, target = state.staged, head.checkpoint
        if start > target.size:  # staged for a larger head, which nobody shows any more
            start = state.size
        if state.size >= target.size:
            return True
        async with asyncio.timeout(STEP_DEADLINE):
            if start == state.size:
                await self._prove(client, head, start, state.root)  # (3)
            lines = await fetch_entries(client, head.log, start, target.size, seconds=STEP_SECONDS)
        statements = await self._core.pools.hashing(_read_lines, lines)
        turn.received += sum(map(len, lines))
        await self._quotas.require(head.key, target.size, lines)
        turn.received += await self._side_objects.fetch(client, statements, link.peer_key)
        end = start + len(lines)
        if end == target.size:
            await self._core.pools.ledger(self._ledger.logs.advance, head.log, start, lines, head.note)  # (5)
            await self._advanced(head)
        else:
            await self._stage(client, head, start, lines)  # (4)
        self._turns.kept(turn)
        return end == target.size

    async def _stage(self, client: NodeClient, head: ShownHead, start: int, lines: Sequence[bytes]) -> None:
        end = start + len(lines)
        proof = await client.consistency(head.log, end, head.checkpoint.size)
        root = await self._core.pools.ledger(self._ledger.logs.stage, head.log, start, lines)
        try:
            verify_consistency(end, root, head.checkpoint.size, head.checkpoint.root, proof)
        except ComityError:
            state = await self._core.pools.ledger(self._ledger.logs.get, head.log)
            await self._core.pools.ledger(self._ledger.logs.stage, head.log, state.size, [])
            raise

    async def _prove(self, client: NodeClient, head: ShownHead, size: int, root: bytes) -> None:
        target = head.checkpoint
        proof = await client.consistency(head.log, size, target.size) if size else ()
        try:
            verify_consistency(size, root, target.size, target.root, proof)
        except Untrusted:
            await self._convictions.search(client, head.key, head.note, size)
            raise

    async def _advanced(self, head: ShownHead) -> None:
        self._behind_since.pop(head.log, None)
        self._core.metrics.log_size.labels(head.origin).set(head.checkpoint.size)
        _log.info("mirrored", origin=head.origin, size=head.checkpoint.size)
        await self._on_advance(head.log)


async def fetch_entries(
    client: NodeClient, log: str, start: int, end: int, *, seconds: float = STEP_DEADLINE
) -> list[bytes]:
    """The next stretch of entries before `end`, bounded in number, bytes and seconds; at least one, or Untrusted
    (WITHHELD)."""
    lines: list[bytes] = []
    size = 0
    clock = asyncio.get_running_loop().time
    ends = clock() + seconds
    async with aclosing(client.entries(log, start, min(end, start + STEP_LINES))) as batches:
        async for batch in batches:
            lines.extend(batch.lines)
            size += sum(map(len, batch.lines))
            if size >= STEP_BYTES or clock() >= ends:
                break
    if not lines:
        why = f"no entry {start}, though its head goes up to {end}"
        raise Untrusted("a log without its entries", why=why, code="WITHHELD")
    return lines


def _read_lines(lines: Sequence[bytes]) -> list[Statement]:
    """The statements among lines that may say anything."""
    return [statement for line in lines if (statement := statement_of(line))]


def _begun(ledger: Ledger, head: ShownHead) -> LogState:
    try:
        return ledger.logs.get(head.log)
    except NotFound:
        return ledger.logs.create(head.origin, head.log)


class OwnLogRecovery:
    """Compares the own log with what peers hold of it. Touched by the event loop only."""

    def __init__(self, core: NodeContext, start: StartBarrier, side_objects: SideObjectFetcher) -> None:
        self._core = core
        self._side_objects = side_objects
        self._start = start
        self._offers: dict[PeerKey, tuple[PeerLink, ShownHead]] = {}
        self._newest: ShownHead | None = None

    def offer(self, link: PeerLink, head: ShownHead) -> None:
        """What a peer holds of this node's log, signed by this node."""
        self._offers[link.peer_key] = (link, head)
        if self._newest is None or self._newest.checkpoint.size < head.checkpoint.size:
            self._newest = head

    async def run(self) -> None:
        """Return once the log holds everything that peers were shown of it.

        Raises Untrusted (LOG-DIVERGED) where it holds something else: its key must not sign again.
        """
        await self._start.wait()
        while (missing := await self._missing()) is not None:
            for link, head in sorted(self._offers.values(), key=lambda offer: -offer[1].checkpoint.size):
                try:
                    await self._take_back(link, head)
                    break
                except (ComityError, TimeoutError) as error:
                    _log.warning("the own log was not taken back yet", peer=link.name, size=missing, why=str(error))
            else:
                await asyncio.sleep(self._core.config.replication.interval_seconds)
        if self._newest is not None:
            await self._check(self._newest)
        await self._core.pools.files(self._core.mark(NAME).renew)

    async def _missing(self) -> int | None:
        """The size of the log as peers know it, where that is more than is here."""
        size = (await self._core.pools.ledger(self._core.ledger.logs.get, self._core.log)).size
        newest = self._newest.checkpoint.size if self._newest else 0
        return newest if newest > size else None

    async def _check(self, head: ShownHead) -> None:
        size, root = head.checkpoint.size, head.checkpoint.root
        if await self._core.pools.ledger(self._core.ledger.history.root, self._core.log, size) != root:
            raise Untrusted(
                "this node's log is not the one it signed",
                why=f"at size {size} peers hold another root, with this log's signature",
                hint="restore a newer backup of the ledger; until then the node reads out, and signs nothing",
                code="LOG-DIVERGED",
            )

    async def _take_back(self, link: PeerLink, head: ShownHead) -> None:
        """Append the entries that are missing, each stretch proven to lead to the signed head."""
        log, target = self._core.log, head.checkpoint
        edge = await self._core.pools.ledger(_edge, self._core.ledger, log)
        while edge.size < target.size:
            lines = await fetch_entries(link.client, log, edge.size, target.size)
            grown = edge.extend(map(leaf_hash, lines))
            whole = grown.size == target.size
            proof = () if whole else await link.client.consistency(log, grown.size, target.size)
            verify_consistency(grown.size, grown.root(), target.size, target.root, proof)
            statements = [statement for line in lines if (statement := statement_of(line))]
            await self._side_objects.fetch(link.client, statements, link.peer_key)
            await self._core.pools.ledger(self._core.ledger.logs.append, log, lines)
            edge = grown
        await self._core.pools.ledger(self._core.ledger.logs.set_note, log, head.note)
        _log.warning("the own log was taken back from a peer", peer=link.name, size=target.size)


def _edge(ledger: Ledger, log: str) -> Frontier:
    size = ledger.logs.get(log).size
    return Frontier.read(size, ledger.history.node_reader(log, size))
