"""An offer as its chain leaves it, computed here from lines, and what that is worth.

    proven     the newest record known is proven to be in the log that the offer names, which a pinned charter binds to
               the provider; all records before it are linked to it by their digests
    claimed    whoever gave the lines says so: no proof came along, lines are missing, or nobody knows whose log it is
    convicted  the lines break the rules of a chain, signed by the provider's own node

A chain that is proven may have gone on since: `as_of` says when members last cosigned the log as it is known here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from comity.trust.digest import Digest, short
from comity.trust.errors import ComityError, NotFound, Untrusted
from comity.trust.evidence import Proof
from comity.trust.judging.standing import prove_entry
from comity.trust.judging.witnessing import Bound, Witnessed
from comity.trust.offers.book import Book, Commitment
from comity.trust.offers.faults import UNANSWERED
from comity.trust.offers.hearing import Chain, OfferLog, Stated
from comity.trust.offers.offer import Offer
from comity.trust.offers.parties import Request
from comity.trust.offers.records import Offered, Record, is_record, read_record
from comity.trust.statement import Entry

from comity_client.compute.circle import Circle
from comity_client.compute.parcels import Parcel, readable

PROVEN: Final = "proven"
CLAIMED: Final = "claimed"
CONVICTED: Final = "convicted"


@dataclass(frozen=True, slots=True)
class View:
    """One chain as it can be known here.

    Attributes:
        state: proven, claimed or convicted; `why` says why it is not proven.
        provider: the node that writes the chain, where a pinned charter binds it.
        as_of: when the last member cosigned the log with the newest record in it, POSIX seconds; None where none did.
        cosigners: how many members did.
        parcel: the lines and proofs that it was computed from.
    """

    chain: Chain
    state: str
    why: str
    provider: Bound | None
    as_of: int | None
    cosigners: int
    parcel: Parcel
    circle: Circle

    @property
    def book(self) -> Book:
        return self.chain.book

    @property
    def offer(self) -> Offer:
        """The version in force."""
        return self.book.offer

    def requests(self) -> tuple[Stated, ...]:
        """What was asked of it, as far as is known here."""
        return tuple(stated for stated in self.chain.stated if isinstance(stated.said, Request))

    def grant(self, digest: Digest) -> Commitment:
        """Raises NotFound (NO-GRANT)."""
        if digest not in self.book.grants:
            why = "it is not in the chain of this offer"
            raise NotFound(f"no grant {short(digest)}", why=why, hint="comity grant ls", code="NO-GRANT")
        return self.book.grants[digest]

    def require_proven(self) -> None:
        """For whoever acts on it. Raises Untrusted (NOT-PROVEN) where it is only claimed, or convicted."""
        if self.state != PROVEN:
            raise Untrusted(f"this chain is {self.state}", why=self.why, hint="comity offer show ID --json",
                            code="NOT-PROVEN")  # fmt: skip


def view(parcel: Parcel, offer: Digest, circle: Circle) -> View:
    """The chain that `offer`, of any version, belongs to. Raises NotFound (NO-OFFER) where the lines hold none."""
    for log, origin in _logs(parcel):
        writer = circle.writer(log)
        placed = {(p.index, p.line): entry for p in parcel.lines if p.origin == origin and (entry := readable(p.line))}
        heard = OfferLog(log)
        for (index, _), entry in sorted(placed.items(), key=lambda item: item[0]):
            heard.read(index, entry, _genuine(entry, writer, circle))
        chain = heard.chain_of(offer)
        if chain is not None:
            return _weighed(chain, writer, parcel, circle)
    raise NotFound(f"no offer {short(offer)}", why="none of the lines at hand makes it", hint="comity offer ls",
                   code="NO-OFFER")  # fmt: skip


def offers_in(parcel: Parcel) -> tuple[Digest, ...]:
    """The ids of chains that the lines begin or go on with."""
    found = (record.link.chain for entry in parcel.entries if isinstance(record := _record(entry), Offered))
    return tuple(dict.fromkeys(found))


def _logs(parcel: Parcel) -> list[tuple[str, str]]:
    """Logs that offers among the lines name, as (verifier key, origin)."""
    offered = [record.offer.log for entry in parcel.entries if isinstance(record := _record(entry), Offered)]
    return [(log, log.split("+", 1)[0]) for log in dict.fromkeys(offered)]


def _weighed(chain: Chain, writer: Bound | None, parcel: Parcel, circle: Circle) -> View:
    def made(state: str, why: str, as_of: int | None = None, cosigners: int = 0) -> View:
        return View(chain, state, why, writer, as_of, cosigners, parcel, circle)

    if chain.fault is not None:
        kind = CONVICTED if _guilty(chain, parcel) else CLAIMED
        return made(kind, f"{chain.fault.kind} at entry {chain.fault.index}: {chain.fault.why}")
    if writer is None:
        return made(CLAIMED, "no pinned charter says whose log it is")
    if writer.member.id != chain.book.offer.provider:
        return made(CONVICTED, f"it offers for another member, from the log of {writer.member.name}")
    seen = _proofs(chain, writer, parcel, circle)
    if not seen:
        return made(CLAIMED, "no proof of its newest record came along")
    best = max(seen, key=lambda each: (len(each.cosigners), each.size))
    times = [cosigner.timestamp for each in seen for cosigner in each.cosigners if cosigner.timestamp]
    return made(PROVEN, "", max(times, default=None), len(best.cosigners))


def _proofs(chain: Chain, writer: Bound, parcel: Parcel, circle: Circle) -> list[Witnessed]:
    """The proofs at hand that put the newest record where it is said to stand."""
    newest = parcel.find(chain.book.last) if chain.book.last else None
    if newest is None:
        return []
    proofs = tuple(Proof(digest, data) for digest, data in parcel.proofs if digest == newest.digest)
    seen, _, _ = prove_entry(newest, proofs, circle.nodes)
    return [each for each in seen if (each.origin, each.index) == (writer.record.origin, chain.indexes[-1])]


def _guilty(chain: Chain, parcel: Parcel) -> bool:
    """Whether a fault is its provider's, and not a gap in the lines at hand: what a record follows, or answers, may be
    withheld by whoever gave them."""
    assert chain.fault is not None
    if chain.fault.kind == UNANSWERED:
        return False
    entry = parcel.find(chain.fault.line)
    record = _record(entry) if entry else None
    return isinstance(record, Record) and record.link.seq <= chain.book.seq + 1


def _genuine(entry: Entry, writer: Bound | None, circle: Circle) -> bool | None:
    """Whose word it is; what a node says of a log that nobody here knows is taken as said, and shown as claimed."""
    if entry.statement.by is not None and entry.statement.by.kind == "node":
        return writer is None or circle.by_node(entry, writer)
    return circle.by_identity(entry)


def _record(entry: Entry) -> Record | None:
    if not is_record(entry.statement):
        return None
    try:
        return read_record(entry.statement)
    except ComityError:
        return None
