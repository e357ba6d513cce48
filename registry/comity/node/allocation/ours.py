"""What this node's own log says of offers, as it stands in the transaction that appends to it.

Each record is made here, one a transaction: the book is brought up to the log's last entry, asked whether the record
may follow, and the record appended, before anybody else may write. The book only ever learns of what is committed, so
that a commit that fails, or a node that dies, leaves it right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from threading import Lock
from typing import Final, TypeAlias

from comity.ledger.index import MAX_STRETCH
from comity.ledger.logs import Standing
from comity.node.core import Core
from comity.trust.digest import Digest
from comity.trust.errors import NotFound
from comity.trust.offers import PREDICATES, Chain, OfferLog, Record, record_statement
from comity.trust.statement import Author, Entry, Statement, parse_entry, sign_statement

Make: TypeAlias = "Callable[[Ours], Sequence[bytes]]"


class Ours:
    """The chains of this node's own offers. Thread-safe: one reads at a time."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._node: Final[Author] = core.seat.record.node
        self._read = 0
        self._turn = Lock()
        self.log = OfferLog(core.log)

    def at(self, standing: Standing) -> Ours:
        """Read what was appended since. What stands in this log was proven when it was logged, and records of this
        node are made nowhere else."""
        with self._turn:
            while self._read < standing.size:
                end = min(standing.size, self._read + MAX_STRETCH)
                for index, line in standing.said(PREDICATES, self._read, end):
                    self._take(index, parse_entry(line))
                self._read = end
        return self

    def catch_up(self) -> None:
        """Read what stands, outside of any transaction: at a start a long log would keep others from appending."""
        ledger, log = self._core.ledger, self._core.log
        self.at(Standing(ledger.logs.get(log).size, partial(ledger.index.said, log)))

    def chain(self, offer: Digest) -> Chain:
        """The chain of an own offer, of any version. Raises NotFound (NO-OFFER)."""
        chain = self.log.chain_of(offer)
        if chain is None:
            raise no_offer(offer)
        return chain

    def sign(self, record: Record) -> bytes:
        """The line of a record, by this node's online key."""
        return self.seal(record_statement(record, self._node))

    def seal(self, statement: Statement) -> bytes:
        return sign_statement(statement, self._core.keys.online).line

    @property
    def node(self) -> Author:
        return self._node

    def missing(self, lines: Iterable[bytes]) -> list[bytes]:
        """Those of these lines, statements of identities, that do not stand in this log."""
        return [line for line in lines if parse_entry(line).digest not in self.log.said]

    def _take(self, index: int, entry: Entry) -> None:
        by = entry.statement.by
        self.log.read(index, entry, by is not None and (by.kind == "identity" or self._is_this_node(by)))

    def _is_this_node(self, by: Author) -> bool:
        record = self._core.membership.node(by)
        return record is not None and str(record.log) == self._core.log


def no_offer(offer: Digest) -> NotFound:
    return NotFound(
        "no such offer",
        why=f"no log held here makes the offer {offer}",
        hint="comity offer ls",
        code="NO-OFFER",
    )
