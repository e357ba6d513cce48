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
from comity_client.evidence.collecting import fetch_object
from comity_client.evidence.gather import MAX_PUBLISHERS, publisher_records, readable, speaker
from comity_client.nodes.session import Session

MAX_DOCUMENTS: Final = 16
MAX_DOCUMENT: Final = 4 * 1024 * 1024
"""Bytes of a document that came with somebody's vouch: a stranger's words are not worth a disk."""


async def lines_around(session: Session, publication: Publication | None) -> tuple[bytes, ...]:
    """Lines about the publisher's keys, and publications of others under the same name with their signers' records.
    Raises nothing for what nodes do not answer."""
    if publication is None:
        return ()
    keys, rivals = await asyncio.gather(_of_keys(session, publication.publisher.id), _rivals(session, publication))
    return (*keys, *rivals)


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


async def _of_keys(session: Session, identity: Digest) -> list[bytes]:
    answers = await session.ask(lambda node: node.claims(identity))
    lines = dict.fromkeys(item.line for found in answers.found.values() for item in found)
    entries = (entry for line in lines if (entry := readable(line)) is not None)
    return [entry.line for entry in entries if speaker(entry) == identity]


async def _rivals(session: Session, publication: Publication) -> list[bytes]:
    name = publication.published.name
    answers = await session.ask(lambda node: node.resolve(name.repository, name.version))
    lines = dict.fromkeys(item.line for found in answers.found.values() for item in found)
    entries = [entry for line in lines if (entry := readable(line)) and entry.statement.predicate == "published"]
    others = [entry for entry in entries if entry.digest != publication.entry.digest]
    few = {speaker(entry) for entry in others}
    if len(few) > MAX_PUBLISHERS:  # a flood says nothing about anybody; the name is then decided by a binding
        return []
    try:
        records = await publisher_records(session, others)
    except ComityError:
        return []
    proofs = [entry.line for readings in records.values() for entry in readings.entries]
    return [*(entry.line for entry in others), *proofs]
