"""Under whose law the publishers are from whom artifacts descend: how concentrated a catalogue is. Pure.

A node counts how many artifacts have each set of roots (`comity.rules.descent`). Whose law a root is under has three
sources:

    charter     a member: the jurisdiction of its seat, which a charter says
    stated      an organisation or an identity in the reader's own file of laws
    unknown     neither, or the root itself is not known

Counts are folded as they arrive: by law, and the first MAX_AUTHORS authors. An artifact that descends from publishers
under several laws is counted under each. Artifacts that only others than members publish are counted apart, unless the
reader wants them too.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from comity.rules.descent import BASES, DescentCount, LineageRoot
from comity.trust.charter.document import Body
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError, Malformed
from comity.trust.frozen import frozen
from comity.trust.identity import check_jurisdiction

MAX_AUTHORS: Final = 10_000
"""Authors that are told apart; artifacts of further ones are counted under their law only."""
MAX_ARTIFACTS: Final = 10_000_000
MAX_LAWS: Final = 10_000
"""Lines of a file of laws."""
MAX_LAWS_BYTES: Final = 1 << 20
MAX_FIRST: Final = 16
"""Artifacts that name packages, as far as they are named."""
CHARTER: Final = "charter"
STATED: Final = "stated"
NOT_KNOWN: Final = "unknown"


@frozen
class RootLaw:
    """Under whose law a root is: `code` is empty where it is not known; `source` is CHARTER, STATED or NOT_KNOWN."""

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
    if isinstance(code, str):
        with suppress(ComityError):
            return check_jurisdiction(code)
    raise _malformed(f"{author[:80]!r} must have the code of a country, such as US")


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
    def of(cls, charters: Iterable[Body], stated: Mapping[str, str]) -> KnownLaws:
        bodies = tuple(charters)
        members = [member for body in bodies for member in body.members]
        namespaces = [item for body in bodies for item in body.namespaces.items()]
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

    def add(self, counts: Iterable[DescentCount], requiring: Iterable[Digest] = ()) -> None:
        """Add some counts, and the digests of artifacts that name packages. Raises Malformed for counts that do not
        end."""
        for count in counts:
            self._add(count)
        self._first = [*self._first, *requiring][:MAX_FIRST]
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

    def shares(self, source: str, unread: int, weeks: int) -> DescentShares:
        """What was counted; the last values are those of the node that counts, `source`."""
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
            unread,
            weeks,
            tuple(sorted(laws, key=lambda share: (not share.law.code, -share.amounts.artifacts, share.law.code))),
            tuple(sorted(authors, key=lambda share: (-share.amounts.artifacts, share.author))),
            self._cut,
            self._requiring,
            tuple(self._first),
        )


def percent(part: int, whole: int) -> str:
    """`41 %`, `<1 %`; `-` of nothing."""
    if not whole:
        return "-"
    share = 100 * part / whole
    return "<1 %" if 0 < share < 1 else f"{share:.0f} %"
