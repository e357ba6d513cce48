"""Copies of artifacts, and audits of them, as nodes list them and as logs prove them.

A node's list of copies (`read_copies`) is that node's own computation: ask your own node, or compare the answers of
several. Audits of one artifact (`logged_results`) are verified here: each line is signed by the node of a pinned
federation that made the audit. Whether the audit took place, and its result, is still what that node says.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from comity.rules.audit import DAY, AuditFailure, parse_audited
from comity.rules.copy_counts import (
    MISSED,
    PASSED,
    AuditResult,
    CopyCount,
    CopyPolicy,
    Holder,
    Loss,
    Party,
    holders,
    impact,
    outside,
    parties_of,
)
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError, Malformed, NotFound, Unavailable
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
_KINDS = ("member", "jurisdiction", "reach", "cloud")


@dataclass(frozen=True, slots=True)
class CopyList:
    """What the node `source` says about the copies of all artifacts, or of one."""

    source: str
    artifacts: tuple[ListedCopies, ...]
    names: Mapping[Digest, str]
    policy: CopyPolicy
    day: int
    member: Digest
    excluded: frozenset[str] = frozenset()

    def without(self, codes: Iterable[str]) -> CopyList:
        """The same list, in which only copies outside these jurisdictions count, by seat and by declared reach."""
        return replace(self, excluded=frozenset(codes))

    def holders(self, listed: ListedCopies) -> tuple[Holder, ...]:
        """The members with a copy that counts. The copy of the member that was asked counts as tested."""
        found = holders(listed.copies, self.member)
        return outside(found, self.excluded) if self.excluded else found

    def count(self, listed: ListedCopies) -> CopyCount:
        return CopyCount.of(self.holders(listed))

    def short(self) -> list[ListedCopies]:
        """The artifacts with fewer claimed copies or jurisdictions than the charter asks for."""
        return [listed for listed in self.artifacts if not self.count(listed).meets(self.policy)]

    def untested(self) -> list[ListedCopies]:
        """The artifacts with enough claimed copies, of which too few are tested."""
        counts = ((listed, self.count(listed)) for listed in self.artifacts)
        return [listed for listed, count in counts if count.meets(self.policy) and not count.tested_meets(self.policy)]

    def parties(self) -> tuple[Party, ...]:
        """Every single member, jurisdiction, declared reach and declared cloud with a copy."""
        found = {holder for listed in self.artifacts for holder in self.holders(listed)}
        parties = {party for holder in found for party in parties_of(holder) if party.kind != "publisher"}
        declared = {code for holder in found for code in holder.reach}
        shown = [party for party in parties if party.kind != "reach" or party.name in declared]
        return tuple(sorted(shown, key=lambda party: (_KINDS.index(party.kind), self.party_name(party), party.name)))

    def party_name(self, party: Party) -> str:
        """The name of a member, if it is known; otherwise what identifies the party."""
        return self.names.get(Digest(party.name), party.name) if party.kind in ("member", "publisher") else party.name

    def party(self, text: str) -> Party:
        """The party that a user names: a jurisdiction; `reach:CODE` or `cloud:NAME`; the name of a member, or the id of
        a member or publisher, or its first 8 digits or more. Raises NotFound (NO-PARTY)."""
        kind, _, rest = text.partition(":")
        if kind in ("reach", "cloud") and Party(kind, rest) in self.parties():
            return Party(kind, rest)
        if any(holder.jurisdiction == text for listed in self.artifacts for holder in self.holders(listed)):
            return Party("jurisdiction", text)
        members = {holder.member for listed in self.artifacts for holder in self.holders(listed)}
        exact = [member for member in members if self.names.get(member) == text]
        found = exact or [member for member in members if len(text) >= 8 and member.startswith(text.lower())]
        if len(found) == 1:
            return Party("member", found[0])
        if len(text) == 64 and not found:
            return Party("publisher", text.lower())
        why = f"{len(found)} members fit {text[:64]!r}, and no copy is in such a jurisdiction"
        raise NotFound("no such party", why=why, hint="comity impact --all", code="NO-PARTY")

    def impact(self, parties: Sequence[Party]) -> Mapping[Party, list[Loss]]:
        return impact(((listed.artifact, self.holders(listed)) for listed in self.artifacts), parties, self.policy)

    def withdrawals(self) -> Mapping[tuple[str, str], int]:
        """How many copies are withdrawn now, by jurisdiction of the member and by the reason that its node logged. One
        that was taken back later is not counted."""
        copies = [item.copy for listed in self.artifacts for item in listed.copies]
        return Counter((copy.jurisdiction, copy.withdrawn) for copy in copies if copy.withdrawn)

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


@dataclass(frozen=True, slots=True)
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
