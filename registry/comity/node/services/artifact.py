"""Finds proven statements about artifacts; the receiver verifies them again.

`selections` says which statements answer a question. Answers are read in bounded steps and end when the caller
disconnects. If a limit applies, it is logged, counted and marked in the answer.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Collection, Iterable, Iterator, Sequence
from contextlib import aclosing
from typing import Final

import structlog

from comity.ledger.intake import fold_name
from comity.ledger.proven import ProvenLine
from comity.node.members import Membership
from comity.node.metrics import Metrics
from comity.node.services.selections import PAGE, MemberLines, Standing, StatementAnswer
from comity.node.threads import AsyncLedger
from comity.rules.precedence import Bounds, Precedence
from comity.trust.approvals import approval_key
from comity.trust.encoding import Digest
from comity.trust.errors import Malformed
from comity.trust.statement import parse_entry
from comity.trust.statement_kinds import ADVISORY, APPROVAL_ENDED, APPROVED
from comity.wire.artifact import SearchPage
from comity.wire.messages import LocatedEntry

OWN_ADVISORIES: Final = 4
"""Advisories of a publisher about its own artifact in one search result."""
APPROVALS: Final = 256
"""Statements of one officer that are read for one artifact, and warnings about the officer's keys."""

_log: Final = structlog.get_logger("comity.node.services")

_CURSOR: Final = re.compile(r"([0-9]{1,18})-([0-9]{1,9})\Z")


class ArtifactServicer:
    """Implements `ArtifactService`."""

    def __init__(self, ledger: AsyncLedger, membership: Membership, metrics: Metrics) -> None:
        self._ledger = ledger
        self._membership = membership
        self._metrics = metrics
        self._proven = ledger.tables.proven
        self._members = MemberLines(self._proven)

    async def resolve(
        self, name: str, version: str | None = None, publisher: Digest | None = None, named: Collection[Digest] = ()
    ) -> AsyncGenerator[LocatedEntry, None]:
        answer = self._answer()
        async with aclosing(self._read(answer.to_name(name, version, publisher, named))) as lines:
            async for located in lines:
                yield located
        self._report_limit("Resolve", name, answer)

    async def claims(self, subject: Digest, named: Collection[Digest] = ()) -> AsyncGenerator[LocatedEntry, None]:
        answer = self._answer()
        async with aclosing(self._read(answer.about(subject, named))) as lines:
            async for located in lines:
                yield located
        self._report_limit("GetClaims", subject, answer)

    def _answer(self) -> StatementAnswer:
        return StatementAnswer(self._proven, Standing.of(self._membership), self._members)

    def _read(self, lines: Iterator[LocatedEntry]) -> AsyncGenerator[LocatedEntry, None]:
        return self._ledger.in_steps(lines, PAGE)

    async def approvals(self, officer: Digest, artifact: Digest) -> tuple[bytes, ...]:
        """The officer's own lines here about the approval of an artifact, and those about the officer's keys. What
        others sign does not displace them."""
        proven = self._proven
        about = await self._ledger.run(
            proven.about,
            approval_key(officer, artifact),
            (APPROVED, APPROVAL_ENDED),
            2 * APPROVALS,
            Precedence(frozenset({officer})),
        )
        warnings = await self._ledger.run(proven.by, officer, ADVISORY, APPROVALS)
        keys = await self._ledger.run(proven.keys_of, officer)
        return tuple(dict.fromkeys(found.line for found in (*keys, *warnings.found, *about.found)))

    async def search(self, query: str, cursor: str = "", limit: int = 0) -> SearchPage:
        words, after = fold_name(query).split(), _after(cursor)
        page = await self._ledger.run(self._proven.named, words, after, limit)
        lines = await self._ledger.run(self._proven.lines, [item.position for item in page.found])
        advised = await self._ledger.run(self._own_advisories, lines)
        return SearchPage(_located(lines), "{}-{}".format(*page.after) if page.after else "", _located(advised))

    def _own_advisories(self, published: Iterable[ProvenLine]) -> list[ProvenLine]:
        """The newest advisories of publishers about what they published, a few of each. Blocking."""
        found: dict[tuple[Digest, Digest], Sequence[ProvenLine]] = {}
        for line in published:
            statement = parse_entry(line.line).statement
            if statement.by is None or (statement.by.id, statement.subject) in found:
                continue
            own, only = Precedence(frozenset({statement.by.id})), Bounds(OWN_ADVISORIES, 1, 0, OWN_ADVISORIES)
            about = self._proven.claims_about(statement.subject, own, only, (ADVISORY,))
            found[statement.by.id, statement.subject] = self._proven.lines(about.first)
        return [line for lines in found.values() for line in lines]

    def _report_limit(self, call: str, about: str, answer: StatementAnswer) -> None:
        sent = answer.sent
        if sent.limited or sent.more_others:
            self._metrics.answers_limited.labels(call).inc()
            _log.info("a limit left statements out of an answer", call=call, about=about, sent=len(sent))


def _located(lines: Iterable[ProvenLine]) -> tuple[LocatedEntry, ...]:
    return tuple(LocatedEntry(line.origin, line.index, line.line) for line in lines)


def _after(cursor: str) -> tuple[int, int] | None:
    if not cursor:
        return None
    parts = _CURSOR.match(cursor)
    if parts is None:
        raise Malformed("not a cursor of this node", why="search again from the beginning", code="CURSOR")
    return int(parts[1]), int(parts[2])
