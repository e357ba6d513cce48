"""What keeps a writer out that lost the ledger's lock and does not know it yet.

Whoever has opened the ledger raises a number in it, and reads that number again, holding its row, in each transaction
that writes. Raising it waits until such transactions have ended. So whatever an earlier writer commits, it commits
before the next one begins; from then on it finds another number, and writes nothing. No clock comes into it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sqlalchemy import Connection, select, update

from comity.ledger import schema
from comity.ledger.database import Database
from comity.ledger.lock import lost

_NUMBER: Final = schema.writer.c.number


def raised(database: Database) -> Callable[[Connection], None]:
    """Shut out every earlier writer. What is returned is called at the beginning of each transaction that writes:
    it raises Unavailable(code="LEDGER-LOCK-LOST") once a later writer has done the same."""
    with database.writing("fence") as connection:
        connection.execute(update(schema.writer).values(number=_NUMBER + 1))
        ours = connection.scalars(select(_NUMBER)).one()

    def require(connection: Connection) -> None:
        if connection.scalar(select(_NUMBER).with_for_update(read=True)) != ours:
            raise lost("another process has opened it since")

    return require
