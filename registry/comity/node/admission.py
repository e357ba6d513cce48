"""Who may log what in this node's log, and at whose cost.

An entry of a submission is admitted if

- it is no record of this node's offers: the node itself writes those
- its author signed it (`authors`)
- the caller may log it: an operator; anybody, if it needs no permission, being about the charter
  (`charter.admission`) or about an offer of this node (`offers.admission`); otherwise those whom the operator's
  `[publishing] accept` names
- the log is not full, and the quotas suffice

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

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Final

from comity.ledger.quotas import ALL, AUTHOR, CALLER, OutsideAmount, OutsideQuota
from comity.node.authors import AuthorVerifier
from comity.node.charter.admission import CharterAdmission
from comity.node.members import Membership
from comity.node.offers.admission import OfferAdmission
from comity.node.settings import Accepted, Limits, Publishing
from comity.node.threads import AsyncLedger
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError, OutOfSpace, Refused
from comity.trust.statement import Author, Entry
from comity.wire.access import Caller


def require_permitted(
    rule: Publishing, caller: Caller, entries: Iterable[Entry], granted: Collection[Digest] = frozenset()
) -> None:
    """Raises Refused (PUBLISHING-CLOSED, NOT-ACCEPTED).

    Args:
        granted: digests of entries that need no permission of the operator: statements about the charter.

    Signatures are not checked here: naming an accepted author without that author's signature fails later.
    """
    unpermitted = [entry for entry in entries if entry.digest not in granted]
    if caller.operator or rule.accept == "any" or not unpermitted:
        return
    if rule.accept == "none":
        raise Refused(
            "this node accepts no submissions from others",
            hint="add --node HOME on the node's machine, or ask its operator to name you in [publishing] accept",
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


def outside_limit(limits: Limits) -> OutsideAmount:
    """What all outsiders together may add to this node's log."""
    return OutsideAmount(limits.entries_per_origin, limits.bytes_per_origin).part(2)


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
        self._outside_limit = outside_limit(limits)

    @asynccontextmanager
    async def charged(
        self, caller: Caller, entries: Sequence[Entry], granted: Collection[Digest]
    ) -> AsyncIterator[Charge]:
        """Charge verified entries while the block runs, and permanently if they are logged.

        Args:
            granted: digests of entries that need no permission of the operator.

        Raises OutOfSpace (LOG-SHARE).
        """
        charge, charges = Charge(), list[tuple[tuple[OutsideQuota, ...], OutsideAmount]]()
        charging = asyncio.ensure_future(self._charge(self._by_shares(caller, entries, granted), charges))
        try:
            await asyncio.shield(charging)  # the ledger charges also where the caller has gone
            yield charge
        finally:
            if not charge.logged:
                await asyncio.shield(self._release(charging, charges))

    async def _charge(
        self,
        lines_by_shares: Iterable[tuple[tuple[OutsideQuota, ...], list[bytes]]],
        charges: list[tuple[tuple[OutsideQuota, ...], OutsideAmount]],
    ) -> None:
        """Charge lines to their quotas, and add to `charges` what was charged. Raises OutOfSpace (LOG-SHARE)."""
        for shares, lines in lines_by_shares:
            amount = await self._ledger.run(
                self._ledger.tables.outside_usage.charge, self._membership.own_node.log, lines, shares
            )
            charges.append((shares, amount))

    async def _release(
        self, charging: asyncio.Future[None], charges: Iterable[tuple[tuple[OutsideQuota, ...], OutsideAmount]]
    ) -> None:
        """Undo `charges`, when `charging` has ended."""
        await asyncio.gather(charging, return_exceptions=True)
        for shares, amount in charges:
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
        own_node, members = self._membership.own_node, self._membership
        if author is None:
            return (OutsideQuota(ALL, "", self._outside_limit), OutsideQuota(CALLER, caller.name, part))
        if author.id == own_node.inception.id or author == own_node.record.node:
            return ()
        own = OutsideQuota(AUTHOR, author.id, part)
        if permitted and (members.member(author.id) is not None or members.node(author) is not None):
            return (own,)
        if not isinstance(self._accepted, str) and author.id in self._accepted:
            return (own, OutsideQuota(ALL, "", self._outside_limit))
        return (own, OutsideQuota(ALL, "", self._outside_limit), OutsideQuota(CALLER, caller.name, part))


class Admission:
    """Admits submissions to this node's log. Not thread-safe: call from the event loop."""

    def __init__(
        self,
        ledger: AsyncLedger,
        membership: Membership,
        rule: Publishing,
        limits: Limits,
        charter: CharterAdmission,
        offers: OfferAdmission,
    ) -> None:
        self._ledger = ledger
        self._membership = membership
        self._rule = rule
        self._max_entries = limits.entries_per_origin
        self._charter = charter
        self._offers = offers
        self._outside_quotas = OutsideQuotas(ledger, membership, limits, rule.accept)

    @asynccontextmanager
    async def admitted(self, caller: Caller, entries: Sequence[Entry]) -> AsyncIterator[Charge]:
        """Admit new entries and charge them while the block runs, permanently if it logs them.

        Raises what the rules of the charter and of offers raise, Refused (PUBLISHING-CLOSED, NOT-ACCEPTED), OutOfSpace
        (LOG-QUOTA, LOG-SHARE), and what `AuthorVerifier.verify` raises.
        """
        granted = await self._permitted(caller, entries)
        await self._require_room(caller)
        await self._ledger.run(self._verify, entries)
        async with self._outside_quotas.charged(caller, entries, granted) as charge:
            yield charge
        if charge.logged:
            self._charter.logged(entries)

    async def _permitted(self, caller: Caller, entries: Sequence[Entry]) -> frozenset[Digest]:
        """Digests of the entries that need no permission of the operator. Raises if an entry may not be logged."""
        granted: frozenset[Digest] = frozenset()
        self._offers.reject_own_records(entries)
        if not caller.operator:
            granted = await self._charter.granted(entries) | await self._offers.granted(entries)
        require_permitted(self._rule, caller, entries, granted)
        return granted

    async def _require_room(self, caller: Caller) -> None:
        """Outsiders may not fill this log up to the size at which other nodes stop following it."""
        most = self._max_entries
        log = await self._ledger.run(self._ledger.tables.logs.get, self._membership.own_node.log)
        if log.size >= most and not caller.operator:
            raise OutOfSpace("this node's log is full", why=f"it holds {most} entries", code="LOG-QUOTA")

    def _verify(self, entries: Sequence[Entry]) -> None:
        """Blocking."""
        verifier = AuthorVerifier(self._ledger.tables, self._membership, entries)
        for entry in entries:
            verifier.verify(entry)
