"""Copies of artifacts, and audits of them, as nodes list them and as logs prove them.

A node's list of copies (`read_copies`) is that node's own computation: ask your own node, or compare the answers of
several. Audits of one artifact (`logged_results`) are verified here: each line is signed by the node of a pinned
federation that made the audit. Whether the audit took place, and its result, is still what that node says.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from comity.rules.audit import DAY, AuditFailure, parse_audited
from comity.rules.copy_counts import (
    MISSED,
    PASSED,
    AssessedCopy,
    AuditResult,
    CopyCount,
    CopyPolicy,
    Holder,
    losses,
    parties_of,
)
from comity.rules.copy_questions import CopyFold, CopyFolder, CopyQuestion
from comity.rules.parties import CLOUD, JURISDICTION, MEMBER, PARTY_KINDS, PUBLISHER, REACH, Party
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError, Malformed, NotFound, Unavailable
from comity.trust.frozen import frozen
from comity.trust.node_records import signed_by_node
from comity.trust.statement import Author
from comity.trust.statement_kinds import AUDITED
from comity.wire.client import NodeClient

from comity_client.own_node import ask_own_node
from comity_client.session import RemoteNode, Session
from comity_client.uplink import find_node

if TYPE_CHECKING:
    from comity.wire.audit import CopiesPage, ListedCopies

MAX_ARTIFACTS = 10_000_000
"""Artifacts that are read from one node."""
_ORDER = tuple(PARTY_KINDS)


@frozen
class CountedCopies:
    """What the node `source` says about the copies of all artifacts: how many artifacts have each set of copies. All
    that is counted follows from it; it does not grow with the artifacts, but with their different sets."""

    source: str
    sets: Mapping[tuple[AssessedCopy, ...], int]
    names: Mapping[Digest, str]
    policy: CopyPolicy
    day: int
    member: Digest
    question: CopyQuestion

    @property
    def artifacts(self) -> int:
        """The number of artifacts."""
        return sum(self.sets.values())

    def holders(self, copies: Sequence[AssessedCopy]) -> tuple[Holder, ...]:
        """The members with a copy that counts. The copy of the member that was asked counts as tested."""
        return self.question.holders(copies, self.member)

    def count(self, copies: Sequence[AssessedCopy]) -> CopyCount:
        return CopyCount.of(self.holders(copies))

    @property
    def short(self) -> int:
        """The number of artifacts with fewer claimed copies or jurisdictions than the charter asks for."""
        return sum(number for copies, number in self.sets.items() if not self.count(copies).meets(self.policy))

    def parties(self) -> tuple[Party, ...]:
        """Every single member, jurisdiction, declared reach and declared cloud with a copy."""
        found = {holder for copies in self.sets for holder in self.holders(copies)}
        parties = {party for holder in found for party in parties_of(holder) if party.kind != PUBLISHER}
        declared = {code for holder in found for code in holder.reach}
        shown = [party for party in parties if party.kind != REACH or party.name in declared]
        return tuple(sorted(shown, key=lambda party: (_ORDER.index(party.kind), self.party_name(party), party.name)))

    def party_name(self, party: Party) -> str:
        """The name of a member, if it is known; otherwise what identifies the party."""
        return self.names.get(Digest(party.name), party.name) if party.kind in (MEMBER, PUBLISHER) else party.name

    def party(self, text: str) -> Party:
        """The party that a user names: a jurisdiction; `reach:CODE` or `cloud:NAME`; the name of a member, or the id of
        a member or publisher, or its first 8 digits or more. Raises NotFound (NO-PARTY)."""
        kind, _, rest = text.partition(":")
        if kind in (REACH, CLOUD) and Party(kind, rest) in self.parties():
            return Party(kind, rest)
        found = {holder for copies in self.sets for holder in self.holders(copies)}
        if any(holder.jurisdiction == text for holder in found):
            return Party(JURISDICTION, text)
        members = {holder.member for holder in found}
        exact = [member for member in members if self.names.get(member) == text]
        fitting = exact or [member for member in members if len(text) >= 8 and member.startswith(text.lower())]
        if len(fitting) == 1:
            return Party(MEMBER, fitting[0])
        if len(text) == 64 and not fitting:
            return Party(PUBLISHER, text.lower())
        why = f"{len(fitting)} members fit {text[:64]!r}, and no copy is in such a jurisdiction"
        raise NotFound("no such party", why=why, hint="comity impact --all", code="NO-PARTY")

    def below(self, parties: Sequence[Party]) -> Mapping[Party, tuple[int, int]]:
        """How many artifacts drop below the policy, and how many have no copy left, for each party, if it vanished."""
        counted = dict.fromkeys(parties, (0, 0))
        for copies, number in self.sets.items():
            for party, _, after in losses(self.holders(copies), counted, self.policy):
                below, gone = counted[party]
                counted[party] = below + number, gone + (0 if after.copies else number)
        return counted

    def withdrawals(self) -> Mapping[tuple[str, str], int]:
        """How many copies are withdrawn now, by jurisdiction of the member and by the reason that its node logged. One
        that was taken back later is not counted."""
        found = Counter[tuple[str, str]]()
        for copies, number in self.sets.items():
            for copy in (item.copy for item in copies if item.copy.withdrawn):
                found[copy.jurisdiction, copy.withdrawn] += number
        return found


@frozen
class CountedSet:
    """A set of copies, the members whose copies in it count, and their count. Artifacts of a page share it."""

    copies: tuple[AssessedCopy, ...]
    holders: tuple[Holder, ...]
    count: CopyCount


@frozen
class AskedArtifact:
    """An artifact that a question is about; `name` as claimed, or empty."""

    artifact: Digest
    name: str
    held: CountedSet

    @property
    def label(self) -> str:
        """The claimed name, or the digest."""
        return self.name or f"sha256:{self.artifact}"


@frozen
class CopyList:
    """What the node `source` says about the copies of all artifacts, or of one."""

    source: str
    artifacts: tuple[ListedCopies, ...]
    names: Mapping[Digest, str]
    policy: CopyPolicy
    day: int
    member: Digest

    def label(self, listed: ListedCopies) -> str:
        """The claimed name of an artifact, or its digest."""
        return listed.name or f"sha256:{listed.artifact}"


async def read_copies(node: NodeClient, source: str, artifact: Digest | None = None) -> CopyList:
    """Read what a node says about all artifacts, or about one. Raises Malformed if its answers do not fit together."""
    pages: list[CopiesPage] = []
    count = 0
    if artifact is not None:
        pages.append(await node.audits.copies(artifact))
    else:
        async for page in node.audits.all_copies():
            pages.append(page)
            count += len(page.artifacts)
            if count > MAX_ARTIFACTS:
                raise Malformed("the list of copies does not end", why=f"more than {MAX_ARTIFACTS} artifacts")
    names: dict[Digest, str] = {}
    for page in pages:
        names |= page.names
    last = pages[-1]
    artifacts = tuple(listed for page in pages for listed in page.artifacts)
    return CopyList(source, artifacts, names, last.policy, last.day, last.member)


ShowArtifacts = Callable[[CountedCopies, Sequence[AskedArtifact]], None]
"""Called with the next artifacts that a question is about, and with what is counted so far."""


async def fold_copies(
    node: NodeClient, source: str, question: CopyQuestion, show: ShowArtifacts = lambda counted, found: None
) -> CountedCopies:
    """Ask a node about the copies of all artifacts. Pages are folded as they arrive; a node of an older version sends
    its whole list. Raises Malformed if its answers do not fit together."""
    sets, names = Counter[tuple[AssessedCopy, ...]](), dict[Digest, str]()
    counted: CountedCopies | None = None
    async with aclosing(node.audits.all_copies(question)) as pages:
        async for page in pages:
            fold = page.fold or _folded(page, question)
            whole = fold.whole_sets()
            for copies, each in zip(whole, fold.sets, strict=True):
                sets[copies] += each.artifacts
            names |= page.names
            counted = CountedCopies(source, sets, names, page.policy, page.day, page.member, question)
            if counted.artifacts > MAX_ARTIFACTS:
                raise Malformed("the list of copies does not end", why=f"more than {MAX_ARTIFACTS} artifacts")
            held = [CountedSet(copies, counted.holders(copies), counted.count(copies)) for copies in whole]
            show(counted, [AskedArtifact(artifact, name, held[number]) for artifact, name, number in fold.items()])
    assert counted is not None
    return counted


def _folded(page: CopiesPage, question: CopyQuestion) -> CopyFold:
    """What a page of the whole list comes to."""
    folder = CopyFolder(question, page.member, page.policy)
    for listed in page.artifacts:
        folder.add(listed.artifact, folder.number(listed.copies))
    named = {listed.artifact: listed.name for listed in page.artifacts}
    return folder.fold(tuple(named[artifact] for artifact in folder.listed))


async def fold_copies_of_federation(
    session: Session, node: str, question: CopyQuestion, show: ShowArtifacts = lambda counted, found: None
) -> CountedCopies:
    """Ask the node that `node` names, or the first one that answers; once artifacts were shown, no other is asked.
    Raises as `find_node` does, and Unavailable."""
    shown = False

    def show_first(counted: CountedCopies, found: Sequence[AskedArtifact]) -> None:
        nonlocal shown
        shown = shown or bool(found)
        show(counted, found)

    session.require_nodes()
    chosen = [await find_node(session, node)] if node else session.nodes
    failure: ComityError = Unavailable("no node lists copies", why="none answers", code="UNREACHABLE")

    async def ask(client: NodeClient, source: str) -> CountedCopies:
        if shown:  # at another address of the node, which would begin again
            raise failure
        return await fold_copies(client, source, question, show_first)

    for known in chosen:
        try:
            return await known.ask(partial(ask, source=known.name))
        except ComityError as error:
            failure = error
            if shown:
                break
    raise failure


def fold_own_copies(
    socket: Path, question: CopyQuestion, show: ShowArtifacts = lambda counted, found: None
) -> CountedCopies:
    """Ask the node of this machine that listens on `socket`. Raises as `ask_own_node` does."""
    return ask_own_node(socket, lambda node: fold_copies(node, "this node", question, show))


async def copies_of_federation(session: Session, node: str = "", artifact: Digest | None = None) -> CopyList:
    """Ask the node that `node` names, or the first one that answers. Raises as `find_node` does, and Unavailable."""
    session.require_nodes()
    chosen = [await find_node(session, node)] if node else session.nodes
    failure: ComityError = Unavailable("no node lists copies", why="none answers", code="UNREACHABLE")
    for known in chosen:
        try:
            return await known.ask(partial(read_copies, source=known.name, artifact=artifact))
        except ComityError as error:
            failure = error
    raise failure


def own_copies(socket: Path, artifact: Digest | None = None) -> CopyList:
    """Ask the node of this machine that listens on `socket`. Raises as `ask_own_node` does."""
    return ask_own_node(socket, lambda node: read_copies(node, "this node", artifact))


@frozen
class LoggedResult:
    """The newest result that a node logged about the copy of the node `prover`. `signed`: a failure that has an answer
    which the prover signed. `logged`: False for one that the auditor's node says it will log when the day is over."""

    auditor: str
    prover: Digest
    result: AuditResult
    signed: bool = False
    logged: bool = True


async def logged_results(session: Session, artifact: Digest) -> list[LoggedResult]:
    """The newest logged audits of copies of an artifact that nodes of the pinned federations signed. Nodes that know no
    audits are left out."""
    answers = await session.ask(lambda node: node.audits.logged(artifact))
    lines = dict.fromkeys(located.line for found in answers.found.values() for located in found)
    return _newest(_verified(session, artifact, lines))


async def audit_results(session: Session, artifact: Digest) -> list[LoggedResult]:
    """As `logged_results`, with what nodes of the pinned federations say about audits of their own that they have not
    logged yet."""
    logged, answers = await asyncio.gather(
        logged_results(session, artifact), session.ask(lambda node: node.audits.copies(artifact))
    )
    today = [each for node, page in answers.found.items() for each in _of_today(node, page, artifact)]
    return _newest([*logged, *today])


def _of_today(node: RemoteNode, page: CopiesPage, artifact: Digest) -> Iterator[LoggedResult]:
    """The audits of a node itself in what it says about copies."""
    for listed in page.artifacts:
        for copy in listed.copies if listed.artifact == artifact else ():
            for result in copy.results:
                if result.auditor == node.member.id:
                    yield LoggedResult(node.name, copy.copy.node, result, logged=False)


def _verified(session: Session, artifact: Digest, lines: Iterable[bytes]) -> list[LoggedResult]:
    nodes: dict[Author, RemoteNode] = {node.record.node: node for node in session.nodes}
    found: list[LoggedResult] = []
    for line in lines:
        entry = session.reader.readable(line)
        if entry is None or entry.statement.predicate != AUDITED or entry.statement.by not in nodes:
            continue
        node = nodes[entry.statement.by]
        if not signed_by_node(entry, node.record):
            continue
        try:
            audited = parse_audited(entry.statement)
        except Malformed:
            continue
        member = node.member.id
        if isinstance(audited, AuditFailure):
            result = AuditResult(member, audited.time // DAY, audited.reason, len(audited.challenge.numbers))
            found.append(LoggedResult(node.name, audited.prover, result, audited.answer is not None))
            continue
        for row in audited.rows:
            if row.artifact == artifact and row.passed:
                found.append(LoggedResult(node.name, row.prover, AuditResult(member, audited.day, PASSED, row.pieces)))
            if row.artifact == artifact and row.missed:
                found.append(LoggedResult(node.name, row.prover, AuditResult(member, audited.day, MISSED)))
    return found


def _newest(results: Iterable[LoggedResult]) -> list[LoggedResult]:
    """The newest of each auditor about each prover; on one day a failure comes before a pass."""
    found: dict[tuple[str, Digest], LoggedResult] = {}
    for item in results:
        key = item.auditor, item.prover
        if key not in found or _rank(item) > _rank(found[key]):
            found[key] = item
    return sorted(found.values(), key=lambda item: (item.prover, item.auditor))


def _rank(item: LoggedResult) -> tuple[int, int, bool]:
    return item.result.day, 2 if item.result.failed else item.result.outcome == PASSED, item.logged
