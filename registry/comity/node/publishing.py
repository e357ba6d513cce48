"""Accepts submissions of publishers and operators: checks who may publish, charges quotas, and logs.

(1) the lines are statements, at most the allowed number
(2) the caller may publish: operators always, others if the operator accepts them
(3) each statement is signed by its author, and the author's and caller's quotas suffice
(4) the side objects that the lines name are stored
(5) every file in the manifest of a `published` or `observed` statement is stored completely
(6) the piece index matches these files
(7) then the lines are logged

Other nodes follow this log up to a quota. Half of it is reserved for this node; what others submit uses the other half:

    submitted                                      charged to                      limit of each
    by this node's operators, or by its member     nobody                          the whole log
    by a member, on matters that need no permission  its author                    1/16 of the half
    by an author whom the operator accepts         its author, and all outsiders   1/16 of the half; the half
    anything else                                  its author, all, the caller     the same

Entries are counted, and bytes that were not in the log before, with side objects. Charges are made after the signatures
were verified, are permanent, and are released if nothing is logged.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from comity.content.blobs import BlobStore
from comity.ledger.quotas import ALL, AUTHOR, CALLER, OutsideAmount, OutsideQuota
from comity.node.authors import AuthorVerifier
from comity.node.charter.admission import CharterAdmission
from comity.node.charter.follower import CharterFollower
from comity.node.config import Accepted, Limits, Publishing
from comity.node.members import Membership
from comity.node.offers.provider import OfferAdmission
from comity.node.own_log import OwnLog
from comity.node.threads import AsyncLedger, NameLocks, Pools
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
from comity.trust.errors import ComityError, Malformed, OutOfSpace, Refused
from comity.trust.statement import Author, Entry, Statement, parse_entry
from comity.trust.statements import Published
from comity.trust.upstream import OBSERVED, Observed
from comity.wire import limits
from comity.wire.access import Caller
from comity.wire.publish import InlineObject, MissingObject, SubmitReceipt, Submitted, UploadHeader


def require_permitted(
    rule: Publishing, caller: Caller, entries: Iterable[Entry], granted: Collection[Digest] = frozenset()
) -> None:
    """Raises Refused (PUBLISHING-CLOSED, NOT-ACCEPTED).

    Args:
        granted: digests of entries that need no permission of the operator: statements about the charter.

    Signatures are not checked here: naming an accepted author without that author's signature fails in step (3).
    """
    unpermitted = [entry for entry in entries if entry.digest not in granted]
    if caller.operator or rule.accept == "any" or not unpermitted:
        return
    if rule.accept == "none":
        raise Refused(
            "this node accepts no submissions from others",
            hint="ask its operator, or publish through the node's own socket",
            code="PUBLISHING-CLOSED",
        )
    for entry in unpermitted:
        author = entry.statement.by
        if author is None or author.id not in rule.accept:
            why = f"{author.id if author else 'its author'} is not in the operator's list of accepted publishers"
            raise Refused("this publisher is not accepted", why=why, code="NOT-ACCEPTED")


SHARES: Final = 16
"""Of the outsiders' half, each author and each caller (an address block, or a certificate) may use one of this many
parts."""


@dataclass(slots=True)
class Charge:
    """A charge for a submission; `logged` makes it permanent."""

    logged: bool = False

    @contextmanager
    def logging(self) -> Iterator[None]:
        """Make the charge permanent while the lines are logged: a caller that disconnects meanwhile gets no refund."""
        self.logged = True
        try:
            yield
        except ComityError:
            self.logged = False
            raise


class OutsideQuotas:
    """The quotas for outsiders in this node's log."""

    def __init__(self, ledger: AsyncLedger, membership: Membership, limits: Limits, accepted: Accepted) -> None:
        self._ledger = ledger
        self._membership = membership
        self._accepted = accepted
        self._outside_limit = OutsideAmount(limits.entries_per_origin, limits.bytes_per_origin).part(2)

    @asynccontextmanager
    async def charged(
        self, caller: Caller, entries: Sequence[Entry], granted: Collection[Digest]
    ) -> AsyncIterator[Charge]:
        """Charge verified entries while the block runs, and permanently if they are logged.

        Args:
            granted: digests of entries that need no permission of the operator.

        Raises OutOfSpace (LOG-SHARE).
        """
        charge, charged_amounts = Charge(), list[tuple[tuple[OutsideQuota, ...], OutsideAmount]]()
        try:
            for shares, lines in self._by_shares(caller, entries, granted):
                amount = await self._ledger.run(
                    self._ledger.tables.outside_usage.charge, self._membership.seat.log, lines, shares
                )
                charged_amounts.append((shares, amount))
            yield charge
        finally:
            if not charge.logged:
                for shares, amount in charged_amounts:
                    await self._ledger.run(self._ledger.tables.outside_usage.release, shares, amount)

    def _by_shares(
        self, caller: Caller, entries: Iterable[Entry], granted: Collection[Digest]
    ) -> list[tuple[tuple[OutsideQuota, ...], list[bytes]]]:
        """Lines by the quotas that they are charged to."""
        lines_by_shares: dict[tuple[OutsideQuota, ...], list[bytes]] = {}
        for entry in entries if not caller.operator else ():
            if shares := self._shares(caller, entry.statement.by, permitted=entry.digest in granted):
                lines_by_shares.setdefault(shares, []).append(entry.line)
        return list(lines_by_shares.items())

    def _shares(self, caller: Caller, author: Author | None, *, permitted: bool) -> tuple[OutsideQuota, ...]:
        part = self._outside_limit.part(SHARES)
        seat, members = self._membership.seat, self._membership
        if author is None:
            return (OutsideQuota(ALL, "", self._outside_limit), OutsideQuota(CALLER, caller.name, part))
        if author.id == seat.inception.id or author == seat.record.node:
            return ()
        own = OutsideQuota(AUTHOR, author.id, part)
        if permitted and (members.member(author.id) is not None or members.node(author) is not None):
            return (own,)
        if not isinstance(self._accepted, str) and author.id in self._accepted:
            return (own, OutsideQuota(ALL, "", self._outside_limit))
        return (own, OutsideQuota(ALL, "", self._outside_limit), OutsideQuota(CALLER, caller.name, part))


_log = structlog.get_logger("comity.node.publishing")


class Submissions:
    """Implements `Publishing`, and Adopt of `Operating`."""

    def __init__(
        self,
        ledger: AsyncLedger,
        store: BlobStore,
        pools: Pools,
        membership: Membership,
        rule: Publishing,
        limits: Limits,
        uploads: Uploads,
        own_log: OwnLog,
        follower: CharterFollower | None = None,
        offer_admission: OfferAdmission | None = None,
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._pools = pools
        self._membership = membership
        self._rule = rule
        self._max_entries = limits.entries_per_origin
        self._offer_admission = offer_admission
        self._charter_admission = CharterAdmission(ledger, membership, follower)
        self._own_log = own_log
        self._outside_quota = OutsideQuotas(ledger, membership, limits, rule.accept)
        self._locks = NameLocks()
        self._uploads = uploads
        self.pending = PendingSubmissions(limits.upload_bytes)

    async def submit(self, caller: Caller, lines: Sequence[bytes], objects: Sequence[InlineObject]) -> Submitted:
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
        granted = await self._require_permitted(caller, entries)  # (2)
        await self._require_quota(caller)
        await self._ledger.run(self._verify, entries)  # (3)
        async with self._outside_quota.charged(caller, entries, granted) as charge:
            await self._store_objects(entries, submitted, objects)
            name = submission_id(lines)
            missing = await self._pools.files(self._missing, entries)  # (4) (5)
            if missing:
                self.pending.put(PendingSubmission(name, caller.name, {want.digest: want for want in missing}))
                waiting = await self._pools.files(self._received, missing[: limits.MISSING])
                return Submitted(name, missing=tuple(waiting))
            for published in _publications(entries):
                await self._pools.hashing(self._uploads.check_pieces, published)  # (6)
            with charge.logging():
                await self._log_all(entries)  # (7)
        self._charter_admission.logged(entries)
        self.pending.done(name)
        return Submitted(name, receipts=await self._receipts(lines, submitted))

    async def upload(self, caller: Caller, header: UploadHeader, chunks: AsyncIterator[bytes]) -> int:
        want = self.pending.want(header.submission, header.digest, header.size)
        return await self._uploads.upload(want, header.offset, chunks)

    async def adopt(self, path: Path, digest: Digest, size: int) -> bool:
        """Store a file of this machine. Its path in a pending manifest decides how it is cut into pieces, else its own
        name."""
        where = self.pending.path_of(digest) or path.name
        return await self._uploads.adopt(path, Want(digest, size, where))

    async def _require_permitted(self, caller: Caller, entries: Sequence[Entry]) -> frozenset[Digest]:
        """Digests of the entries that need no permission of the operator. Raises if an entry may not be logged."""
        granted: frozenset[Digest] = frozenset()
        if self._offer_admission:
            self._offer_admission.reject_own_records(entries)
        if not caller.operator:
            granted = await self._charter_admission.granted(entries)
            granted |= await self._offer_admission.granted(entries) if self._offer_admission else frozenset()
        require_permitted(self._rule, caller, entries, granted)
        return granted

    async def _require_quota(self, caller: Caller) -> None:
        """Outsiders may not fill this log up to the size at which other nodes stop following it."""
        most = self._max_entries
        log = await self._ledger.run(self._ledger.tables.logs.get, self._membership.seat.log)
        if log.size >= most and not caller.operator:
            raise OutOfSpace("this node's log is full", why=f"it holds {most} entries", code="LOG-QUOTA")

    def _verify(self, entries: Sequence[Entry]) -> None:
        verifier = AuthorVerifier(self._ledger.tables, self._membership, entries)
        for entry in entries:
            verifier.verify(entry)

    def _logged_indexes(self, entries: Sequence[Entry]) -> dict[Digest, int]:
        """The first index of each statement that is already in this log, with any signatures. Blocking."""
        found = {entry.statement_digest: entry for entry in entries}
        first = self._ledger.tables.index.first_index
        return {digest: at for digest in found if (at := first(self._membership.seat.log, digest)) is not None}

    async def _receipts(self, lines: Sequence[bytes], entries: Sequence[Entry]) -> tuple[SubmitReceipt, ...]:
        """A receipt for each line. If an equal statement was logged before, the receipt is for that line."""
        return await self._ledger.run(self._receipted, lines, entries)

    def _receipted(self, lines: Sequence[bytes], entries: Sequence[Entry]) -> tuple[SubmitReceipt, ...]:
        digests = {entry.line: entry.statement_digest for entry in entries}
        first = self._logged_indexes(entries)
        indexes = [first[digests[line]] for line in lines]
        logged = self._ledger.tables.history.entries_at([(self._membership.seat.log, index) for index in indexes])
        return tuple(
            SubmitReceipt(self._membership.seat.record.origin, *place)
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
        return indexes


def _named(entries: Sequence[Entry]) -> set[tuple[Digest, int]]:
    return {(item.digest, item.size) for entry in entries for item in entry.statement.objects}


def _publications(entries: Sequence[Entry]) -> list[Published | Observed]:
    """The statements which claim that this node has all files of an artifact."""
    readers: dict[str, Callable[[Statement], Published | Observed]] = {
        "published": Published.parse,
        OBSERVED: Observed.parse,
    }
    claims = (entry.statement for entry in entries)
    return [readers[claim.predicate](claim) for claim in claims if claim.predicate in readers]
