"""Who really said it. A statement is proven by a record: an inception, a charter's member keys, or a node record."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from comity.ledger.index import Query
from comity.node.core import Core
from comity.trust.claims import parse_addresses, parse_advisory, parse_hold, signed_by_node
from comity.trust.digest import Digest
from comity.trust.errors import ComityError, NotFound, Untrusted
from comity.trust.identity import Inception, KeySet, check_inception
from comity.trust.node_record import check_node_record
from comity.trust.published import check_published
from comity.trust.statement import Entry, parse_entry

CANDIDATES: Final = 16
"""Lines looked at that claim to be one identity's inception: each proves itself or counts for nothing."""

_READERS: Final = {"hold": parse_hold, "addresses": parse_addresses, "advisory": parse_advisory}


class Speakers:
    """Proves statements by what this node holds, and by the inceptions among the lines that come together.

    Args:
        arriving: entries of the submission at hand.
    """

    def __init__(self, core: Core, arriving: Iterable[Entry] = ()) -> None:
        self._core = core
        self._arriving = [entry for entry in arriving if entry.statement.predicate == "inception"]

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
            check_node_record(entry, self._keys(statement.by.id))
        elif statement.predicate == "published":
            check_published(entry, self.inception(statement.by.id))
        elif not self._keys(statement.by.id).signed(entry.envelope):
            why = f"its signatures are not those of {statement.by.id[:12]}"
            raise Untrusted(f"{statement.predicate} refused", why=why, code="SIGNATURE")
        if reader := _READERS.get(statement.predicate):
            reader(statement)

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

    def _keys(self, identity: Digest) -> KeySet:
        member = self._core.membership.member(identity)
        return member.keys if member else self.inception(identity).keys

    def _prove_node(self, entry: Entry) -> None:
        author = entry.statement.by
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
