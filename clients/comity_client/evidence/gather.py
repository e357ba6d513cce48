"""What all reachable nodes say about an artifact, put together; and who of them proves to be its publisher.

A node's answer is a selection that it made. Together they are still only claims: lines that prove themselves
(`proving`), or are not kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from comity.trust.charter import Body
from comity.trust.digest import Digest, short
from comity.trust.errors import ComityError
from comity.trust.judging.reading import Publication, Readings, read_claims
from comity.trust.policy import Policy
from comity.trust.statement import Entry
from comity.trust.statements.published import check_published
from comity.wire.values import Located

from comity_client.evidence.proving import choose, prove_lines, readable
from comity_client.nodes.session import RemoteNode, Session

_KEYS = ("inception", "rotated")


@dataclass(frozen=True, slots=True)
class Gathered:
    """Lines about one artifact, the node records of the pinned federations first, and what they amount to.

    `places` says where nodes claim that a line stands, as (origin, index); a proof decides. `notes` say what nodes gave
    that was not kept.
    """

    artifact: Digest
    lines: tuple[bytes, ...]
    places: Mapping[bytes, frozenset[tuple[str, int]]]
    readings: Readings
    notes: tuple[str, ...] = field(default=())


async def gather(session: Session, artifact: Digest, policy: Policy, prefer: Sequence[Digest] = ()) -> Gathered:
    """Ask every node about an artifact. Raises NotFound where all say that they know nothing, else Unavailable.

    Args:
        prefer: identities whose statements are kept before others', where there are too many to keep all.
    """
    answers = await session.ask(lambda node: node.claims(artifact))
    if not answers.found:
        raise answers.failure(f"no statement about sha256:{short(artifact)}")
    located = [item for found in answers.found.values() for item in found]
    lines, notes = kept(session, lines_of(answers.found), policy, prefer, {artifact})
    return Gathered(artifact, lines, places_of(located), read_claims(lines, artifact), notes)


def kept(
    session: Session,
    sources: Mapping[str, Iterable[bytes]],
    policy: Policy,
    prefer: Sequence[Digest] = (),
    about: frozenset[Digest] | set[Digest] | None = None,
) -> tuple[tuple[bytes, ...], tuple[str, ...]]:
    """The lines that prove themselves, as many as a verifier reads; and notes on the others.

    Args:
        about: what the statements have to be about, where not everything is wanted.
    """
    proven = prove_lines(
        sources,
        bodies_of(session, policy),
        session.records(),
        lambda entry: about is None or any(subject.digest in about for subject in entry.statement.subjects),
    )
    lines, left = choose(proven, session.records(), [*prefer, *trusted(policy)])
    beyond = (f"{left} statements more are proven than a verifier reads; they are left out",) if left else ()
    return lines, (*proven.notes(), *beyond)


def bodies_of(session: Session, policy: Policy) -> tuple[Body, ...]:
    """The bodies that the policy pins, and those of the session: another policy may judge what is kept here."""
    bodies = (*policy.pins, *(federation.body for federation in session.pins))
    return tuple({body.digest: body for body in bodies}.values())


def trusted(policy: Policy) -> tuple[Digest, ...]:
    """Publishers whom the owner or a pinned charter names."""
    named = [publisher for body in policy.pins for publisher in body.namespaces.values()]
    return tuple(dict.fromkeys((*policy.publishers, *policy.bindings.values(), *named)))


def lines_of(found: Mapping[RemoteNode, Iterable[Located]]) -> dict[str, list[bytes]]:
    """The lines that nodes gave, by the verifier key of the node's log, which no two nodes share."""
    lines: dict[str, list[bytes]] = {}
    for node, items in found.items():
        lines.setdefault(str(node.record.log), []).extend(item.line for item in items)
    return lines


def places_of(located: Iterable[Located]) -> dict[bytes, frozenset[tuple[str, int]]]:
    places: dict[bytes, set[tuple[str, int]]] = {}
    for item in located:
        places.setdefault(item.line, set()).add((item.origin, item.index))
    return {line: frozenset(found) for line, found in places.items()}


async def publisher_records(session: Session, claims: Iterable[Entry]) -> Mapping[Digest, Readings]:
    """Inceptions and rotations of those who published `claims`, as far as anybody gives them."""
    artifacts = {who: entry.statement.subject for entry in claims if (who := speaker(entry)) is not None}
    found = await asyncio.gather(*(_records(session, *item) for item in artifacts.items()))
    return dict(zip(artifacts, found, strict=True))


def prove(entry: Entry, records: Mapping[Digest, Readings]) -> Publication | None:
    """The publication, if one of `records` proves that its publisher signed it."""
    who = speaker(entry) or Digest("")
    return publication_of(entry, records[who]) if who in records else None


def publication_of(entry: Entry, readings: Readings) -> Publication | None:
    """The publication, if `readings` prove that its publisher signed it."""
    who = speaker(entry) or Digest("")
    publisher, chain = readings.inceptions.get(who), readings.chain(who)
    if publisher is None or chain is None:
        return None
    try:
        return Publication(entry, check_published(entry, publisher, chain), publisher, chain)
    except ComityError:
        return None


def speaker(entry: Entry) -> Digest | None:
    return entry.statement.by.id if entry.statement.by else None


async def _records(session: Session, identity: Digest, artifact: Digest) -> Readings:
    """What is said about the keys of `identity`, from the claims about something that it published."""
    answers = await session.ask(lambda node: node.claims(artifact))
    claims = (readable(item.line) for found in answers.found.values() for item in found)
    own = (entry for entry in claims if entry and speaker(entry) == identity and entry.statement.predicate in _KEYS)
    return read_claims((entry.line for entry in own), artifact)
