"""From claims to a lineage graph: who is proven to have said what about an artifact and all that it comes from.

A publication counts by its publisher's keys. Where the owner's trust names a publisher for a namespace, that one's word
about an artifact of this namespace is taken and nobody else's, so that a stranger who publishes the same bytes under
other terms changes nothing. A `derived` statement counts by the keys of an identity whose inception is among the
claims, of a member's seat, or of a bound node.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Final

from comity.trust.digest import Digest, short
from comity.trust.errors import ComityError, Untrusted
from comity.trust.judging.reading import Publication, Readings
from comity.trust.judging.speaking import Speakers
from comity.trust.judging.witnessing import Bound
from comity.trust.lineage import Claim, Graph, Known, Word, build
from comity.trust.policy import Policy
from comity.trust.remark import Remark
from comity.trust.statement import Author, Entry
from comity.trust.statements.derived import PREDICATE, parse_derived
from comity.trust.statements.published import Published, check_published

MAX_STATEMENTS: Final = 16
"""Publications, and derivations, of one artifact whose signatures are looked at; those of publishers whom the owner's
trust names come first."""


def lineage_of(
    readings: Readings, artifact: Digest, chosen: Publication | None, policy: Policy, bound: Iterable[Bound]
) -> tuple[Graph, tuple[Remark, ...]]:
    """What `artifact` comes from as its publisher says, and notes on derivations of it that are not proven.

    Args:
        chosen: its publication to go by; None where there is none.
    """
    asked = _Asked(readings, policy, tuple(bound))

    def known(digest: Digest) -> Known:
        claims = asked.claims(digest) if digest != artifact else (_claim(chosen),) if chosen else ()
        return Known(claims, asked.words(digest))

    graph = build(artifact, known)
    return graph, tuple(
        Remark(f"derived {short(line)} counts for nothing: {why}", line) for line, why in asked.refused.items()
    )


class _Asked:
    """The statements among the claims, by the artifact that they are about; proven when somebody asks for them."""

    def __init__(self, readings: Readings, policy: Policy, bound: tuple[Bound, ...]) -> None:
        self._readings = readings
        self._policy = policy
        self._speakers = Speakers(readings, bound, [seat for body in policy.pins for seat in body.members])
        self._entries: dict[tuple[str, Digest], list[Entry]] = {}
        self.refused: dict[Digest, ComityError] = {}
        for entry in sorted(readings.entries, key=lambda entry: entry.digest):
            if entry.statement.predicate in ("published", PREDICATE):
                self._entries.setdefault((entry.statement.predicate, entry.statement.subject), []).append(entry)

    def claims(self, artifact: Digest) -> tuple[Claim, ...]:
        entries = self._entries.get(("published", artifact), [])
        entries.sort(key=lambda entry: not self._named(entry.statement.by, entry.statement.subjects[0].name))
        found: list[Claim] = []
        for entry in entries[:MAX_STATEMENTS]:
            with contextlib.suppress(ComityError):  # a stranger's, about an artifact that is not the one judged
                found.append(_claim(_publication(entry, self._readings)))
        named = [claim for claim in found if self._named(Author("identity", claim.publisher), claim.name)]
        return tuple(named or found)

    def words(self, artifact: Digest) -> tuple[Word, ...]:
        found: list[Word] = []
        for entry in self._entries.get((PREDICATE, artifact), [])[:MAX_STATEMENTS]:
            try:
                found.append(_word(entry, self._speakers))
            except ComityError as error:
                self.refused[entry.digest] = error
        return tuple(found)

    def _named(self, by: Author | None, name: str) -> bool:
        """Whether the owner's trust names this publisher, for the namespace of this name or at all."""
        if by is None:
            return False
        return by.id in self._policy.publishers or self._policy.bound_publisher(name.partition("/")[0]) == by.id


def _publication(entry: Entry, readings: Readings) -> Publication:
    by = entry.statement.by.id if entry.statement.by else Digest("")
    publisher, chain = readings.inceptions.get(by), readings.chain(by)
    if publisher is None or chain is None:
        raise Untrusted("published refused", why=f"the record of publisher {short(by)} is not here", code="SIGNATURE")
    return Publication(entry, check_published(entry, publisher, chain), publisher, chain)


def _claim(publication: Publication) -> Claim:
    said: Published = publication.published
    parents = tuple((parent.relation, parent.name, parent.digest) for parent in said.lineage)
    by = f"{publication.publisher.display} [{said.by[:12]}]"
    return Claim(said.by, by, str(said.name), said.licence.spdx, parents, publication.entry.digest)


def _word(entry: Entry, speakers: Speakers) -> Word:
    derived = parse_derived(entry.statement)
    speaker = speakers.speaker(entry)
    if speaker is None:
        raise Untrusted("derived refused", why=f"not proven to be {short(derived.by.id)}'s", code="SIGNATURE")
    return Word(speaker.name, derived, entry.digest)
