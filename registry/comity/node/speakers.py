"""Who really said it. A statement is proven by a record: an inception, a charter's member keys, or a node record."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from comity.ledger.index import Query
from comity.node.core import Core
from comity.node.governance.hearing import SPOKEN
from comity.node.governance.witnesses import claimed
from comity.trust.charter import read_named, read_reading
from comity.trust.charter.proposing import CONSENTED, DRAFT, LEFT
from comity.trust.charter.readings import INTENT, RATIFIED
from comity.trust.digest import Digest
from comity.trust.dsse import Envelope
from comity.trust.errors import ComityError, NotFound, Untrusted
from comity.trust.identity import Inception, check_inception
from comity.trust.keys import PublicKey
from comity.trust.offers import PREDICATES, read_any
from comity.trust.offers.accusing import OFFER_FAULT, read_accused
from comity.trust.rotation import Chain, KeyState, check_rotation, follow
from comity.trust.statement import Entry, parse_entry
from comity.trust.statements.claims import parse_addresses, parse_advisory, parse_hold, signed_by_node
from comity.trust.statements.derived import PREDICATE as DERIVED
from comity.trust.statements.derived import parse_derived
from comity.trust.statements.node_record import check_node_record
from comity.trust.statements.published import check_published
from comity.trust.statements.verified import VERIFIED, Verified
from comity.trust.statements.vouched import PREDICATE as VOUCHED
from comity.trust.statements.vouched import parse_vouched
from comity.trust.upstream.news import CHANGED, GONE, parse_changed, parse_gone
from comity.trust.upstream.observed import OBSERVED, Observed

CANDIDATES: Final = 16
"""Lines looked at that claim to be one identity's inception: each proves itself or counts for nothing."""

_READERS: Final[Mapping[str, Callable[[Entry], object]]] = {
    "hold": lambda entry: parse_hold(entry.statement),
    "addresses": lambda entry: parse_addresses(entry.statement),
    "advisory": lambda entry: parse_advisory(entry.statement),
    VOUCHED: lambda entry: parse_vouched(entry.statement),
    DERIVED: lambda entry: parse_derived(entry.statement),
    VERIFIED: lambda entry: Verified.parse(entry.statement),
    OBSERVED: lambda entry: Observed.parse(entry.statement),
    CHANGED: lambda entry: parse_changed(entry.statement),
    GONE: lambda entry: parse_gone(entry.statement),
    OFFER_FAULT: lambda entry: read_accused(entry.statement),
    **dict.fromkeys(PREDICATES, lambda entry: read_any(entry.statement)),
    DRAFT: read_named,
    CONSENTED: read_named,
    LEFT: read_named,
    INTENT: read_reading,
    RATIFIED: read_reading,
}


@dataclass(frozen=True, slots=True)
class Voice:
    """An identity as it speaks: its rotations, from each state in which it is known."""

    chains: tuple[Chain, ...]

    def signed(self, envelope: Envelope, beside: Collection[PublicKey] = ()) -> bool:
        return any(chain.signed(envelope, beside) for chain in self.chains)


class Speakers:
    """Proves statements by what this node holds, and by the inceptions among the lines that come together.

    Args:
        arriving: entries of the submission at hand.
    """

    def __init__(self, core: Core, arriving: Iterable[Entry] = ()) -> None:
        self._core = core
        entries = list(arriving)
        self._arriving = [entry for entry in entries if entry.statement.predicate == "inception"]
        self._rotations = [entry for entry in entries if entry.statement.predicate == "rotated"]

    def prove(self, entry: Entry) -> None:
        """Blocking. Raises Malformed, Untrusted, and NotFound (UNKNOWN-IDENTITY) without a record of its author."""
        statement = entry.statement
        if statement.predicate == "inception":
            check_inception(entry)
        elif statement.by is None:
            why = f"{statement.predicate[:80]!r} does not say who speaks in a way that is known here"
            raise Untrusted("statement refused", why=why, code="AUTHOR")
        elif statement.by.kind == "node":
            self._prove_node(entry)
        elif statement.predicate == "node-record":
            check_node_record(entry, self.keys(statement.by.id))
        elif statement.predicate == "rotated":
            self._prove_rotation(entry, statement.by.id)
        elif statement.predicate == "published":
            check_published(entry, self.inception(statement.by.id), self.keys(statement.by.id))
        elif not self.keys(statement.by.id).signed(entry.envelope):
            raise self._not_signed(entry, statement.by.id)
        if reader := _READERS.get(statement.predicate):
            reader(entry)

    def inception(self, identity: Digest) -> Inception:
        """The proven record of an identity. Blocking. Raises NotFound (UNKNOWN-IDENTITY)."""
        held = self._core.ledger.index.find(Query(subject=identity, predicate="inception"), limit=CANDIDATES)
        for entry in (*self._arriving, *(parse_entry(found.line) for found in held)):
            inception = _inception(entry)
            if inception is not None and inception.id == identity:
                return inception
        raise NotFound(
            "unknown identity",
            why=f"no inception of {identity} is here",
            hint="send the inception line first, in the same submission",
            code="UNKNOWN-IDENTITY",
        )

    def keys(self, identity: Digest) -> Voice:
        """By which keys an identity speaks, those that it has rotated to or from included. Blocking.

        Raises NotFound (UNKNOWN-IDENTITY) for one without a seat and an inception that is here.
        """
        rotations = [*self._rotations, *claimed(self._core.ledger, identity, "rotated")]
        return Voice(tuple(follow(start, rotations) for start in self._starts(identity)))

    def _starts(self, identity: Digest) -> list[KeyState]:
        chains = self._core.membership.chains(identity)
        return [chain.start for chain in chains] or [KeyState.of_inception(self.inception(identity))]

    def _prove_rotation(self, entry: Entry, identity: Digest) -> None:
        """That it leads on from keys by which the identity speaks. Raises Untrusted (ROTATION)."""
        steps = (step for chain in self.keys(identity).chains for step in chain.steps)
        before = next((step.before for step in steps if step.entry.statement_digest == entry.statement_digest), None)
        if before is not None:
            check_rotation(entry, before)  # that one envelope of it is good says nothing of this one
        else:
            why = f"it leads on from no keys of {identity[:12]} that are known here"
            raise Untrusted("rotation refused", why=why, code="ROTATION")

    def _not_signed(self, entry: Entry, identity: Digest) -> Untrusted:
        what = f"{entry.statement.predicate} refused"
        nodes = [peer.record for peer in self._core.membership.nodes_of(identity)]
        for record in (self._core.seat.record, *nodes):
            if record.member == identity and entry.envelope.verified_by(record.online):
                return Untrusted(
                    what,
                    why=f"it is signed by the online key of {record.name}, which speaks for the node alone",
                    hint="sign it with the member's governance key, which no node holds",
                    code="ONLINE-KEY",
                )
        return Untrusted(what, why=f"its signatures are not those of {identity[:12]}", code="SIGNATURE")

    def _prove_node(self, entry: Entry) -> None:
        author = entry.statement.by
        if entry.statement.predicate in SPOKEN:
            raise Untrusted(
                f"{entry.statement.predicate} refused",
                why="it says of itself that a node speaks, and only members decide",
                hint="sign it with the member's governance key, which no node holds",
                code="ONLINE-KEY",
            )
        record = self._core.membership.node(author) if author else None
        if record is None:
            why = "no node-record that this node's charter proves binds its key"
            raise NotFound("unknown node", why=why, code="UNKNOWN-IDENTITY")
        if not signed_by_node(entry, record):
            why = f"its signatures are not those of {record.name}"
            raise Untrusted(f"{entry.statement.predicate} refused", why=why, code="SIGNATURE")


def _inception(entry: Entry) -> Inception | None:
    try:
        return check_inception(entry)
    except ComityError:
        return None
