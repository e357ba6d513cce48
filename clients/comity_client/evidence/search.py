"""Search the nodes for artifacts by the words of a name.

What a node names is a claim; a result says whether the signature of its publisher, or of the node that mirrored it, was
verified. Where there are more results than are listed, each node names one in turn, and publishers take turns in what a
node names, so that none fills the list.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field, replace
from typing import Final, TypeVar

from comity.rules.artifact_kind import MODEL, kind_of, stated_by
from comity.trust.claims import ParsedClaims, Publication, read_claims
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError, Malformed
from comity.trust.frozen import frozen
from comity.trust.node_records import signed_by_node
from comity.trust.policy import Policy
from comity.trust.resolution import Candidate, newest_first
from comity.trust.statement import Entry, parse_entry
from comity.trust.statement_kinds import KEY_PREDICATES, PUBLISHED
from comity.trust.turns import in_turns
from comity.trust.upstream import Observed
from comity.wire.artifact import SearchPage
from comity.wire.client import NodeClient
from comity.wire.found import Lookup
from comity.wire.messages import LocatedEntry

from comity_client.evidence.held_lines import ask_all, pinned_entries
from comity_client.evidence.home_positions import HomePositions, order_statements
from comity_client.evidence.inquiry import Inquiry, author_of, places_of
from comity_client.evidence.known_since import ClaimedTimes, KnownSince
from comity_client.evidence.names import withdrawn
from comity_client.session import RemoteNode, Session

K = TypeVar("K")
MAX_PAGES: Final = 100
"""Maximum number of search pages per node."""


@frozen
class FoundArtifacts:
    """One search result. `publisher` is the claimed author; `proven`: its signature is verified; `near`: its name has
    not every word of the search, but is near it; `withdrawn`: its publisher yanked or superseded it, by a statement
    that is verified here; `known_since`: by when nodes say that they knew it, None if none says it; `kind`: what its
    publisher states of it, by a statement that is verified here; None where the publication is not proven."""

    name: str
    artifact: Digest
    publisher: Digest
    label: str
    licence: str
    proven: bool
    near: bool = False
    withdrawn: bool = False
    known_since: KnownSince | None = None
    kind: str | None = None


async def search_artifacts(session: Session, text: str, limit: int, kind: str = "") -> list[FoundArtifacts]:
    """Return at most `limit` publications and mirrored commits whose names contain all words of `text`, sorted by name;
    if there are none, those whose names are near it, the nearest first. A publication that was stated several times is
    listed once, by its newest statement: by the positions that nodes claim if they agree, else by proven ones, of at
    most `MAX_ORDERED` publications. Where there are more, each node names one in turn, so that no node fills the list
    alone. With a kind, only those that are proven to be of it: nodes are asked for it, and none is believed.

    Raises Unavailable.
    """
    answers = await session.ask(lambda node: _pages(node, text, limit, kind))
    if not answers.found:
        raise answers.failure("the search has no answer")
    found = _of_kind(await _listings(session, _merged(answers.found), limit), kind)
    if found or not text.strip():
        return sorted(found, key=lambda listing: listing.name)
    fragments = name_fragments(text)
    nearby = await session.ask(lambda node: _containing(node, fragments, kind))
    located = _merged(nearby.found)
    near_names = _of_kind(await _listings(session, located, len(located.found)), kind)
    listed = [replace(each, near=True) for each in near_names]
    rated = {each: nearness(text, each.name) for each in listed}
    near = [each for each in listed if rated[each] >= NEAR]
    return sorted(near, key=lambda each: (-rated[each], each.name))[:limit]


@frozen
class _SearchAnswer:
    """Publications and observations, what publishers warn of and state of kinds, and since when nodes know them."""

    found: list[LocatedEntry] = field(default_factory=list)
    advisories: list[LocatedEntry] = field(default_factory=list)
    times: ClaimedTimes = field(default_factory=ClaimedTimes)


def _merged(answers: Mapping[RemoteNode, _SearchAnswer]) -> _SearchAnswer:
    """The first result of each node, the second of each, and so on: publishers take turns in the order of a node."""
    numbered = [(number, item) for number, answer in enumerate(answers.values()) for item in answer.found]
    advisories = [item for answer in answers.values() for item in answer.advisories]
    merged = _SearchAnswer([item for _, item in in_turns(numbered, lambda each: each[0])], advisories)
    for node, answer in answers.items():
        merged.times.add(node.member.id, answer.found)
    return merged


async def _listings(session: Session, answer: _SearchAnswer, limit: int) -> list[FoundArtifacts]:
    places = places_of(answer.found)
    entries = [entry for line in places if (entry := session.reader.readable(line)) is not None]
    published = [entry for entry in entries if entry.statement.predicate == PUBLISHED]
    newest = list({_key(entry): entry for entry in published}.values())[:limit]
    records = await publisher_records(session, newest)
    stated: dict[tuple[str, Digest, Digest | None], list[Publication]] = {}
    for entry in published:
        known = records.get(author_of(entry) or Digest(""))
        if known is not None and (publication := known.publication(entry)) is not None:
            stated.setdefault(_key(entry), []).append(publication)
    chosen = await _newest_statements(HomePositions(Inquiry(session, Policy())), stated, places)
    advised = [entry for item in answer.advisories if (entry := session.reader.readable(item.line)) is not None]
    found = []
    for entry in newest:
        own, lines = chosen.get(_key(entry)), (each.entry.line for each in stated.get(_key(entry), ()))
        listed = _found(own.entry, own, advised) if own else _found(entry, None, ())
        found.append(replace(listed, known_since=answer.times.of(entry.line, *lines)))
    return found + _mirrored(session, entries, answer.times)[: limit - len(found)]


async def publisher_records(session: Session, claims: Iterable[Entry]) -> Mapping[Digest, ParsedClaims]:
    """Fetch the inceptions and rotations of the publishers of `claims`, if any node has them, from the claims about one
    artifact of each."""
    artifacts = {who: entry.statement.subject for entry in claims if (who := author_of(entry)) is not None}

    async def records(identity: Digest, artifact: Digest) -> ParsedClaims:
        answers = await ask_all(session, Lookup.about(artifact))
        said = (session.reader.readable(item.line) for found in answers.found.values() for item in found)
        known = (*pinned_entries(session), *said)
        own = (e for e in known if e and author_of(e) == identity and e.statement.predicate in KEY_PREDICATES)
        return read_claims((entry.line for entry in own), artifact, session.reader)

    found = await asyncio.gather(*(records(*item) for item in artifacts.items()))
    return dict(zip(artifacts, found, strict=True))


MAX_ORDERED: Final = 16
"""Publications of one search whose statements are ordered by proofs, because nodes do not agree on their positions."""


async def _newest_statements(
    positions: HomePositions,
    stated: Mapping[K, Sequence[Publication]],
    places: Mapping[bytes, frozenset[tuple[str, int]]],
) -> dict[K, Publication]:
    """Return the newest of several statements of each publication."""
    found: dict[K, Publication] = {}
    disputed: list[K] = []
    for key, own in stated.items():
        claimed = [Candidate(each, positions.claimed(each, places[each.entry.line])) for each in own]
        found[key] = newest_first(claimed)[0].publication
        if len(own) > 1 and any(each.position is None for each in claimed):
            disputed.append(key)
    asked = disputed[:MAX_ORDERED]
    ordered = await asyncio.gather(*(order_statements(positions, stated[key], places) for key in asked))
    return found | {key: own[0].publication for key, own in zip(asked, ordered, strict=True)}


def _key(entry: Entry) -> tuple[str, Digest, Digest | None]:
    """What several statements of one publication have in common: name, artifact and author."""
    statement = entry.statement
    return statement.subjects[0].name, statement.subject, statement.by.id if statement.by else None


NEAR: Final = 0.6
"""Similarity from which a name is near a search, 0 to 1."""
MAX_WORDS: Final = 4
MAX_NEAR: Final = 50
"""Names of one node with one fragment of a word."""


def name_fragments(text: str) -> list[str]:
    """Return parts of the words of a search that a name near it probably contains: the words, their first three and
    four letters, and their last four."""
    parts = [part for word in text.casefold().split()[:MAX_WORDS] for part in (word, word[:4], word[-4:], word[:3])]
    return [part for part in dict.fromkeys(parts) if len(part) >= 2]


def nearness(text: str, name: str) -> float:
    """Return the similarity of a search and a name, 0 to 1: the mean over its words of the nearest part of the name."""
    import difflib

    words = text.casefold().split()[:MAX_WORDS]
    whole = name.casefold()
    parts = [whole, *re.split(r"[/@]", whole), *re.split(r"[/@._-]", whole)]
    return sum(max(difflib.SequenceMatcher(None, word, part).ratio() for part in parts) for word in words) / len(words)


async def _containing(node: NodeClient, fragments: Sequence[str], kind: str) -> _SearchAnswer:
    answers = [await _pages(node, part, MAX_NEAR, kind) for part in fragments]
    found = [item for answer in answers for item in answer.found]
    return _SearchAnswer(found, [item for answer in answers for item in answer.advisories])


async def _pages(node: NodeClient, text: str, limit: int, kind: str) -> _SearchAnswer:
    """What a node says it has of a kind; one of an older version gives every kind, of which others are left out here.

    Raises Malformed (UNBOUNDED) if the pages of the node do not end.
    """
    answer = _SearchAnswer()
    cursor = ""
    for _ in range(MAX_PAGES):
        page = await node.search(text, cursor, kind=kind)
        answer.found.extend(_claimed_of_kind(page, kind) if kind else page.found)
        answer.advisories.extend(page.advisories)
        if len(answer.found) >= limit or not page.next_cursor or page.next_cursor == cursor:
            return _SearchAnswer(answer.found[:limit], answer.advisories)
        cursor = page.next_cursor
    raise Malformed("the search does not end", why=f"more than {MAX_PAGES} pages", code="UNBOUNDED")


def _claimed_of_kind(page: SearchPage, kind: str) -> list[LocatedEntry]:
    """Those of a page that are of a kind by what it says itself, proven or not."""
    said = [entry for item in page.advisories if (entry := _parsed(item)) is not None]

    def claimed(item: LocatedEntry) -> bool:
        entry = _parsed(item)
        if entry is None or (by := entry.statement.by) is None:
            return False
        return kind_of(stated_by(said, by.id, entry.statement.subject)) == kind

    return [item for item in page.found if claimed(item)]


def _parsed(item: LocatedEntry) -> Entry | None:
    try:
        return parse_entry(item.line)
    except ComityError:
        return None


def _of_kind(found: list[FoundArtifacts], kind: str) -> list[FoundArtifacts]:
    return [each for each in found if not kind or each.kind == kind]


def _mirrored(session: Session, entries: Iterable[Entry], times: ClaimedTimes) -> list[FoundArtifacts]:
    """Return one result per artifact and name that nodes claim to have mirrored; proven if a known node signed it."""
    nodes = {node.record.node.id: node.record for node in session.nodes}
    found: dict[tuple[str, Digest], FoundArtifacts] = {}
    lines: dict[tuple[str, Digest], list[bytes]] = {}
    for entry in entries:
        try:
            said = Observed.parse(entry.statement)
        except Malformed:
            continue
        record, key = nodes.get(said.by), (said.upstream.name, said.artifact)
        proven = record is not None and signed_by_node(entry, record)
        lines.setdefault(key, []).append(entry.line)
        if key not in found or (proven and not found[key].proven):
            label = f"mirrored by {record.name}" if record else ""
            found[key] = FoundArtifacts(*key, said.by, label, said.conditions.licence, proven, kind=MODEL)
    return [replace(each, known_since=times.of(*lines[key])) for key, each in found.items()]


def _found(entry: Entry, publication: Publication | None, advised: Iterable[Entry]) -> FoundArtifacts:
    by = entry.statement.by
    return FoundArtifacts(
        name=entry.statement.subjects[0].name,
        artifact=entry.statement.subject,
        publisher=by.id if by else Digest(""),
        label=publication.publisher.label if publication else "",
        licence=publication.published.licence.spdx if publication else "",
        proven=publication is not None,
        withdrawn=publication is not None and withdrawn(publication, advised),
        kind=_kind(publication, advised) if publication is not None else None,
    )


def _kind(publication: Publication, said: Iterable[Entry]) -> str:
    signed = (entry for entry in said if publication.chain.signed(entry.envelope))
    return kind_of(stated_by(signed, publication.publisher.id, publication.published.artifact))
