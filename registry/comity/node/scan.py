"""Reading the ledger's index to its end, a page at a time. Blocking."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from comity.ledger.facts import ADDRESSES
from comity.ledger.index import Located, Query
from comity.ledger.ledger import Ledger
from comity.trust.statements.node_record import NodeRecord

PAGE: Final = 200


def every(ledger: Ledger, query: Query, *, most: int | None = None, after: Located | None = None) -> Iterator[Located]:
    """The entries that match, in order, at most `most`; `after` is the last one had."""
    while most is None or most > 0:
        size = PAGE if most is None else min(PAGE, most)
        page = ledger.index.find(query, limit=size, after=(after.vkey, after.index) if after else None)
        yield from page
        if len(page) < size:
            return
        after = page[-1]
        most = None if most is None else most - size


def newest_addresses(ledger: Ledger, record: NodeRecord) -> bytes | None:
    """The newest `addresses` line that the node of `record` has in its own log, if there is one. Blocking."""
    return ledger.proven.last_by(record.node.id, ADDRESSES, str(record.log))
