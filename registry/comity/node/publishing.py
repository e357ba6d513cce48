"""Whether somebody may publish into this node's log. Operators always may; others where the operator says so.

Room in this node's log for what outsiders bring. The other nodes follow the log up to a quota, and half of it is
this node's own: nothing that anybody else hands in can use that up.

    what is handed in                              charged to                      each has at most
    by this node's operators, or by its member     nobody                          the whole log
    a word of a member that needs no permission    its author                      a part of the half
    by an author whom the operator accepts         its author, and all outsiders   a part of the half; the half
    anything else                                  its author, all, the caller     the same

A part is 1/16. What counts are entries, and bytes that were not in the log before, with side objects. They are charged
once the statements are proven to be their author's, for ever, and given back where nothing is logged.


The calls of a publisher and of an operator with files: what has to hold before a line is logged, in order.

(1) the lines are statements, and few enough
(2) this caller may publish here
(3) each statement is its author's, and this log has room for what its author and this caller bring
(4) the side objects that the lines name are here
(5) every file that the manifest of a `published` or `observed` lists is here, whole
(6) the piece index is what these files give
(7) only then the lines are logged


Statements and bytes on their way in from publishers.

speakers     whether a statement is its author's
permission   whether this caller may publish here
outside      how much of the log others than its member may fill
pending      submissions that wait for objects; bounded
arrivals     bytes coming in: resumable, hashed, admitted
artifact     whether all that a `published` statement names is here and right
desk         the calls: Submit, Upload, Adopt
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from comity.ledger.quotas import ALL, AUTHOR, CALLER, OutsideAmount, OutsideShare
from comity.node.authors import AuthorVerifier
from comity.node.charter.admission import CharterAdmission
from comity.node.charter.follower import CharterFollower
from comity.node.config import Publishing
from comity.node.context import NodeContext
from comity.node.offers.provider import OfferAdmission
from comity.node.own_log import NameLocks, OwnLog
from comity.node.uploads import (
    PendingSubmission,
    PendingSubmissions,
    Uploads,
    Want,
    check_pieces,
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
from comity.wire.messages import InlineObject, MissingObject, SubmitReceipt, Submitted, UploadHeader


def permit(
    rule: Publishing, caller: Caller, entries: Iterable[Entry], granted: Collection[Digest] = frozenset()
) -> None:
    """Raises Refused (PUBLISHING-CLOSED, NOT-ACCEPTED).

    Args:
        granted: entries, by digest, that need no permission of the operator: words about the charter.

    Not checked: whether the statements are their authors'. An author who is not on the list gains nothing by claiming
    to be one who is.
    """
    asked = [entry for entry in entries if entry.digest not in granted]
    if caller.operator or rule.accept == "any" or not asked:
        return
    if rule.accept == "none":
        raise Refused(
            "this node takes no statements from outside",
            hint="ask its operator, or publish through the node's own socket",
            code="PUBLISHING-CLOSED",
        )
    for entry in asked:
        author = entry.statement.by
        if author is None or author.id not in rule.accept:
            why = f"{author.id if author else 'its author'} is not among those whom the operator accepts"
            raise Refused("this publisher is not accepted here", why=why, code="NOT-ACCEPTED")


PARTS: Final = 16
"""Of what is for outsiders, one author and one caller (an address block, or a certificate) have a part each."""


@dataclass(slots=True)
class Charge:
    """What a submission is charged for; `logged` says that it stays so."""

    logged: bool = False

    @contextmanager
    def logging(self) -> Iterator[None]:
        """While its lines are logged. A caller who goes away in between does not get the charge back."""
        self.logged = True
        try:
            yield
        except ComityError:
            self.logged = False
            raise


class OutsideQuota:
    """The room that outsiders have, and what they have used of it."""

    def __init__(self, core: NodeContext) -> None:
        self._core = core
        limits = core.config.limits
        self._half = OutsideAmount(limits.entries_per_origin, limits.bytes_per_origin).part(2)

    @asynccontextmanager
    async def charged(
        self, caller: Caller, entries: Sequence[Entry], granted: Collection[Digest]
    ) -> AsyncIterator[Charge]:
        """Have proven entries charged while they are logged inside the block, and for ever if they were.

        Args:
            granted: digests of those that need no permission of the operator.

        Raises OutOfSpace (LOG-SHARE).
        """
        charge, made = Charge(), list[tuple[tuple[OutsideShare, ...], OutsideAmount]]()
        try:
            for shares, lines in self._bills(caller, entries, granted):
                amount = await self._core.pools.ledger(self._core.ledger.shares.charge, self._core.log, lines, shares)
                made.append((shares, amount))
            yield charge
        finally:
            if not charge.logged:
                for shares, amount in made:
                    await self._core.pools.ledger(self._core.ledger.shares.give_back, shares, amount)

    def _bills(
        self, caller: Caller, entries: Iterable[Entry], granted: Collection[Digest]
    ) -> list[tuple[tuple[OutsideShare, ...], list[bytes]]]:
        """Lines, by who is charged for them."""
        bills: dict[tuple[OutsideShare, ...], list[bytes]] = {}
        for entry in entries if not caller.operator else ():
            if shares := self._shares(caller, entry.statement.by, needs_none=entry.digest in granted):
                bills.setdefault(shares, []).append(entry.line)
        return list(bills.items())

    def _shares(self, caller: Caller, author: Author | None, *, needs_none: bool) -> tuple[OutsideShare, ...]:
        part = self._half.part(PARTS)
        seat, members = self._core.seat, self._core.membership
        if author is None:
            return (OutsideShare(ALL, "", self._half), OutsideShare(CALLER, caller.name, part))
        if author.id == seat.inception.id or author == seat.record.node:
            return ()
        own = OutsideShare(AUTHOR, author.id, part)
        if needs_none and (members.member(author.id) is not None or members.node(author) is not None):
            return (own,)
        accepted = self._core.config.publishing.accept
        if not isinstance(accepted, str) and author.id in accepted:
            return (own, OutsideShare(ALL, "", self._half))
        return (own, OutsideShare(ALL, "", self._half), OutsideShare(CALLER, caller.name, part))


_log = structlog.get_logger("comity.node.publishing")


class Submissions:
    """Answers `Publishing`, and Adopt for `Operating`."""

    def __init__(
        self,
        core: NodeContext,
        own_log: OwnLog,
        chamber: CharterFollower | None = None,
        counter: OfferAdmission | None = None,
    ) -> None:
        self._core = core
        self._counter = counter
        self._floor = CharterAdmission(core, chamber)
        self._own_log = own_log
        self._outside = OutsideQuota(core)
        self._under_way = NameLocks()
        self._arrivals = Uploads(core)
        self.pending = PendingSubmissions(core.config.limits.upload_bytes)

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
                self.pending.put(PendingSubmission(name, caller.name, {want.digest: want for want in missing}))
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
        speakers = AuthorVerifier(self._core, entries)
        for entry in entries:
            speakers.prove(entry)

    def _standing(self, entries: Sequence[Entry]) -> dict[Digest, int]:
        """What this log says already, under whatever signatures, and where first. Blocking."""
        found = {entry.statement_digest: entry for entry in entries}
        first = self._core.ledger.index.first
        return {said: at for said in found if (at := first(self._core.log, said)) is not None}

    async def _receipts(self, lines: Sequence[bytes], entries: Sequence[Entry]) -> tuple[SubmitReceipt, ...]:
        """Where each line stands, or the line that says the same: a receipt is for the line that was logged."""
        return await self._core.pools.ledger(self._receipted, lines, entries)

    def _receipted(self, lines: Sequence[bytes], entries: Sequence[Entry]) -> tuple[SubmitReceipt, ...]:
        said = {entry.line: entry.statement_digest for entry in entries}
        first = self._standing(entries)
        indexes = [first[said[line]] for line in lines]
        logged = self._core.ledger.history.at([(self._core.log, index) for index in indexes])
        return tuple(
            SubmitReceipt(self._core.origin, *place) for place in zip(indexes, map(sha256, logged), strict=True)
        )

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
