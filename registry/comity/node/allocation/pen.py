"""How a record comes into this node's log: made of the log as it stands, with the statement that it answers, once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

import structlog

from comity.ledger.logs import Standing
from comity.node.allocation.lines import Heard, hear
from comity.node.allocation.ours import Ours
from comity.node.core import Core
from comity.node.own_log import OwnLog
from comity.trust.digest import Digest, sha256
from comity.trust.errors import Refused
from comity.trust.offers import Book, Chain, Commitment, Link, Record
from comity.wire.values import Located

Made: TypeAlias = "Sequence[bytes] | int"
"""Lines to append; or the index of the entry that stands for them already."""
MakeRecord: TypeAlias = "Callable[[Link, Commitment], Record]"

_log: Final = structlog.get_logger("comity.node.offers")


class Pen:
    """Writes records of this node's own chains, one a transaction."""

    def __init__(self, core: Core, own_log: OwnLog) -> None:
        self._core = core
        self._own_log = own_log
        self._ours = Ours(core)

    async def write(self, make: Callable[[Ours], Made]) -> tuple[Located, ...]:
        """What now stands. What `make` raises is raised here, and nothing was written then."""
        standing_already: list[int] = []

        def lines(standing: Standing) -> Sequence[bytes]:
            made = make(self._ours.at(standing))
            if isinstance(made, int):
                standing_already.append(made)
                return []
            return made

        await self._core.pools.ledger(self._ours.catch_up)
        written = await self._own_log.compose(lines)
        for index in standing_already:
            written.append(
                (index, await self._core.pools.ledger(self._core.ledger.history.entry, self._core.log, index))
            )
        if not standing_already:
            for index, line in written:
                _log.info("logged", index=index, line=sha256(line))
        return tuple(Located(self._core.origin, index, line) for index, line in written)

    async def answer(self, heard: Heard, grant: Digest, make: MakeRecord, *others: Heard) -> tuple[Located, ...]:
        """Record what answers the grantee's statement about a grant, once."""

        def lines(ours: Ours) -> Made:
            chain, held = held_by(ours, grant)
            if (record := chain.book.answers.get(heard.entry.digest)) is not None:
                return index_of(chain, record)
            if heard.said.by != held.grant.grantee:
                why = "it is not signed by the identity to which the grant was given"
                raise Refused("not the grantee", why=why, code="OFFER-ELIGIBILITY")
            record_line = ours.sign(self.linked(chain.book, make(to(chain), held)))
            return [*carried(ours, heard, *others), record_line]

        return await self.write(lines)

    async def record(self, grant: Digest, state: str, make: MakeRecord) -> tuple[Located, ...]:
        """Record what happens to a grant without a word of its grantee, and leaves it in `state`, once."""

        def lines(ours: Ours) -> Made:
            chain, held = held_by(ours, grant)
            if held.state == state:
                return index_of(chain, held.newest)
            return [ours.sign(self.linked(chain.book, make(to(chain), held)))]

        return await self.write(lines)

    async def hear(self, line: Digest) -> Heard:
        """As `lines.hear`."""
        return await self._core.pools.ledger(hear, self._core, line)

    def linked(self, book: Book, record: Record) -> Record:
        """The record as the next of its chain. Raises Refused."""
        return book.next(record, int(self._core.clock()))

    def now(self, book: Book) -> int:
        """The time that the next record of a chain will bear."""
        return max(int(self._core.clock()), book.at)


def carried(ours: Ours, *heard: Heard) -> list[bytes]:
    """Statements that this log lacks, after what proves whose they are."""
    before = [line for item in heard for line in item.before]
    return list(dict.fromkeys((*before, *ours.missing(item.entry.line for item in heard))))


def held_by(ours: Ours, grant: Digest) -> tuple[Chain, Commitment]:
    """A grant of this node. Raises Refused (OFFER-STATE)."""
    chain = ours.log.chain_granting(grant)
    if chain is None:
        raise Refused("no such grant", why=f"this node's log grants no {grant}", code="OFFER-STATE")
    return chain, chain.book.grants[grant]


def index_of(chain: Chain, record: Digest) -> int:
    """Where a record stands in the log."""
    return chain.indexes[chain.book.number(record)]


def to(chain: Chain) -> Link:
    """A link that the book will make the next one."""
    return Link(chain.book.chain, 0, None, 0, ())
