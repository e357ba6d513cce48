"""Finds proven statements about artifacts; the receiver verifies them again.

`selections` says which statements answer a question. Answers are read in bounded steps and end when the caller
disconnects. If a limit applies, it is logged, counted and marked in the answer.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Hashable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Final

import structlog

from comity.ledger.copy_tables import VerifiedTimes
from comity.ledger.intake import fold_name
from comity.ledger.proven import ProvenLine
from comity.node.members import Membership
from comity.node.metrics import Metrics
from comity.node.services.concerns import ConcernFinder
from comity.node.services.descent import DescentCounter
from comity.node.services.files import FileFinder
from comity.node.services.index_records import FileIndexSender
from comity.node.services.kept_answers import (
    ENTRY,
    LIKELY_WEIGHT,
    MAX_ANSWER_WEIGHT,
    MAX_WEIGHT,
    QUESTION,
    KeptAnswer,
    KeptAnswers,
)
from comity.node.services.likely import Likely, likely_questions
from comity.node.services.member_lines import MemberLines
from comity.node.services.selections import PAGE, Standing, StatementAnswer
from comity.node.threads import AsyncLedger
from comity.rules.descent import DescentQuestion
from comity.rules.precedence import Bounds, Precedence
from comity.trust.approvals import approval_key
from comity.trust.encoding import Digest
from comity.trust.errors import Malformed, Refused
from comity.trust.frozen import frozen
from comity.trust.statement import parse_entry
from comity.trust.statement_kinds import ADVISORY, APPROVAL_ENDED, APPROVED, ARTIFACT_KIND
from comity.wire.artifact import SearchPage
from comity.wire.concerns import ConcernPart
from comity.wire.descent import DescentPage
from comity.wire.files import FileIndexPart, FilePrefixes, FoundFiles
from comity.wire.found import FoundAnswer, FoundManifest, Lookup
from comity.wire.messages import LocatedEntry

OWN_ADVISORIES: Final = 4
"""Advisories of a publisher about its own artifact, and statements of its kind, in one search result."""
APPROVALS: Final = 256
"""Statements of one officer that are read for one artifact, and warnings about the officer's keys."""

_log: Final = structlog.get_logger("comity.node.services")

_CURSOR: Final = re.compile(r"([0-9]{1,18})-([0-9]{1,9})\Z")


@frozen
class WriterAnswers:
    """What only the process that writes knows: which artifacts have a file, the index of that, what concerns
    publishers, and from whom artifacts descend."""

    files: FileFinder
    index: FileIndexSender
    concerns: ConcernFinder
    descent: DescentCounter


class ArtifactServicer:
    """Implements `ArtifactService`.

    Args:
        objects: reads a small object that is here, for a manifest beside an answer; raises NotFound.
        writer: what the process that writes answers; None in another one.
    """

    def __init__(
        self,
        ledger: AsyncLedger,
        membership: Membership,
        metrics: Metrics,
        objects: Callable[[Digest], Awaitable[bytes]] | None = None,
        writer: WriterAnswers | None = None,
    ) -> None:
        self._ledger = ledger
        self._objects = objects
        self._writer = writer
        self._membership = membership
        self._metrics = metrics
        self._proven = ledger.tables.proven
        self._times = ledger.tables.proven_times
        self._members = MemberLines(self._proven)
        self._kept = KeptAnswers[KeptAnswer](MAX_WEIGHT)
        self._likely = KeptAnswers[Likely](LIKELY_WEIGHT)

    async def resolve(
        self, name: str, version: str | None = None, publisher: Digest | None = None, named: Collection[Digest] = ()
    ) -> AsyncGenerator[LocatedEntry, None]:
        async with aclosing(self._answer(Lookup.of_name(name, version, publisher, named))) as lines:
            async for located in lines:
                yield located

    async def claims(self, subject: Digest, named: Collection[Digest] = ()) -> AsyncGenerator[LocatedEntry, None]:
        async with aclosing(self._answer(Lookup.about(subject, named))) as lines:
            async for located in lines:
                yield located

    async def find(
        self, name: str, version: str | None = None, publisher: Digest | None = None, named: Collection[Digest] = ()
    ) -> AsyncGenerator[FoundAnswer | FoundManifest, None]:
        first = Lookup.of_name(name, named=named)
        yield FoundAnswer(first, self._answer(first))
        likely = await self._likely_after(replace(first, publisher=publisher), version)
        for each in likely.questions:
            yield FoundAnswer(each, self._answer(each))
        if likely.artifact is not None and self._objects is not None:
            yield FoundManifest(partial(self._objects, likely.artifact))

    async def _likely_after(self, asked: Lookup, version: str | None) -> Likely:
        standing, position = await self._position()
        likely = self._likely.get(position, (asked, version))
        if likely is None:
            likely = await self._ledger.run(likely_questions, self._proven, standing, asked, version)
            count = 1 + len(likely.questions)
            self._likely.keep(position, (asked, version), likely, count * _weight_of(asked))
        return likely

    async def _position(self) -> tuple[Standing, Hashable]:
        """What the charter says, and at what answers are right with it."""
        standing = Standing.of(self._membership)
        return standing, (await self._ledger.read(self._proven.last_number), standing)

    async def _answer(self, asked: Lookup) -> AsyncGenerator[LocatedEntry, None]:
        """The answer to a question: one that is kept, or a new one."""
        standing, position = await self._position()
        kept = self._kept.get(position, asked)
        if kept is None:
            answer = StatementAnswer(self._proven, self._times, standing, self._members)
            read, sent = list[LocatedEntry](), answer.sent
            async with aclosing(self._ledger.in_steps(partial(answer.to, asked), PAGE)) as lines:
                async for located in lines:
                    yield located
                    if sent.size - sent.shared <= MAX_ANSWER_WEIGHT:
                        read.append(located)
            kept = KeptAnswer(tuple(read), sent.limited or sent.more_others)
            if (weight := _weight_of(asked) + ENTRY * len(read) + sent.size - sent.shared) <= MAX_ANSWER_WEIGHT:
                self._kept.keep(position, asked, kept, weight)
        else:
            for located in kept.entries:
                yield located
        if kept.limited:
            self._report_limit(asked)

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

    async def search(self, query: str, cursor: str = "", limit: int = 0, kind: str = "") -> SearchPage:
        words, after = fold_name(query).split(), read_cursor(cursor)
        page = await self._ledger.run(self._proven.named, words, after, limit, (kind,) if kind else ())
        lines = await self._ledger.run(self._proven.lines, [item.position for item in page.found])
        advised = await self._ledger.run(self._said_by_publishers, lines)
        times = await self._ledger.run(self._times.times)
        return SearchPage(_located(lines, times), write_cursor(page.after), _located(advised, times))

    async def files(self, prefixes: FilePrefixes) -> AsyncGenerator[FoundFiles, None]:
        if self._writer is None:
            yield FoundFiles(0, await self._ledger.read(self._proven.last_number))
            return
        async with aclosing(self._writer.files.find(prefixes)) as parts:
            async for part in parts:
                yield part

    async def file_index(self, after: int, head: bytes) -> AsyncGenerator[FileIndexPart, None]:
        if self._writer is None:
            hint = "ask the writer of this node"
            raise Refused("a front end has no index of files", hint=hint, code="FRONT-END")
        async with aclosing(self._writer.index.send(after, head)) as parts:
            async for part in parts:
                yield part

    async def concerns(self, publisher: Digest) -> AsyncGenerator[ConcernPart, None]:
        if self._writer is None:
            hint = "ask the writer of this node"
            raise Refused("a front end does not know what concerns a publisher", hint=hint, code="FRONT-END")
        async with aclosing(self._writer.concerns.find(publisher)) as parts:
            async for part in parts:
                yield part

    async def descent(self, after: int, holder: Digest | None = None, publisher: Digest | None = None) -> DescentPage:
        if self._writer is None:
            hint = "ask the writer of this node"
            raise Refused("a front end does not count from whom artifacts descend", hint=hint, code="FRONT-END")
        return await self._writer.descent.page(DescentQuestion(holder, publisher), after)

    def _said_by_publishers(self, published: Iterable[ProvenLine]) -> list[ProvenLine]:
        """The newest advisories of publishers about what they published, and the newest statements of its kind, a few
        of each publisher and artifact. Blocking."""
        found: dict[tuple[Digest, Digest], Sequence[ProvenLine]] = {}
        for line in published:
            statement = parse_entry(line.line).statement
            if statement.by is None or (statement.by.id, statement.subject) in found:
                continue
            own, only = Precedence(frozenset({statement.by.id})), Bounds(OWN_ADVISORIES, 1, 0, OWN_ADVISORIES)
            about = self._proven.claims_about(statement.subject, own, only, (ADVISORY, ARTIFACT_KIND))
            found[statement.by.id, statement.subject] = self._proven.lines(about.first)
        return [line for lines in found.values() for line in lines]

    def _report_limit(self, asked: Lookup) -> None:
        call = "Resolve" if asked.subject is None else "GetClaims"
        self._metrics.answers_limited.labels(call).inc()
        about = asked.subject or asked.name
        _log.info("a limit left statements out of an answer", call=call, about=about)


def _weight_of(asked: Lookup) -> int:
    return QUESTION * (1 + len(asked.named))


def _located(lines: Iterable[ProvenLine], times: VerifiedTimes) -> tuple[LocatedEntry, ...]:
    return tuple(LocatedEntry(line.origin, line.index, line.line, known_since=times.at(line.number)) for line in lines)


def write_cursor(place: tuple[int, int] | None) -> str:
    """The cursor of a page of publications that ends at this place; empty at the end."""
    return "{}-{}".format(*place) if place else ""


def read_cursor(cursor: str) -> tuple[int, int] | None:
    """The place at which a page of publications begins. Raises Malformed (CURSOR)."""
    if not cursor:
        return None
    parts = _CURSOR.match(cursor)
    if parts is None:
        raise Malformed("not a cursor of this node", why="search again from the beginning", code="CURSOR")
    return int(parts[1]), int(parts[2])
