"""Where publications are in the home logs of their publishers, as nodes claim it and as they prove it.

Which logs these are is the decision of `comity.trust.home_logs`, by the pinned charters and by the node records that
their members signed. A node answers with a position and the origin of the log: a claim, which is used only where the
origin means one log. Proofs are asked for by the verifier key of the log, so that logs of other members under the same
origin are not in the answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from comity.trust.claims import ParsedClaims, Publication
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import ComityError
from comity.trust.evidence import EvidenceReader
from comity.trust.home_logs import HomeLogs, HomePosition, home_logs, named_homes
from comity.trust.key_validity import compromise_notices, loss_rank, older_than_all
from comity.trust.node_records import NodeRecord
from comity.trust.resolution import Candidate, newest_first
from comity.trust.tlog.note import VerifierKey
from comity.wire.log import LocatedProof

from comity_client.evidence.held_lines import Question as SelectionQuestion
from comity_client.evidence.inquiry import Inquiry
from comity_client.session import Question, Session

AT_ONCE: Final = 16
"""Maximum number of publications whose proofs are asked for at the same time."""


class HomePositions:
    """Positions of publications in the home logs of their publishers; what is proven is remembered. Not thread-safe.

    Args:
        inquiry: the pinned charters of its policy and session say which node records count.
    """

    def __init__(self, inquiry: Inquiry) -> None:
        self.inquiry = inquiry
        self._session = session = inquiry.session
        self._semaphore = asyncio.Semaphore(AT_ONCE)
        self._records: tuple[NodeRecord, ...] = tuple(node.record for node in session.nodes)
        self._proven: dict[Digest, HomePosition | None] = {}

    def home(self, publication: Publication) -> HomeLogs:
        """Return the home logs of the publisher, by the node records that are known so far."""
        return home_logs(named_homes(publication.chain), self._records, self._session.origins)

    def claimed(self, publication: Publication, places: Iterable[tuple[str, int]]) -> HomePosition | None:
        """Return the position that nodes claim; None if they claim none or several, so that it must be proven.

        Args:
            places: the claimed places of the line: origin of a log, index.
        """
        home, found = self.home(publication), set[HomePosition]()
        by_origin = {VerifierKey.parse(log).name: log for log in home.logs}
        for origin, index in places:
            if origin in by_origin and self._bound(origin) <= {by_origin[origin]}:
                position = home.position([(by_origin[origin], index)])
                found |= {position} if position is not None else set()
        return found.pop() if len(found) == 1 else None

    def _bound(self, origin: str) -> set[str]:
        """The logs that the known node records bind to an origin."""
        return {str(record.log) for record in self._records if record.origin == origin}

    async def of(self, publication: Publication) -> HomePosition | None:
        """Return the earliest position that any node proves; None if no node proves one."""
        line = publication.entry.digest
        if line not in self._proven:
            async with self._semaphore:
                self._proven[line] = await proven_position(self._session, publication, self.home(publication))
        return self._proven[line]

    async def of_all(self, publications: Iterable[Publication]) -> list[HomePosition | None]:
        """Return the proven position of each publication. If one has none, nodes are asked once for newer records of
        the nodes that write the home logs: a log may have a successor."""
        asked = list(publications)
        found = await asyncio.gather(*map(self.of, asked))
        missing = [each for each, position in zip(asked, found, strict=True) if position is None]
        if not missing or not await self._learn_records(missing):
            return found
        for each in missing:
            del self._proven[each.entry.digest]
        return await asyncio.gather(*map(self.of, asked))

    async def _learn_records(self, publications: Sequence[Publication]) -> bool:
        """Ask for the records that bind a log to the origins of the home logs. Returns whether there are new ones."""
        named = {home for each in publications for home in named_homes(each.chain) if home.key is not None}
        known = len(self._records)
        for origin in sorted({home.origin for home in named}):
            said = await self.inquiry.ask(_about(sha256(origin.encode())), lambda entry: False)
            self._records = tuple(dict.fromkeys((*self._records, *(node.record for node in said.proven.bound))))
        return len(self._records) > known


async def proven_position(session: Session, publication: Publication, home: HomeLogs) -> HomePosition | None:
    """Return the earliest proven position of a publication in its publisher's home logs: a log may have a line twice,
    and several logs may have it."""
    entry = publication.entry
    keys = {log: VerifierKey.parse(log) for log in home.logs}
    places: list[tuple[str, int]] = []
    for named in _questions(keys):
        answers = await session.ask(_proofs(entry.digest, named))
        offered = {located for found in answers.found.values() for located in found}
        places += _places(session.reader, offered, entry.line, keys)
    return home.position(places)


async def proven_indexes(session: Session, line: bytes, log: VerifierKey) -> list[int]:
    """Return the indexes of a line in a log that nodes prove."""
    answers = await session.ask(_proofs(sha256(line), str(log)))
    offered = {located for found in answers.found.values() for located in found}
    return [index for _, index in _places(session.reader, offered, line, {str(log): log})]


def _about(subject: Digest) -> SelectionQuestion:
    return lambda node, held: node.claims_beside(held, subject)


def _proofs(line: Digest, log: str) -> Question[tuple[LocatedProof, ...]]:
    return lambda node: node.proofs(line, log)


def _questions(keys: dict[str, VerifierKey]) -> Iterable[str]:
    """The names by which nodes are asked for logs: the verifier key, or the origin where several logs have it, so that
    the number of questions does not grow with the logs that one member binds."""
    by_origin: dict[str, list[str]] = {}
    for log, key in keys.items():
        by_origin.setdefault(key.name, []).append(log)
    return [logs[0] if len(logs) == 1 else origin for origin, logs in by_origin.items()]


def _places(
    reader: EvidenceReader, offered: Iterable[LocatedProof], line: bytes, keys: dict[str, VerifierKey]
) -> list[tuple[str, int]]:
    """The places (verifier key of a log, index) of the line that the proofs prove; invalid proofs prove none."""
    places: list[tuple[str, int]] = []
    for located in offered:
        for log, key in keys.items():
            if key.name != located.origin:
                continue
            try:
                proof = reader.proof(located.proof)
                proof.verify(line, key)
            except ComityError:
                continue
            places.append((log, proof.index))
    return places


MAX_STATEMENTS: Final = 16
"""Statements of one publisher about one artifact whose order is proven."""


async def order_statements(
    positions: HomePositions,
    stated: Iterable[Publication],
    places: Mapping[bytes, frozenset[tuple[str, int]]],
    claims: ParsedClaims | None = None,
) -> tuple[Candidate, ...]:
    """Return statements of one publisher about the same bytes, the newest first, by proven positions in its home logs;
    those that a lost key may have signed come last, as in a verdict. More than `MAX_STATEMENTS` are not ordered: the
    newest by the claimed positions come first.

    Args:
        places: the claimed places of lines.
        claims: with what the publisher says about its keys; without them no loss is known.
    """
    claimed = [Candidate(each, positions.claimed(each, places.get(each.entry.line, ()))) for each in stated]
    if len(claimed) < 2:
        return tuple(claimed)
    ordered = newest_first(await prove_positions(positions, newest_first(claimed)[:MAX_STATEMENTS]))
    if claims is None:
        return tuple(ordered)
    return tuple(sorted(ordered, key=lambda each: -loss_rank(_before_loss(positions, each, claims))))


def _before_loss(positions: HomePositions, stated: Candidate, claims: ParsedClaims) -> bool | None:
    """Whether a statement is older than every loss of its keys that its publisher reports."""
    by = stated.publication
    notices = compromise_notices(claims, by.publisher.id, by.chain, by.entry.envelope)
    home = positions.home(by)
    return older_than_all(home.position_before(stated.position, each.origin, each.index) for each in notices)


async def prove_positions(positions: HomePositions, candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return the candidates with their proven positions."""
    found = await positions.of_all(candidate.publication for candidate in candidates)
    return [replace(candidate, position=place) for candidate, place in zip(candidates, found, strict=True)]
