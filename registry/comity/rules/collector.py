"""Which subjects a verdict about one artifact depends on, and when enough of them were asked about.

The rule is here, once. Who answers is the driver's matter: the nodes of the federations that a user pins, or the ledger
of a node. A driver asks `questions`, gives each answer to `answered`, and repeats both until nothing is left to ask.

    artifact    what is said about the artifact
    identity    what an identity says about its own keys (rotations, lost keys): of the publishers of the artifact, and
                of those of its ancestors
    name        who else claims a name of the artifact
    commit      which other bytes nodes observed under an upstream commit of the artifact
    approvals   what an officer whom the policy names says about the artifact, by a subject that is the officer's alone
    ancestor    what publishers and others say about an artifact from which it was made

Anybody may name parents of any artifact. So ancestors of the claimed lineage (`comity.trust.lineage`) are followed
first, to the end of every line: the parents that the publisher names, and those that the publications name which
describe these. What others name is asked about with what the bounds leave.

The same rule collects what is said of an upstream repository, whose key (`comity.rules.continuation`) then stands for
the artifact: what members say of their keys who name a continuation of it, and what nodes observed of these commits.

Answers are proven statements: each has a valid signature of its author. A bound that is reached is in `bounds`, because
what nobody asked about is unknown and not absent.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, Literal, TypeAlias

from comity.trust.approvals import approval_key
from comity.trust.encoding import Digest
from comity.trust.errors import Malformed
from comity.trust.evidence import MAX_CLAIMS, MAX_READ
from comity.trust.frozen import frozen
from comity.trust.lineage import MAX_STATEMENTS, namespace_of, rank_publications
from comity.trust.names import Reference, is_upstream
from comity.trust.policy import Policy
from comity.trust.statement import Entry
from comity.trust.statement_kinds import (
    ADVISORY,
    APPROVAL_ENDED,
    APPROVED,
    CONTINUES,
    DERIVED,
    INCEPTION,
    KEY_PREDICATES,
    OBSERVED,
    PROVING_PREDICATES,
    PUBLISHED,
    ROTATED,
)
from comity.trust.statements import Derived, Published

Kind: TypeAlias = Literal["artifact", "identity", "name", "commit", "approvals", "ancestor"]

MAX_NAMES: Final = 8
"""Names, and upstream commits, of an artifact whose other claimants are asked for."""
MAX_RIVALS: Final = 32
"""Other publications of one name that are kept, for display."""
MAX_IDENTITIES: Final = 64
"""Publishers, of the artifact and of ancestors, whose keys are asked for."""
MAX_ANCESTORS: Final = 64
"""Ancestors that are asked about: those of the claimed lineage, the nearest first, and then others."""
MAX_ANCESTOR_LINES: Final = 32
"""Statements about one ancestor."""
MAX_ANCESTOR_BYTES: Final = 16 * 1024 * 1024
"""Bytes of statements that describe ancestors; with more, no further ancestors are asked about. Also bytes of these and
of all other statements about ancestors: with more, no others are kept, and nobody is asked about what others name."""
MAX_CONTINUED: Final = 16
"""Commits of an upstream repository whose observations are asked for, because members name continuations of them."""
MAX_KEY_LINES: Final = 512
"""Statements of one identity about its own keys."""
KEYS: Final = (INCEPTION, ROTATED, ADVISORY)
"""What an identity says about its own keys; of the advisories, lost keys."""
_OF_ANCESTORS: Final = (PUBLISHED, DERIVED, INCEPTION, ROTATED)
_Kept: TypeAlias = Kind | Literal["carried", "others"]
"""Whose answer statements are from, or that they came another way; `others`: about ancestors, and do not describe
them."""


@frozen
class Question:
    """A subject that is asked about: a digest, or for a name and a commit the repository. `officer`: whose approvals,
    and whose words about the own keys, are asked for."""

    kind: Kind
    subject: str
    version: str = ""
    officer: Digest | None = None

    @property
    def digest(self) -> Digest:
        """The subject of every kind but name and commit."""
        return Digest(self.subject)


class Collector:
    """Collects the statements about one artifact. Not thread-safe.

    Args:
        publisher: the identity to whose name the artifact belongs here; its statements come before those of others.

    Attributes:
        artifact, policy, publisher: as given.
        bounds: what was left out, as text.
        cut: the authors of whom something was left out that may decide.
    """

    def __init__(self, artifact: Digest, policy: Policy, publisher: Digest | None = None) -> None:
        self.artifact = artifact
        self.policy = policy
        self.publisher = publisher
        self._preferred = ((publisher,) if publisher else ()) + policy.named
        self._asked: dict[Question, None] = {}
        self._waiting: dict[Question, None] = {Question("artifact", artifact): None}
        self._kept = defaultdict[_Kept, dict[bytes, None]](dict)
        self._lineage = {artifact}
        """The artifact, and the ancestors that the claimed lineage has as far as it is known."""
        self._named = defaultdict[Digest, set[str]](set)
        """By ancestor, the namespaces under which those name it who describe its children."""
        self._beside: dict[Digest, None] = {}
        """Ancestors that others name, which are asked about last."""
        self.bounds: dict[str, None] = {}
        self.cut: set[Digest] = set()
        for officer in policy.approvals.officers.values():
            self._want(Question("approvals", approval_key(officer, artifact), officer=officer))
            self._want(Question("identity", officer))

    def questions(self) -> tuple[Question, ...]:
        """Return what is to be asked now; each question is returned once. Nothing is left when it is empty. What is
        returned is to be answered before more is asked."""
        if not self._waiting:
            self._want_others()
        now = tuple(self._waiting)
        self._asked |= self._waiting
        self._waiting = {}
        return now

    @property
    def named(self) -> tuple[Digest, ...]:
        """The authors whose statements a driver asks for first, whatever others say."""
        return self._preferred

    @property
    def asked(self) -> tuple[Question, ...]:
        """Every question so far: on what the result depends."""
        return tuple(self._asked)

    def answered(
        self, question: Question, entries: Iterable[Entry], *, more: bool = False, cut: Iterable[Digest] = ()
    ) -> None:
        """Take an answer, the most decisive statements first.

        Args:
            entries: statements whose authors are proven.
            more: whether more was said than the answer has.
            cut: named authors, publishers and members who said more than the answer has.
        """
        said, of_whom = list(entries), frozenset(cut)
        if question.kind not in ("name", "commit"):  # what bears on the artifact is asked for by its digest
            self.cut |= of_whom
        for author in sorted(of_whom):
            self._bound(f"{author[:12]} said more about {_title(question)} than was read")
        if more:
            self._bound(f"more was said about {_title(question)} than was read")
        kept = _READERS[question.kind](self, question, said)
        self._keep(question.kind, kept)

    def carried(self, entries: Iterable[Entry]) -> None:
        """Take statements that came another way, such as with an earlier copy of the artifact."""
        said = list(entries)
        self._keep("carried", said)
        self._follow_artifact([entry for entry in said if _is_about(entry, self.artifact)])

    @property
    def lines(self) -> tuple[bytes, ...]:
        """Return the statements, each once, as many as a verifier reads: first those about keys, and those of officers,
        and last those about ancestors, so that nobody displaces what decides."""
        order: tuple[_Kept, ...] = (
            "identity", "approvals", "artifact", "carried", "name", "commit", "ancestor", "others",
        )  # fmt: skip
        every = list(dict.fromkeys(line for kind in order for line in self._kept[kind]))
        sizes = itertools.accumulate(len(line) + 1 for line in every[:MAX_CLAIMS])
        count = sum(size <= MAX_READ for size in sizes)
        if count < len(every):
            self._bound(f"{len(every) - count} proven statements exceed the limit of a verifier")
        return tuple(every[:count])

    def _want(self, question: Question, most: int | None = None, what: str = "") -> None:
        """Ask a question, unless `most` of its kind were asked."""
        if question in self._asked or question in self._waiting:
            return
        if most is not None and sum(q.kind == question.kind for q in (*self._asked, *self._waiting)) >= most:
            self._bound(f"{what}: more than {most}")
            return
        self._waiting[question] = None

    def _keep(self, kind: _Kept, entries: Iterable[Entry]) -> None:
        self._kept[kind].update(dict.fromkeys(entry.line for entry in entries))

    def _bound(self, text: str) -> None:
        self.bounds[text] = None

    def _read_artifact(self, question: Question, said: list[Entry]) -> list[Entry]:
        self._follow_artifact([entry for entry in said if _is_about(entry, self.artifact)])
        return said

    def _follow_artifact(self, about: Sequence[Entry]) -> None:
        published = self._preferred_first(entry for entry in about if entry.statement.predicate == PUBLISHED)
        for entry in [entry for entry in published if _author(entry) in self._preferred] or published:
            self._want_keys(entry)
        own = [entry for entry in published if _author(entry) == self.publisher] or published
        for name in dict.fromkeys(entry.statement.subjects[0].name for entry in own):
            repository, _, version = name.partition("@")
            self._want(Question("name", repository, version), MAX_NAMES, "names whose other claimants were asked for")
        for name in sorted({entry.statement.subjects[0].name for entry in about if _is_of(entry, OBSERVED)}):
            if is_upstream(name) and (commit := _commit(name)) is not None:
                self._want(commit, MAX_NAMES, "upstream commits that were asked for")
        self._want_parents([entry for entry in own if _author(entry) in self._preferred] or own)
        self._put_off([*own, *(entry for entry in about if _is_of(entry, DERIVED))])
        for entry in self.continuing(about):
            self._want_keys(entry)
            if (commit := _commit(entry.statement.subjects[0].name)) is not None:
                self._want(commit, MAX_CONTINUED, "continued commits whose observations were asked for")

    def continuing(self, entries: Iterable[Entry]) -> list[Entry]:
        """The statements of members that an artifact continues a commit of this upstream repository, in their order."""
        members = {member.id for body in self.policy.pins for member in body.members}
        of_repository = (e for e in entries if _is_of(e, CONTINUES) and e.statement.subject != self.artifact)
        return [entry for entry in of_repository if _author(entry) in members]

    def _read_identity(self, question: Question, said: list[Entry]) -> list[Entry]:
        own = [e for e in said if _author(e) == question.digest and e.statement.predicate in KEYS]
        own = [e for e in own if e.statement.predicate != ADVISORY or _is_about(e, question.digest)]
        return self._at_most(own, MAX_KEY_LINES, question)

    def _read_approvals(self, question: Question, said: list[Entry]) -> list[Entry]:
        wanted = (APPROVED, APPROVAL_ENDED, INCEPTION, ROTATED)
        return [e for e in said if _author(e) == question.officer and e.statement.predicate in wanted]

    def _read_name(self, question: Question, said: list[Entry]) -> list[Entry]:
        """The oldest publication of each claimant and artifact under the name, with the keys of its publisher."""
        wanted = f"{question.subject}@{question.version}".lower()
        first: dict[tuple[Digest | None, Digest], Entry] = {}
        for entry in said:
            if _is_of(entry, PUBLISHED) and entry.statement.subjects[0].name.lower() == wanted:
                first.setdefault((_author(entry), entry.statement.subject), entry)
        rivals = [entry for entry in first.values() if not self._is_own(entry)]
        shown = self._at_most(rivals, MAX_RIVALS, question)
        signers = {_author(entry) for entry in shown}
        return [
            *(e for e in said if _author(e) in signers and e.statement.predicate in KEY_PREDICATES),
            *shown,
        ]

    def _is_own(self, entry: Entry) -> bool:
        return entry.statement.subject == self.artifact and _author(entry) == self.publisher

    def _read_commit(self, question: Question, said: list[Entry]) -> list[Entry]:
        return [entry for entry in said if entry.statement.predicate in (OBSERVED, *PROVING_PREDICATES)]

    def _read_ancestor(self, question: Question, said: list[Entry]) -> list[Entry]:
        """What describes the ancestor, if it is in the claimed lineage; the rest is kept apart."""
        found = [e for e in said if e.statement.predicate in _OF_ANCESTORS]
        describing = self._describing(question.digest, found)
        others = [e for e in found if _is_about(e, question.digest) and e not in describing]
        kept = self._at_most([*describing, *self._preferred_first(others)], MAX_ANCESTOR_LINES, question)
        for entry in describing:
            self._want_keys(entry)
        decisive = describing if question.digest in self._lineage else []
        rest = kept[len(decisive) :]
        self._want_parents(decisive)
        self._put_off(rest)
        if rest and self._has_room("ancestor", "others", what="statements about ancestors"):
            self._keep("others", _with_keys(rest, found))
        return _with_keys(decisive, found)

    def _describing(self, ancestor: Digest, found: Iterable[Entry]) -> list[Entry]:
        """The publications that a lineage uses which has this ancestor."""
        published = (e for e in found if _is_of(e, PUBLISHED) and _is_about(e, ancestor))
        ranked = rank_publications(published, self._named[ancestor], self.policy)
        return next(filter(None, ranked), [])[:MAX_STATEMENTS]

    def _want_keys(self, entry: Entry) -> None:
        if (who := _author(entry)) is not None:
            self._want(Question("identity", who), MAX_IDENTITIES, "identities whose lost keys were asked for")

    def _want_parents(self, entries: Iterable[Entry]) -> None:
        """Ask about the parents that these publications name, which are in the claimed lineage."""
        parents = list(_parents_of(entries))
        for parent, name in parents:
            self._named[parent].add(namespace_of(name))
            self._lineage.add(parent)
        self._want_ancestors((parent for parent, _ in parents), "ancestor")

    def _put_off(self, entries: Iterable[Entry]) -> None:
        """Ask about the parents that these statements name when nothing else is left to ask."""
        self._beside |= dict.fromkeys(parent for parent, _ in _parents_of(entries))

    def _want_others(self) -> None:
        named, self._beside = self._beside, {}
        self._want_ancestors(named, "ancestor", "others")

    def _want_ancestors(self, ancestors: Iterable[Digest], *kinds: _Kept) -> None:
        """Ask about those who were not asked about, if there is room beside what is kept of these kinds."""
        questions = [Question("ancestor", each) for each in ancestors if each != self.artifact]
        new = [question for question in questions if question not in self._asked]
        what = "ancestors that were asked about"
        if new and self._has_room(*kinds, what=what):
            for question in new:
                self._want(question, MAX_ANCESTORS, what)

    def _has_room(self, *kinds: _Kept, what: str) -> bool:
        """Whether not more than `MAX_ANCESTOR_BYTES` were kept of these kinds; if more were, that is told."""
        has = sum(len(line) for kind in kinds for line in self._kept[kind]) <= MAX_ANCESTOR_BYTES
        if not has:
            self._bound(f"{what}: more than {MAX_ANCESTOR_BYTES} bytes")
        return has

    def _at_most(self, entries: list[Entry], most: int, question: Question) -> list[Entry]:
        if len(entries) > most:
            self._bound(f"{len(entries) - most} more statements about {_title(question)} are left out")
        return entries[:most]

    def _preferred_first(self, entries: Iterable[Entry]) -> list[Entry]:
        ranks = {who: rank for rank, who in reversed(list(enumerate(self._preferred)))}
        return sorted(entries, key=lambda entry: ranks.get(_author(entry) or Digest(""), len(ranks)))


_READERS: Final[Mapping[Kind, Callable[[Collector, Question, list[Entry]], list[Entry]]]] = {
    "artifact": Collector._read_artifact,
    "identity": Collector._read_identity,
    "name": Collector._read_name,
    "commit": Collector._read_commit,
    "approvals": Collector._read_approvals,
    "ancestor": Collector._read_ancestor,
}


def _title(question: Question) -> str:
    if question.kind in ("name", "commit"):
        return f"{question.subject}@{question.version}"
    return f"the {question.kind} {question.subject[:12]}"


def _author(entry: Entry) -> Digest | None:
    return entry.statement.by.id if entry.statement.by else None


def _is_about(entry: Entry, subject: Digest) -> bool:
    return subject in {each.digest for each in entry.statement.subjects}


def _is_of(entry: Entry, predicate: str) -> bool:
    return entry.statement.predicate == predicate


def _commit(name: str) -> Question | None:
    try:
        commit = Reference.parse(name)
    except Malformed:
        return None
    return Question("commit", commit.repository or "", commit.version or "")


def _with_keys(entries: Sequence[Entry], found: Iterable[Entry]) -> list[Entry]:
    """The entries, after what was found of the keys of their authors."""
    authors = {_author(entry) for entry in entries}
    return [*(e for e in found if e.statement.predicate in KEY_PREDICATES and _author(e) in authors), *entries]


def _parents_of(entries: Iterable[Entry]) -> Iterator[tuple[Digest, str]]:
    """Yield the parents that statements name by digest, with the names that publications give them."""
    for entry in entries:
        try:
            if _is_of(entry, PUBLISHED):
                parents = Published.parse(entry.statement).lineage
                yield from ((parent.digest, parent.name) for parent in parents if parent.digest)
            elif _is_of(entry, DERIVED):
                yield Derived.parse(entry.statement).parent, ""
        except Malformed:
            continue
