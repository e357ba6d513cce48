"""Keys in other hands: `key-compromise` advisories about an identity, from an entry of its home log on.

    {"kind":"key-compromise","severity":"critical","text":"the laptop is gone",
     "key":"5f01…","since":{"origin":"node-ch/log","index":812}}

The subject is the identity, `key` one of its keys by the SHA-256 of its JSON. What the identity itself says counts: by
any keys that it ever had, since whoever else holds them gains nothing by saying so. The same words by somebody else are
a claim.
Statements below the entry stand as they stood; of one by that key that is not proven to be below, nobody can tell whose
it is. Source: protocol, section 5.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from comity.trust.digest import Digest
from comity.trust.errors import ComityError
from comity.trust.judging.reading import Publication, Readings
from comity.trust.judging.witnessing import Witnessed
from comity.trust.statement import Entry
from comity.trust.statements.claims import parse_advisory


@dataclass(frozen=True, slots=True)
class Notice:
    """The owner's proven word that `key` was in other hands from entry `index` of the log `origin` on."""

    entry: Entry
    key: Digest
    origin: str
    index: int
    severity: str
    text: str


def notices(readings: Readings, publication: Publication) -> tuple[Notice, ...]:
    """What its publisher says of keys that signed `publication`; the earliest entry first."""
    used = {key.id for state in publication.chain.signers(publication.entry.envelope) for key in state.keys.keys}
    found = (_notice(entry, publication) for entry in readings.entries if entry.statement.predicate == "advisory")
    return tuple(sorted((each for each in found if each and each.key in used), key=lambda each: each.index))


def _notice(entry: Entry, publication: Publication) -> Notice | None:
    if entry.statement.by != publication.publisher.author:
        return None
    try:
        advisory = parse_advisory(entry.statement)
    except ComityError:
        return None
    said = advisory.compromise
    if said is None or advisory.artifact != publication.publisher.id:
        return None
    if not publication.chain.signed(entry.envelope):
        return None
    return Notice(entry, said.key, said.origin, said.index, advisory.severity, advisory.text)


def stands_before(notice: Notice, witnessed: Iterable[Witnessed]) -> bool | None:
    """Whether the statement is proven to be in the log below the notice's entry; None where no proof of that log is
    here."""
    indexes = [seen.index for seen in witnessed if seen.origin == notice.origin]
    return min(indexes) < notice.index if indexes else None
