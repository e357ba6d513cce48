"""Follows the charter at this node: adopts certified epochs, reports equivocations, and stops at a fork.

Each step reads the logs, computes the tally (`comity.rules.tally`), adopts every certified epoch, and logs
`adopted`, `misbehaviour` and newcomers' cards under the node's online key. The decision depends on signed statements
only: no node is asked, no clock is read, and no other task of the node waits for it (I3). Two certificates for one
epoch, made with keys that the newest body lists, are a FORK (protocol, 7.7): then no epoch is adopted until the
operator names a branch. Also here: the governance status and warnings for operators.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

import structlog

from comity.content.blobs import BlobStore
from comity.ledger.entry_index import EntryQuery
from comity.node.charter.inbox import ReadStep, SignatureCache, StoredBodies, VoteReader, newcomer_entries
from comity.node.context import NodeContext
from comity.node.epochs import EpochStore
from comity.node.members import Membership, Peer
from comity.node.own_log import OwnLog
from comity.node.threads import AsyncLedger, Pools
from comity.rules.equivocation import EquivocationProof, misbehaviour_statement
from comity.rules.tally import DraftState, Fork, Tally, compute_tally
from comity.trust.charter.certificate import Certificate, certify
from comity.trust.charter.document import Body, Member
from comity.trust.charter.votes import adopted_statement
from comity.trust.encoding import Digest, short
from comity.trust.errors import Malformed, NotFound
from comity.trust.frozen import frozen
from comity.trust.home_logs import inception_homes
from comity.trust.node_records import signed_by_node
from comity.trust.statement import Entry, SideObject, parse_entry, sign_statement
from comity.trust.statement_kinds import ADOPTED, MISBEHAVIOUR
from comity.wire.client import NodeClient
from comity.wire.node import Charter
from comity.wire.node_status import DraftStatus, DutyStatus, ForkStatus, GovernanceStatus, LogStatus, MemberStatus

MAX_REPORTS: Final = 8
"""Limit of `misbehaviour` statements about one member that this node logs. One is enough."""

_log: Final = structlog.get_logger("comity.node.charter")


class CharterPublisher:
    """Logs each statement once, also across restarts: it looks in the own log first."""

    def __init__(self, ledger: AsyncLedger, store: BlobStore, pools: Pools, own_log: OwnLog) -> None:
        self._ledger = ledger
        self._store = store
        self._pools = pools
        self._signer = own_log.signer
        self._own_log = own_log
        self._published: set[EquivocationProof] = set()
        """Proofs that were logged, a few of each member."""

    async def publish_adopted(self, body: Body) -> None:
        """Log that this node acts under `body`. Not for a genesis: all its members consented."""
        if body.epoch == 0 or await self._ledger.run(self._has_adopted, body.digest):
            return
        await self._pools.files(self._store.put, body.digest, body.data)
        statement = adopted_statement(body, self._signer.record.node.id)
        await self._own_log.append(sign_statement(statement, self._signer.online).line)
        _log.info("adopted statement logged", epoch=body.epoch, body=body.digest)

    async def publish_cards(self, members: Iterable[Member]) -> None:
        """Log the cards of join requests whose identity has a seat now, and remove the requests."""
        seats = {seat.id for seat in members}
        for member in seats.intersection(await self._ledger.run(self._ledger.tables.join_requests.waiting)):
            ask = await self._ledger.run(self._ledger.tables.join_requests.get, member)
            if ask is not None:
                await self._own_log.append_all(list(dict.fromkeys(ask.lines)))
                await self._ledger.run(self._ledger.tables.join_requests.drop, ask.member)
                _log.info("newcomer introduced", member=ask.member)

    async def report_equivocations(self, equivocations: Iterable[EquivocationProof]) -> None:
        """Log a `misbehaviour` statement for each proof.

        In the protocol (section 5) a member makes this statement; a node has no governance key and does not wait for
        one. The author does not matter: the two lines prove the equivocation by themselves.
        """
        for proof in equivocations:
            if proof in self._published:
                continue
            statement = misbehaviour_statement(proof, self._signer.record.node)
            if not await self._ledger.run(self._has_reported, proof.member, statement.objects):
                for item, line in zip(statement.objects, (proof.first, proof.second), strict=True):
                    await self._pools.files(self._store.put, item.digest, line)
                await self._own_log.append(sign_statement(statement, self._signer.online).line)
            self._published.add(proof)

    def _has_adopted(self, body: Digest) -> bool:
        """Blocking."""
        return bool(self._ledger.tables.index.find(self._mine(body, ADOPTED), limit=1))

    def _has_reported(self, member: Digest, shown: tuple[SideObject, ...]) -> bool:
        """Blocking. Whether the own log has this report of a member already, or the maximum of reports."""
        known = self._ledger.tables.index.find(self._mine(member, MISBEHAVIOUR), limit=MAX_REPORTS)
        return len(known) >= MAX_REPORTS or shown in [parse_entry(item.line).statement.objects for item in known]

    def _mine(self, subject: Digest, predicate: str) -> EntryQuery:
        return EntryQuery(
            subject=subject, predicate=predicate, by=self._signer.record.node.id, origin=str(self._signer.record.log)
        )


@frozen
class CharterFindings:
    """The last tally of the newest epoch, None until there is one, and all known forks and equivocations."""

    tally: Tally | None = None
    forks: tuple[Fork, ...] = ()
    equivocations: tuple[EquivocationProof, ...] = ()

    @property
    def stopped(self) -> bool:
        return any(not fork.retired for fork in self.forks)


class CharterFollower:
    """Follows the charter, one `step` at a time. Not thread-safe: call from the event loop.

    Args:
        changed: called when members or keys changed: an epoch was adopted, or keys were rotated.
    """

    def __init__(
        self,
        context: NodeContext,
        epoch_store: EpochStore,
        own_log: OwnLog,
        changed: Callable[[], Awaitable[None]],
    ) -> None:
        self._ledger = context.ledger
        self._pools = context.pools
        self._membership = context.membership
        self._metrics = context.metrics
        self._publisher = CharterPublisher(context.ledger, context.store, context.pools, own_log)
        self._changed = changed
        self.epoch_store = epoch_store
        self.signatures = SignatureCache()
        self.vote_reader = VoteReader(
            context.ledger, context.store, context.pools, context.membership, self.signatures.signed
        )
        self.findings = CharterFindings()
        self.adopted: dict[str, Digest] = {}
        """By a node's log, the body that the node stated last in `adopted`."""
        self._lock = asyncio.Lock()
        """Epochs are adopted one at a time; each peer has its own loop."""
        self._newcomer_entries: dict[tuple[Digest, Digest], list[Entry]] = {}
        """Cached statements of newcomers, by identity and the body that would be changed."""
        self._newcomer_generation = 0
        """Incremented by new statements of newcomers: a lookup started before is not cached."""
        self._checked: dict[str, Digest] = {}
        """By a node's log, the last rival body for which its certificates were fetched."""
        self._bodies = StoredBodies(context.store)

    def open(self) -> None:
        """Start reading statements about every epoch."""
        for body, successor in zip(self.epoch_store.digests, self.epoch_store.digests[1:], strict=False):
            self.vote_reader.open(body, successor)
        self.vote_reader.open(self.epoch_store.newest.digest)
        self._metrics.charter_epoch.set(self.epoch_store.newest.epoch)

    async def entries(self, body: Digest) -> list[Entry]:
        """All known statements about the successor of `body`, with rotations and the statements of newcomers."""
        inbox, members = self.vote_reader.inbox(body), self._membership
        named = tuple(inbox.named_bodies())
        self._bodies.digests = frozenset((*self._bodies.digests, *named))
        found = dict(inbox.entries)
        for identity in members.known:
            steps = (step.entry for chain in members.chains(identity) for step in chain.steps)
            found |= {entry.digest: entry for entry in steps}
        newcomers = await self._pools.files(self._newcomers, named)
        if body == self.epoch_store.newest.digest:
            self.vote_reader.newcomers = newcomers
            self._newcomer_entries = {
                key: entries for key, entries in self._newcomer_entries.items() if key[0] in newcomers
            }
        for identity in newcomers:
            found |= {entry.digest: entry for entry in await self._entries_of_newcomer(identity, body)}
        return list(found.values())

    async def _entries_of_newcomer(self, identity: Digest, body: Digest) -> list[Entry]:
        known, before = self._newcomer_entries.get((identity, body)), self._newcomer_generation
        if known is not None:
            return known
        entries = await self._ledger.run(newcomer_entries, self._ledger.tables, identity, body, self.signatures)
        if before == self._newcomer_generation and identity in self.vote_reader.newcomers:
            self._newcomer_entries[identity, body] = entries
        return entries

    def is_behind(self, peer: Peer, told: Digest | None) -> bool:
        """Whether `fetch_epochs` may find something: the peer follows a body that is not followed here.

        Args:
            told: the newest body that the peer says it follows.
        """
        log = str(peer.record.log)
        logged = self.adopted.get(log)
        rival = logged is not None and logged not in self.epoch_store.digests and logged != self._checked.get(log)
        return rival or (told is not None and told not in self.epoch_store.digests)

    async def fetch_epochs(self, peer: Peer, client: NodeClient) -> None:
        """Fetch a peer's epochs after the newest one here and adopt them, and fetch the certificate of a rival body."""
        await self._fetch_rival(peer, client)
        await self.fetch_next(client)

    async def fetch_next(self, client: NodeClient) -> None:
        """Fetch the epochs after the newest one here, as many as one answer has, and adopt them."""
        if self.findings.stopped:
            return
        try:
            fetched = await client.epochs(self.epoch_store.newest.epoch + 1)
        except NotFound:
            return
        for charter in fetched:
            body, previous = _parse_body(charter), self.epoch_store.newest
            if body.prev != previous.digest:
                return  # another branch: `step` finds it in the logs
            await self._adopt(await self._certify(previous, body, charter.certificate))

    async def _fetch_rival(self, peer: Peer, client: NodeClient) -> None:
        """Fetch the certificate of a body that the peer acts under, if it excludes a body adopted here."""
        adopted = self.adopted.get(str(peer.record.log))
        log = str(peer.record.log)
        if adopted is None or adopted in self.epoch_store.digests or adopted == self._checked.get(log):
            return
        for epoch in reversed(range(1, len(self.epoch_store.digests))):
            try:
                charter = await client.charter(epoch)
            except NotFound:
                continue
            body = _parse_body(charter)
            if body.digest in self.epoch_store.digests:
                break
            if body.prev == self.epoch_store.digests[epoch - 1]:
                previous = (await self._certificate(epoch - 1)).body
                rival = await self._certify(previous, body, charter.certificate)
                await self._ledger.run(self.epoch_store.keep, rival)
                await self._find_rivals(body.prev, [rival])
        self._checked[log] = adopted

    async def step(self) -> bool:
        """Read, compute the tally, and act. Returns whether there is more to read now."""
        uncounted = self.findings.tally is None
        newest = self.epoch_store.newest
        result = await self.vote_reader.read()
        rotated = await self._rotated(result.rotated)
        self._record_adopted(result)
        if uncounted:
            for _, rival in await self._ledger.run(self.epoch_store.rivals):
                await self._find_rivals(rival.body.prev, [rival])
        for body in result.updated - {self.epoch_store.newest.digest}:
            await self._find_rivals(body)
        self._newcomer_generation += len(result.newcomers)
        self._newcomer_entries = {
            key: entries for key, entries in self._newcomer_entries.items() if key[0] not in result.newcomers
        }
        if uncounted or rotated or result.newcomers or self.epoch_store.newest.digest in result.updated:
            await self._adopt_certified()
        await self._publisher.report_equivocations(self.findings.equivocations)
        await self._publisher.publish_adopted(self.epoch_store.newest)
        await self._publisher.publish_cards(self._membership.others)
        return result.behind or rotated or self.epoch_store.newest != newest

    async def _rotated(self, entries: Iterable[Entry]) -> bool:
        """Apply rotations. Returns whether a member has new keys, so skipped statements may count."""
        by_member: dict[Digest, list[Entry]] = {}
        for entry in entries:
            if entry.statement.by is not None:
                by_member.setdefault(entry.statement.by.id, []).append(entry)
        rotate = self._membership.rotate
        changed = [who for who, rotations in by_member.items() if rotate(who, rotations, signed=self.signatures.signed)]
        if changed:
            self.vote_reader.reread()
            await self._changed()
        return bool(changed)

    def _record_adopted(self, result: ReadStep) -> None:
        for log, entry in result.adopted.items():
            record = self._membership.node(entry.statement.by) if entry.statement.by else None
            if record is not None and str(record.log) == log and signed_by_node(entry, record):
                self.adopted[log] = entry.statement.subject

    async def _adopt_certified(self) -> None:
        while not self.findings.stopped:
            tally = await self._compute_tally(self.epoch_store.newest)
            self._record_findings(tally)
            chosen = [*tally.epochs, *self._chosen(tally.forks)]
            if not chosen:
                return
            for certificate in chosen:
                await self._adopt(certificate)

    def _chosen(self, forks: Iterable[Fork]) -> list[Certificate]:
        """The side of a fork that the operator's `branch` setting names."""
        sides = (side for fork in forks for side in (fork.first, fork.second))
        return [side for side in sides if side.body.digest == self.epoch_store.branch][:1]

    async def _find_rivals(self, body: Digest | None, rivals: Sequence[Certificate] = ()) -> None:
        """Find and store rivals of the adopted epoch after `body`."""
        if body not in self.epoch_store.digests[:-1]:
            return
        epoch = self.epoch_store.digests.index(body)
        adopted = [await self._certificate(after) for after in range(epoch + 1, len(self.epoch_store.digests))]
        previous = (await self._certificate(epoch)).body
        tally = await self._compute_tally(previous, adopted=adopted, rivals=rivals)
        for fork in tally.forks:
            await self._ledger.run(self.epoch_store.keep, fork.second)
        self._record_findings(tally)

    async def _compute_tally(
        self, previous: Body, *, adopted: Sequence[Certificate] = (), rivals: Sequence[Certificate] = ()
    ) -> Tally:
        entries = await self.entries(previous.digest)
        entries += [parse_entry(line) for certificate in (*adopted[:1], *rivals) for line in certificate.lines]
        bodies = self._bodies.with_bodies(certificate.body for certificate in rivals)
        work = partial(compute_tally, signed=self.signatures.signed, parse=self._bodies.parse)
        return await self._pools.hashing(work, previous, entries, bodies, adopted=adopted)

    def _record_findings(self, tally: Tally) -> None:
        """Update the findings. Forks and equivocations are kept permanently, except forks that the operator decided."""
        before = self.findings
        open_forks = (
            fork
            for fork in tally.forks
            if not self.epoch_store.decided(fork.first.body.epoch) and not self._chosen((fork,))
        )
        equivocations = _limit_per_member((*before.equivocations, *tally.equivocations))
        forks = {fork.second.body.digest: fork for fork in (*before.forks, *open_forks)}
        newest = tally if tally.current == self.epoch_store.newest else before.tally
        self.findings = CharterFindings(newest, tuple(forks.values()), equivocations)
        for proof in equivocations[len(before.equivocations) :]:
            _log.error("a member equivocated: it signed conflicting votes", member=proof.member, kind=proof.kind)
        for fork in self.findings.forks[len(before.forks) :]:
            what = (
                "second certificate of an epoch, made with retired keys" if fork.retired else "FORK: governance stops"
            )
            first, second = fork.first.body, fork.second.body
            _log.error(what, epoch=first.epoch, first=first.digest, second=second.digest)
        metrics = self._metrics
        metrics.charter_forks.set(sum(not fork.retired for fork in self.findings.forks))
        metrics.charter_equivocators.set(len({proof.member for proof in equivocations}))
        metrics.charter_drafts.set(len(newest.drafts) if newest else 0)

    def votes_waiting(self, member: Digest) -> int:
        """Votes about open drafts that a member has not cast."""
        tally = self.findings.tally
        return sum(duty.member == member for duty in tally.duties) if tally else 0

    async def _adopt(self, certificate: Certificate) -> None:
        async with self._lock:
            body, previous = certificate.body, self.epoch_store.newest
            if self.findings.stopped or not await self._ledger.run(self.epoch_store.keep, certificate):
                return
            self._membership.adopt(body)
            self.findings = replace(self.findings, tally=None)  # its drafts and duties were about the epoch before
            self.vote_reader.open(previous.digest, body.digest)
            self.vote_reader.open(body.digest)
            self._metrics.charter_epoch.set(body.epoch)
        self._membership.name_homes(await self._pools.hashing(_inception_homes, certificate))
        _log.info("epoch adopted", epoch=body.epoch, body=body.digest, members=len(body.members))
        await self._changed()

    async def _certify(self, previous: Body, body: Body, lines: Sequence[bytes]) -> Certificate:
        return await self._pools.hashing(certify, previous, body, lines, signed=self.signatures.signed)

    async def _certificate(self, epoch: int) -> Certificate:
        return await self._ledger.run(self.epoch_store.certificate, epoch)

    def _newcomers(self, named: Iterable[Digest]) -> frozenset[Digest]:
        """Blocking. The ids of seats in the `named` bodies that are not members."""
        return frozenset(seat for digest in named for seat in self._bodies.seat_ids(digest)) - set(
            self._membership.known
        )


def _inception_homes(certificate: Certificate) -> Mapping[Digest, str]:
    """Blocking. What the inceptions of members in a certificate name as home logs: those of all new members."""
    return inception_homes(map(parse_entry, certificate.lines))


def _limit_per_member(equivocations: Iterable[EquivocationProof]) -> tuple[EquivocationProof, ...]:
    """At most `MAX_REPORTS` proofs of each member, each once, so no member can fill the memory."""
    kept: dict[Digest, dict[EquivocationProof, None]] = {}
    for proof in equivocations:
        known = kept.setdefault(proof.member, {})
        if len(known) < MAX_REPORTS:
            known[proof] = None
    return tuple(dict.fromkeys(proof for proof in equivocations if proof in kept[proof.member]))


def _parse_body(charter: Charter) -> Body:
    body = Body.parse(charter.body)
    if body.epoch != charter.epoch:
        raise Malformed("the node sent another charter", why=f"its body is of epoch {body.epoch}, not {charter.epoch}")
    return body


STALE: Final = 24 * 3600
"""Age in seconds of a member's newest checkpoint that causes a warning to the operator, and nothing else."""


def governance_report(
    membership: Membership, follower: CharterFollower, logs: Mapping[str, LogStatus], join_requests: int
) -> GovernanceStatus:
    """The governance status. `logs`: the status of each log held here, by its verifier key."""
    body, findings = follower.epoch_store.newest, follower.findings
    tally = findings.tally
    return GovernanceStatus(
        federation=body.federation,
        epoch=body.epoch,
        body=body.digest,
        stopped=findings.stopped,
        round=tally.round if tally else 1,
        drafts=tuple(_draft(body, draft) for draft in tally.drafts) if tally else (),
        duties=tuple(_duties(membership.own_node.inception.id, body, tally)) if tally else (),
        forks=tuple(
            ForkStatus(fork.first.body.epoch, fork.first.body.digest, fork.second.body.digest, fork.retired)
            for fork in findings.forks
        ),
        liars=tuple(dict.fromkeys(_name(body, proof.member) for proof in findings.equivocations)),
        asks=join_requests,
        members=tuple(_members(membership, follower, logs)),
        crowded=tuple(log.partition("+")[0] for log in follower.vote_reader.full(body.digest)),
    )


def governance_warnings(status: GovernanceStatus, now: float) -> Iterator[str]:
    """Warnings for the operator, the most urgent first."""
    for fork in status.forks:
        first, second = short(fork.first), short(fork.second)
        if fork.retired:
            yield f"epoch {fork.epoch} has a second certificate, {second}, made with retired keys: it changes nothing"
        else:
            yield (
                f"FORK: epoch {fork.epoch} was certified twice, as {first} and {second}; no epoch is adopted until "
                "people decide and [federation] branch in node.toml names one"
            )
    for name in status.liars:
        yield f"{name} signed conflicting votes: comity log misbehaviour shows the proof"
    for duty in status.duties:
        if duty.own:
            yield f"waiting for this member: {duty.why}"
    if status.asks:
        yield f"{status.asks} join requests are waiting" if status.asks > 1 else "1 join request is waiting"
    for log in status.crowded:
        yield f"{log} is above its quota of statements about the next charter"
    for member in status.members:
        if member.heard and now - member.heard > STALE:
            yield f"{member.name}: its newest checkpoint is {int((now - member.heard) // 3600)} h old"


def _draft(body: Body, draft: DraftState) -> DraftStatus:
    at = max((*draft.intents, *draft.ratified), default=0)
    return DraftStatus(
        body=draft.body.digest,
        by=_name(body, draft.by) if draft.by else "",
        text=draft.text,
        intents=len(draft.intents.get(at, ())),
        ratified=len(draft.ratified.get(at, ())),
        quorum=body.quorum,
        missing=tuple(seat.name for seat in draft.missing),
        objection=draft.objection or "",
    )


def _duties(member: Digest, body: Body, tally: Tally) -> Iterator[DutyStatus]:
    for duty in tally.duties:
        draft = tally.draft(duty.body)
        seat = body.member(duty.member) or (draft.body.member(duty.member) if draft else None)
        own = duty.member == member
        name = seat.name if seat else duty.member[:12]
        yield DutyStatus(name, duty.action, duty.body, duty.round, duty.why, own)


def _members(
    membership: Membership, follower: CharterFollower, logs: Mapping[str, LogStatus]
) -> Iterator[MemberStatus]:
    epochs = {digest: epoch for epoch, digest in enumerate(follower.epoch_store.digests)}
    for seat in membership.others:
        nodes = membership.nodes_of(seat.id)
        adopted = [follower.adopted.get(str(node.record.log)) for node in nodes]
        times = [logs[log].checkpoint_time for node in nodes if (log := str(node.record.log)) in logs]
        known = [epochs[body] for body in adopted if body in epochs]
        yield MemberStatus(seat.name, max(known, default=None), max(times, default=0))


def _name(body: Body, member: Digest) -> str:
    seat = body.member(member)
    return seat.name if seat else member[:12]
