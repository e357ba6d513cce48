"""Members, logs, drafts and alerts as every page shows them: one snapshot, kept for a moment.

The values are those of `comity status`. Only what a reader may know is taken: no addresses, no errors of the network,
no quotas and no paths, which are for operators.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Final, Literal, TypeAlias, get_args

from comity.gateway.console.copies import CopyCounts
from comity.gateway.console.index import ArtifactIndex
from comity.gateway.console.recent import RecentStatements
from comity.gateway.console.words import marked
from comity.ledger.ledger import Ledger
from comity.ledger.proven import Page, ProvenLine, ProvenPublication
from comity.node.charter.follower import STALE, governance_report
from comity.node.file_index import FileIndexReader
from comity.node.front_end import RunningFrontEnd
from comity.node.home import ServedHome
from comity.node.lost_keys import FoundLostKeys, LostKeys
from comity.node.offers.index import OfferIndex
from comity.node.publisher_watch import WatchReader
from comity.node.pull_counts import PullCounts
from comity.node.replication.setup import ReplicationTasks
from comity.node.services.descent import DescentCounter
from comity.node.status import LogStates, peer_status
from comity.rules.copy_counts import CopyPolicy
from comity.rules.precedence import Precedence
from comity.trust.charter.document import Body, Member
from comity.trust.encoding import Digest, short
from comity.trust.errors import Malformed
from comity.trust.frozen import frozen
from comity.trust.names import UPSTREAM
from comity.trust.statement import Author, Entry, Statement, Subject, parse_entry
from comity.trust.statement_kinds import (
    ADVISORY,
    PUBLICATION_PREDICATES,
    PUBLISHED,
    STATEMENT_KINDS,
)
from comity.trust.statements import Advisory
from comity.wire.node_status import GovernanceStatus, LogStatus, PeerStatus

FRESH: Final = 2.0
"""Seconds for which a snapshot is kept."""
MAX_FAULTS: Final = 20
MAX_ADVISORIES: Final = 64
"""Advisories about one artifact among which those of its publisher come first."""
MAX_VERSIONS: Final = 16
"""Names of one artifact among which those of one publisher are shown: those of the author of a statement, and of
members, come first."""
MAX_NAMES: Final = 64
"""Names of one artifact among which those are sought that a reader may read, in the same order."""

Readable: TypeAlias = Callable[[str], bool]
"""Whether a reader may read the repository of this name."""
NodeState = Literal["here", "up", "down", "unknown"]
Severity = Literal["alarm", "warning", "notice"]
Situation = Literal["alone", "single", "empty", "running"]
"""Of a node: in no federation; in one of a single member; in one without artifacts; or none of these."""

LOST_KEY: Final = "lost-key"
"""The kind under which an advisory about a key is shown."""
STATEMENTS: Final[Mapping[str, str]] = {
    **{kind.predicate: kind.did for kind in STATEMENT_KINDS.values() if kind.logged},
    LOST_KEY: marked("Reported a lost key"),
}
"""What the author of a statement of each kind did. Other kinds are shown by their own names."""


@frozen
class WriterFacts:
    """What only the process that writes the ledger knows: votes under way, which peers answer, what is at a limit; the
    offers of machines; the pulls from it; which artifacts have a file, what concerns publishers, and from whom
    artifacts descend."""

    replication: ReplicationTasks
    offers: OfferIndex
    pulls: PullCounts
    files: FileIndexReader
    watch: WatchReader
    descent: DescentCounter


@frozen
class FrontEndView:
    """A process that only reads. `runs`: its writer gave a sign of life; `writer` is where that is reached, or
    empty."""

    runs: bool
    writer: str


@frozen
class NodeView:
    """A node of a member. `lag` counts entries of its log that are not copied here yet; `last_seen` 0 for never."""

    name: str
    origin: str
    state: NodeState
    last_seen: int = 0
    lag: int = 0


@frozen
class MemberView:
    """A member of the newest charter. `copies` it claims; `sole` are those that nobody else claims."""

    id: Digest
    name: str
    jurisdiction: str
    active: bool
    own: bool
    nodes: tuple[NodeView, ...]
    copies: int
    sole: int
    checkpoint_time: int
    epoch: int | None

    @property
    def state(self) -> NodeState:
        """The best state of its nodes."""
        states = {node.state for node in self.nodes}
        order: tuple[NodeState, ...] = ("here", "up", "down")
        return next((state for state in order if state in states), "unknown")

    @property
    def reachable(self) -> bool:
        return self.state in ("here", "up")

    @property
    def lag(self) -> int:
        return min((node.lag for node in self.nodes), default=0)

    @property
    def last_seen(self) -> int:
        return max((node.last_seen for node in self.nodes), default=0)


@frozen
class Alert:
    """`text` is a message, with `values` for its placeholders; `link` is the address of a page with more, or empty."""

    severity: Severity
    text: str
    values: Mapping[str, object]
    link: str = ""


@frozen
class RecentEntry:
    """An entry of a log, and what it is about. `page` is the address of the artifact's page, or empty. `when`: when
    this node had verified it (`ProvenTimes`), 0 where that was not asked; `withdrawn`: it is a publication, and its
    publisher withdrew the artifact."""

    kind: str
    subject: str
    by: str
    origin: str
    vkey: str
    index: int
    page: str = ""
    when: int = 0
    withdrawn: bool = False


@frozen
class FederationState:
    """One snapshot. `now` in POSIX seconds; `logs` by verifier key, this node's first; `copies` counts all claims,
    `copies_now` those of reachable members, `copies_tested` those that an audit of another member found. At a front
    end, `copies_now` and `governance` are None, which only the writer's process knows."""

    now: float
    node: str
    body: Body | None
    rule: CopyPolicy
    members: tuple[MemberView, ...]
    logs: Mapping[str, LogStatus]
    governance: GovernanceStatus | None
    copies: CopyCounts
    copies_now: CopyCounts | None
    copies_tested: CopyCounts
    alerts: tuple[Alert, ...]
    recent: tuple[RecentEntry, ...]
    indexed: bool
    front_end: FrontEndView | None

    @property
    def reachable(self) -> int:
        return sum(member.reachable for member in self.members)

    @property
    def oldest_checkpoint(self) -> LogStatus | None:
        """The log of a member whose newest checkpoint was cosigned longest ago; None if no log has one."""
        seen = [log for log in self.logs.values() if log.checkpoint_time]
        return min(seen, key=lambda log: log.checkpoint_time, default=None)

    def member(self, identity: str) -> MemberView | None:
        return next((member for member in self.members if member.id == identity), None)

    @property
    def jurisdictions(self) -> tuple[str, ...]:
        return tuple(sorted({member.jurisdiction for member in self.members}))

    @property
    def situation(self) -> Situation:
        """From which the pages take what to do next."""
        if self.body is None:
            return "alone"
        if len(self.members) == 1:
            return "single"
        return "empty" if self.indexed and not self.copies.total else "running"


class StateReader:
    """Makes snapshots; one at a time, however many readers wait. Not thread-safe: call from the event loop."""

    def __init__(
        self,
        home: ServedHome,
        process: WriterFacts | RunningFrontEnd,
        index: ArtifactIndex,
        recent: RecentStatements,
    ) -> None:
        self._ledger = home.ledger
        self._pools = home.pools
        self._membership = home.membership
        self._clock = home.clock
        self._writer = process if isinstance(process, WriterFacts) else None
        self._front_end = process if isinstance(process, RunningFrontEnd) else None
        self._index = index
        self._recent = recent
        self._lost_keys = LostKeys(home.ledger, lambda: home.membership.precedence)
        self._log_states = LogStates(
            home.ledger, home.membership, self._writer.replication if self._writer else None, home.clock
        )
        self._cached: tuple[float, FederationState] | None = None
        self._lock = asyncio.Lock()

    @property
    def indexed(self) -> bool:
        """Whether the index knows the names of artifacts."""
        return self._index.ready

    async def now(self) -> FederationState:
        async with self._lock:
            clock = asyncio.get_running_loop().time()
            if self._cached is None or clock - self._cached[0] > FRESH:
                self._cached = clock, await self._read()
            return self._cached[1]

    async def _read(self) -> FederationState:
        ledger, body = self._ledger, self._membership.body
        logs = await ledger.run(self._log_states.by_key)
        follower = self._writer.replication.charter_follower if self._writer else None
        governance = None
        if follower is not None:
            governance = governance_report(self._membership, follower, logs, 0)
        rule, listing = CopyPolicy.of(body.policy if body else None), self._index.listing
        sets = dict(listing.sets)
        by_bit = await self._pools.hashing(listing.holders.by_bit, sets)
        members = tuple(self._members(governance, logs, sets, by_bit))
        copies = await self._pools.hashing(listing.holders.count, sets, rule)
        copies_now = None
        if self._writer:
            reachable = {member.id for member in members if member.reachable}
            away = sum(listing.holders.bit(seat) for seat in self._seats() if seat.id not in reachable)
            copies_now = await self._pools.hashing(listing.holders.count, sets, rule, away)
        copies_tested = await self._pools.hashing(listing.holders.count, dict(listing.tested), rule)
        return FederationState(
            now=self._clock(),
            node=self._membership.own_node.record.name,
            body=body,
            rule=rule,
            members=members,
            logs=logs,
            governance=governance,
            copies=copies,
            copies_now=copies_now,
            copies_tested=copies_tested,
            alerts=most_urgent_first(self._alerts(logs, governance, members, copies, await self._lost_keys.now())),
            recent=await ledger.run(self._entries, await self._recent.now()),
            indexed=self._index.ready,
            front_end=self._view,
        )

    @property
    def _view(self) -> FrontEndView | None:
        front_end = self._front_end
        return FrontEndView(front_end.followed.age().writer, front_end.writer.writer) if front_end else None

    def _seats(self) -> tuple[Member, ...]:
        return self._membership.body.members if self._membership.body else ()

    def _members(
        self,
        governance: GovernanceStatus | None,
        logs: Mapping[str, LogStatus],
        sets: Mapping[int, int],
        by_bit: Mapping[int, int],
    ) -> Iterator[MemberView]:
        """`sets`: how many artifacts each set of members holds; `by_bit`: how many each member holds."""
        holders, own = self._index.listing.holders, self._membership.own_node
        adopted = {known.name: known.epoch for known in governance.members} if governance else {}
        for seat in sorted(self._seats(), key=lambda seat: (seat.jurisdiction, seat.name)):
            bit, mine = holders.bit(seat), seat.id == own.inception.id
            nodes = tuple(self._nodes(seat, mine))
            times = [logs[log].checkpoint_time for log in self._logs_of(seat, mine) if log in logs]
            yield MemberView(
                id=seat.id,
                name=seat.name,
                jurisdiction=seat.jurisdiction,
                active=seat.active,
                own=mine,
                nodes=nodes,
                copies=by_bit.get(bit, 0),
                sole=sets.get(bit, 0) if bit else 0,
                checkpoint_time=max(times, default=0),
                epoch=governance.epoch if mine and governance else adopted.get(seat.name),
            )

    def _logs_of(self, seat: Member, mine: bool) -> Iterator[str]:
        if mine:
            yield self._membership.own_node.log
        yield from (str(peer.record.log) for peer in self._membership.nodes_of(seat.id))

    def _nodes(self, seat: Member, mine: bool) -> Iterator[NodeView]:
        if mine:
            record = self._membership.own_node.record
            yield NodeView(record.name, record.origin, "here", int(self._clock()))
        links = self._writer.replication.peers.links if self._writer else {}
        for peer in self._membership.nodes_of(seat.id):
            link = links.get(peer.key)
            if link is None:
                yield NodeView(peer.name, peer.origin, "unknown")
                continue
            status = peer_status(link, self._membership.body)
            yield NodeView(peer.name, peer.origin, peer_state(status), status.last_seen, status.lag)

    def _alerts(
        self,
        logs: Mapping[str, LogStatus],
        governance: GovernanceStatus | None,
        members: Iterable[MemberView],
        copies: CopyCounts,
        lost: FoundLostKeys,
    ) -> Iterator[Alert]:
        """In no order of urgency."""
        titles = {vkey: self._membership.log_title(vkey) for vkey in logs}
        for vkey, log in logs.items():
            if log.frozen:
                text = marked("The log %(log)s has shown two different histories. It is frozen here at size %(size)s.")
                yield Alert("alarm", text, {"log": titles[vkey], "size": log.size}, "/-/logs")
        if self._view is not None and not self._view.runs:
            text = marked("The writer of this node does not run. Nothing new is logged or copied here.")
            yield Alert("warning", text, {})
        if self._writer is not None and self._writer.replication.own_log.refusal is not None:
            yield Alert("alarm", marked("This node signs nothing at the moment. Its operator has to act."), {})
        if governance is not None:
            yield from _governance_alerts(governance)
        for vkey, chain in self._writer.offers.faulty()[:MAX_FAULTS] if self._writer else ():
            values = {"log": self._membership.log_title(vkey), "offer": chain.state.offer.title}
            yield Alert("alarm", marked("%(log)s broke the terms of its offer “%(offer)s”."), values, "/-/compute")
        yield from lost_key_alerts(lost)
        if copies.none:
            text = marked("Artifacts of which no member claims a complete copy: %(count)s.")
            yield Alert("warning", text, {"count": copies.none}, "/-/catalogue?copies=short")
        if copies.short - copies.none > 0:
            text = marked("Artifacts with fewer copies than the charter asks for: %(count)s.")
            yield Alert("warning", text, {"count": copies.short - copies.none}, "/-/catalogue?copies=short")
        for member in members:
            if member.state == "down":
                text = marked("%(member)s (%(jurisdiction)s) does not answer.")
                values = {"member": member.name, "jurisdiction": member.jurisdiction}
                yield Alert("warning", text, values, "/-/members")
            elif member.checkpoint_time and self._clock() - member.checkpoint_time > STALE:
                text = marked("The newest checkpoint of %(member)s is older than a day.")
                yield Alert("warning", text, {"member": member.name}, "/-/logs")
        for vkey, log in logs.items():
            if log.full:
                text = marked("The log %(log)s has reached a limit of this node and does not advance.")
                yield Alert("warning", text, {"log": titles[vkey]}, "/-/logs")
        if self._membership.federation is None:
            yield Alert("notice", marked("This node belongs to no federation yet."), {})

    def _entries(self, lines: Iterable[ProvenLine]) -> tuple[RecentEntry, ...]:
        """Blocking. Newest statements, with when they were verified and what was withdrawn."""
        listed, tables = list(lines), self._ledger.tables
        times = tables.proven_times.verified_at(line.number for line in listed)
        return tuple(
            replace(self.entry(line), when=times[line.number], withdrawn=self._withdrawn_line(line)) for line in listed
        )

    def _withdrawn_line(self, line: ProvenLine) -> bool:
        statement = parse_entry(line.line).statement
        if statement.predicate != PUBLISHED or statement.by is None:
            return False
        return withdrawn(self._ledger.tables, statement.subject, statement.by.id)

    def entry(self, line: ProvenLine) -> RecentEntry:
        """Blocking. A verified line, and whose statement it is."""
        entry = parse_entry(line.line)
        return self._entry(line, entry, *self.subject(entry))

    def entry_for(self, line: ProvenLine, readable: Readable | None) -> RecentEntry | None:
        """Blocking. As `entry`, as a reader sees it who may read some repositories only; None if it concerns none of
        them. What has a name concerns the repository of that name; an artifact, all repositories that have it; a
        publisher, its repositories; a member or a node, everybody. Of an artifact or a publisher with more names than
        are looked at, everything is shown, so that nobody hides a warning by giving many names.

        Args:
            readable: None for a reader of everything.
        """
        entry = parse_entry(line.line)
        if readable is None:
            return self._entry(line, entry, *self.subject(entry))
        each = (self._subject_for(entry, subject, readable) for subject in entry.statement.subjects)
        found = next((shown for shown in each if shown is not None), None)
        return self._entry(line, entry, *found) if found is not None else None

    def _entry(self, line: ProvenLine, entry: Entry, subject: str, page: str) -> RecentEntry:
        by = self.author(entry.statement.by)
        return RecentEntry(kind_of(entry), subject, by, line.origin, line.vkey, line.index, page)

    def _subject_for(self, entry: Entry, subject: Subject, readable: Readable) -> tuple[str, str] | None:
        """Blocking. What an entry is about, by this subject, by names that the reader may read."""
        if subject.name:
            repository = subject.name.removeprefix(UPSTREAM).partition("@")[0]
            return described(entry.statement, subject) if readable(repository) else None
        published = self._published(subject.digest, entry.statement.by, MAX_NAMES)
        if (named := _names(published.found, entry.statement.by, readable)) is not None:
            return named
        if not (published.limited or self._concerns(subject.digest, readable)):
            return None
        return self._lost_key(entry) or described(entry.statement, subject)

    def _concerns(self, identity: Digest, readable: Readable) -> bool:
        """Blocking. Whether an identity is a member or a node, or a publisher in what a reader may read."""
        membership = self._membership
        if membership.member(identity) is not None or membership.node(Author("node", identity)) is not None:
            return True
        names = self._ledger.tables.proven.names_claimed_by(identity)
        return names.limited or any(readable(name.removeprefix(UPSTREAM)) for name in names.found)

    def subject(self, entry: Entry) -> tuple[str, str]:
        """Blocking. What an entry is about, by the names that were given to the artifact, and the address of a page."""
        first = entry.statement.subjects[0] if entry.statement.subjects else None
        if (lost := self._lost_key(entry)) is not None:
            return lost
        if first is None or first.name:
            return subject_of(entry)
        published = self._published(first.digest, entry.statement.by, MAX_VERSIONS)
        return _names(published.found, entry.statement.by) or subject_of(entry)

    def _lost_key(self, entry: Entry) -> tuple[str, str] | None:
        """Blocking. What a report of a lost key is about; None for another entry."""
        return (f"a key of {self.author(entry.statement.by)}", "") if kind_of(entry) == LOST_KEY else None

    def _published(self, artifact: Digest, by: Author | None, most: int) -> Page[ProvenPublication]:
        """Blocking. Publications of an artifact: those of the author of a statement first, then those of members."""
        precedence = self._membership.precedence.naming([by.id] if by is not None else ())
        return self._ledger.tables.proven.publications_of(artifact, most, precedence)

    def authors(self, identities: Iterable[Digest]) -> Mapping[Digest, str]:
        """Blocking. The names of identities, as `author` gives them."""
        return {identity: self.author(Author("identity", identity)) for identity in identities}

    def namer(self, identities: Iterable[Digest]) -> Callable[[str], str]:
        """Blocking. What puts the names of identities, as `author` gives them, into a sentence that says at its end, or
        before a semicolon, whose word it is; or in place of an id."""
        names = {known: name for each, name in self.authors(identities).items() for known in (each, short(each))}
        if not names:
            return str
        said = re.compile(f"(?:^|(?<=says ))({'|'.join(sorted(names, key=len, reverse=True))})(?=;|$)")
        return lambda text: said.sub(lambda found: names[found[1]], text)

    def author(self, by: Author | None) -> str:
        """Blocking. The name of an author: of a node with its member, of a member, or of a publisher with its id."""
        if by is None:
            return ""
        record = self._membership.node(by)
        if record is not None:
            seat = self._membership.member(record.member)
            return f"{record.name} ({seat.name}, {seat.jurisdiction})" if seat else record.name
        seat = self._membership.member(by.id)
        if seat is not None:
            return f"{seat.name} ({seat.jurisdiction})"
        known = self._ledger.tables.proven.identity(by.id)
        return f"{known.display} [{by.id[:12]}]" if known else short(by.id)


def peer_state(peer: PeerStatus) -> NodeState:
    """How the node of another member is, as this node reaches it."""
    if peer.reachable:
        return "up"
    return "down" if peer.last_seen or peer.last_error else "unknown"


def most_urgent_first(alerts: Iterable[Alert]) -> tuple[Alert, ...]:
    """The alerts by severity, otherwise in their order."""
    return tuple(sorted(alerts, key=lambda alert: get_args(Severity).index(alert.severity)))


def withdrawn(ledger: Ledger, artifact: Digest, publisher: Digest) -> bool:
    """Blocking. Whether the publisher yanked or superseded the artifact, by a statement that this node verified."""
    said = ledger.proven.about(artifact, (ADVISORY,), MAX_ADVISORIES, Precedence(named=frozenset({publisher})))
    return any(_withdraws(parse_entry(line.line), publisher) for line in said.found)


def _withdraws(entry: Entry, publisher: Digest) -> bool:
    try:
        advisory = Advisory.parse(entry.statement)
    except Malformed:
        return False
    return advisory.withdraws_for(publisher)


def kind_of(entry: Entry) -> str:
    """The kind under which an entry is shown (`STATEMENTS`)."""
    if entry.statement.predicate == ADVISORY:
        with contextlib.suppress(Malformed):
            return LOST_KEY if Advisory.parse(entry.statement).compromise is not None else ADVISORY
    return entry.statement.predicate


def subject_of(entry: Entry) -> tuple[str, str]:
    """What an entry is about, and the address of the artifact's page, empty if it has none."""
    subjects = entry.statement.subjects
    return described(entry.statement, subjects[0]) if subjects else ("", "")


def described(statement: Statement, subject: Subject) -> tuple[str, str]:
    """A subject of a statement by the name that it has there, else by its digest; and the address of the artifact's
    page, empty if it has none."""
    name = subject.name.removeprefix(UPSTREAM)
    repository, _, version = name.partition("@")
    if statement.predicate in PUBLICATION_PREDICATES and repository.count("/") == 1 and version:
        return subject.name, f"/{repository}/tree/{version}"
    return subject.name or f"sha256:{short(subject.digest)}", ""


def _names(
    published: Iterable[ProvenPublication], by: Author | None, readable: Readable = lambda name: True
) -> tuple[str, str] | None:
    """The names that one publisher gave to an artifact under one readable repository: the author of the statement, or
    else the first one. A statement is about the bytes, so it is about each version that has them."""
    ordered = sorted(
        (each for each in published if readable(each.repository.removeprefix(UPSTREAM))),
        key=lambda each: (by is None or each.publisher != by.id, each.number),
    )
    if not ordered:
        return None
    repository, publisher = ordered[0].repository.removeprefix(UPSTREAM), ordered[0].publisher
    same = (each for each in ordered if (each.repository, each.publisher) == (ordered[0].repository, publisher))
    versions = list(dict.fromkeys(each.version for each in same))
    return f"{ordered[0].repository}@{', '.join(versions)}", f"/{repository}/tree/{versions[-1]}"


def lost_key_alerts(lost: FoundLostKeys) -> Iterator[Alert]:
    """One for each publisher, however many keys it reports."""
    of_publisher = {each.publisher: each for each in lost.found}
    for each in list(of_publisher.values())[:MAX_FAULTS]:
        text = marked("%(publisher)s says that a key of its was stolen. This node holds %(count)s of its artifacts.")
        values = {"publisher": f"{each.label} [{each.publisher[:12]}]", "count": each.held}
        yield Alert("warning", text, values, f"/-/catalogue?publisher={each.publisher}")
    if lost.more or len(of_publisher) > MAX_FAULTS:
        text = marked("More lost keys were reported than are shown here. Verdicts take all of them into account.")
        yield Alert("warning", text, {})


def _governance_alerts(governance: GovernanceStatus) -> Iterator[Alert]:
    for fork in governance.forks:
        if not fork.retired:
            text = marked("Epoch %(epoch)s of the charter was certified twice. Votes stop until people decide.")
            yield Alert("alarm", text, {"epoch": fork.epoch}, "/-/proposals")
    for name in governance.liars:
        text = marked("%(member)s signed conflicting votes. The proof is in the logs.")
        yield Alert("alarm", text, {"member": name}, "/-/proposals")
    for draft in governance.drafts:
        text = marked("A change of the charter is open. Votes of intent: %(have)s of the %(need)s needed.")
        yield Alert("notice", text, {"have": draft.intents, "need": draft.quorum}, "/-/proposals")
