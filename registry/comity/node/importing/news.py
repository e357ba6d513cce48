"""How an upstream stands now, against what this node mirrored from it: said in the log where that changed, once."""

from __future__ import annotations

from typing import Final

import structlog

from comity.ledger.index import Query
from comity.node.core import Core
from comity.node.importing.recorded import own
from comity.node.importing.ticker import Ticker
from comity.node.own_log import OwnLog
from comity.node.scan import every
from comity.trust.errors import ComityError, NotFound, Refused
from comity.trust.statement import Entry, Statement, parse_entry
from comity.trust.upstream.naming import Wanted, is_commit
from comity.trust.upstream.news import CHANGED, GONE, Changed, Gone, parse_changed, parse_gone, sign_changed, sign_gone
from comity.trust.upstream.observed import Observed
from comity.upstream import mirror
from comity.upstream.mirror import Order
from comity.upstream.reach import Reach
from comity.wire.upstream_values import UpstreamCheck

News = Changed | Gone
_log: Final = structlog.get_logger("comity.node.importing")


class Watch:
    """Asks upstreams again."""

    def __init__(self, core: Core, own_log: OwnLog) -> None:
        self._core = core
        self._own_log = own_log

    async def check(self, name: str, token: str) -> UpstreamCheck:
        """Raises NotFound (NOT-OBSERVED), and what asking raises where it tells nothing about the upstream."""
        observed = await self._core.pools.ledger(self._observed, name)
        found = await self._core.pools.imports(_look, observed, token, int(self._core.clock()))
        if found is None:
            return UpstreamCheck("same")
        state = "changed" if isinstance(found, Changed) else "gone"
        known = await self._core.pools.ledger(self._said, found)
        if known is not None:
            return UpstreamCheck(state, known[0], known[1])
        entry = self._sign(found)
        index = await self._own_log.append(entry.line)
        _log.info("upstream news", name=name, state=state, index=index)
        return UpstreamCheck(state, entry.line, index)

    def _observed(self, name: str) -> Observed:
        fetched = [found.observed for found in own(self._core, name) if found.observed.fetched]
        if not fetched:
            why = "it did not fetch that commit itself"
            hint = "comity import hf:org/name"
            raise NotFound(f"this node says nothing of {name[:200]}", why=why, hint=hint, code="NOT-OBSERVED")
        return fetched[-1]

    def _said(self, news: News) -> tuple[bytes, int] | None:
        """The newest statement of this node's about the upstream, if it says the same."""
        predicate = CHANGED if isinstance(news, Changed) else GONE
        query = Query(subject=news.artifact, predicate=predicate, by=news.by, origin=self._core.log)
        lines = [(located.line, located.index) for located in every(self._core.ledger, query)]
        return next((found for found in reversed(lines) if _same(parse_entry(found[0]).statement, news)), None)

    def _sign(self, news: News) -> Entry:
        online = self._core.keys.online
        return sign_changed(news, online) if isinstance(news, Changed) else sign_gone(news, online)


def _look(observed: Observed, token: str, now: int) -> News | None:
    """Blocking. What is new about the upstream, if anything."""
    upstream = observed.upstream

    def gone(lost: str) -> Gone:
        return Gone(observed.by, upstream, observed.artifact, lost, now)

    try:
        _commit(observed, token, upstream.commit)
    except NotFound:
        try:
            _commit(observed, token, "main")
        except (NotFound, Refused):
            return gone("repository")
        return gone("commit")
    except Refused:
        return gone("access")
    if is_commit(upstream.requested):
        return None
    try:
        commit = _commit(observed, token, upstream.requested)
    except NotFound:
        return gone("revision")
    return Changed(observed.by, upstream, observed.artifact, commit, now) if commit != upstream.commit else None


def _commit(observed: Observed, token: str, revision: str) -> str:
    wanted = Wanted(observed.upstream.repository, revision)
    order = Order(wanted, Reach.to(observed.upstream.endpoint, (), token))
    return mirror.stands(order, Ticker()).upstream.commit


def _same(statement: Statement, news: News) -> bool:
    try:
        if isinstance(news, Changed):
            said = parse_changed(statement)
            return (said.upstream, said.successor) == (news.upstream, news.successor)
        gone = parse_gone(statement)
        return (gone.upstream, gone.lost) == (news.upstream, news.lost)
    except ComityError:
        return False
