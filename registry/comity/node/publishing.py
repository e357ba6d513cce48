"""Accepts submissions of publishers and operators, and logs them.

(1) the lines are statements, at most the allowed number
(2) they are admitted: their author signed them, the caller may log them here, and their quotas suffice (`admission`)
(3) the small objects that came with the lines are stored
(4) the side objects that the lines name are stored
(5) every file in the manifest of a `published` or `observed` statement is stored completely
(6) the piece index matches these files
(7) then the lines are logged
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import structlog

from comity.node.admission import Admission
from comity.node.context import NodeContext
from comity.node.operator_acts import OperatorActs
from comity.node.own_log import OwnLog
from comity.node.threads import NameLocks
from comity.node.uploads import (
    PendingSubmission,
    PendingSubmissions,
    Uploads,
    Want,
    missing_files,
    missing_objects,
    read_artifact,
    submission_id,
)
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Malformed
from comity.trust.statement import Entry, Statement, parse_entry
from comity.trust.statement_kinds import OBSERVED, PUBLISHED
from comity.trust.statements import Published
from comity.trust.upstream import Observed
from comity.wire import limits
from comity.wire.access import CALLER, Caller
from comity.wire.publish import InlineObject, MissingObject, SubmitReceipt, Submitted, UploadHeader

_log = structlog.get_logger("comity.node.publishing")


class Submissions:
    """Implements `Publishing`, and Adopt of `Operating`.

    Args:
        on_logged: called with statements that were logged.
    """

    def __init__(
        self,
        context: NodeContext,
        uploads: Uploads,
        own_log: OwnLog,
        admission: Admission,
        max_pending: int,
        acts: OperatorActs,
        on_logged: Callable[[Sequence[Entry]], None],
    ) -> None:
        self._ledger = context.ledger
        self._store = context.store
        self._pools = context.pools
        self._own_node = context.membership.own_node
        self._uploads = uploads
        self._own_log = own_log
        self._admission = admission
        self._acts = acts
        self._on_logged = on_logged
        self._locks = NameLocks()
        self.pending = PendingSubmissions(max_pending)

    async def submit(self, caller: Caller, lines: Sequence[bytes], objects: Sequence[InlineObject] = ()) -> Submitted:
        submitted = [parse_entry(line) for line in dict.fromkeys(lines)]  # (1)
        async with self._locks.acquire(entry.statement_digest for entry in submitted):
            return await self._submit(caller, lines, submitted, objects)

    async def _submit(
        self, caller: Caller, lines: Sequence[bytes], submitted: Sequence[Entry], objects: Sequence[InlineObject]
    ) -> Submitted:
        """Runs under the locks of these statements: otherwise a concurrent resubmission would be charged twice."""
        known = await self._ledger.run(self._logged_indexes, submitted)
        entries = list(
            {digest: entry for entry in submitted if (digest := entry.statement_digest) not in known}.values()
        )
        if not entries:
            return Submitted(submission_id(lines), receipts=await self._receipts(lines, submitted))
        async with self._admission.admitted(caller, entries) as charge:  # (2)
            await self._store_objects(entries, submitted, objects)  # (3)
            name = submission_id(lines)
            missing = await self._pools.files(self._missing, entries)  # (4) (5)
            if missing:
                wants = {want.digest: want for want in missing}
                self.pending.put(PendingSubmission(name, caller.name, wants, caller.block))
                waiting = await self._pools.files(self._received, missing[: limits.MISSING])
                return Submitted(name, missing=tuple(waiting))
            for published in _publications(entries):
                await self._pools.whole_files(self._uploads.check_pieces, published)  # (6)
            asking = CALLER.get(None)  # an import that a reader caused is no operator's act
            if asking is not None and asking.operator:
                for entry in entries:
                    await self._acts.append("statement.log", entry.statement_digest, entry.statement.predicate)
            with charge.logging():
                await self._log_all(entries)  # (7)
        self.pending.done(name)
        return Submitted(name, receipts=await self._receipts(lines, submitted))

    async def upload(self, caller: Caller, header: UploadHeader, chunks: AsyncIterator[bytes]) -> int:
        want = self.pending.want(header.submission, header.digest, header.size)
        with self.pending.uploading(header.submission):
            return await self._uploads.upload(want, header.offset, chunks)

    async def upload_objects(
        self, caller: Caller, submission: Digest, batches: AsyncIterator[Sequence[InlineObject]]
    ) -> int:
        self.pending.require(submission)
        held = 0
        with self.pending.uploading(submission):
            async for batch in batches:
                objects = [(self.pending.want(submission, each.digest, len(each.data)), each.data) for each in batch]
                await self._uploads.put_small(objects)
                held += len(batch)
        return held

    async def adopt(self, path: Path, digest: Digest, size: int) -> bool:
        """Store a file of this machine. Its path in a pending manifest decides how it is cut into pieces, else its own
        name."""
        where = self.pending.path_of(digest) or path.name
        return await self._uploads.adopt(path, Want(digest, size, where))

    def _logged_indexes(self, entries: Sequence[Entry]) -> dict[Digest, int]:
        """The first index of each statement that is already in this log, with any signatures. Blocking."""
        found = {entry.statement_digest: entry for entry in entries}
        first = self._ledger.tables.index.first_index
        return {digest: at for digest in found if (at := first(self._own_node.log, digest)) is not None}

    async def _receipts(self, lines: Sequence[bytes], entries: Sequence[Entry]) -> tuple[SubmitReceipt, ...]:
        """A receipt for each line. If an equal statement was logged before, the receipt is for that line."""
        return await self._ledger.run(self._receipted, lines, entries)

    def _receipted(self, lines: Sequence[bytes], entries: Sequence[Entry]) -> tuple[SubmitReceipt, ...]:
        digests = {entry.line: entry.statement_digest for entry in entries}
        first = self._logged_indexes(entries)
        indexes = [first[digests[line]] for line in lines]
        logged = self._ledger.tables.history.entries_at([(self._own_node.log, index) for index in indexes])
        return tuple(
            SubmitReceipt(self._own_node.record.origin, *place)
            for place in zip(indexes, map(sha256, logged), strict=True)
        )

    async def _store_objects(
        self, entries: Sequence[Entry], submitted: Sequence[Entry], objects: Sequence[InlineObject]
    ) -> None:
        """Store the objects of new statements. Raises Malformed (NOT-WANTED) for an object that no line names."""
        named, wanted = _named(submitted), _named(entries)
        for inline in objects:
            item = (inline.digest, len(inline.data))
            if item not in named:
                raise Malformed("no line names this object", why=inline.digest, code="NOT-WANTED")
            if item in wanted:
                await self._uploads.put(inline.digest, inline.data)

    def _missing(self, entries: Sequence[Entry]) -> list[Want]:
        missing = missing_objects(self._store, (entry.statement for entry in entries))
        if missing:
            return missing
        for published in _publications(entries):
            manifest, _ = read_artifact(self._store, published.manifest, published.pieces)
            missing.extend(missing_files(self._store, manifest))
        return missing

    def _received(self, wants: Sequence[Want]) -> list[MissingObject]:
        return [MissingObject(want.digest, want.size, self._uploads.received(want.digest)) for want in wants]

    async def _log_all(self, entries: Sequence[Entry]) -> list[int]:
        indexes = await self._own_log.append_all([entry.line for entry in entries])
        for entry, index in zip(entries, indexes, strict=True):
            _log.info("logged", predicate=entry.statement.predicate, index=index, line=entry.digest)
        self._on_logged(entries)
        return indexes


def _named(entries: Sequence[Entry]) -> set[tuple[Digest, int]]:
    return {(item.digest, item.size) for entry in entries for item in entry.statement.objects}


def _publications(entries: Sequence[Entry]) -> list[Published | Observed]:
    """The statements which claim that this node has all files of an artifact."""
    readers: dict[str, Callable[[Statement], Published | Observed]] = {
        PUBLISHED: Published.parse,
        OBSERVED: Observed.parse,
    }
    claims = (entry.statement for entry in entries)
    return [readers[claim.predicate](claim) for claim in claims if claim.predicate in readers]
