"""Which proven statements answer a question about a name or a subject: blocking reads of one ledger, in order.

A name may have several claimants: identities that published under it, or the upstream repository of that name that
nodes of this federation mirrored. They are listed in the order in which this node proved their first claims; a later
claimant does not displace an earlier one. If a limit applies, it is marked in the answer. Of names, the parts left out
are taken evenly from every claimant; of the statements about a subject, `comity.rules.precedence` says which ones come
first.
"""

from __future__ import annotations

import itertools
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import zip_longest
from typing import Final, TypeVar

from comity.ledger.copy_tables import ProvenTimes, VerifiedTimes
from comity.ledger.proven import MAX_ANSWER, NOBODY, Page, ProvenLine, ProvenPublication, ProvenTables
from comity.ledger.subject_reads import ProvenPosition
from comity.node.members import Membership
from comity.node.services.author_lines import author_of, keys_of, take
from comity.node.services.member_lines import KeptLines, MemberLines
from comity.rules.fair_bytes import FairBytes
from comity.rules.precedence import MEMBERS, NAMED, OTHERS, Bounds, Precedence
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Malformed, NotFound
from comity.trust.frozen import frozen
from comity.trust.names import UPSTREAM, check_segment, is_upstream, upstream_name
from comity.trust.statement_kinds import ADVISORY
from comity.wire import limits
from comity.wire.found import Lookup
from comity.wire.messages import LocatedEntry

T = TypeVar("T")


@frozen
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
    numbers = [claimant.number for claimant in proven.claims_of(upstream, list(nodes))]
    if numbers:
        found.append(FirstClaim(None, "", min(numbers)))
    return sorted(found, key=lambda claimant: claimant.number)


CLAIMANTS: Final = 16
"""Claimants of one name in an answer, the earliest."""
RIVAL_CLAIMS: Final = 8
"""Claims of each claimant to whom the name does not belong, where the asker does not ask for one publisher."""
PAGE: Final = 64
"""Lines read at a time: at most 4 MiB."""
PUBLISHERS: Final = 8
"""Publishers and observers of an artifact, the earliest, whose statements about it come first."""
MEMBER_ADVISORIES: Final = 4
"""Advisories of a member about an artifact where a name is resolved."""
LEAST_MEMBER: Final = 32 * 1024
"""Bytes of statements that each member may have in an answer in any case."""
LEAST_OTHERS: Final = 128 * 1024
"""Bytes of statements of others, with their keys, that an answer may have in any case; else as many as came before
them. With hybrid keys an inception has 9 KB and an advisory 5 KB: these are the first statements of nine authors."""
SHARES: Final = 8
"""What takes more than this part of the bytes for others comes after the rest, so that no long statement displaces
short ones."""
CLAIMED_BYTES: Final = 16 * limits.MiB
"""Bytes of the claims of a name, of those whose claims come first."""
NAMED_BYTES: Final = 8 * limits.MiB
"""Bytes of the statements of named authors."""
MEMBERS_BYTES: Final = 8 * limits.MiB
"""Bytes of the statements of members."""
OTHERS_BYTES: Final = 8 * limits.MiB
"""Bytes of statements of others, with their keys. All these, with the lines of members, are less than an asker takes.
Where several authors share bytes, who says most gives way (`comity.rules.fair_bytes`)."""


@frozen
class Standing:
    """Whose statements come first here, as the charter says at one time.

    Attributes:
        nodes: the ids of nodes whose observations count.
        members: whose keys and nodes come along with statements.
        followed: the records of the nodes that are followed.
        bound_publisher: the publisher to whom the charter binds a namespace.
        body: the digest of the charter's body.
    """

    precedence: Precedence
    nodes: tuple[Digest, ...]
    members: tuple[Digest, ...]
    followed: tuple[bytes, ...]
    bound_publisher: Callable[[str], Digest | None]
    body: Digest | None

    @classmethod
    def of(cls, membership: Membership) -> Standing:
        body, nodes, members = membership.body, tuple(membership.node_ids), tuple(membership.known)
        followed = (*(peer.line for peer in membership.peers), membership.own_node.record_line)
        bound = membership.bound_publisher
        return cls(membership.precedence, nodes, members, followed, bound, body.digest if body else None)


class StatementAnswer:
    """One answer, whose lines are read as they are taken. Blocking.

    Attributes:
        sent: what the answer has so far, and what limits left out.
    """

    def __init__(self, proven: ProvenTables, times: ProvenTimes, view: Standing, members: MemberLines) -> None:
        self._proven = proven
        self._view = view
        self._members = members
        self._ended = threading.Event()
        self.sent = _Sent(times)

    def to(self, asked: Lookup, ended: threading.Event) -> Iterator[LocatedEntry]:
        """The lines, as `ArtifactService.resolve` and `claims` say. Raises NotFound.

        Args:
            ended: set when nobody waits for the answer any longer: it reads no further.
        """
        self._ended = ended
        if asked.subject is not None:
            return _last_marked(self._claims(asked.subject, asked.named), self.sent)
        return _last_marked(self._resolve(asked.name, asked.version, asked.publisher, asked.named), self.sent)

    def _resolve(
        self, name: str, version: str | None, publisher: Digest | None, named: Collection[Digest]
    ) -> Iterator[LocatedEntry]:
        first_claims, rivals = FairBytes[ProvenPublication](CLAIMED_BYTES), list[tuple[str, Digest]]()
        precedence = self._view.precedence.naming(named)
        repositories = self._repositories(_checked(name))
        self.sent.limited = len(repositories) >= MAX_ANSWER
        for repository in self._while_wanted(repositories):
            claimants = self._claimants(repository, publisher, precedence)
            first = [each for at, each in enumerate(claimants) if not at or _is_first(each, precedence)]
            owners = self._owners(repository, first, named)
            self._take_claims(first_claims, repository, version, first, owners)
            rivals += [(repository, each) for each in claimants if each is not None and each not in first]
        self.sent.more_others |= len(rivals) > CLAIMANTS
        claims = self._rivals(rivals[:CLAIMANTS], version)
        if not first_claims.size and not claims:
            raise NotFound(f"no claim to {name} is known", hint="comity search WORD", code="NO-SUCH-NAME")
        publishers = dict[Digest, dict[Digest, None]]()
        for author, found in first_claims.found:
            publishers.setdefault(found.artifact, {}).setdefault(author)
        authors = dict.fromkeys(itertools.chain(*publishers.values()))
        keys = keys_of(self._proven, authors)
        advisories = self._decisive_advisories(publishers, precedence, len(first_claims) + len(keys))
        advisers = {author for author, _ in advisories.found if precedence.group(author) == NAMED}
        advisers_keys = keys_of(self._proven, advisers - authors.keys())
        self.sent.note_cut(first_claims, keys, advisories, advisers_keys)
        yield from self.sent.all_new(first_claims)
        yield from self.sent.all_attached(keys, limits.RESOLVED)
        yield from self.sent.all_new(advisories, limits.RESOLVED)
        yield from self.sent.all_attached(advisers_keys, limits.RESOLVED)
        others = self._with_keys(claims, authors.keys())
        for claim in others.found:
            if (located := self.sent.new(claim, limits.RESOLVED)) is not None:
                yield located
        self.sent.more_others |= others.limited

    def _owners(
        self, name: str, claimants: Sequence[Digest | None], named: Collection[Digest]
    ) -> Collection[Digest | None]:
        """To whom of these claimants a name may belong: those whom the asker names, and the publisher to whom the
        charter binds the namespace; if there is none, the earliest."""
        bound = self._view.bound_publisher(name.partition("/")[0])
        return [each for each in claimants if each is not None and (each in named or each == bound)] or claimants[:1]

    def _rivals(self, claims: Iterable[tuple[str, Digest]], version: str | None) -> list[ProvenPublication]:
        """A few claims of each of these claimants of names: the first of each, then the second, and so on."""
        wanted = self._while_wanted(claims)
        answers = (self._proven.publications(name, each, version, RIVAL_CLAIMS).found for name, each in wanted)
        return [found for row in zip_longest(*answers) for found in row if found is not None]

    def _decisive_advisories(
        self, publishers: Mapping[Digest, Collection[Digest]], precedence: Precedence, before: int
    ) -> FairBytes[ProvenLine]:
        """What publishers, members and named authors warn of in these artifacts. What others say decides about no
        version; `claims` has it.

        Args:
            before: the number of lines before them.
        """
        found = FairBytes[ProvenLine](NAMED_BYTES)
        share = max(1, (limits.RESOLVED - before) // max(1, len(publishers)))
        bounds = replace(Bounds.within(min(share, PAGE)), member=MEMBER_ADVISORIES, others=0)
        for artifact, own in self._while_wanted(publishers.items()):
            about = self._proven.claims_about(artifact, precedence.naming(own), bounds, (ADVISORY,))
            self.sent.cut |= about.cut
            for line in self._proven.lines(about.first):
                take(found, author_of(line), line)
        return found

    def _claims(self, subject: Digest, named: Collection[Digest]) -> Iterator[LocatedEntry]:
        own = self._proven.first_publishers(subject, PUBLISHERS)
        precedence = self._view.precedence.naming((subject, *named, *own))
        positions = self._proven.claims_about(subject, precedence, Bounds(total=limits.CLAIMS // 2))
        if not positions.found:
            raise NotFound("no statement about this subject", why=f"{subject} is not known here", code="NO-CLAIMS")
        of_members = self._members.read(self._view.members, self._view.followed)
        of_named, by_members = self._said_first(positions.first, precedence, of_members.size)
        authors = dict.fromkeys(author for author, _ in itertools.chain(of_named.found, by_members.found))
        keys = keys_of(self._proven, [author for author in authors if author not in of_members.of_member])
        self.sent.cut |= positions.cut | of_members.cut
        self.sent.note_cut(of_named, by_members, keys)
        yield from self.sent.all_new(of_named)
        yield from self.sent.all_new(by_members)
        for line in of_members.records:
            if (located := self.sent.of_member(line, of_members)) is not None:
                yield located
        yield from self.sent.all_attached(keys, limits.CLAIMS)
        for line in of_members.keys:
            if (located := self.sent.of_member(line, of_members, limits.CLAIMS)) is not None:
                yield located
        known = frozenset(authors) | of_members.of_member.keys()
        others = self._with_keys(self._proven.lines(positions.others), known)
        for said in others.found:
            if (located := self.sent.new(said, limits.CLAIMS)) is not None:
                yield located
        self.sent.more_others |= positions.more_others or others.limited

    def _said_first(
        self, positions: Sequence[ProvenPosition], precedence: Precedence, attached: int
    ) -> tuple[FairBytes[ProvenLine], FairBytes[ProvenLine]]:
        """The statements of named authors at these positions, and those of members, which come after them. A member may
        say half as many bytes as the named authors and the lines of members have, or LEAST_MEMBER.

        Args:
            attached: bytes of the lines of members, which come along.
        """
        of_named, by_members = FairBytes[ProvenLine](NAMED_BYTES), FairBytes[ProvenLine](MEMBERS_BYTES)
        for start in self._while_wanted(range(0, len(positions), PAGE)):
            for line in self._proven.lines(positions[start : start + PAGE]):
                author = author_of(line)
                if precedence.group(author) == MEMBERS:
                    take(by_members, author, line, max(LEAST_MEMBER, (of_named.size + attached) // 2))
                else:
                    take(of_named, author, line)
        return of_named, by_members

    def _with_keys(
        self, lines: Iterable[ProvenLine | ProvenPublication], known: Collection[Digest]
    ) -> Page[ProvenLine | ProvenPublication]:
        """The lines of others, each with the keys of its author before it, as many as there is room for.

        Args:
            known: authors whose keys the asker has.
        """
        room = self.sent.room
        by = [(author_of(line), line) for line in lines]
        keys, sizes = defaultdict[Digest, list[ProvenLine]](list), Counter[Digest]()
        for author, key in self._proven.each_key(author for author, _ in by if author not in known):
            if sizes[author] <= room:  # more do not fit
                sizes[author] += len(key.line)
                keys[author].append(key)
        chosen, found = _fitting(by, keys, room), list[ProvenLine | ProvenPublication]()
        for at in sorted(chosen):
            author, line = by[at]
            found += (*keys.pop(author, ()), line)
        return Page(tuple(found), len(chosen) < len(by))

    def _while_wanted(self, items: Iterable[T]) -> Iterator[T]:
        """The items, for a loop that reads the ledger for each one, until nobody waits for the answer any longer."""
        return itertools.takewhile(lambda _: not self._ended.is_set(), items)

    def _repositories(self, name: str) -> Sequence[str]:
        """The repository itself, or those in a namespace."""
        if not name.endswith("/"):
            return (name,)
        return self._proven.repositories("", name, MAX_ANSWER)

    def _take_claims(
        self,
        taken: FairBytes[ProvenPublication],
        name: str,
        version: str | None,
        claimants: Sequence[Digest | None],
        owners: Collection[Digest | None],
    ) -> None:
        """Take publications under a name, and observations by nodes of this federation: the first of each claimant, in
        order of proof; then all others of `owners`, and a few of each other one."""
        for claimant in claimants:
            for found in self._of_claimant(name, claimant, version, 1).found:
                take(taken, found.publisher, found)
        for claimant in claimants:
            most = min(MAX_ANSWER, limits.RESOLVED // 2 - len(taken) + 1)  # its first one is there
            if most <= 0:
                self.sent.limited = True
                return
            answer = self._of_claimant(name, claimant, version, most if claimant in owners else RIVAL_CLAIMS)
            if answer.limited:
                self.sent.limited = True
                self.sent.cut |= {found.publisher for found in answer.found}
            for found in answer.found:
                take(taken, found.publisher, found)

    def _claimants(self, name: str, publisher: Digest | None, precedence: Precedence) -> Sequence[Digest | None]:
        """The claimants of a name, earliest first; None for what nodes mirrored from an upstream."""
        if publisher is not None:
            return (publisher,)
        if is_upstream(name):
            return (None,)
        nodes = self._view.nodes
        first = first_claimants(self._proven, nodes, name, CLAIMANTS, precedence)
        self.sent.more_others |= len(first) >= CLAIMANTS
        return [claimant.identity for claimant in first]

    def _of_claimant(
        self, name: str, claimant: Digest | None, version: str | None, most: int
    ) -> Page[ProvenPublication]:
        if claimant is not None:
            return self._proven.publications(name, claimant, version, most)
        upstream, nodes = upstream_name(name), self._view.nodes
        share = max(1, most // max(1, len(nodes)))
        answer = self._proven.observations(upstream, nodes, version, share)
        return Page(tuple(sorted(answer.found, key=lambda found: found.number)), answer.limited)


class _Sent:
    """The lines already sent: each line once for each log, because a `hold` is valid only in its own node's log.

    Attributes:
        size: bytes of the lines.
        shared: those of them that are in memory in any case.
        limited: whether a limit left something out.
        cut: authors of whose statements a limit left some out.
        more_others: whether a limit left out statements of others.
    """

    def __init__(self, times: ProvenTimes) -> None:
        self._times = times
        self._places: set[tuple[str, Digest]] = set()
        self.size = 0
        self.shared = 0
        self.limited = False
        self.cut = frozenset[Digest]()
        self.more_others = False

    def __len__(self) -> int:
        return len(self._places)

    @cached_property
    def _known(self) -> VerifiedTimes:
        return self._times.times()

    @property
    def room(self) -> int:
        """Bytes of statements of others that may follow."""
        return min(OTHERS_BYTES, max(LEAST_OTHERS, self.size))

    def note_cut(self, *taken: FairBytes[ProvenLine] | FairBytes[ProvenPublication]) -> None:
        """Note the authors of whom these do not have all; all of it before the first line is sent."""
        self.cut = self.cut.union(*(each.cut for each in taken))
        self.limited |= bool(self.cut)

    def all_new(
        self, taken: FairBytes[ProvenLine] | FairBytes[ProvenPublication], most: int | None = None
    ) -> Iterator[LocatedEntry]:
        """As `new`, for all of these that it returns."""
        for author, found in taken.found:
            if (located := self.new(found, most, author=author)) is not None:
                yield located

    def all_attached(self, taken: FairBytes[ProvenLine], most: int) -> Iterator[LocatedEntry]:
        """As `attached`, for all of these that it returns."""
        for _, found in taken.found:
            if (located := self.attached(found, most)) is not None:
                yield located

    def new(
        self, found: ProvenLine | ProvenPublication, most: int | None = None, *, author: Digest | None = None
    ) -> LocatedEntry | None:
        """The line, if it is new and not beyond `most` lines, with the mark of its author."""
        digest = sha256(found.line)
        if not self._takes(found, digest, most):
            return None
        since = self._known.at(found.number)
        return LocatedEntry(found.origin, found.index, found.line, author in self.cut, digest=digest, known_since=since)

    def attached(self, found: ProvenLine, most: int | None = None) -> LocatedEntry | None:
        """As `new`, for a line about keys or a node that comes along with statements."""
        return self._attached(found, sha256(found.line), most)

    def of_member(self, found: ProvenLine, lines: KeptLines, most: int | None = None) -> LocatedEntry | None:
        """As `attached`, for one of the `lines` of members."""
        located = self._attached(found, lines.digests[found.line], most)
        if located is not None:
            self.shared += len(located.line)
        return located

    def _attached(self, found: ProvenLine, digest: Digest, most: int | None) -> LocatedEntry | None:
        if not self._takes(found, digest, most):
            return None
        return LocatedEntry(found.origin, found.index, found.line, attached=True, digest=digest)

    def _takes(self, found: ProvenLine | ProvenPublication, digest: Digest, most: int | None) -> bool:
        """Whether the line is new and not beyond `most` lines. It counts then, also where the asker has it already:
        which lines are chosen does not depend on that."""
        key = found.vkey, digest
        if key in self._places:
            return False
        if most is not None and len(self._places) >= most:
            self.limited = True
            return False
        self._places.add(key)
        self.size += len(found.line)
        return True


def _fitting(
    by: Sequence[tuple[Digest, ProvenLine | ProvenPublication]], keys: Mapping[Digest, Sequence[ProvenLine]], room: int
) -> set[int]:
    """Choose as many of these lines as fit into `room` bytes with the keys of their authors, the first ones first, but
    those after the rest that take more than a share of it."""
    costs = {author: sum(len(key.line) for key in lines) for author, lines in keys.items()}
    chosen, left = set[int](), room
    for most in (room // SHARES, room):
        for at, (author, line) in enumerate(by):
            cost = len(line.line) + costs.get(author, 0)
            if at not in chosen and cost <= min(most, left):
                chosen.add(at)
                costs.pop(author, None)
                left -= cost
    return chosen


def _last_marked(lines: Iterable[LocatedEntry], sent: _Sent) -> Iterator[LocatedEntry]:
    """The lines; the last one is marked if statements of others were left out, which is known at the end only."""
    last: LocatedEntry | None = None
    for line in lines:
        if last is not None:
            yield last
        last = line
    if last is not None:
        yield replace(last, others=sent.more_others)


def _is_first(claimant: Digest | None, precedence: Precedence) -> bool:
    """Whether the claims of a claimant come apart from those of others. `None`: nodes of members observed it."""
    return claimant is None or precedence.group(claimant) != OTHERS


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
