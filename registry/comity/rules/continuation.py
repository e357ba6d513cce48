"""Continuations: statements that an artifact has the bytes that a commit of an upstream repository had.

    {"by":{"identity":"51aa…"},"number":0,"of":"hf:org/name@6c12…","withdrawn":false}

Repositories disappear from a Hub, and programs go on asking for their names. A node that fetched the files in time says
so in `observed`. Who has them in another way, or published them under a name of a federation, says with `continues`
which commit they are. Nobody can prove it when the upstream is gone, so it is a claim, and what it is worth follows
from who else says the same. Both kinds of statements corroborate one another: a member counts once, however many nodes,
identities and statements it has, and a member that names two artifacts for one commit counts for neither. Statements of
others are shown and count nothing.

A gateway follows a continuation if its owner says so, and by how many members at least (`FollowRule`); always of two
jurisdictions, so that nobody decides alone what others read. If two artifacts have that many for one commit, none is
followed: nothing here can say which one is right. A claim with fewer members neither diverts nor blocks the other one.

Each statement names two subjects: the artifact, and `upstream_key` of the repository. So a node finds the statements of
members about one repository, whatever other people sign. The statement of an author with the highest number about a
commit counts, whatever the order in which statements arrive; where statements with that number contradict each other,
none counts. Keys are judged as those of an officer are: retired ones count only with a proof from before their
rotation, and lost ones only from before their loss. Source: protocol, section 5.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import field
from typing import Annotated, ClassVar, Final

from comity.rules.corrections import MAX_NUMBER, newest, next_number
from comity.trust.authorship import judge_author
from comity.trust.charter.document import Member
from comity.trust.claims import KnownAuthor, KnownAuthors
from comity.trust.codec import JsonNumber, JsonRead
from comity.trust.content import ByAuthor, Content, SubjectDigest
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import ComityError, Malformed
from comity.trust.frozen import frozen
from comity.trust.key_validity import KeyCircumstances, refused_keys
from comity.trust.names import ORIGINS, Reference
from comity.trust.policy import Policy
from comity.trust.statement import Entry, Statement, Subject
from comity.trust.statement_kinds import CONTINUES, OBSERVED
from comity.trust.upstream import Observed, is_commit

MAX_REPOSITORIES: Final = 4
"""Repositories that one artifact is said to continue and of which readers are told who says what."""
JURISDICTIONS: Final = 2
"""In which the members are, at least, whose claim a gateway follows."""
LEAST_FOLLOWED: Final = 2
"""Members whose claim a gateway follows, at least."""
_UPSTREAM: Final = "upstream"
_FORM: Final = re.compile(rf"(?:{'|'.join(ORIGINS)})[A-Za-z0-9_.\-]{{1,96}}/[A-Za-z0-9_.\-]{{1,96}}@[0-9a-f]{{40}}\Z")


def check_origin(text: str) -> str:
    """Return `text` if it names a commit of an upstream, such as `hf:org/name@6c12…` with 40 digits. Raises Malformed
    (BAD-ORIGIN)."""
    try:
        origin = Reference.parse(text)
    except Malformed as error:
        raise _no_origin(text) from error
    if not origin.mirrored or str(origin) != text or origin.version is None or not is_commit(origin.version):
        raise _no_origin(text)
    return text


def _no_origin(text: str) -> Malformed:
    why, hint = "expected hf:org/name@COMMIT with the 40 digits of the commit", "comity show hf:org/name"
    return Malformed(f"{text[:200]!r} names no commit of an upstream", why=why, hint=hint, code="BAD-ORIGIN")


def upstream_key(repository: str) -> Digest:
    """The subject under which all continuations of a repository (`hf:org/name`, in any case) are found."""
    return sha256(f"comity/upstream/v1\n{repository.lower()}\n".encode())


@frozen
class Continues(Content):
    """Somebody states that an artifact has the bytes that a commit of an upstream repository had. Source: protocol,
    section 5.

        {"by":{"identity":"51aa…"},"number":0,"of":"hf:org/name@6c12…","withdrawn":false}

    The statement of its author about this commit with the highest number counts.
    """

    predicate: ClassVar = CONTINUES
    subject_count: ClassVar[tuple[int, int]] = (2, 2)
    by: ByAuthor
    artifact: SubjectDigest
    of: Annotated[
        str, JsonRead(check_origin, _FORM, most=240), "The commit, by the name that an `observed` has for it."
    ]
    number: Annotated[int, JsonNumber(0, MAX_NUMBER), "Counts the statements of this author about this commit."]
    withdrawn: Annotated[bool, "Whether the author states it no longer."] = False

    @property
    def repository(self) -> str:
        """`hf:org/name`."""
        return self.of.partition("@")[0]

    def subjects(self) -> tuple[Subject, ...]:
        return (Subject(self.of, self.artifact), Subject(_UPSTREAM, upstream_key(self.repository)))

    def check(self, statement: Statement) -> None:
        if statement.subjects != self.subjects():
            raise self.malformed("its subjects must be the artifact, named after the commit, and the upstream key")


@frozen
class Corroboration:
    """Somebody who is proven to say that an artifact has the bytes of a commit. `observed`: a node of it fetched them;
    otherwise it says so in a `continues`."""

    origin: str
    artifact: Digest
    by: KnownAuthor
    observed: bool

    @property
    def member(self) -> Member | None:
        """The active member that says it, itself or by a node."""
        return self.by.member if self.by.member is not None and self.by.member.active else None


@frozen
class FollowRule:
    """How many `members` must say the same before a continuation is followed, in `JURISDICTIONS`; 0: none is."""

    members: int = 0

    def is_met(self, members: Iterable[Member]) -> bool:
        found = tuple(members)
        return 0 < self.members <= len(found) and len({each.jurisdiction for each in found}) >= JURISDICTIONS


@frozen
class ContinuedCommit:
    """Who says which bytes a commit had: at least one `continues`, and the observations of the same commit.

    `members`: by artifact, the members that count for it, each once.
    """

    said: tuple[Corroboration, ...]
    members: Mapping[Digest, tuple[Member, ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "members", _counted(self.said))

    @property
    def origin(self) -> str:
        """`hf:org/name@6c12…`; of several spellings that members used the first one in the alphabet."""
        return min((each.origin for each in self.said if each.member), default=self.said[0].origin)

    def claimed_by_others(self, artifact: Digest) -> int:
        """How many say it of an artifact who count for no member."""
        return sum(said.artifact == artifact and said.member is None for said in self.said)

    def corroborated(self, rule: FollowRule) -> tuple[Digest, ...]:
        """The artifacts that enough members name. One is followed if it is the only one."""
        return tuple(artifact for artifact, members in sorted(self.members.items()) if rule.is_met(members))


def continued_repositories(entries: Iterable[Entry], artifact: Digest, policy: Policy) -> tuple[str, ...]:
    """The upstream repositories that an artifact is said to continue: at most `MAX_REPOSITORIES`, first those that
    members of the pinned charters name. No signature is verified."""
    members = {member.id for body in policy.pins for member in body.members}
    said = [each for entry in entries if (each := read_continues(entry)) is not None and each.artifact == artifact]
    ordered = sorted(said, key=lambda each: each.by.id not in members)
    return tuple(dict.fromkeys(each.repository.lower() for each in ordered))[:MAX_REPOSITORIES]


def _counted(said: Sequence[Corroboration]) -> Mapping[Digest, tuple[Member, ...]]:
    """By artifact, its members; a member that names two artifacts counts for neither."""
    by_member = [(each.member, each.artifact) for each in said if each.member is not None]
    named: dict[Digest, set[Digest]] = {}
    for member, artifact in by_member:
        named.setdefault(member.lineage, set()).add(artifact)
    found: dict[Digest, dict[Digest, Member]] = {each.artifact: {} for each in said}
    for member, artifact in by_member:
        if len(named[member.lineage]) == 1:
            found[artifact].setdefault(member.lineage, member)
    return {artifact: tuple(members.values()) for artifact, members in found.items()}


def stated_by(entries: Iterable[Entry], author: Digest, origin: str) -> tuple[Continues, ...]:
    """What an author states of a commit, among these statements; those that cannot be read do not count. That their
    author signed them is the caller's to prove."""
    said = (
        read_continues(entry) for entry in entries if entry.statement.by is not None and entry.statement.by.id == author
    )
    return tuple(each for each in said if each is not None and each.of.lower() == origin.lower())


def newest_statement(stated: Iterable[Continues]) -> Continues | None:
    """The statement that counts, of those of one author about one commit; None if none does, or it was withdrawn."""
    counts = newest(stated, lambda each: (each.artifact, each.withdrawn))
    return counts if counts is not None and not counts.withdrawn else None


def next_statement(stated: Iterable[Continues], wanted: Continues) -> Continues | None:
    """The statement by which an author says `wanted`, or withdraws it, after it stated these; None if that counts
    already. Raises Malformed (CONTINUES-CORRECTIONS) after too many.

    Args:
        wanted: the statement, whose number does not matter.
    """
    said = tuple(stated)
    counts = newest_statement(said)
    if counts is None if wanted.withdrawn else counts is not None and counts.artifact == wanted.artifact:
        return None
    number = next_number(said)
    if number > MAX_NUMBER:
        why = f"this author said {number} times which bytes it had"
        raise Malformed(f"{wanted.of} keeps what was said last", why=why, code="CONTINUES-CORRECTIONS")
    return Continues(wanted.by, wanted.artifact, wanted.of, number, wanted.withdrawn)


def continued_commits(given: KeyCircumstances) -> Mapping[str, ContinuedCommit]:
    """Who says which bytes which commits had, by their names in lower case, among these claims: commits of which
    somebody states it whose signature is proven, with keys that count."""
    authors = given.claims.authors(given.policy.pins)
    found: dict[str, list[Corroboration]] = {}
    for said in _stated(authors, given):
        found.setdefault(said.origin.lower(), []).append(said)
    for said in _observed(authors, given):
        if said.origin.lower() in found:
            found[said.origin.lower()].append(said)
    return {name: ContinuedCommit(tuple(each)) for name, each in found.items()}


def _stated(authors: KnownAuthors, given: KeyCircumstances) -> Iterator[Corroboration]:
    """What counts of the statements of each author about each commit."""
    by: dict[tuple[Digest, str], list[Continues]] = {}
    known: dict[Digest, KnownAuthor] = {}
    for entry in given.claims.entries:
        said = read_continues(entry)
        author = authors.author_of(entry) if said is not None else None
        if said is not None and author is not None and not _refused(entry, said, authors, given):
            known[author.id] = author
            by.setdefault((author.id, said.of.lower()), []).append(said)
    for (author_id, _), stated in by.items():
        if (counts := newest_statement(stated)) is not None:
            yield Corroboration(counts.of, counts.artifact, known[author_id], observed=False)


def _refused(entry: Entry, said: Continues, authors: KnownAuthors, given: KeyCircumstances) -> str:
    """Why the keys do not count by which an author signed; empty if they do. The online key of a node was judged with
    its record."""
    if said.by.kind == "node":
        return ""
    chain = judge_author(entry, authors.keys_of(said.by)).chain
    return refused_keys(entry, said.by.id, chain, given) if chain is not None else "unknown keys"


def _observed(authors: KnownAuthors, given: KeyCircumstances) -> Iterator[Corroboration]:
    """What nodes fetched from the upstream; what their operators gave them proves no more than a statement."""
    for entry in given.claims.entries:
        if entry.statement.predicate != OBSERVED:
            continue
        try:
            seen = Observed.parse(entry.statement)
        except ComityError:
            continue
        author = authors.author_of(entry) if seen.fetched else None
        if author is not None:
            yield Corroboration(seen.name, seen.artifact, author, observed=True)


def read_continues(entry: Entry) -> Continues | None:
    """The statement; None for one of another kind, and for one that cannot be read."""
    if entry.statement.predicate != CONTINUES:
        return None
    try:
        return Continues.parse(entry.statement)
    except ComityError:
        return None
