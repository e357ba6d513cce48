"""Challenges other nodes about their copies, and logs the results.

Each node tests copies of the artifacts that it holds itself, so that it can compare; every such copy in turn, each time
in another random order, as many as its budget of bytes a day allows, and none twice within an hour. With N copies to
test and a budget for B audits a day, each copy is tested by this node every N/B days, and by every other holder as
well. The cost at each side is the bytes of the challenged pieces; one answer has a few kilobytes.

A *failure* is logged at once, in full. What passed, and what gave no answer (*missed*), is logged once a day, when the
day is over. No result changes what anybody keeps: it is a claim that readers weigh (`comity.trust.copies`). Nothing is
logged if the own copy is the damaged one.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from dataclasses import replace
from typing import Final

import structlog

from comity.ledger.proven import ProvenLine
from comity.node.context import NodeContext
from comity.node.copies.index import (
    CopiesIndex,
    CopyFact,
    CopyRow,
    HoldFact,
    OwnAudit,
    ResultFact,
    WantedEndFact,
    WantedFact,
    WithdrawalFact,
)
from comity.node.copies.own_copies import OwnPieces
from comity.node.members import Membership, Peer, PeerKey
from comity.node.own_log import OwnLog
from comity.node.projection import Follower, Position
from comity.node.reading import ReadState
from comity.node.replication.link import PeerLink
from comity.node.settings import Audits
from comity.node.threads import AsyncLedger
from comity.rules.artifact_pins import Wanted, WantedWithdrawn
from comity.rules.audit import (
    DAY,
    NOT_HELD,
    AuditChallenge,
    AuditFailed,
    AuditFailure,
    AuditRow,
    AuditSummary,
    DamagedPiece,
    ExpectedHash,
    OlderAnswer,
    PieceNumbers,
    PieceSource,
    answers_root,
    check_answer,
    check_failure,
    draw_challenge,
    is_evidence,
    parse_audited,
    read_pieces,
    split_rows,
)
from comity.rules.copy_counts import MISSED, PASSED, AuditResult
from comity.rules.signing import sign_content
from comity.trust.copies import HoldWithdrawn, read_holds
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError, NotFound, Unavailable
from comity.trust.frozen import frozen
from comity.trust.node_records import NodeRecord
from comity.trust.statement import Author, Entry, parse_entry
from comity.trust.statement_kinds import AUDITED, HOLD_PREDICATES, HOLD_WITHDRAWN, WANTED, WANTED_WITHDRAWN
from comity.wire.audit import AuditOrder, AuditReply

PREDICATES: Final = (*HOLD_PREDICATES, HOLD_WITHDRAWN, AUDITED, WANTED, WANTED_WITHDRAWN)
PAGE: Final = 256
"""Statements that are read in one step."""
MAX_CHECKED: Final = 16
"""Failures of one member's auditors that are checked in one step."""
ANSWER_SECONDS: Final = 120.0
"""Seconds that a node may take to read the pieces of one challenge, whatever number of addresses it has."""
LEAST_ANSWER_SECONDS: Final = 15.0
"""The same after it let several challenges pass without an answer: they halve with each, and come back with each answer
only half as fast, so that a silent node delays the audits of others little."""
AT_ONCE: Final = 8
"""Audits at a time."""
CANDIDATES: Final = 64
"""Copies that are looked at in one step for one that can be audited."""

_log: Final = structlog.get_logger("comity.node.audits")


class StatementReader:
    """Reads claims of copies, withdrawals, audits and what nodes ask for from proven statements into the index."""

    def __init__(self, ledger: AsyncLedger, membership: Membership, index: CopiesIndex, own: OwnPieces) -> None:
        self._ledger = ledger
        self._membership = membership
        self._index = index
        self._own = own
        self._follower = Follower(ledger, index, PREDICATES)

    async def read(self) -> None:
        """Read all new statements, in bounded steps."""
        while lines := await self._follower.next(PAGE):
            facts = [fact for line in lines for fact in self._facts(line)]
            checked = await self._ledger.run(self._check_failures, facts)
            await self._ledger.run(self._index.add, checked, Position.at(lines[-1]))

    def progress(self) -> ReadState:
        """Up to which statement everything was read. Blocking."""
        return self._follower.progress()

    def _facts(self, line: ProvenLine) -> list[tuple[CopyFact, AuditFailure | None]]:
        statement = parse_entry(line.line).statement
        assert statement.by is not None
        if statement.predicate == AUDITED:
            audited = parse_audited(statement)
            auditor = self._membership.node(audited.by)
            return self._results(audited, auditor.member) if auditor is not None else []
        if statement.by not in self._membership.writers(line.vkey):
            return []  # repeated in another log: it counts only where the node said it
        if statement.predicate == HOLD_WITHDRAWN:
            withdrawn = HoldWithdrawn.parse(statement)
            return [(WithdrawalFact(withdrawn.artifact, line.vkey, line.index, withdrawn.reason), None)]
        if statement.predicate == WANTED:
            wanted = Wanted.parse(statement)
            return [(WantedFact(wanted.artifact, line.vkey, line.index, wanted.policy), None)]
        if statement.predicate == WANTED_WITHDRAWN:
            ended = WantedWithdrawn.parse(statement)
            return [(WantedEndFact(ended.artifact, line.vkey, ended.wanted), None)]
        return [
            (HoldFact(item.artifact, line.vkey, item.by.id, line.index, item.manifest, item.pieces), None)
            for item in read_holds(statement)
        ]

    def _results(
        self, audited: AuditFailure | AuditSummary, auditor: Digest
    ) -> list[tuple[CopyFact, AuditFailure | None]]:
        """The results for the copies of other members."""
        if isinstance(audited, AuditFailure):
            result = AuditResult(auditor, audited.time // DAY, audited.reason, len(audited.challenge.numbers))
            rows = [(audited.challenge.artifact, audited.prover, result)]
            failure: AuditFailure | None = audited
        else:
            rows, failure = [], None
            for row in audited.rows:
                if row.passed:
                    rows.append((row.artifact, row.prover, AuditResult(auditor, audited.day, PASSED, row.pieces)))
                if row.missed:
                    rows.append((row.artifact, row.prover, AuditResult(auditor, audited.day, MISSED)))
        found: list[tuple[CopyFact, AuditFailure | None]] = []
        for artifact, prover, result in rows:
            record = self._membership.node(Author("node", prover))
            if record is not None and record.member != auditor:
                found.append((ResultFact(artifact, str(record.log), result), failure))
        return found

    def _check_failures(self, facts: list[tuple[CopyFact, AuditFailure | None]]) -> list[CopyFact]:
        """Mark failures that this node can check with its own copy. Each reads a piece, whether it is a failure or not:
        what an auditor logs beyond `MAX_CHECKED` stays its claim. Blocking."""
        checked, reads = list[CopyFact](), Counter[Digest]()
        for fact, failure in facts:
            if isinstance(fact, ResultFact) and failure is not None:
                reads[fact.result.auditor] += 1
                if reads[fact.result.auditor] <= MAX_CHECKED and self._is_proven(failure):
                    fact = replace(fact, result=replace(fact.result, proven=True))
            checked.append(fact)
        return checked

    def _is_proven(self, failure: AuditFailure) -> bool:
        record = self._membership.node(Author("node", failure.prover))
        if record is None or not is_evidence(failure, record):
            return False
        artifact, pieces = failure.challenge.artifact, failure.challenge.pieces
        row = next((row for row in self._index.copies(artifact) if row.pieces.digest == pieces), None)
        if row is None:
            return False
        try:
            numbers = self._own.numbers(row.manifest, row.pieces)
            return check_failure(failure, record, numbers, self._own) is not None
        except ComityError:
            return False  # there is no copy here to compare with


@frozen
class AuditedCopy:
    """The result of an audit: PASSED, MISSED, or the reason of a failure."""

    peer: Peer
    outcome: str
    pieces: int = 0
    why: str = ""


class Auditor:
    """Audits copies. Not thread-safe: call from the event loop.

    Args:
        links: the connections to peers.
    """

    def __init__(
        self,
        context: NodeContext,
        settings: Audits,
        index: CopiesIndex,
        own_log: OwnLog,
        links: Mapping[PeerKey, PeerLink],
        pieces: OwnPieces,
    ) -> None:
        self._pools = context.pools
        self._membership = context.membership
        self._signer = own_log.signer
        self._metrics = context.metrics
        self._clock = context.clock
        self._settings = settings
        self._index = index
        self._ledger = context.ledger
        self._own_log = own_log
        self._links = links
        self._pieces = pieces
        self._reader = StatementReader(context.ledger, context.membership, index, self._pieces)
        self._chance = random.SystemRandom()
        self._left = 0.0
        self._since: float | None = None
        self._reading = asyncio.Lock()
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._patience: dict[PeerKey, float] = {}
        """Seconds that each node has for its next answer, if these are not all."""

    async def step(self) -> None:
        """Read what is new, log the summaries of days that are over, and audit one copy if the budget allows it."""
        await self.read_new()
        await self.log_days()
        if self._refilled() > 0:
            await self._audit_next()

    def progress(self) -> ReadState:
        """How far the index has read. Blocking."""
        return self._reader.progress()

    async def read_new(self) -> None:
        async with self._reading:
            await self._reader.read()

    async def check(self, artifact: Digest) -> AsyncGenerator[AuditedCopy, None]:
        """Audit all copies of an artifact that other members claim, now, without a budget. Raises NotFound."""
        await self.read_new()
        rows = await self._ledger.run(self._index.copies, artifact)
        own = self._membership.own_node.log
        if not any(row.log == own and not row.withdrawn for row in rows):
            why = "it has no copy of its own to compare with"
            raise NotFound("this node cannot audit the artifact", why=why, code="NOT-HELD")
        for row in rows:
            peer = self.peer(row.log)
            if peer is not None and not row.withdrawn:
                audited = await self.audit(row, peer)
                if audited is not None:
                    yield audited

    async def audit(self, row: CopyRow, peer: Peer, *, lease: int = 0) -> AuditedCopy | None:
        """Audit one copy and record the result; None if it cannot be audited from here. `lease` are the seconds for
        which the peer is asked to keep the copy."""
        now = int(self._clock())
        async with self._turns:
            await self._ledger.run(self._index.tried, row.artifact, row.log, now)
            try:
                numbers = await self._pools.files(self._pieces.numbers, row.manifest, row.pieces)
                challenge = self.draw(numbers, row, peer, lease=lease)
                self._left -= numbers.cost(challenge.numbers)
                outcome, line, why, piece = await self._challenge(challenge, numbers, peer)
            except ComityError as error:
                await self.own_copy_failed(row, error)
                return None
        audited = AuditedCopy(peer, outcome, len(challenge.numbers) if outcome == PASSED else 0, why)
        await self.record(audited, challenge, line, piece, now)
        return audited

    def draw(self, numbers: PieceNumbers, row: CopyRow, peer: Peer, *, lease: int = 0) -> AuditChallenge:
        """A challenge of this node for the copy of a row, which is the peer's. Raises Malformed."""
        auditor, prover, count = self._signer.record.node.id, peer.record.node.id, self._settings.pieces
        return draw_challenge(auditor, prover, numbers, row.pieces.digest, count, self._chance, lease=lease)

    async def log_days(self) -> None:
        """Log the results of the days that are over."""
        today = int(self._clock()) // DAY
        for day in await self._ledger.run(self._index.unlogged_days, today):
            audits = await self._ledger.run(self._index.own_audits, day)
            for rows in split_rows(_rows(audits)):
                named = {(row.artifact, row.prover) for row in rows}
                lines = [audit.line for audit in audits if audit.passed and (audit.artifact, audit.node) in named]
                summary = AuditSummary.of(self._signer.record.node, day, rows, answers_root(lines), len(lines))
                entry = await self._pools.files(sign_content, summary, self._signer.online)
                await self._own_log.append(entry.line)  # the same statement again after a crash: logged once
            await self._ledger.run(self._index.logged, day, today)

    async def _audit_next(self) -> None:
        """Audit the copy that this node did not try for the longest time, if one can be audited now."""
        now, pause = int(self._clock()), 60 * self._settings.again_minutes
        for row in await self._ledger.run(self._index.next_copies, now, pause, CANDIDATES):
            peer = self.peer(row.log)
            if peer is None:
                await self._ledger.run(self._index.tried, row.artifact, row.log, now)
                continue
            if await self.audit(row, peer) is not None:
                return

    async def _challenge(
        self, challenge: AuditChallenge, numbers: PieceNumbers, peer: Peer
    ) -> tuple[str, bytes, str, int | None]:
        """The outcome, the answer, the reason in words, and the first wrong piece. Raises if the own copy is bad."""
        federation = self._membership.federation_id
        expected = expected_hashes(federation, challenge, numbers, self._pieces)
        line = b""
        try:
            reply = await self._ask(AuditOrder(federation, challenge), peer)
            line = reply.line
        except NotFound as error:
            return (NOT_HELD if error.code == "NOT-HELD" else MISSED), b"", str(error), None
        except ComityError as error:
            return MISSED, b"", str(error), None
        try:
            await self._pools.hashing(
                check_answer, federation, challenge, numbers, peer.record, line, reply.paths, expected
            )
        except AuditFailed as error:
            return error.reason, line, error.why, error.piece
        except OlderAnswer as error:
            return MISSED, b"", str(error), None
        return PASSED, line, "", None

    async def _ask(self, order: AuditOrder, peer: Peer) -> AuditReply:
        """Send a challenge to the first address that answers, for the node's seconds in all. Raises what the last one
        raised."""
        link = self._links.get(peer.key)
        failure = Unavailable(f"no address of {peer.name}", why="none is known", code="NO-ADDRESS")
        seconds = self._patience.get(peer.key, ANSWER_SECONDS)
        ends = asyncio.get_running_loop().time() + seconds
        for client in link.authenticated() if link else ():
            left = ends - asyncio.get_running_loop().time()
            if left <= 0:
                break
            try:
                reply = await client.with_timeout(left).audits.audit(order)
            except Unavailable as error:
                if isinstance(error, NotFound):
                    raise
                failure = error
            else:
                self._patience[peer.key] = min(ANSWER_SECONDS, seconds * 2**0.5)
                return reply
        self._patience[peer.key] = max(LEAST_ANSWER_SECONDS, seconds / 2)
        raise failure

    async def record(
        self, audited: AuditedCopy, challenge: AuditChallenge, line: bytes, piece: int | None, now: int
    ) -> None:
        """Keep the result of an audit of the time `now`, and log a failure. If this raises, the same call again adds
        nothing twice."""
        record, outcome = audited.peer.record, audited.outcome
        result = AuditResult(self._signer.record.member, now // DAY, outcome, audited.pieces)
        if outcome not in (PASSED, MISSED):
            entry, evidence = await self._pools.files(self._failure, record, challenge, outcome, line, piece, now)
            result = replace(result, proven=evidence)
            await self._own_log.append(entry.line)
            _log.warning("audit failed", node=record.name, artifact=challenge.artifact, reason=outcome, why=audited.why)
        fact = ResultFact(challenge.artifact, str(record.log), result)
        await self._ledger.run(self._index.add, [fact])
        if outcome in (PASSED, MISSED):
            own = OwnAudit(now // DAY, challenge.artifact, record.node.id, outcome == PASSED, audited.pieces, line)
            await self._ledger.run(self._index.add_own, own, challenge.nonce)
        self._metrics.audits.labels("failed" if outcome not in (PASSED, MISSED) else outcome).inc()

    def _failure(
        self, prover: NodeRecord, challenge: AuditChallenge, reason: str, line: bytes, piece: int | None, now: int
    ) -> tuple[Entry, bool]:
        """The statement of a failure, and whether it has an answer that the prover signed. Blocking."""
        claimed = AuditFailure(self._signer.record.node, challenge, now, reason)
        evident = replace(claimed, answer=line, piece=piece)
        failure = evident if is_evidence(evident, prover) else claimed
        return sign_content(failure, self._signer.online), failure is evident

    async def own_copy_failed(self, row: CopyRow, error: ComityError) -> None:
        """The copy of a row cannot be compared with the own one. Quarantine the file of the own one that is damaged."""
        if isinstance(error, DamagedPiece):
            await self._pools.files(self._pieces.quarantine, error)
            self._pieces.on_damaged()
        _log.info("copy cannot be audited from here", artifact=row.artifact, why=str(error))

    def peer(self, log: str) -> Peer | None:
        """The node of another member that writes a log."""
        members, own = self._membership, self._membership.own_node.inception.id
        known = (members.peer(PeerKey.of(record)) for record in members.records_of(log))
        found = (peer for peer in known if peer is not None and peer.member.id != own and str(peer.record.log) == log)
        return next(found, None)

    def _refilled(self) -> float:
        """Bytes that may be read now. An hour's share can be saved up."""
        per_day, now = self._settings.bytes_per_day, self._clock()
        if self._since is None:
            self._left = float(per_day) / 24
        else:
            self._left = min(per_day / 24, self._left + max(0.0, now - self._since) * per_day / DAY)
        self._since = now
        return self._left


def expected_hashes(
    federation: Digest, challenge: AuditChallenge, numbers: PieceNumbers, copy: PieceSource
) -> ExpectedHash:
    """The possession hashes of challenged pieces, from an own copy."""

    def expected(number: int, nonce: Digest) -> Digest:
        (read,) = read_pieces(federation, replace(challenge, numbers=(number,)), nonce, numbers, copy)
        return read.digest

    return expected


def _rows(audits: list[OwnAudit]) -> list[AuditRow]:
    rows: dict[tuple[Digest, Digest], AuditRow] = {}
    for audit in audits:
        key = audit.artifact, audit.node
        known = rows.get(key, AuditRow(*key, 0, 0, 0))
        rows[key] = AuditRow(
            *key, known.passed + audit.passed, known.pieces + audit.pieces, known.missed + (not audit.passed)
        )
    return list(rows.values())
