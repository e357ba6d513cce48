"""Collects from the nodes of the pinned federations what a verdict about an artifact depends on: the first source of
`rules.collector`, which says what is asked.

The answer of a node is its own selection, so only statements that `prove` verifies are used, in fair turns of nodes and
authors. A node that does not answer is left out; what nobody answers is missing, and nothing is raised for it, unless
no node knows the artifact.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from comity.rules.collected import CollectedClaims
from comity.rules.collector import Collector, Question
from comity.trust.claims import ParsedClaims
from comity.trust.encoding import Digest, short
from comity.trust.policy import Policy
from comity.wire.messages import LocatedEntry
from comity_client.evidence.gather import chosen_lines, cut_authors, is_about, lines_by_log, places_of, prove_said
from comity_client.evidence.prove import ProvenStatements
from comity_client.session import Answers, Session
from comity_client.session import Question as Asked

AT_ONCE: Final = 8
"""Questions that are asked at the same time."""


@dataclass(frozen=True, slots=True)
class GatheredEvidence:
    """The statements on which a verdict about one artifact depends, node records of the pinned federations among them,
    and their readings.

    `places` are the claimed positions of a line about the artifact as (origin, index); not proven. `notes` are about
    dropped lines; `bounds` say what was left out because a bound was reached; `cut` are the authors who said more.
    """

    artifact: Digest
    lines: tuple[bytes, ...]
    places: Mapping[bytes, frozenset[tuple[str, int]]]
    readings: ParsedClaims
    notes: tuple[str, ...] = field(default=())
    bounds: tuple[str, ...] = field(default=())
    cut: frozenset[Digest] = field(default=frozenset())


class NodeCollector:
    """Asks the nodes of a session. Not thread-safe.

    Args:
        publisher: the identity to whose name the artifact belongs here.
    """

    def __init__(self, session: Session, artifact: Digest, policy: Policy, publisher: Digest | None = None) -> None:
        self._session = session
        self._artifact = artifact
        self._policy = policy
        self._publisher = publisher
        self._collector = Collector(artifact, policy, publisher)
        self._places: dict[bytes, frozenset[tuple[str, int]]] = {}
        self._notes: dict[str, None] = {}

    async def run(self) -> GatheredEvidence:
        """Ask until nothing is left to ask. Raises NotFound if all nodes know nothing about the artifact, else
        Unavailable."""
        limit = asyncio.Semaphore(AT_ONCE)
        while questions := self._collector.questions():
            answers = await asyncio.gather(*(self._ask(question, limit) for question in questions))
            for question, answer in zip(questions, answers, strict=True):
                self._take(question, answer)
        return self._gathered()

    async def with_carried(self, lines: Sequence[bytes]) -> GatheredEvidence:
        """As `run`, with lines of an earlier copy, of which those count that are proven."""
        if lines:
            kept, notes = self._chosen(self._prove({"the existing pack": lines}, None))
            self._notes |= dict.fromkeys(notes)
            self._collector.carried(map(self._session.reader.entry, kept))
        return await self.run()

    def claims(self, gathered: GatheredEvidence) -> CollectedClaims:
        """Return what was gathered, with the nodes that the policy's charters bind."""
        return CollectedClaims.of(self._artifact, self._policy, gathered.readings, self._publisher)

    async def _ask(self, question: Question, limit: asyncio.Semaphore) -> Answers[tuple[LocatedEntry, ...]]:
        async with limit:
            return await self._session.ask(_asked(question, self._collector.named))

    def _take(self, question: Question, answer: Answers[tuple[LocatedEntry, ...]]) -> None:
        if question.kind == "artifact":
            if not answer.found:
                raise answer.failure(f"no statement about sha256:{short(self._artifact)}")
            self._places.update(places_of(item for found in answer.found.values() for item in found))
        about = None if question.kind in ("name", "commit") else frozenset({question.digest})
        proven = self._prove(lines_by_log(answer.found), about)
        kept, notes = self._chosen(proven)
        if question.kind == "artifact":
            self._notes |= dict.fromkeys(notes)
        more, cut = any(item.others for found in answer.found.values() for item in found), frozenset[Digest]()
        if any(item.more for found in answer.found.values() for item in found):
            cut = cut_authors(answer.found, proven)
        self._collector.answered(question, map(self._session.reader.entry, kept), more=more, cut=cut)

    def _prove(self, sources: Mapping[str, Sequence[bytes]], about: frozenset[Digest] | None) -> ProvenStatements:
        wanted = (lambda entry: True) if about is None else partial(is_about, subjects=about)
        return prove_said(self._session, sources, self._policy, wanted)

    def _chosen(self, proven: ProvenStatements) -> tuple[tuple[bytes, ...], tuple[str, ...]]:
        return chosen_lines(self._session, proven, self._policy, (self._publisher,) if self._publisher else ())

    def _gathered(self) -> GatheredEvidence:
        lines = self._collector.lines
        readings = self._session.read_claims(lines, self._artifact)
        found = dict(self._places), readings, tuple(self._notes), tuple(self._collector.bounds)
        return GatheredEvidence(self._artifact, lines, *found, frozenset(self._collector.cut))


def _asked(question: Question, named: Sequence[Digest]) -> Asked[tuple[LocatedEntry, ...]]:
    if question.kind in ("name", "commit"):
        return lambda node: node.resolve(question.subject, question.version, None, named)
    return lambda node: node.claims(question.digest, named)
