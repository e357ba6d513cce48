"""What a node says about the charter in its own log, with its online key: that it took up an epoch, and who lied.

Governance as this node sees it: what was decided is taken up, who lied is accused, and a fork stops it all.

Each step: read on in the logs; deliberate on what was said; take up every epoch that turns out certified, and say so in
the own log. Deciding is arithmetic over signed lines (`comity.trust.charter.tally.deliberate`): no node is asked, no clock is
read, and nothing else that the node does waits for it (I3). Two certificates for one epoch, made with keys that the
newest body lists, are a FORK (protocol, 7.7): from then on no epoch is taken up, until the operator names a branch.


Governance for the node's operators: where it stands, whose turn it is, and how old what is known of others is.

The charter as a node follows it. What is decided is computed from signed lines (`comity.trust.charter`).

annals       the epochs held, and the branch that is followed
hearing      what is said about one next epoch, within a share for each log
proceedings  the hearings, filled from the logs as they grow
witnesses    lines of those without a seat on which a draft rests
bodies, memo charter bodies from the store; signatures that were judged before
chamber      the loop: deliberate, take up, accuse, stop at a fork
asks         requests to join
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog

from comity.ledger.log_store import EntryQuery
from comity.node.charter.inbox import ReadStep, SignatureCache, StoredBodies, VoteReader, newcomer
from comity.node.context import NodeContext
from comity.node.epochs import EpochStore
from comity.node.members import Peer
from comity.node.own_log import OwnLog
from comity.trust.charter.certificate import Certificate, certify
from comity.trust.charter.document import Body, Member
from comity.trust.charter.equivocation import MISBEHAVIOUR, EquivocationProof, accusation
from comity.trust.charter.tally import DraftState, Fork, Tally, deliberate
from comity.trust.charter.votes import ADOPTED, adopted_statement
from comity.trust.encoding import Digest, short
from comity.trust.errors import Malformed, NotFound
from comity.trust.statement import Entry, SideObject, parse_entry, sign_statement
from comity.trust.statements import signed_by_node
from comity.wire.client import NodeClient
from comity.wire.messages import Charter, DraftStatus, DutyStatus, ForkStatus, GovernanceStatus, LogStatus, MemberStatus

MAX_ACCUSATIONS: Final = 8
"""Statements of one member's lies that this node logs: one convicts."""

_log: Final = structlog.get_logger("comity.node.charter")


class CharterPublisher:
    """Says each thing once, whatever happens between: the log itself is asked what was said."""

    def __init__(self, core: NodeContext, own_log: OwnLog) -> None:
        self._core = core
        self._own_log = own_log
        self._told: set[EquivocationProof] = set()
        """Lies that were said, of each member a few."""

    async def adopted(self, body: Body) -> None:
        """This node acts under `body`. A genesis needs no such word: all its members consented."""
        if body.epoch == 0 or await self._core.pools.ledger(self._said, body.digest):
            return
        await self._core.pools.files(self._core.store.put, body.digest, body.data)
        said = adopted_statement(body, self._core.seat.record.node.id)
        await self._own_log.append(sign_statement(said, self._core.keys.online).line)
        _log.info("epoch adopted", epoch=body.epoch, body=body.digest)

    async def introduce(self, members: Iterable[Member]) -> None:
        """Say again, where all will read it, the card of who asked here and has a seat now; then it waits no longer."""
        seats = {seat.id for seat in members}
        for member in seats.intersection(await self._core.pools.ledger(self._core.ledger.asks.waiting)):
            ask = await self._core.pools.ledger(self._core.ledger.asks.get, member)
            if ask is not None:
                await self._own_log.append_all(list(dict.fromkeys(ask.lines)))
                await self._core.pools.ledger(self._core.ledger.asks.drop, ask.member)
                _log.info("newcomer introduced", member=ask.member)

    async def accuse(self, lies: Iterable[EquivocationProof]) -> None:
        """Members have signed what excludes one another.

        The protocol (section 5) has a member say it; a node holds no governance key, and does not wait for somebody
        who does. Nobody has to believe it: the two lines convict by themselves.
        """
        for lie in lies:
            if lie in self._told:
                continue
            said = accusation(lie, self._core.seat.record.node)
            if not await self._core.pools.ledger(self._accused, lie.member, said.objects):
                for item, line in zip(said.objects, (lie.first, lie.second), strict=True):
                    await self._core.pools.files(self._core.store.put, item.digest, line)
                await self._own_log.append(sign_statement(said, self._core.keys.online).line)
            self._told.add(lie)

    def _said(self, body: Digest) -> bool:
        """Blocking."""
        return bool(self._core.ledger.index.find(self._mine(body, ADOPTED), limit=1))

    def _accused(self, member: Digest, shown: tuple[SideObject, ...]) -> bool:
        """Blocking. Whether the own log accuses a member of this already, or often enough."""
        known = self._core.ledger.index.find(self._mine(member, MISBEHAVIOUR), limit=MAX_ACCUSATIONS)
        return len(known) >= MAX_ACCUSATIONS or shown in [parse_entry(item.line).statement.objects for item in known]

    def _mine(self, subject: Digest, predicate: str) -> EntryQuery:
        return EntryQuery(
            subject=subject, predicate=predicate, by=self._core.seat.record.node.id, origin=self._core.log
        )


@dataclass(frozen=True, slots=True)
class CharterOutlook:
    """How things stand: what the last deliberation gave, the forks that are known, and every lie that was found."""

    council: Tally | None = None
    forks: tuple[Fork, ...] = ()
    lies: tuple[EquivocationProof, ...] = ()

    @property
    def stopped(self) -> bool:
        return any(not fork.retired for fork in self.forks)


class CharterFollower:
    """Follows the charter, a `step` at a time. Touched by the event loop only.

    Args:
        changed: called when who counts has changed: an epoch was taken up, or keys were rotated.
    """

    def __init__(
        self, core: NodeContext, annals: EpochStore, own_log: OwnLog, changed: Callable[[], Awaitable[None]]
    ) -> None:
        self._core = core
        self._word = CharterPublisher(core, own_log)
        self._changed = changed
        self.annals = annals
        self.memo = SignatureCache()
        self.proceedings = VoteReader(core, self.memo.signed)
        self.outlook = CharterOutlook()
        self.adopted: dict[str, Digest] = {}
        """By a node's log, the body that it said last it acts under."""
        self._turn = asyncio.Lock()
        """Peers are heard by loops of their own; epochs are taken up one by one."""
        self._newcoming: dict[tuple[Digest, Digest], list[Entry]] = {}
        """What those whom drafts would admit have said, by identity and the body that would be changed."""
        self._arrivals = 0
        """How often something of theirs came: what was looked up before that is not kept."""
        self._judged: dict[str, Digest] = {}
        """By a node's log, the body of which it was last asked for a proof."""
        self._bodies = StoredBodies(core.store)

    def open(self) -> None:
        """Begin to hear what is said about every epoch."""
        for body, successor in zip(self.annals.digests, self.annals.digests[1:], strict=False):
            self.proceedings.open(body, successor)
        self.proceedings.open(self.annals.newest.digest)
        self._core.metrics.charter_epoch.set(self.annals.newest.epoch)

    async def entries(self, body: Digest) -> list[Entry]:
        """All that is known to be said about the successor of `body`, with the lines of those it would admit."""
        hearing, members = self.proceedings.about(body), self._core.membership
        named = tuple(hearing.named())
        self._bodies.digests = frozenset((*self._bodies.digests, *named))
        found = dict(hearing.entries)
        for identity in members.known:
            steps = (step.entry for chain in members.chains(identity) for step in chain.steps)
            found |= {entry.digest: entry for entry in steps}
        newcomers = await self._core.pools.files(self._newcomers, named)
        if body == self.annals.newest.digest:
            self.proceedings.hopefuls = newcomers
            self._newcoming = {key: said for key, said in self._newcoming.items() if key[0] in newcomers}
        for identity in newcomers:
            found |= {entry.digest: entry for entry in await self._said_by(identity, body)}
        return list(found.values())

    async def _said_by(self, newcomer_: Digest, body: Digest) -> list[Entry]:
        known, before = self._newcoming.get((newcomer_, body)), self._arrivals
        if known is not None:
            return known
        said = await self._core.pools.ledger(newcomer, self._core.ledger, newcomer_, body, self.memo)
        if before == self._arrivals and newcomer_ in self.proceedings.hopefuls:
            self._newcoming[newcomer_, body] = said
        return said

    async def hear(self, peer: Peer, client: NodeClient) -> None:
        """Take over the epochs that a peer holds beyond ours; look at what it holds where it went another way."""
        await self._hear_rival(peer, client)
        if self.outlook.stopped:
            return
        try:
            told = await client.epochs(self.annals.newest.epoch + 1)
        except NotFound:
            return
        for charter in told:
            body, previous = _body(charter), self.annals.newest
            if body.prev != previous.digest:
                return  # another branch: its logs say so, and are reviewed
            await self._take_up(await self._certify(previous, body, charter.certificate))

    async def _hear_rival(self, peer: Peer, client: NodeClient) -> None:
        """Have the certificate of a body that the peer acts under and that excludes one of ours."""
        said = self.adopted.get(str(peer.record.log))
        log = str(peer.record.log)
        if said is None or said in self.annals.digests or said == self._judged.get(log):
            return
        for epoch in reversed(range(1, len(self.annals.digests))):
            try:
                charter = await client.charter(epoch)
            except NotFound:
                continue
            body = _body(charter)
            if body.digest in self.annals.digests:
                break
            if body.prev == self.annals.digests[epoch - 1]:
                previous = (await self._certificate(epoch - 1)).body
                rival = await self._certify(previous, body, charter.certificate)
                await self._core.pools.ledger(self.annals.keep, rival)
                await self._review(body.prev, [rival])
        self._judged[log] = said

    async def step(self) -> bool:
        """Read, deliberate, act; whether there is more to read at once."""
        first = self.outlook.council is None
        newest = self.annals.newest
        turn = await self.proceedings.read()
        rotated = await self._rotated(turn.rotated)
        self._note_adopted(turn)
        if first:
            for _, rival in await self._core.pools.ledger(self.annals.rivals):
                await self._review(rival.body.prev, [rival])
        for body in turn.heard - {self.annals.newest.digest}:
            await self._review(body)
        self._arrivals += len(turn.newcoming)
        self._newcoming = {key: said for key, said in self._newcoming.items() if key[0] not in turn.newcoming}
        if first or rotated or turn.newcoming or self.annals.newest.digest in turn.heard:
            await self._deliberate()
        await self._word.accuse(self.outlook.lies)
        await self._word.adopted(self.annals.newest)
        await self._word.introduce(self._core.membership.others)
        return turn.behind or rotated or self.annals.newest != newest

    async def _rotated(self, entries: Iterable[Entry]) -> bool:
        """Follow rotations; whether somebody speaks by new keys, so that lines that were passed over may count."""
        by_member: dict[Digest, list[Entry]] = {}
        for entry in entries:
            if entry.statement.by is not None:
                by_member.setdefault(entry.statement.by.id, []).append(entry)
        rotate = self._core.membership.rotate
        changed = [who for who, rotations in by_member.items() if rotate(who, rotations, signed=self.memo.signed)]
        if changed:
            self.proceedings.rehear()
            await self._changed()
        return bool(changed)

    def _note_adopted(self, turn: ReadStep) -> None:
        for log, entry in turn.adopted.items():
            record = self._core.membership.node(entry.statement.by) if entry.statement.by else None
            if record is not None and str(record.log) == log and signed_by_node(entry, record):
                self.adopted[log] = entry.statement.subject

    async def _deliberate(self) -> None:
        while not self.outlook.stopped:
            council = await self._council(self.annals.newest)
            self._note(council)
            chosen = [*council.epochs, *self._chosen(council.forks)]
            if not chosen:
                return
            for certificate in chosen:
                await self._take_up(certificate)

    def _chosen(self, forks: Iterable[Fork]) -> list[Certificate]:
        """The side of a fork that the operator's branch names."""
        sides = (side for fork in forks for side in (fork.first, fork.second))
        return [side for side in sides if side.body.digest == self.annals.branch][:1]

    async def _review(self, body: Digest | None, rivals: Sequence[Certificate] = ()) -> None:
        """Something new about an epoch that was decided: is there a rival to what was taken up?"""
        if body not in self.annals.digests[:-1]:
            return
        epoch = self.annals.digests.index(body)
        held = [await self._certificate(after) for after in range(epoch + 1, len(self.annals.digests))]
        previous = (await self._certificate(epoch)).body
        council = await self._council(previous, held=held, beside=rivals)
        for fork in council.forks:
            await self._core.pools.ledger(self.annals.keep, fork.second)
        self._note(council)

    async def _council(
        self, previous: Body, *, held: Sequence[Certificate] = (), beside: Sequence[Certificate] = ()
    ) -> Tally:
        entries = await self.entries(previous.digest)
        entries += [parse_entry(line) for certificate in (*held[:1], *beside) for line in certificate.lines]
        bodies = self._bodies.beside(certificate.body for certificate in beside)
        work = partial(deliberate, signed=self.memo.signed, parse=self._bodies.parse)
        return await self._core.pools.hashing(work, previous, entries, bodies, held=held)

    def _note(self, council: Tally) -> None:
        """Remember what was found; forks and lies for good, but for a fork that the operator has decided."""
        before = self.outlook
        open_ = (
            fork
            for fork in council.forks
            if not self.annals.decided(fork.first.body.epoch) and not self._chosen((fork,))
        )
        lies = _few((*before.lies, *council.lies))
        forks = {fork.second.body.digest: fork for fork in (*before.forks, *open_)}
        newest = council if council.current == self.annals.newest else before.council
        self.outlook = CharterOutlook(newest, tuple(forks.values()), lies)
        for lie in lies[len(before.lies) :]:
            _log.error("a member has signed what excludes one another", member=lie.member, kind=lie.kind)
        for fork in self.outlook.forks[len(before.forks) :]:
            what = "another history, made with retired keys" if fork.retired else "FORK: governance stops"
            first, second = fork.first.body, fork.second.body
            _log.error(what, epoch=first.epoch, first=first.digest, second=second.digest)
        metrics = self._core.metrics
        metrics.charter_forks.set(sum(not fork.retired for fork in self.outlook.forks))
        metrics.charter_liars.set(len({lie.member for lie in lies}))
        metrics.charter_drafts.set(len(newest.drafts) if newest else 0)

    async def _take_up(self, certificate: Certificate) -> None:
        async with self._turn:
            body, previous = certificate.body, self.annals.newest
            if self.outlook.stopped or not await self._core.pools.ledger(self.annals.keep, certificate):
                return
            self._core.membership.adopt(body)
            self.proceedings.open(previous.digest, body.digest)
            self.proceedings.open(body.digest)
            self._core.metrics.charter_epoch.set(body.epoch)
        _log.info("epoch taken up", epoch=body.epoch, body=body.digest, members=len(body.members))
        await self._changed()

    async def _certify(self, previous: Body, body: Body, lines: Sequence[bytes]) -> Certificate:
        return await self._core.pools.hashing(certify, previous, body, lines, signed=self.memo.signed)

    async def _certificate(self, epoch: int) -> Certificate:
        return await self._core.pools.ledger(self.annals.certificate, epoch)

    def _newcomers(self, named: Iterable[Digest]) -> frozenset[Digest]:
        """Blocking. Who would be admitted."""
        return frozenset(seat for digest in named for seat in self._bodies.seats(digest)) - set(
            self._core.membership.known
        )


def _few(lies: Iterable[EquivocationProof]) -> tuple[EquivocationProof, ...]:
    """The first lies of each member, each once: one convicts, and who lies more fills no memory."""
    kept: dict[Digest, dict[EquivocationProof, None]] = {}
    for lie in lies:
        known = kept.setdefault(lie.member, {})
        if len(known) < MAX_ACCUSATIONS:
            known[lie] = None
    return tuple(dict.fromkeys(lie for lie in lies if lie in kept[lie.member]))


def _body(charter: Charter) -> Body:
    body = Body.parse(charter.body)
    if body.epoch != charter.epoch:
        raise Malformed("not the charter asked for", why=f"its body is of epoch {body.epoch}, not {charter.epoch}")
    return body


STALE: Final = 24 * 3600
"""Seconds after which a member's newest head counts as old. Nothing follows from it but a word to the operator."""


def governance_report(
    core: NodeContext, chamber: CharterFollower, logs: Mapping[str, LogStatus], asks: int
) -> GovernanceStatus:
    """Args: logs: what is held of each log, by origin."""
    body, outlook = chamber.annals.newest, chamber.outlook
    council = outlook.council
    return GovernanceStatus(
        federation=body.federation,
        epoch=body.epoch,
        body=body.digest,
        stopped=outlook.stopped,
        round=council.round if council else 1,
        drafts=tuple(_draft(body, draft) for draft in council.drafts) if council else (),
        duties=tuple(_duties(core, body, council)) if council else (),
        forks=tuple(
            ForkStatus(fork.first.body.epoch, fork.first.body.digest, fork.second.body.digest, fork.retired)
            for fork in outlook.forks
        ),
        liars=tuple(dict.fromkeys(_name(body, lie.member) for lie in outlook.lies)),
        asks=asks,
        members=tuple(_members(core, chamber, logs)),
        crowded=tuple(log.partition("+")[0] for log in chamber.proceedings.full(body.digest)),
    )


def governance_warnings(status: GovernanceStatus, now: float) -> Iterator[str]:
    """What an operator should look at, most pressing first."""
    for fork in status.forks:
        first, second = short(fork.first), short(fork.second)
        if fork.retired:
            yield f"epoch {fork.epoch} has a second certificate, {second}, made with retired keys: it changes nothing"
        else:
            yield (
                f"FORK: epoch {fork.epoch} was certified twice, as {first} and {second}; no epoch is taken up until "
                "people decide and [federation] branch in node.toml names one"
            )
    for name in status.liars:
        yield f"{name} has signed what excludes one another: comity log misbehaviour shows the proof"
    for duty in status.duties:
        if duty.own:
            yield f"waiting for this member: {duty.why}"
    if status.asks:
        yield f"{status.asks} ask to be admitted" if status.asks > 1 else "somebody asks to be admitted"
    for log in status.crowded:
        yield f"{log} says more about the next charter than is kept of one log"
    for member in status.members:
        if member.heard and now - member.heard > STALE:
            yield f"{member.name}: its newest head is {int((now - member.heard) // 3600)} h old"


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


def _duties(core: NodeContext, body: Body, council: Tally) -> Iterator[DutyStatus]:
    for duty in council.duties:
        draft = council.draft(duty.body)
        seat = body.member(duty.member) or (draft.body.member(duty.member) if draft else None)
        own = duty.member == core.seat.inception.id
        name = seat.name if seat else duty.member[:12]
        yield DutyStatus(name, duty.action, duty.body, duty.round, duty.why, own)


def _members(core: NodeContext, chamber: CharterFollower, logs: Mapping[str, LogStatus]) -> Iterator[MemberStatus]:
    epochs = {digest: epoch for epoch, digest in enumerate(chamber.annals.digests)}
    for seat in core.membership.others:
        nodes = core.membership.nodes_of(seat.id)
        said = [chamber.adopted.get(str(node.record.log)) for node in nodes]
        heard = [logs[node.origin].checkpoint_time for node in nodes if node.origin in logs]
        known = [epochs[body] for body in said if body in epochs]
        yield MemberStatus(seat.name, max(known, default=None), max(heard, default=0))


def _name(body: Body, member: Digest) -> str:
    seat = body.member(member)
    return seat.name if seat else member[:12]
