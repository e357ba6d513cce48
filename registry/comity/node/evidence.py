"""Collects from the own ledger what a verdict about an artifact depends on: the second source of `rules.collector`.

Every statement here was proven when it was read, and answers come from the services that answer other nodes and
clients, so a node judges by what it tells others.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import Final

from comity.content.blobs import BlobStore
from comity.node.services.artifact import ArtifactServicer
from comity.node.services.log import LogServicer
from comity.node.threads import Pools
from comity.rules.collected import CollectedEvidence, KeptProof, MissingConsistency, best_proofs, missing_consistency
from comity.rules.collector import Collector, Question
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import ComityError, NotFound
from comity.trust.evidence import EvidenceReader, InclusionEvidence
from comity.trust.policy import Policy
from comity.trust.statement import SideObject
from comity.trust.tlog.proof import ConsistencyProof
from comity.wire.messages import LocatedEntry

MAX_OBJECTS: Final = 64 * 1024 * 1024
"""Bytes of documents that are read for one artifact."""


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

    async def collect(self, artifact: Digest, policy: Policy, publisher: Digest | None = None) -> CollectedEvidence:
        """Return the statements, proofs and documents here. Raises NotFound if nothing is said here about it."""
        collector = Collector(artifact, policy, publisher)
        while questions := collector.questions():
            for question in questions:
                answer = await self._ask(question, collector.named)
                await self._pools.hashing(self._take, collector, question, answer)
        found = await self._pools.hashing(CollectedEvidence.of, collector, self._reader)
        found = await self._pools.files(self._with_documents, found)
        found = replace(found, proofs=await self._proofs(found))
        missing = missing_consistency(found.claims.publications, found.proofs, self._reader)
        return replace(found, objects={**found.objects, **await self._consistency(missing)})

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

    def _with_documents(self, evidence: CollectedEvidence) -> CollectedEvidence:
        """Blocking. Add the documents that are stored here."""
        found, bounds, left = dict[Digest, bytes](), evidence.bounds, MAX_OBJECTS
        for item in evidence.documents():
            if item.size > left:
                bounds = (*evidence.bounds, "documents that were read: more than fit")
                continue
            if (data := self._document(item)) is not None:
                found[item.digest] = data
                left -= item.size
        return replace(evidence, objects=found, bounds=bounds)

    def _document(self, item: SideObject) -> bytes | None:
        if not self._store.has(item.digest):
            return None
        data = b"".join(self._store.iterate(item.digest, 0, item.size))
        return data if sha256(data) == item.digest else None

    async def _proofs(self, evidence: CollectedEvidence) -> tuple[KeptProof, ...]:
        found: list[KeptProof] = []
        for entry in await self._pools.hashing(evidence.entries_to_prove):
            offered = [InclusionEvidence(entry.digest, data) for data in await self.proofs(entry.digest)]
            found += await self._pools.hashing(best_proofs, entry, offered, evidence.bound, self._reader)
        return tuple(found)

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
