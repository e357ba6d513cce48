"""Under whose law the publishers are from whom artifacts descend: how concentrated a catalogue is.

One node counts, from the publications and derivations in its logs, how many artifacts have each set of roots
(`comity.rules.descent`); this is that node's claim to its reader. Whose law an root is under has three sources:

    charter     a member: the jurisdiction of its seat, which the charter of a pinned federation says
    stated      an organisation or an identity in the asker's own file of laws
    unknown     neither, or the root itself is not known

Pages are folded as they arrive: by law, and the first MAX_AUTHORS authors. An artifact that descends from publishers
under several laws is counted under each. Artifacts that only others than members publish are counted apart, unless they
are asked for, or a member or node holds them and that is what is asked.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from comity.rules.descent import BASES, DescentCount, DescentQuestion, LineageRoot
from comity.trust.encoding import Digest, parse_digest
from comity.trust.errors import ComityError, Malformed, NotFound, Unavailable
from comity.trust.frozen import frozen
from comity.trust.identity import check_jurisdiction
from comity.wire.client import NodeClient
from comity.wire.descent import DescentPage

from comity_client.session import Session
from comity_client.uplink import find_node

MAX_AUTHORS: Final = 10_000
"""Authors that are told apart; artifacts of further ones are counted under their law only."""
MAX_ARTIFACTS: Final = 10_000_000
MAX_LAWS: Final = 10_000
"""Lines of a file of laws."""
MAX_LAWS_BYTES: Final = 1 << 20
CHARTER: Final = "charter"
STATED: Final = "stated"
NOT_KNOWN: Final = "unknown"


@frozen
class RootLaw:
    """Under whose law an root is: `code` is empty where it is not known; `source` is CHARTER, STATED or NOT_KNOWN."""

    code: str
    source: str


NO_LAW: Final = RootLaw("", NOT_KNOWN)


@frozen
class Amounts:
    """Artifacts, bytes of their files, and pulls of them from the node that counts."""

    artifacts: int = 0
    size: int = 0
    pulls: int = 0

    def plus(self, count: DescentCount) -> Amounts:
        return Amounts(self.artifacts + count.artifacts, self.size + count.size, self.pulls + count.pulls)


@frozen
class LawShare:
    """What descends from publishers under one law.

    Attributes:
        law: where its code is empty, `lineage_known` tells apart what has an author without a known law from what has
            an unknown ancestor.
        alone: artifacts that descend from nobody else.
        by_basis: artifacts by how it is known, at best (`rules.descent.BASES`).
    """

    law: RootLaw
    lineage_known: bool
    amounts: Amounts
    alone: int
    by_basis: Mapping[str, int]

    def known_by(self, basis: str) -> int:
        return self.by_basis.get(basis, 0)


@frozen
class AuthorShare:
    """What descends from one author."""

    author: str
    name: str
    law: RootLaw
    amounts: Amounts


@frozen
class DescentShares:
    """How a catalogue is spread over roots, as the node `source` counts it.

    Attributes:
        total: of the artifacts that were asked for and of which a member says something; `apart` of all others.
        unsized: artifacts whose size is not known.
        unread: statements that the node has not read yet.
        weeks: the newest weeks in which pulls from this node were counted.
        requiring: artifacts that name packages which they do not contain, those that are counted apart among them; the
            first of them by digest.
        authors: those with most artifacts first; `authors_cut`: whether further ones were not told apart.
    """

    source: str
    total: Amounts
    apart: Amounts
    unsized: int
    unread: int
    weeks: int
    laws: tuple[LawShare, ...]
    authors: tuple[AuthorShare, ...]
    authors_cut: bool
    requiring: int
    first_requiring: tuple[Digest, ...]


def parse_laws(data: bytes) -> Mapping[str, str]:
    """Read a file of laws: jurisdictions by `hf:organisation` or by the id of an identity.

        [laws]
        "hf:google" = "US"

    Raises Malformed (LAWS-FILE)."""
    if len(data) > MAX_LAWS_BYTES:
        raise _malformed(f"it has more than {MAX_LAWS_BYTES} bytes")
    try:
        document = tomllib.loads(data.decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise _malformed(str(error)[:200]) from error
    laws = document.get("laws")
    if set(document) != {"laws"} or not isinstance(laws, dict) or len(laws) > MAX_LAWS:
        raise _malformed(f"expected one table [laws] of at most {MAX_LAWS} lines")
    return {author.lower(): _law(author, code) for author, code in laws.items()}


def _law(author: str, code: object) -> str:
    try:
        return check_jurisdiction(code) if isinstance(code, str) else _refuse(author)
    except ComityError as error:
        raise _malformed(f"{author[:80]!r} must have the code of a country, such as US") from error


def _refuse(author: str) -> str:
    raise Malformed(f"{author[:80]!r} has no text")


def _malformed(why: str) -> Malformed:
    hint = '[laws], and lines such as "hf:google" = "US"'
    return Malformed("the file of laws is malformed", why=why, hint=hint, code="LAWS-FILE")


@frozen
class KnownLaws:
    """Of whom the law is known: seats of members by the charter, and what the asker states. Names for people."""

    seats: Mapping[str, str]
    stated: Mapping[str, str]
    names: Mapping[str, str]

    @classmethod
    def of(cls, session: Session, stated: Mapping[str, str]) -> KnownLaws:
        members = [member for pin in session.pins for member in pin.body.members]
        namespaces = [item for pin in session.pins for item in pin.body.namespaces.items()]
        bound = {str(publisher): f"{namespace}/" for namespace, publisher in namespaces}
        names = bound | {str(member.id): member.name for member in members}
        return cls({str(member.id): member.jurisdiction for member in members}, stated, names)

    def law(self, author: str) -> RootLaw:
        if author in self.seats:
            return RootLaw(self.seats[author], CHARTER)
        if author in self.stated:
            return RootLaw(self.stated[author], STATED)
        return NO_LAW


@dataclass(slots=True)
class _LawTally:
    amounts: Amounts = field(default_factory=Amounts)
    alone: int = 0
    by_basis: dict[str, int] = field(default_factory=dict)


class DescentFolder:
    """Folds the pages of one node. Its memory grows with laws, and with authors up to MAX_AUTHORS. With `everybody`,
    nothing is counted apart."""

    def __init__(self, laws: KnownLaws, *, everybody: bool = False) -> None:
        self._laws = laws
        self._everybody = everybody
        self._tallies: dict[tuple[RootLaw, bool], _LawTally] = {}
        self._authors: dict[str, Amounts] = {}
        self._cut = False
        self._total, self._apart = Amounts(), Amounts()
        self._unsized = self._requiring = 0
        self._first: list[Digest] = []
        self._last: DescentPage | None = None

    def add(self, page: DescentPage) -> None:
        """Raises Malformed for a node whose list does not end."""
        for count in page.counts:
            self._add(count)
        self._last = page
        self._first = [*self._first, *page.requiring][:MAX_FIRST]
        if self._total.artifacts + self._apart.artifacts > MAX_ARTIFACTS:
            raise Malformed("the counts of roots do not end", why=f"more than {MAX_ARTIFACTS} artifacts")

    def _add(self, count: DescentCount) -> None:
        self._requiring += count.requiring
        if not (count.of_members or self._everybody):
            self._apart = self._apart.plus(count)
            return
        self._total = self._total.plus(count)
        self._unsized += count.unsized
        found: dict[tuple[RootLaw, bool], list[LineageRoot]] = {}
        for root in count.roots:
            found.setdefault((self._laws.law(root.author), bool(root.author)), []).append(root)
            self._add_author(root.author, count)
        for key, roots in found.items():
            tally = self._tallies.setdefault(key, _LawTally())
            best = min((each.basis for each in roots), key=BASES.index)
            tally.amounts = tally.amounts.plus(count)
            tally.by_basis[best] = tally.by_basis.get(best, 0) + count.artifacts
            tally.alone += count.artifacts if len(found) == 1 else 0

    def _add_author(self, author: str, count: DescentCount) -> None:
        if not author:
            return
        if author not in self._authors and len(self._authors) >= MAX_AUTHORS:
            self._cut = True
            return
        self._authors[author] = self._authors.get(author, Amounts()).plus(count)

    def shares(self, source: str) -> DescentShares:
        last = self._last or DescentPage(0, (), 0, 0)
        laws = [
            LawShare(law, known, tally.amounts, tally.alone, dict(tally.by_basis))
            for (law, known), tally in self._tallies.items()
        ]
        authors = [
            AuthorShare(author, self._laws.names.get(author, ""), self._laws.law(author), amounts)
            for author, amounts in self._authors.items()
        ]
        return DescentShares(
            source,
            self._total,
            self._apart,
            self._unsized,
            last.unread,
            last.weeks,
            tuple(sorted(laws, key=lambda share: (not share.law.code, -share.amounts.artifacts, share.law.code))),
            tuple(sorted(authors, key=lambda share: (-share.amounts.artifacts, share.author))),
            self._cut,
            self._requiring,
            tuple(self._first),
        )


DIGITS: Final = 64
"""Of an id."""
MAX_FIRST: Final = 16
"""Artifacts that name packages, as far as they are named."""


async def descent_of_federation(
    session: Session, node: str, question: DescentQuestion, stated: Mapping[str, str], *, everybody: bool = False
) -> DescentShares:
    """Ask the node that `node` names, or the first that answers. What only others than members publish is counted
    apart, unless `everybody`, or where what somebody holds is asked. Raises as `find_node` does, and Unavailable."""
    session.require_nodes()
    laws = KnownLaws.of(session, stated)
    chosen = [await find_node(session, node)] if node else session.nodes
    failure: ComityError = Unavailable("no node counts roots", why="none answers", code="UNREACHABLE")
    for known in chosen:
        try:
            return await known.ask(partial(_fold, source=known.name, question=question, laws=laws, everybody=everybody))
        except ComityError as error:
            failure = error
    raise failure


async def _fold(
    node: NodeClient, source: str, question: DescentQuestion, laws: KnownLaws, everybody: bool
) -> DescentShares:
    folder = DescentFolder(laws, everybody=everybody or question.holder is not None)
    async with aclosing(node.all_descent(question)) as pages:
        async for page in pages:
            folder.add(page)
    return folder.shares(source)


def member_or_node(session: Session, text: str) -> Digest:
    """The id of the member or node that a user names: by its name, or the first 8 digits or more of its id; the id of
    anybody is taken as it is. Raises NotFound (NO-PARTY)."""
    if len(text) == DIGITS:
        return parse_digest(text.lower())
    named: dict[Digest, set[str]] = {}
    for pin in session.pins:
        for member in pin.body.members:
            named.setdefault(member.id, set()).add(member.name)
    for node in session.nodes:
        named.setdefault(node.record.node.id, set()).add(node.name)
    exact = [found for found, names in named.items() if text in names]
    fitting: Sequence[Digest] = exact or [each for each in named if len(text) >= 8 and each.startswith(text.lower())]
    if len(fitting) == 1:
        return fitting[0]
    why = f"{len(fitting)} members and nodes fit {text[:64]!r}"
    raise NotFound("no such member or node", why=why, hint="comity peer ls", code="NO-PARTY")
