"""The page of the audit log, for operators who signed in: what was done at this node, and whether the log holds.

    /-/node/audit-log   the newest lines, after the whole log was checked

Only operators read it: it names people and what they look after.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from comity.content.audit_log import ActRecord, check_chain
from comity.gateway.console.node_pages import NODE
from comity.gateway.console.page import PageMaker, Reader
from comity.gateway.console.state import StateReader
from comity.node.threads import Pools
from comity.trust.errors import NotFound, Untrusted

LINES: Final = 200


@dataclass(frozen=True, slots=True)
class AuditLogView:
    """The newest lines, the newest first. `altered` says why the log does not hold; no line after that place is
    shown."""

    lines: tuple[ActRecord, ...]
    altered: str = ""


class AuditPages:
    """Not thread-safe: call from the event loop."""

    def __init__(self, home: Path, pools: Pools, maker: PageMaker, states: StateReader) -> None:
        self._home = home
        self._pools = pools
        self._maker = maker
        self._states = states

    def routes(self) -> list[BaseRoute]:
        return [Route(f"{NODE}/audit-log", self._maker.handler(self.show), methods=["GET"])]

    async def show(self, reader: Reader) -> Response:
        reader.require("operator")
        view = await self._pools.files(read_view, self._home)
        return self._maker.render(reader, "audit_log.html", await self._states.now(), view=view)


def read_view(home: Path) -> AuditLogView:
    """Blocking. Raises Unavailable."""
    newest = deque[ActRecord](maxlen=LINES)
    try:
        newest.extend(check_chain(home))
    except NotFound:
        pass
    except Untrusted as error:
        return AuditLogView(tuple(reversed(newest)), error.why)
    return AuditLogView(tuple(reversed(newest)))
