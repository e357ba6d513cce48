"""The calls of a publisher and of an operator with files: what has to hold before a line is logged, in order.

(1) the lines are statements, and few enough
(2) this caller may publish here
(3) each statement is its author's, and this log has room for what its author and this caller bring
(4) the side objects that the lines name are here
(5) every file that the manifest of a `published` or `observed` lists is here, whole
(6) the piece index is what these files give
(7) only then the lines are logged
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import structlog

from comity.node.allocation.counter import Counter
from comity.node.core import Core
from comity.node.governance.chamber import Chamber
from comity.node.governance.floor import Floor
from comity.node.holding import Holding
from comity.node.own_log import OwnLog
from comity.node.publishing.arrivals import Arrivals
from comity.node.publishing.artifact import check_pieces, missing_files, missing_objects, read_artifact
from comity.node.publishing.outside import OutsideRoom
from comity.node.publishing.pending import Pending, Submission, Want, submission_id
from comity.node.publishing.permission import permit
from comity.node.speakers import Speakers
from comity.trust.digest import Digest, sha256
from comity.trust.errors import Malformed, OutOfSpace
from comity.trust.statement import Entry, Statement, parse_entry
from comity.trust.statements.published import Published
from comity.trust.upstream.observed import OBSERVED, Observed
from comity.wire import limits
from comity.wire.doors import Caller
from comity.wire.values import InlineObject, MissingObject, Receipt, Submitted, UploadHeader

_log = structlog.get_logger("comity.node.publishing")


class Desk:
    """Answers `Publishing`, and Adopt for `Operating`."""

    def __init__(
        self, core: Core, own_log: OwnLog, chamber: Chamber | None = None, counter: Counter | None = None
    ) -> None:
        self._core = core
        self._counter = counter
        self._floor = Floor(core, chamber)
        self._own_log = own_log
        self._outside = OutsideRoom(core)
        self._under_way = Holding()
        self._arrivals = Arrivals(core)
        self.pending = Pending(core.config.limits.upload_bytes)

    async def submit(self, caller: Caller, lines: Sequence[bytes], objects: Sequence[InlineObject]) -> Submitted:
        brought = [parse_entry(line) for line in dict.fromkeys(lines)]  # (1)
        async with self._under_way.holding(entry.statement_digest for entry in brought):
            return await self._submit(caller, lines, brought, objects)

    async def _submit(
        self, caller: Caller, lines: Sequence[bytes], brought: Sequence[Entry], objects: Sequence[InlineObject]
    ) -> Submitted:
        """With nobody else at work on these statements: else one that comes twice at once would be charged twice."""
        known = await self._core.pools.ledger(self._standing, brought)
        entries = list({said: entry for entry in brought if (said := entry.statement_digest) not in known}.values())
        if not entries:
            return Submitted(submission_id(lines), receipts=await self._receipts(lines, brought))
        granted = await self._permit(caller, entries)  # (2)
        await self._require_quota(caller)
        await self._core.pools.ledger(self._prove, entries)  # (3)
        async with self._outside.charged(caller, entries, granted) as charge:
            await self._take(entries, brought, objects)
            name = submission_id(lines)
            missing = await self._core.pools.files(self._missing, entries)  # (4) (5)
            if missing:
                self.pending.put(Submission(name, caller.name, {want.digest: want for want in missing}))
                waiting = await self._core.pools.files(self._received, missing[: limits.MISSING])
                return Submitted(name, missing=tuple(waiting))
            for published in _publications(entries):
                await self._core.pools.hashing(check_pieces, self._core, self._arrivals, published)  # (6)
            with charge.logging():
                await self._log_all(entries)  # (7)
        self._floor.logged(entries)
        self.pending.done(name)
        return Submitted(name, receipts=await self._receipts(lines, brought))

    async def upload(self, caller: Caller, header: UploadHeader, chunks: AsyncIterator[bytes]) -> int:
        want = self.pending.want(header.submission, header.digest, header.size)
        return await self._arrivals.upload(want, header.offset, chunks)

    async def adopt(self, path: Path, digest: Digest, size: int) -> bool:
        """Take in a file of this machine. A manifest under way says how it is cut, else its own name does."""
        where = self.pending.path_of(digest) or path.name
        return await self._arrivals.adopt(path, Want(digest, size, where))

    async def _permit(self, caller: Caller, entries: Sequence[Entry]) -> frozenset[Digest]:
        """Digests of the entries that need no permission of the operator. Raises where one may not be logged."""
        granted: frozenset[Digest] = frozenset()
        if self._counter:
            self._counter.refuse_records(entries)
        if not caller.operator:
            granted = await self._floor.granted(entries)
            granted |= await self._counter.granted(entries) if self._counter else frozenset()
        permit(self._core.config.publishing, caller, entries, granted)
        return granted

    async def _require_quota(self, caller: Caller) -> None:
        """Strangers may not fill this log to where the other nodes would stop to follow it."""
        most = self._core.config.limits.entries_per_origin
        log = await self._core.pools.ledger(self._core.ledger.logs.get, self._core.log)
        if log.size >= most and not caller.operator:
            raise OutOfSpace("this node's log is full", why=f"it holds {most} entries", code="LOG-QUOTA")

    def _prove(self, entries: Sequence[Entry]) -> None:
        speakers = Speakers(self._core, entries)
        for entry in entries:
            speakers.prove(entry)

    def _standing(self, entries: Sequence[Entry]) -> dict[Digest, int]:
        """What this log says already, under whatever signatures, and where first. Blocking."""
        found = {entry.statement_digest: entry for entry in entries}
        first = self._core.ledger.index.first
        return {said: at for said in found if (at := first(self._core.log, said)) is not None}

    async def _receipts(self, lines: Sequence[bytes], entries: Sequence[Entry]) -> tuple[Receipt, ...]:
        """Where each line stands, or the line that says the same: a receipt is for the line that was logged."""
        return await self._core.pools.ledger(self._receipted, lines, entries)

    def _receipted(self, lines: Sequence[bytes], entries: Sequence[Entry]) -> tuple[Receipt, ...]:
        said = {entry.line: entry.statement_digest for entry in entries}
        first = self._standing(entries)
        indexes = [first[said[line]] for line in lines]
        logged = self._core.ledger.history.at([(self._core.log, index) for index in indexes])
        return tuple(Receipt(self._core.origin, *place) for place in zip(indexes, map(sha256, logged), strict=True))

    async def _take(self, entries: Sequence[Entry], brought: Sequence[Entry], objects: Sequence[InlineObject]) -> None:
        """Keep the objects that came along with new statements; one that no line names is refused."""
        named, wanted = _named(brought), _named(entries)
        for inline in objects:
            item = (inline.digest, len(inline.data))
            if item not in named:
                raise Malformed("an object that no line names", why=inline.digest, code="NOT-WANTED")
            if item in wanted:
                await self._arrivals.put(inline.digest, inline.data)

    def _missing(self, entries: Sequence[Entry]) -> list[Want]:
        missing = missing_objects(self._core.store, (entry.statement for entry in entries))
        if missing:
            return missing
        for published in _publications(entries):
            manifest, _ = read_artifact(self._core.store, published.manifest, published.pieces)
            missing.extend(missing_files(self._core.store, manifest))
        return missing

    def _received(self, wants: Sequence[Want]) -> list[MissingObject]:
        return [MissingObject(want.digest, want.size, self._arrivals.received(want.digest)) for want in wants]

    async def _log_all(self, entries: Sequence[Entry]) -> list[int]:
        indexes = await self._own_log.append_all([entry.line for entry in entries])
        for entry, index in zip(entries, indexes, strict=True):
            _log.info("logged", predicate=entry.statement.predicate, index=index, line=entry.digest)
        return indexes


def _named(entries: Sequence[Entry]) -> set[tuple[Digest, int]]:
    return {(item.digest, item.size) for entry in entries for item in entry.statement.objects}


def _publications(entries: Sequence[Entry]) -> list[Published | Observed]:
    """What claims that this node has all files of an artifact."""
    readers: dict[str, Callable[[Statement], Published | Observed]] = {
        "published": Published.parse,
        OBSERVED: Observed.parse,
    }
    claims = (entry.statement for entry in entries)
    return [readers[said.predicate](said) for said in claims if said.predicate in readers]
