"""What all reachable nodes say about an artifact, put together; and who of them proves to be its publisher.

A node's answer is a selection that it made. Together they are still only claims: lines that prove themselves, or count
for nothing.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from comity.trust.digest import Digest, short
from comity.trust.errors import ComityError, Malformed
from comity.trust.evidence import MAX_CLAIMS, MAX_READ
from comity.trust.judging.reading import Publication, Readings, read_claims
from comity.trust.statement import Entry, parse_entry
from comity.trust.statements.published import check_published
from comity.wire.values import Located

from comity_client.nodes.session import Session

MAX_PUBLISHERS: Final = 32
"""Publishers of one name whose records are fetched: beyond that somebody floods the name, and a binding is needed."""

_KEYS: Final = ("inception", "rotated")
_ORDER: Final = ("node-record", "inception", "rotated", "published", "hold", "advisory", "observed")


@dataclass(frozen=True, slots=True)
class Gathered:
    """Lines about one artifact, the node records of the pinned federations first, and what they amount to.

    `places` says where nodes claim that a line stands, as (origin, index); a proof decides.
    """

    artifact: Digest
    lines: tuple[bytes, ...]
    places: Mapping[bytes, frozenset[tuple[str, int]]]
    readings: Readings

    def with_more(self, located: Iterable[Located]) -> Gathered:
        """The same with more lines, which count for what they are about."""
        more = list(located)
        lines = select((*self.lines, *(item.line for item in more)))
        if lines == self.lines:
            return self
        return Gathered(self.artifact, lines, {**places_of(more), **self.places}, read_claims(lines, self.artifact))


async def gather(session: Session, artifact: Digest) -> Gathered:
    """Ask every node about an artifact. Raises NotFound where all say that they know nothing, else Unavailable."""
    answers = await session.ask(lambda node: node.claims(artifact))
    if not answers.found:
        raise answers.failure(f"no statement about sha256:{short(artifact)}")
    located = [item for found in answers.found.values() for item in found]
    lines = select((*session.records(), *(item.line for item in located)))
    return Gathered(artifact, lines, places_of(located), read_claims(lines, artifact))


def places_of(located: Iterable[Located]) -> dict[bytes, frozenset[tuple[str, int]]]:
    places: dict[bytes, set[tuple[str, int]]] = {}
    for item in located:
        places.setdefault(item.line, set()).add((item.origin, item.index))
    return {line: frozenset(found) for line, found in places.items()}


async def prove_publications(
    session: Session, lines: Iterable[bytes], publisher: Digest | None = None
) -> tuple[Publication, ...]:
    """Those of `lines` that are `published` statements, each with the proven record of its publisher; only those of
    `publisher` where it is named and among them.

    What does not verify is left out, and so is the publisher whose record nobody gives. Raises Malformed (code
    TOO-MANY-CLAIMANTS) where more publishers than `MAX_PUBLISHERS` claim to speak.
    """
    claims = [e for line in dict.fromkeys(lines) if (e := readable(line)) and e.statement.predicate == "published"]
    claims = [entry for entry in claims if speaker(entry) == publisher] or claims
    speakers = {who for entry in claims if (who := speaker(entry)) is not None}
    if len(speakers) > MAX_PUBLISHERS:
        raise Malformed(
            "too many claimants",
            why=f"{len(speakers)} identities claim this name, at most {MAX_PUBLISHERS} are looked at",
            hint="comity trust bind NAMESPACE IDENTITY",
            code="TOO-MANY-CLAIMANTS",
        )
    records = await publisher_records(session, claims)
    return tuple(p for entry in claims if (p := prove(entry, records)) is not None)


async def publisher_records(session: Session, claims: Iterable[Entry]) -> Mapping[Digest, Readings]:
    """Inceptions and rotations of those who published `claims`, as far as anybody gives them."""
    artifacts = {who: entry.statement.subject for entry in claims if (who := speaker(entry)) is not None}
    found = await asyncio.gather(*(_records(session, *item) for item in artifacts.items()))
    return dict(zip(artifacts, found, strict=True))


def prove(entry: Entry, records: Mapping[Digest, Readings]) -> Publication | None:
    """The publication, if one of `records` proves that its publisher signed it."""
    who = speaker(entry) or Digest("")
    publisher = records[who].inceptions.get(who) if who in records else None
    chain = records[who].chain(who) if who in records else None
    if publisher is None or chain is None:
        return None
    try:
        return Publication(entry, check_published(entry, publisher, chain), publisher, chain)
    except ComityError:
        return None


def speaker(entry: Entry) -> Digest | None:
    return entry.statement.by.id if entry.statement.by else None


def readable(line: bytes) -> Entry | None:
    try:
        return parse_entry(line)
    except Malformed:
        return None


async def _records(session: Session, identity: Digest, artifact: Digest) -> Readings:
    """What is said about the keys of `identity`, from the claims about something that it published."""
    answers = await session.ask(lambda node: node.claims(artifact))
    claims = (readable(item.line) for found in answers.found.values() for item in found)
    own = (entry for entry in claims if entry and speaker(entry) == identity and entry.statement.predicate in _KEYS)
    return read_claims((entry.line for entry in own), artifact)


def select(lines: Iterable[bytes]) -> tuple[bytes, ...]:
    """Each readable line once, as many as a verifier reads: what decides comes before what adds."""
    entries = [entry for line in dict.fromkeys(lines) if (entry := readable(line)) is not None]

    def rank(entry: Entry) -> int:
        predicate = entry.statement.predicate
        return _ORDER.index(predicate) if predicate in _ORDER else len(_ORDER)

    ranked = [entry.line for entry in sorted(entries, key=rank)[:MAX_CLAIMS]]
    sizes = itertools.accumulate(len(line) + 1 for line in ranked)
    return tuple(line for line, size in zip(ranked, sizes, strict=True) if size <= MAX_READ)
