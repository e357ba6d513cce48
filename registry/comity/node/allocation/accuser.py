"""Chains at fault, said aloud: each once, in this node's own log. The proof is the log that is accused."""

from __future__ import annotations

from typing import Final

import structlog

from comity.ledger.index import Query
from comity.node.allocation.register import Convicted
from comity.node.core import Core
from comity.node.own_log import OwnLog
from comity.trust.offers.accusing import OFFER_FAULT, Accused, accusation_statement
from comity.trust.statement import sign_statement
from comity.trust.tlog.note import VerifierKey

MAX_ACCUSATIONS: Final = 16
"""Chains of one log of which this node says so. One convicts; who writes bad chains by the thousand fills only its own
log with them."""

_log: Final = structlog.get_logger("comity.node.offers")


class Accuser:
    """Says of a chain that it is at fault, once, whatever happens between: the log itself is asked what was said."""

    def __init__(self, core: Core, own_log: OwnLog) -> None:
        self._core = core
        self._own_log = own_log
        self._accused: dict[str, int] = {}

    async def accuse(self, convicted: Convicted) -> None:
        fault = convicted.chain.fault
        assert fault is not None  # it was convicted
        accused = Accused(convicted.chain.book.chain, convicted.log, fault.index, fault.line, fault.kind)
        origin = VerifierKey.parse(convicted.log).name
        self._core.metrics.offers_at_fault.labels(origin).inc()
        _log.error("an offer's chain convicts its provider", origin=origin, kind=fault.kind, why=fault.why)
        self._accused[convicted.log] = self._accused.get(convicted.log, 0) + 1
        if self._accused[convicted.log] > MAX_ACCUSATIONS or convicted.log == self._core.log:
            return
        if not await self._core.pools.ledger(self._said, accused):
            said = accusation_statement(accused, self._core.seat.record.node)
            await self._own_log.append(sign_statement(said, self._core.keys.online).line)

    def _said(self, accused: Accused) -> bool:
        """Blocking."""
        mine = Query(
            subject=accused.chain, predicate=OFFER_FAULT, by=self._core.seat.record.node.id, origin=self._core.log
        )
        return bool(self._core.ledger.index.find(mine, limit=1))
