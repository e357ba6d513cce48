"""Collects from the own ledger what a verdict about an artifact depends on: the second source of `rules.collector`.

Every statement here was proven when it was read, and answers come from the services that answer other nodes and
clients, so a node judges by what it tells others.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from comity.content.blobs import BlobStore
from comity.node.services.artifact import ArtifactServicer
from comity.node.services.log import LogServicer
from comity.node.threads import Pools
from comity.rules.collected import CollectedClaims, KeptProof, MissingConsistency, best_proofs, missing_consistency
from comity.rules.collector import Collector, Question
from comity.trust.claims import read_claims
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import ComityError, NotFound
from comity.trust.evidence import EvidenceReader, InclusionEvidence
from comity.trust.policy import Policy
from comity.trust.statement import Entry, SideObject
from comity.trust.tlog.proof import ConsistencyProof
from comity.wire.messages import LocatedEntry

MAX_OBJECTS: Final = 64 * 1024 * 1024
"""Bytes of documents that are read for one artifact."""


@dataclass(frozen=True, slots=True)
class LocalEvidence:
    """What the own ledger has. `asked` are the subjects on which it depends; `bounds` say what was left out,
    and `cut` of whom."""

    lines: tuple[bytes, ...]
    proofs: tuple[InclusionEvidence, ...]
    objects: Mapping[Digest, bytes]
    asked: tuple[Question, ...] = field(default=())
    bounds: tuple[str, ...] = field(default=())
    cut: frozenset[Digest] = field(default=frozenset())


class LedgerCollector:
    """Asks the own ledger. Not thread-safe: call from the event loop.

    Args:
        reader: parses lines and proofs, and remembers what was checked.
    """

    def __init__(
        self, artifacts: ArtifactServicer, logs: LogServicer, store: BlobStore, pools: Pools, reader: EvidenceReader
    ) -> None:
        self._artifacts = artifacts
        self._logs = logs
        self._store = store
        self._pools = pools
        self._reader = reader

    async def collect(self, artifact: Digest, policy: Policy, publisher: Digest | None = None) -> LocalEvidence:
        """Return the statements, proofs and documents here. Raises NotFound if nothing is said here about it."""
        collector = Collector(artifact, policy, publisher)
        while questions := collector.questions():
            for question in questions:
                answer = await self._ask(question, collector.named)
                await self._pools.hashing(self._take, collector, question, answer)
        lines = collector.lines
        claims = await self._pools.hashing(self._read, artifact, policy, lines, publisher)
        objects = await self._pools.files(self._documents, claims, collector)
        proofs = await self._proofs(claims, (*claims.entries_to_prove(), *claims.evaluations_to_prove(objects)))
        consistency = await self._consistency(missing_consistency(claims.claims.publications, proofs, self._reader))
        kept = tuple(each.proof for each in proofs)
        bounds, cut = tuple(collector.bounds), frozenset(collector.cut)
        return LocalEvidence(lines, kept, {**objects, **consistency}, collector.asked, bounds, cut)

    async def _ask(self, question: Question, named: Collection[Digest]) -> Sequence[LocatedEntry]:
        if question.kind in ("name", "commit"):
            answer = self._artifacts.resolve(question.subject, question.version, None, named)
        else:
            answer = self._artifacts.claims(question.digest, named)
        try:
            return [located async for located in answer]
        except NotFound:
            if question.kind == "artifact":
                raise
            return []

    def _take(self, collector: Collector, question: Question, answer: Sequence[LocatedEntry]) -> None:
        entries = {located.line: self._reader.entry(located.line) for located in answer}
        marked = [entries[located.line].statement.by for located in answer if located.more]
        cut = [by.id for by in marked if by is not None]
        more = any(located.others for located in answer)
        collector.answered(question, entries.values(), more=more, cut=cut)

    def _read(
        self, artifact: Digest, policy: Policy, lines: Iterable[bytes], publisher: Digest | None
    ) -> CollectedClaims:
        return CollectedClaims.of(artifact, policy, read_claims(lines, artifact, self._reader), publisher)

    def _documents(self, claims: CollectedClaims, collector: Collector) -> dict[Digest, bytes]:
        """Blocking. The documents that are stored here."""
        found: dict[Digest, bytes] = {}
        left = MAX_OBJECTS
        for item in claims.documents():
            if item.size > left:
                collector.bounds["documents that were read: more than fit"] = None
                continue
            if (data := self._document(item)) is not None:
                found[item.digest] = data
                left -= item.size
        return found

    def _document(self, item: SideObject) -> bytes | None:
        if not self._store.has(item.digest):
            return None
        data = b"".join(self._store.iterate(item.digest, 0, item.size))
        return data if sha256(data) == item.digest else None

    async def _proofs(self, claims: CollectedClaims, entries: Iterable[Entry]) -> list[KeptProof]:
        found: list[KeptProof] = []
        for entry in {entry.digest: entry for entry in entries}.values():
            offered = [InclusionEvidence(entry.digest, data) for data in await self.proofs(entry.digest)]
            found += await self._pools.hashing(best_proofs, entry, offered, claims.bound, self._reader)
        return found

    async def proofs(self, line: Digest) -> tuple[bytes, ...]:
        """Return the inclusion proofs of a line (`TlogProof`), one for each log; none if no checkpoint covers it yet,
        which a policy may mind."""
        with contextlib.suppress(NotFound):
            return tuple([located.proof async for located in self._logs.proofs(line, None)])
        return ()

    async def _consistency(self, missing: Iterable[MissingConsistency]) -> dict[Digest, bytes]:
        found: dict[Digest, bytes] = {}
        for each in missing:
            old, new = each.sizes
            with contextlib.suppress(ComityError):
                proof = ConsistencyProof(
                    each.cut.origin, old, new, tuple(await self._logs.consistency(each.log, old, new))
                )
                proof.verify(*each.roots)
                found[sha256(proof.encode())] = proof.encode()
        return found
