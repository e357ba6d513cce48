"""Finds proven statements about artifacts; the receiver verifies them again.

A name may have several claimants: identities that published under it, or the upstream repository of that name that
nodes of this federation mirrored. They are listed in the order in which this node proved their first claims; a later
claimant does not displace an earlier one. Answers are read in bounded steps and end when the caller disconnects. If a
limit applies, it is logged, counted and marked in the answer. Of names, the parts left out are taken evenly from every
claimant; of the statements about a subject, `comity.trust.precedence` says which ones come first.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import AsyncGenerator, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from comity.ledger.intake import ADVISORY, INCEPTION, NODE_RECORD, ROTATED, fold_name
from comity.ledger.proven import MAX_ANSWER, NOBODY, Page, ProvenLine, ProvenPublication, ProvenTables
from comity.ledger.subject_reads import ProvenPosition
from comity.node.members import Membership
from comity.node.metrics import Metrics
from comity.node.threads import AsyncLedger
from comity.trust.approvals import APPROVAL_ENDED, APPROVED, approval_key
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Malformed, NotFound
from comity.trust.names import UPSTREAM, check_segment
from comity.trust.precedence import Bounds, Precedence, Selection
from comity.trust.statement import parse_entry
from comity.wire import limits
from comity.wire.artifact import SearchPage
from comity.wire.messages import LocatedEntry


@dataclass(frozen=True, slots=True)
class FirstClaim:
    """A claimant: an identity with its display name, or None for the upstream repository. `number` is the position of
    its first claim in the order of proof."""

    identity: Digest | None
    label: str
    number: int


def first_claimants(
    proven: ProvenTables, nodes: Iterable[Digest], name: str, most: int, precedence: Precedence = NOBODY
) -> list[FirstClaim]:
    """The first `most` claimants of the repository `name`, which is not an upstream name, and those of `precedence`;
    `nodes` are the ids of nodes whose observations count. Blocking."""
    upstream = f"{UPSTREAM}{name}"
    first = proven.claimants(name, most).found
    claims = dict.fromkeys((*first, *proven.claims_of(name, precedence.named | precedence.members)))
    known = proven.identities([claimant.publisher for claimant in claims])
    labels = {identity: found.display for identity, found in known.items()}
    found = [FirstClaim(claimant.publisher, labels.get(claimant.publisher, ""), claimant.number) for claimant in claims]
    observed = [proven.first_claim(upstream, node) for node in nodes]
    numbers = [number for number in observed if number is not None]
    if numbers:
        found.append(FirstClaim(None, "", min(numbers)))
    return sorted(found, key=lambda claimant: claimant.number)


CLAIMANTS: Final = 64
"""Claimants of one name in an answer, the earliest."""
PAGE: Final = 64
"""Lines read at a time: at most 4 MiB."""
RECORDS: Final = 800
"""Node records in one answer, evenly of all members."""
APPROVALS: Final = 256
"""Statements of one officer that are read for one artifact, and warnings about the officer's keys."""
PUBLISHERS: Final = 8
"""Publishers and observers of an artifact, the earliest, whose statements about it come first."""
OWN_ADVISORIES: Final = 4
"""Advisories of a publisher about its own artifact in one search result."""
OTHER_KEYS: Final = 64
"""Inceptions and rotations of others in one answer, and two more for each of their statements."""
KEY_PREDICATES: Final = (INCEPTION, ROTATED, NODE_RECORD)
MAX_MEMBER_LINES: Final = 16 * 1024 * 1024
"""Bytes of the lines of all members that are kept in memory."""

MAX_NEW: Final = 256
"""New key statements whose authors are looked at."""

_log: Final = structlog.get_logger("comity.node.services")

_CURSOR: Final = re.compile(r"([0-9]{1,18})-([0-9]{1,9})\Z")


@dataclass(frozen=True, slots=True)
class _MemberLines:
    """Lines that most answers about artifacts contain: the records of the nodes that are `followed`, and of each member
    its node records, and its inception and rotations. They are the same while `basis` does not change and no member has
    a new one after statement `number`."""

    basis: object
    number: int
    followed: tuple[ProvenLine, ...]
    of_member: Mapping[Digest, tuple[tuple[ProvenLine, ...], tuple[ProvenLine, ...]]]

    @property
    def records(self) -> Iterator[ProvenLine]:
        return itertools.chain(self.followed, *(records for records, _ in self.of_member.values()))

    @property
    def keys(self) -> Iterator[ProvenLine]:
        return itertools.chain(*(keys for _, keys in self.of_member.values()))

    @property
    def size(self) -> int:
        """Bytes of the lines."""
        return sum(len(line.line) for line in (*self.records, *self.keys))


class ArtifactService:
    """Implements `ArtifactReads`."""

    def __init__(self, ledger: AsyncLedger, membership: Membership, metrics: Metrics) -> None:
        self._ledger = ledger
        self._membership = membership
        self._metrics = metrics
        self._proven = ledger.tables.proven
        self._member_lines: _MemberLines | None = None

    async def resolve(
        self, name: str, version: str | None, publisher: Digest | None, named: Collection[Digest] = ()
    ) -> AsyncGenerator[LocatedEntry, None]:
        sent, publishers, authors = _Sent(), dict[Digest, set[Digest]](), dict[Digest, None]()
        precedence = self._membership.precedence.naming(named)
        repositories = await self._repositories(_checked(name))
        sent.limited = len(repositories) >= MAX_ANSWER
        for repository in repositories:
            async for found in self._claims_of_name(repository, version, publisher, precedence, sent):
                publishers.setdefault(found.artifact, set()).add(found.publisher)
                authors.setdefault(found.publisher)
                if (located := sent.new(found)) is not None:
                    yield located
        if not publishers:
            raise NotFound(f"no claim to {name} is known", hint="comity search WORD", code="NO-SUCH-NAME")
        for author in authors:
            for line in await self._ledger.run(self._proven.keys_of, author):
                if (located := sent.new(line, limits.RESOLVED)) is not None:
                    yield located
        share = max(1, (limits.RESOLVED - len(sent)) // len(publishers))
        for artifact, own in publishers.items():
            first = precedence.naming(own)
            about = await self._ledger.run(self._proven.about, artifact, (ADVISORY,), min(share, PAGE), first)
            sent.limited |= about.limited
            for line in about.found:
                if (located := sent.new(line, limits.RESOLVED)) is not None:
                    yield located
        self._report_limit("Resolve", name, sent)

    async def claims(self, subject: Digest, named: Collection[Digest] = ()) -> AsyncGenerator[LocatedEntry, None]:
        precedence = self._membership.precedence.naming((subject, *named))
        positions = await self._ledger.run(self._positions, subject, precedence)
        if not positions.found:
            raise NotFound("no statement about this subject", why=f"{subject} is not known here", code="NO-CLAIMS")
        sent, authors = _Sent(positions.cut), dict[Digest, None]()
        for start in range(0, len(positions.first), PAGE):
            for line in await self._ledger.run(self._proven.lines, positions.first[start : start + PAGE]):
                author = _author(line)
                authors.setdefault(author)
                if (located := sent.new(line, author=author)) is not None:
                    yield located
        of_members = await self._of_members()
        for line in of_members.records:
            if (located := sent.new(line)) is not None:
                yield located
        for author in (author for author in authors if author not in of_members.of_member):
            for line in await self._ledger.run(self._proven.keys_of, author):
                if (located := sent.new(line, limits.CLAIMS)) is not None:
                    yield located
        for line in of_members.keys:
            if (located := sent.new(line, limits.CLAIMS)) is not None:
                yield located
        others = await self._ledger.run(self._of_others, positions, frozenset(authors) | of_members.of_member.keys())
        for line in others.found:
            if (located := sent.new(line, limits.CLAIMS, others=others.limited)) is not None:
                yield located
        sent.limited |= positions.limited or others.limited
        self._report_limit("GetClaims", subject, sent)

    def _positions(self, subject: Digest, precedence: Precedence) -> Selection[ProvenPosition]:
        """Where the statements about a subject are. Blocking."""
        publishers = self._proven.first_publishers(subject, PUBLISHERS)
        return self._proven.claims_about(subject, precedence.naming(publishers), Bounds(total=limits.CLAIMS // 2))

    def _of_others(self, positions: Selection[ProvenPosition], known: Collection[Digest]) -> Page[ProvenLine]:
        """The lines of others, each with the keys of its author before it, as many as fit. Blocking.

        Args:
            known: authors whose keys the asker has.
        """
        most, limited = OTHER_KEYS + 2 * len(positions.others), positions.more_others
        keys: dict[Digest, Sequence[ProvenLine]] = dict.fromkeys(known, ())
        found: list[ProvenLine] = []
        for line in self._proven.lines(positions.others):
            author = _author(line)
            new = () if author in keys else self._proven.keys_of(author)
            if len(new) > most:
                limited = True
                continue
            most -= len(new)
            keys[author] = new
            found += (*new, line)
        return Page(tuple(found), limited)

    async def approvals(self, officer: Digest, artifact: Digest) -> tuple[bytes, ...]:
        """The officer's own lines here about the approval of an artifact, and those about the officer's keys. What
        others sign does not displace them."""
        proven = self._proven
        about = await self._ledger.run(
            proven.about,
            approval_key(officer, artifact),
            (APPROVED, APPROVAL_ENDED),
            2 * APPROVALS,
            Precedence(frozenset({officer})),
        )
        warnings = await self._ledger.run(proven.by, officer, ADVISORY, APPROVALS)
        keys = await self._ledger.run(proven.keys_of, officer)
        return tuple(dict.fromkeys(found.line for found in (*keys, *warnings.found, *about.found)))

    async def search(self, query: str, cursor: str, limit: int) -> SearchPage:
        words, after = fold_name(query).split(), _after(cursor)
        page = await self._ledger.run(self._proven.named, words, after, limit)
        lines = await self._ledger.run(self._proven.lines, [item.position for item in page.found])
        advised = await self._ledger.run(self._own_advisories, lines)
        return SearchPage(_located(lines), "{}-{}".format(*page.after) if page.after else "", _located(advised))

    def _own_advisories(self, published: Iterable[ProvenLine]) -> list[ProvenLine]:
        """The newest advisories of publishers about what they published, a few of each. Blocking."""
        found: dict[tuple[Digest, Digest], Sequence[ProvenLine]] = {}
        for line in published:
            statement = parse_entry(line.line).statement
            if statement.by is None or (statement.by.id, statement.subject) in found:
                continue
            own, only = Precedence(frozenset({statement.by.id})), Bounds(OWN_ADVISORIES, 1, 1, OWN_ADVISORIES)
            about = self._proven.claims_about(statement.subject, own, only, (ADVISORY,))
            found[statement.by.id, statement.subject] = self._proven.lines(about.first)
        return [line for lines in found.values() for line in lines]

    async def _repositories(self, name: str) -> Sequence[str]:
        """The repository itself, or those in a namespace."""
        if not name.endswith("/"):
            return (name,)
        return await self._ledger.run(self._proven.repositories, "", name, MAX_ANSWER)

    async def _claims_of_name(
        self, name: str, version: str | None, publisher: Digest | None, precedence: Precedence, sent: _Sent
    ) -> AsyncGenerator[ProvenPublication, None]:
        """Publications under a name, and observations by nodes of this federation: the first of each claimant, in order
        of proof; then a share of each, and what one leaves of its share for the later ones."""
        claimants = await self._claimants(name, publisher, precedence)
        most = limits.RESOLVED // 2 - len(sent)
        sent.limited |= len(claimants) >= CLAIMANTS
        for claimant in claimants:
            for found in (await self._of_claimant(name, claimant, version, 1)).found:
                yield found
        left = len(claimants)
        for claimant in claimants:
            share = min(MAX_ANSWER, -(-most // left))
            if share <= 0:
                sent.limited = True
                return
            answer = await self._of_claimant(name, claimant, version, share)
            sent.limited |= answer.limited
            for found in answer.found:
                yield found
            most, left = most - len(answer.found), left - 1

    async def _claimants(self, name: str, publisher: Digest | None, precedence: Precedence) -> Sequence[Digest | None]:
        """The claimants of a name, earliest first; None for what nodes mirrored from an upstream."""
        if publisher is not None:
            return (publisher,)
        if name.startswith(UPSTREAM):
            return (None,)
        nodes = self._membership.node_ids
        first = await self._ledger.run(first_claimants, self._proven, nodes, name, CLAIMANTS, precedence)
        return [claimant.identity for claimant in first]

    async def _of_claimant(
        self, name: str, claimant: Digest | None, version: str | None, most: int
    ) -> Page[ProvenPublication]:
        if claimant is not None:
            return await self._ledger.run(self._proven.publications, name, claimant, version, most)
        upstream, nodes = f"{UPSTREAM}{name.removeprefix(UPSTREAM)}", self._membership.node_ids
        share = max(1, most // max(1, len(nodes)))
        answer = await self._ledger.run(self._proven.observations, upstream, nodes, version, share)
        return Page(tuple(sorted(answer.found, key=lambda found: found.number)), answer.limited)

    def _report_limit(self, call: str, about: str, sent: _Sent) -> None:
        if sent.limited:
            self._metrics.answers_limited.labels(call).inc()
            _log.info("a limit left statements out of an answer", call=call, about=about, sent=len(sent))

    async def _of_members(self) -> _MemberLines:
        """The node records, inceptions and rotations of all members. Those of a member are read again when it has new
        ones: anybody may log inceptions and rotations of others."""
        members, membership = tuple(self._membership.known), self._membership
        followed = (*(peer.line for peer in membership.peers), membership.seat.record_line)
        number, basis = await self._ledger.run(self._proven.last_number_of, KEY_PREDICATES), (members, followed)
        known = self._member_lines
        if known is not None and known.basis == basis and known.number == number:
            return known
        stale, of_member = frozenset(members), dict[Digest, tuple[tuple[ProvenLine, ...], tuple[ProvenLine, ...]]]()
        records: tuple[ProvenLine, ...] = ()
        if known is not None and known.basis == basis:
            stale, of_member, records = await self._changed(members, known.number), {**known.of_member}, known.followed
        else:
            found = [await self._ledger.run(self._proven.with_line, line) for line in followed]
            records = tuple(itertools.chain(*found))
        share = max(4, RECORDS // max(1, len(members)))
        for member in members:
            if member in stale:
                own = await self._ledger.run(self._proven.by, member, NODE_RECORD, share)
                of_member[member] = own.found, tuple(await self._ledger.run(self._proven.keys_of, member))
        made = _MemberLines(basis, number, records, of_member)
        if made.size <= MAX_MEMBER_LINES:
            self._member_lines = made
        return made

    async def _changed(self, members: Sequence[Digest], since: int) -> frozenset[Digest]:
        """The members with new key statements after statement `since`; all of them if there are many new ones."""
        new = await self._ledger.run(self._proven.since, since, KEY_PREDICATES, MAX_NEW)
        if len(new) == MAX_NEW:
            return frozenset(members)
        statements = [parse_entry(line.line).statement for line in new]
        about = {subject.digest for statement in statements for subject in statement.subjects}
        return frozenset(members) & {*about, *(statement.by.id for statement in statements if statement.by is not None)}


class _Sent:
    """The lines already sent: each line once for each log, because a `hold` is valid only in its own node's log.

    Args:
        cut: authors of whose statements a limit left some out.

    Attributes:
        limited: whether a limit left something out.
    """

    def __init__(self, cut: frozenset[Digest] = frozenset()) -> None:
        self._places: set[tuple[str, Digest]] = set()
        self._cut = cut
        self.limited = False

    def __len__(self) -> int:
        return len(self._places)

    def new(
        self,
        found: ProvenLine | ProvenPublication,
        most: int | None = None,
        *,
        author: Digest | None = None,
        others: bool = False,
    ) -> LocatedEntry | None:
        """The line, if it is new and not beyond `most` lines, with its marks."""
        key = found.vkey, sha256(found.line)
        if key in self._places:
            return None
        if most is not None and len(self._places) >= most:
            self.limited = True
            return None
        self._places.add(key)
        return LocatedEntry(found.origin, found.index, found.line, author in self._cut, others)


def _located(lines: Iterable[ProvenLine]) -> tuple[LocatedEntry, ...]:
    return tuple(LocatedEntry(line.origin, line.index, line.line) for line in lines)


def _author(line: ProvenLine) -> Digest:
    by = parse_entry(line.line).statement.by
    assert by is not None  # a proven statement has an author
    return by.id


def _checked(name: str) -> str:
    """Check a repository name or a prefix that ends in `/`, optionally with an upstream origin (`hf:`). Raises
    Malformed."""
    _, _, local = name.rpartition(":")
    segments = local.removesuffix("/").split("/")
    if len(segments) > 2 or (len(segments) == 1) != local.endswith("/"):
        raise Malformed(
            "not a name", why="expected namespace/name, or a namespace with a '/' after it", code="BAD-NAME"
        )
    for segment in segments:
        check_segment(segment, "name")
    return name


def _after(cursor: str) -> tuple[int, int] | None:
    if not cursor:
        return None
    parts = _CURSOR.match(cursor)
    if parts is None:
        raise Malformed("not a cursor of this node", why="search again from the beginning", code="CURSOR")
    return int(parts[1]), int(parts[2])
