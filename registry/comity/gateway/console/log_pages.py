"""The pages of the log explorer: the logs, the entries of one, and one entry; proofs and checkpoints are downloads."""

from __future__ import annotations

from typing import Final

from markupsafe import escape
from starlette.responses import Response

from comity.gateway.access_tokens import GatewayAccess
from comity.gateway.console.logs import LogExplorer, log_id
from comity.gateway.console.page import HEADERS, PREFIX, PageMaker, Reader
from comity.gateway.console.state import StateReader
from comity.gateway.declared_routes import DeclaredRoute
from comity.node.threads import AsyncLedger
from comity.trust.errors import NotFound

MAX_DIGITS: Final = 18
"""Of the index of an entry."""


class LogPages:
    """Not thread-safe: call from the event loop."""

    def __init__(self, ledger: AsyncLedger, states: StateReader, access: GatewayAccess, maker: PageMaker) -> None:
        self._states = states
        self._access = access
        self._explorer = LogExplorer(ledger, states)
        self._maker = maker

    def routes(self) -> list[DeclaredRoute]:
        page, readers = self._maker.route, self._access.for_readers()
        return [
            page(f"{PREFIX}/logs", self.logs, readers),
            page(f"{PREFIX}/logs/{{log}}", self.entries, readers),
            page(f"{PREFIX}/logs/{{log}}/checkpoint", self.checkpoint, readers),
            page(f"{PREFIX}/logs/{{log}}/{{index}}.proof", self.proof, readers),
            page(f"{PREFIX}/logs/{{log}}/{{index}}", self.entry, readers),
        ]

    async def logs(self, reader: Reader) -> Response:
        state = await self._states.now()
        return self._maker.render(
            reader, "logs.html", state, logs=[(log, log_id(vkey)) for vkey, log in state.logs.items()]
        )

    async def entries(self, reader: Reader) -> Response:
        page = await self._explorer.entries(reader.request.path_params["log"], reader.number("from"))
        return self._maker.render(reader, "entries.html", await self._states.now(), page=page, id=log_id(page.log.vkey))

    async def entry(self, reader: Reader) -> Response:
        page = await self._explorer.entry(reader.request.path_params["log"], _index(reader))
        return self._maker.render(
            reader, "entry.html", await self._states.now(), page=page, text=escape(page.text), id=log_id(page.log.vkey)
        )

    async def proof(self, reader: Reader) -> Response:
        name, index = reader.request.path_params["log"], _index(reader)
        return _download(await self._explorer.proof(name, index), f"{name}-{index}.tlog-proof")

    async def checkpoint(self, reader: Reader) -> Response:
        name = reader.request.path_params["log"]
        return _download(await self._explorer.checkpoint(name), f"{name}.checkpoint")


def _index(reader: Reader) -> int:
    text = str(reader.request.path_params["index"])
    if not text.isascii() or not text.isdigit() or len(text) > MAX_DIGITS:
        raise NotFound("not in the log", why=text[:40], code="BEYOND-LOG")
    return int(text)


def _download(data: bytes, name: str) -> Response:
    headers = {**HEADERS, "Content-Disposition": f'attachment; filename="{name}"'}
    return Response(data, media_type="text/plain; charset=utf-8", headers=headers)
