"""What is said around an artifact: of its publisher's keys, and by others who claim its name. It is evidence like the
rest, and proves itself or counts for nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

from comity.trust.digest import Digest
from comity.trust.errors import ComityError, Unavailable
from comity.trust.judging.reading import Publication, Readings
from comity.trust.judging.speaking import Speakers
from comity.trust.judging.vouching import weigh_vouches
from comity.trust.judging.witnessing import bind
from comity.trust.policy import Policy

from comity_client.events import Note, OnEvent
from comity_client.evidence.claiming import claims_of
from comity_client.evidence.collecting import fetch_object
from comity_client.evidence.gather import bodies_of, lines_of, speaker
from comity_client.evidence.proving import prove_lines
from comity_client.nodes.session import Session

MAX_RIVALS: Final = 32
"""Others who claim a name, whose claims are taken along to be shown."""
MAX_DOCUMENTS: Final = 16
MAX_DOCUMENT: Final = 4 * 1024 * 1024
"""Bytes of a document that came with somebody's vouch: a stranger's words are not worth a disk."""


async def lines_around(
    session: Session, publication: Publication | None, policy: Policy
) -> tuple[tuple[bytes, ...], tuple[str, ...]]:
    """Lines about the publisher's keys, and publications of others under the same name with their signers' records; and
    notes on what was not kept. Raises nothing for what nodes do not answer."""
    if publication is None:
        return (), ()
    keys, (rivals, notes) = await asyncio.gather(
        _of_keys(session, publication.publisher.id, policy), _rivals(session, publication, policy)
    )
    return (*keys, *rivals), notes


async def vouched_documents(
    session: Session, readings: Readings, artifact: Digest, policy: Policy, on_event: OnEvent
) -> Mapping[Digest, bytes]:
    """Small documents of those who are proven to have vouched for the artifact, as far as somebody gives them."""
    bound, _, _ = bind(policy.pins, readings.entries, readings.chains)
    seats = [seat for body in policy.pins for seat in body.members]
    vouches, _ = weigh_vouches(readings, artifact, Speakers(readings, bound, seats))
    named = dict.fromkeys(item for vouch in vouches if (item := vouch.said.document) and item.size <= MAX_DOCUMENT)
    found: dict[Digest, bytes] = {}
    for item in list(named)[:MAX_DOCUMENTS]:
        try:
            found[item.digest] = await fetch_object(session, item.digest)
        except Unavailable as error:
            on_event(Note(str(error)))
    return found


async def _of_keys(session: Session, identity: Digest, policy: Policy) -> tuple[bytes, ...]:
    answers = await session.ask(lambda node: node.claims(identity))
    proven = prove_lines(lines_of(answers.found), bodies_of(session, policy), session.records())
    return tuple(entry.line for entry in proven.entries if speaker(entry) == identity)


async def _rivals(
    session: Session, publication: Publication, policy: Policy
) -> tuple[tuple[bytes, ...], tuple[str, ...]]:
    """The oldest claim of each other claimant, a few of them: what decides the name does not depend on them."""
    name = publication.published.name
    try:
        said = await claims_of(session, name.repository, name.version, policy)
    except ComityError:
        return (), ()
    others = {p.publisher.id: p for p in reversed(said.publications) if p.entry.digest != publication.entry.digest}
    shown = list(reversed(others.items()))
    lines = [e.line for who, p in shown[:MAX_RIVALS] for e in (*said.proven.keys_of(who), p.entry)]
    more = len(shown) - MAX_RIVALS
    return tuple(lines), (f"{more} others claim {name} too; they are left out",) if more > 0 else ()
