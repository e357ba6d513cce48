"""What a proven line says, as far as the tables of a ledger have columns for it. Whoever calls this has proven it."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import Final

from comity.trust.charter.lies import MISBEHAVIOUR
from comity.trust.charter.proposing import ADOPTED, CONSENTED, DRAFT, LEFT
from comity.trust.charter.readings import INTENT, RATIFIED
from comity.trust.digest import Digest
from comity.trust.encoding import canonical
from comity.trust.errors import ComityError
from comity.trust.identity import Inception
from comity.trust.offers import PREDICATES
from comity.trust.offers.accusing import OFFER_FAULT
from comity.trust.statement import Entry
from comity.trust.statements.derived import PREDICATE as DERIVED
from comity.trust.statements.node_record import parse_node_record
from comity.trust.statements.published import Published
from comity.trust.statements.verified import VERIFIED
from comity.trust.statements.vouched import PREDICATE as VOUCHED
from comity.trust.upstream.news import CHANGED, GONE
from comity.trust.upstream.observed import OBSERVED, Observed

PUBLISHED: Final = "published"
INCEPTION: Final = "inception"
ROTATED: Final = "rotated"
NODE_RECORD: Final = "node-record"
HOLD: Final = "hold"
ADVISORY: Final = "advisory"
ADDRESSES: Final = "addresses"

OTHER: Final = ""
"""The kind of statements whose type this version does not know."""
KNOWN: Final = frozenset(
    {PUBLISHED, OBSERVED, HOLD, ADVISORY, INCEPTION, ROTATED, NODE_RECORD, ADDRESSES, VERIFIED, VOUCHED, DERIVED}
    | {CHANGED, GONE, OFFER_FAULT, *PREDICATES}
    | {DRAFT, CONSENTED, LEFT, INTENT, RATIFIED, ADOPTED, MISBEHAVIOUR}
)
MAX_FOLDED: Final = 512


@dataclass(frozen=True, slots=True)
class Identity:
    """An identity whose inception is proven: the origin of its home log, and what it calls itself."""

    id: Digest
    home: str
    display: str


@dataclass(frozen=True, slots=True)
class NodeKey:
    """A node's online key, of which `id` is the hash, as JSON."""

    id: Digest
    key: bytes


@dataclass(frozen=True, slots=True)
class Named:
    """An artifact under a name: what somebody published, or a node observed. `repository` is spelled as there."""

    repository: str
    version: str
    artifact: Digest


@dataclass(frozen=True, slots=True)
class Fact:
    """A proven line of a log, and what its statement says that is looked up."""

    index: int
    statement: Digest
    predicate: str
    by: Digest
    subjects: tuple[Digest, ...]
    said: Identity | NodeKey | Named | None

    @property
    def kind(self) -> str:
        """The predicate, where this version knows it."""
        return self.predicate if self.predicate in KNOWN else OTHER


def fact(index: int, entry: Entry) -> Fact | None:
    """What a proven entry at `index` says; None for a foreign type, which nobody can prove."""
    statement = entry.statement
    if statement.by is None:
        return None
    subjects = tuple(dict.fromkeys(subject.digest for subject in statement.subjects))
    return Fact(index, entry.statement_digest, statement.predicate, statement.by.id, subjects, _said(entry))


def fold(name: str) -> str:
    """The form in which names are compared: without case, and short enough for any database's index."""
    return unicodedata.normalize("NFC", name).casefold()[:MAX_FOLDED]


def _said(entry: Entry) -> Identity | NodeKey | Named | None:
    statement = entry.statement
    try:
        if statement.predicate == INCEPTION:
            inception = Inception.from_json(statement.body.get("record"))
            return Identity(inception.id, inception.home, inception.display)
        if statement.predicate == NODE_RECORD:
            record = parse_node_record(entry)
            return NodeKey(record.node.id, canonical(record.online.to_json()))
        if statement.predicate == PUBLISHED:
            published = Published.parse(statement)
            return Named(published.name.repository, published.name.version, published.artifact)
        if statement.predicate == OBSERVED:
            observed = Observed.parse(statement)
            repository, _, commit = observed.name.rpartition("@")
            return Named(repository, commit, observed.artifact)
    except ComityError:
        pass  # an own log of a test may hold what nobody could prove
    return None
